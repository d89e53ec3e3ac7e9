import type {
  ConfigReference,
  ContainerSpec,
  EndpointSpec,
  HealthConfig,
  NetworkTarget,
  Resources,
  SecretReference,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../../base/service-model.js';
import { isImageReference } from './image-reference.js';
import { TASKS_MAX } from './limits.js';
import { invalid } from './refuse.js';

/** As JSON. */
const SPEC_CHARS_MAX = 262_144;
const NAME = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9])*$/;
const NAME_CHARS_MAX = 63;
const NANO_CPUS_MIN = 1e6;
const MEMORY_BYTES_MIN = 4 * 1024 * 1024;
const HEALTH_MS_MIN = 1;
/** Networks of one service: each task has an interface for each. */
const NETWORKS_MAX = 64;

/**
 * Judges everything about a service that needs no look at other objects; the words are swarmkit's
 * where it has any.
 *
 * @throws SwarmError `SWARM_INVALID`, with one sentence.
 */
export function checkServiceSpec(spec: ServiceSpec): void {
  if (JSON.stringify(spec).length > SPEC_CHARS_MAX)
    throw invalid('the description of the service is too large: use fewer or shorter labels');
  checkName(spec.name);
  checkTask(spec.task);
  checkMode(spec.mode);
  if (isJob(spec.mode)) {
    if (spec.update !== undefined) throw invalid('Jobs may not have an update config');
  } else {
    checkUpdate(spec.update);
    checkUpdate(spec.rollback);
  }
  checkEndpoint(spec.endpoint);
  if (networksOf(spec).length > NETWORKS_MAX)
    throw invalid(`a service has at most ${NETWORKS_MAX} networks`);
}

export function isJob(mode: ServiceMode): boolean {
  return mode.kind === 'replicated-job' || mode.kind === 'global-job';
}

/** The networks of the service's tasks, wherever the user has named them; each once. */
export function networksOf(spec: Pick<ServiceSpec, 'task' | 'networks'>): readonly NetworkTarget[] {
  const { networks: own = [] } = spec.task;
  const targets = own.length > 0 ? own : (spec.networks ?? []);
  const seen = new Set<string>();
  return targets.filter(({ target }) => !seen.has(target) && seen.add(target));
}

function checkName(name: string): void {
  if (name === '') throw invalid('meta: name must be provided');
  if (!NAME.test(name)) throw invalid('name must be valid as a DNS name component');
  if (name.length > NAME_CHARS_MAX)
    throw invalid(`name must be ${NAME_CHARS_MAX} characters or fewer`);
}

function checkTask({ resources, restart, container }: TaskSpec): void {
  checkResources(resources?.limits);
  checkResources(resources?.reservations);
  if ((restart?.delayMs ?? 0) < 0) throw invalid('TaskSpec: restart-delay cannot be negative');
  if ((restart?.windowMs ?? 0) < 0) throw invalid('TaskSpec: restart-window cannot be negative');
  checkReferences('secret', container.secrets ?? []);
  checkReferences('config', container.configs ?? []);
  checkContainer(container);
}

function checkResources(resources: Resources['limits'] | Resources['reservations']): void {
  const { nanoCpus = 0, memoryBytes = 0 } = resources ?? {};
  if (nanoCpus !== 0 && nanoCpus < NANO_CPUS_MIN)
    throw invalid(`invalid cpu value ${nanoCpus / 1e9}: Must be at least ${NANO_CPUS_MIN / 1e9}`);
  if (memoryBytes !== 0 && memoryBytes < MEMORY_BYTES_MIN)
    throw invalid(`invalid memory value ${memoryBytes}: Must be at least 4MiB`);
}

type Reference = SecretReference | ConfigReference;

function nameOf(reference: Reference): string {
  return 'secretId' in reference ? reference.secretName : reference.configName;
}

function checkReferences(kind: 'secret' | 'config', references: readonly Reference[]): void {
  const names = new Map<string, string>();
  for (const reference of references) {
    const id = 'secretId' in reference ? reference.secretId : reference.configId;
    const name = nameOf(reference);
    if (id === '' || name === '') throw invalid(`malformed ${kind} reference`);
    const { file } = reference;
    if (file === undefined) {
      if ('runtime' in reference && reference.runtime === true) continue;
      throw invalid(`malformed ${kind} reference, no target provided`);
    }
    if (file.name === '')
      throw invalid(
        kind === 'secret'
          ? 'malformed file secret reference, invalid target file name provided'
          : 'malformed file config reference, invalid target file name provided',
      );
    const other = names.get(file.name);
    if (other !== undefined)
      throw invalid(
        `${kind} references '${other}' and '${name}' have a conflicting target: '${file.name}'`,
      );
    names.set(file.name, name);
  }
}

function checkContainer({ image, mounts = [], health }: ContainerSpec): void {
  if (image === '') throw invalid('ContainerSpec: image reference must be provided');
  if (!isImageReference(image))
    throw invalid(`ContainerSpec: ${JSON.stringify(image)} is not a valid repository/tag`);
  const targets = new Set<string>();
  for (const { target } of mounts) {
    if (targets.has(target)) throw invalid(`ContainerSpec: duplicate mount point: ${target}`);
    targets.add(target);
  }
  if (health !== undefined) checkHealth(health);
}

function checkHealth(health: HealthConfig): void {
  const durations = [
    ['Interval', health.intervalMs],
    ['Timeout', health.timeoutMs],
    ['StartPeriod', health.startPeriodMs],
    ['StartInterval', health.startIntervalMs],
  ] as const;
  for (const [name, ms = 0] of durations)
    if (ms !== 0 && ms < HEALTH_MS_MIN)
      throw invalid(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`);
  if ((health.retries ?? 0) < 0)
    throw invalid('ContainerSpec: Retries in HealthConfig cannot be negative');
}

function checkMode(mode: ServiceMode): void {
  const checkCount = (count: number, negative: string) => {
    if (!(count >= 0)) throw invalid(negative);
    if (!Number.isInteger(count) || count > TASKS_MAX)
      throw invalid(`a service has at most ${TASKS_MAX} tasks`);
  };
  if (mode.kind === 'replicated')
    checkCount(mode.replicas, 'Number of replicas must be non-negative');
  if (mode.kind !== 'replicated-job') return;
  checkCount(mode.maxConcurrent, 'Maximum concurrent jobs must not be negative');
  checkCount(mode.totalCompletions, 'Total completed jobs must not be negative');
}

function checkUpdate(update: UpdateConfig | undefined): void {
  if (update === undefined) return;
  if ((update.delayMs ?? 0) < 0) throw invalid('TaskSpec: update-delay cannot be negative');
  if ((update.monitorMs ?? 0) < 0) throw invalid('TaskSpec: update-monitor cannot be negative');
  const ratio = update.maxFailureRatio ?? 0;
  if (!(ratio >= 0 && ratio <= 1))
    throw invalid('TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1');
}

function checkEndpoint(endpoint: EndpointSpec | undefined): void {
  const seen = new Set<string>();
  for (const port of endpoint?.ports ?? []) {
    if (endpoint?.mode === 'dnsrr' && port.publishMode === 'ingress')
      throw invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    const { publishedPort = 0, targetPort, protocol } = port;
    if (!isPort(targetPort) || targetPort === 0 || !isPort(publishedPort))
      throw invalid(`invalid port ${publishedPort}:${targetPort}: ports are from 1 to 65535`);
    if (publishedPort === 0) continue;
    const key = `${protocol}/${publishedPort}`;
    if (seen.has(key)) throw invalid('EndpointSpec: duplicate published ports provided');
    seen.add(key);
  }
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 65_535;
}
