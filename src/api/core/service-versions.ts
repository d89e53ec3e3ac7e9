import type { ContainerSpec, ServiceSpec, TaskSpec } from '../../base/service-model.js';
import { badRequest } from '../wire/errors.js';
import { compareVersions } from './version.js';

/** Takes out what the client's version of the API does not have, as the real engine does. */
export function adjustForVersion(spec: ServiceSpec, version: string): ServiceSpec {
  if (compareVersions(version, '1.44') >= 0) return spec;
  const isBefore = (other: string) => compareVersions(version, other) < 0;
  if (isBefore('1.41') && (spec.mode.kind === 'replicated-job' || spec.mode.kind === 'global-job'))
    throw badRequest(`jobs need version 1.41 of the API, and the client speaks ${version}`);
  return { ...spec, task: taskFor(spec.task, isBefore) };
}

function taskFor(task: TaskSpec, isBefore: (version: string) => boolean): TaskSpec {
  const container = containerFor(task.container, isBefore);
  if (!isBefore('1.41')) return { ...task, container };
  const { placement, resources } = task;
  const { pids: _, ...limits } = resources?.limits ?? {};
  const { maxReplicas: __, ...rest } = placement ?? {};
  return {
    ...task,
    container,
    ...(resources?.limits !== undefined && { resources: { ...resources, limits } }),
    ...(placement !== undefined && isBefore('1.40') && { placement: rest }),
  };
}

function containerFor(
  container: ContainerSpec,
  isBefore: (version: string) => boolean,
): ContainerSpec {
  const { health, privileges, ...others } = container;
  const { startIntervalMs: _, ...olderHealth } = health ?? {};
  const { Seccomp: __, AppArmor: ___, ...olderPrivileges } = privileges ?? {};
  const { capabilityAdd, capabilityDrop, ulimits, sysctls, ...oldest } = others;
  return {
    ...oldest,
    ...(health !== undefined && { health: olderHealth }),
    ...(privileges !== undefined && {
      privileges: { ...olderPrivileges, NoNewPrivileges: false },
    }),
    ...(!isBefore('1.41') && {
      ...(capabilityAdd !== undefined && { capabilityAdd }),
      ...(capabilityDrop !== undefined && { capabilityDrop }),
      ...(ulimits !== undefined && { ulimits }),
    }),
    ...(!isBefore('1.40') && sysctls !== undefined && { sysctls }),
  };
}
