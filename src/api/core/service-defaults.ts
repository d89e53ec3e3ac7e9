import type { ServiceObject, ServiceSpec, UpdateConfig } from '../../base/service-model.js';

const MONITOR_MS = 5_000;
const UPDATE: UpdateConfig = {
  parallelism: 1,
  failureAction: 'pause',
  monitorMs: MONITOR_MS,
  order: 'stop-first',
};
const RESTART_DELAY_MS = 5_000;
const STOP_GRACE_MS = 10_000;

/** `insertDefaults=true`: what the user has not said, as Docker would do it. The former spec stays. */
export function withDefaults(service: ServiceObject): ServiceObject {
  return { ...service, spec: defaultsOf(service.spec) };
}

function defaultsOf(spec: ServiceSpec): ServiceSpec {
  const { task } = spec;
  return {
    ...spec,
    task: {
      ...task,
      container: {
        ...task.container,
        stopGracePeriodMs: task.container.stopGracePeriodMs ?? STOP_GRACE_MS,
        dns: task.container.dns ?? {},
      },
      resources: task.resources ?? {},
      restart: {
        ...(task.restart ?? { condition: 'any' }),
        delayMs: task.restart?.delayMs ?? RESTART_DELAY_MS,
      },
      placement: task.placement ?? {},
    },
    update: monitored(spec.update),
    rollback: monitored(spec.rollback),
  };
}

const monitored = (update: UpdateConfig | undefined): UpdateConfig =>
  update === undefined ? UPDATE : { ...update, monitorMs: update.monitorMs ?? MONITOR_MS };
