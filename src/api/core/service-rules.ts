import type {
  ContainerSpec,
  EndpointSpec,
  HealthConfig,
  Mount,
  Resources,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../base/service-model.js';
import { controlRefusal } from '../wire/errors.js';

/**
 * What is wrong with a service's spec by itself, in the words of Docker's control plane. What depends
 * on other objects (names, ports, secrets) is judged where these are.
 */

const NAME = /^[a-zA-Z0-9](?:[-_a-zA-Z0-9]*[a-zA-Z0-9])?$/;
const NAME_LENGTH_MAX = 63;
const NANO_CPUS_MIN = 1e6;
const MEMORY_BYTES_MIN = 4 * 1024 * 1024;
const HEALTH_MS_MIN = 1;

const refuse = (message: string) => controlRefusal('InvalidArgument', message);

/** Throws the first thing that is wrong. */
export function checkServiceSpec(spec: ServiceSpec): void {
  checkName(spec.name);
  checkTask(spec.task);
  checkMode(spec.mode);
  if (spec.mode.kind === 'replicated-job' || spec.mode.kind === 'global-job') {
    if (spec.update !== undefined) throw refuse('Jobs may not have an update config');
  } else {
    checkUpdate(spec.update);
  }
  checkEndpoint(spec.endpoint);
}

function checkName(name: string): void {
  if (name === '') throw refuse('meta: name must be provided');
  if (!NAME.test(name)) throw refuse('name must be valid as a DNS name component');
  if (name.length > NAME_LENGTH_MAX) throw refuse('name must be 63 characters or fewer');
}

function checkTask(task: TaskSpec): void {
  checkResources(task.resources?.limits);
  checkResources(task.resources?.reservations);
  if ((task.restart?.delayMs ?? 0) < 0) throw refuse('TaskSpec: restart-delay cannot be negative');
  if ((task.restart?.windowMs ?? 0) < 0)
    throw refuse('TaskSpec: restart-window cannot be negative');
  for (const constraint of task.placement?.constraints ?? []) checkConstraint(constraint);
  checkSecrets(task.container);
  checkConfigs(task.container);
  checkImage(task.container.image);
  checkMounts(task.container.mounts ?? []);
  checkHealth(task.container.health ?? {});
}

function checkResources(
  resources: Resources['limits'] | Resources['reservations'] | undefined,
): void {
  const { nanoCpus = 0, memoryBytes = 0 } = resources ?? {};
  if (nanoCpus !== 0 && nanoCpus < NANO_CPUS_MIN)
    throw refuse(`invalid cpu value ${formatG(nanoCpus / 1e9)}: Must be at least 0.001`);
  if (memoryBytes !== 0 && memoryBytes < MEMORY_BYTES_MIN)
    throw refuse(`invalid memory value ${memoryBytes}: Must be at least 4MiB`);
}

/** Go's `%g`. */
function formatG(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e21)) {
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  }
  return String(value);
}

const KEY = /^[a-z_][a-z0-9\-_.]+$/i;
const VALUE = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;

/** Besides Docker's `==` and `!=` there are `==~` and `!=~`, wishes that may stay unfulfilled. */
function checkConstraint(constraint: string): void {
  const refuseConstraint = (message: string) => controlRefusal('Unknown', message);
  const operator = ['==', '!='].find((one) => constraint.includes(one));
  if (operator === undefined)
    throw refuseConstraint('constraint expected one operator from ==, !=');
  const at = constraint.indexOf(operator);
  const key = constraint.slice(0, at).trim();
  const value = constraint
    .slice(at + operator.length)
    .replace(/^~/, '')
    .trim();
  if (!KEY.test(key)) throw refuseConstraint(`key '${key}' is invalid`);
  if (!VALUE.test(value)) throw refuseConstraint(`value '${value}' is invalid`);
}

function checkSecrets({ secrets = [] }: ContainerSpec): void {
  const nameOf = new Map<string, string>();
  for (const { secretId, secretName, file } of secrets) {
    if (secretId === '' || secretName === '') throw refuse('malformed secret reference');
    if (file === undefined) throw refuse('malformed secret reference, no target provided');
    if (file.name === '')
      throw refuse('malformed file secret reference, invalid target file name provided');
    const before = nameOf.get(file.name);
    if (before !== undefined)
      throw refuse(
        `secret references '${before}' and '${secretName}' have a conflicting target: '${file.name}'`,
      );
    nameOf.set(file.name, secretName);
  }
}

function checkConfigs({ configs = [], privileges }: ContainerSpec): void {
  const nameOf = new Map<string, string>();
  for (const { configId, configName, file } of configs) {
    if (configId === '' || configName === '') throw refuse('malformed config reference');
    if (file === undefined) continue;
    if (file.name === '')
      throw refuse('malformed file config reference, invalid target file name provided');
    const before = nameOf.get(file.name);
    if (before !== undefined)
      throw refuse(
        `config references '${before}' and '${configName}' have a conflicting target: '${file.name}'`,
      );
    nameOf.set(file.name, configName);
  }
  const credential = (privileges as { CredentialSpec?: { Config?: string } | null } | undefined)
    ?.CredentialSpec?.Config;
  const isThere = configs.some(({ configId, runtime }) => runtime && configId === credential);
  if (credential !== undefined && credential !== '' && !isThere)
    throw refuse(
      `CredentialSpec references config '${credential}', but that config isn't in config references with RuntimeTarget`,
    );
}

const HOST = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = `(?:${HOST}(?:\\.${HOST})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const PART = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const TAG = '[\\w][\\w.-]{0,127}';
const DIGEST = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}';
const IMAGE = new RegExp(`^(?:${DOMAIN}/)?${PART}(?:/${PART})*(?::${TAG})?(?:@${DIGEST})?$`);
const IMAGE_LENGTH_MAX = 4_096;

function checkImage(image: string): void {
  if (image === '') throw refuse('ContainerSpec: image reference must be provided');
  // An id of 64 digits names no repository.
  if (image.length > IMAGE_LENGTH_MAX || !IMAGE.test(image) || /^[a-f0-9]{64}$/.test(image))
    throw refuse(`ContainerSpec: ${JSON.stringify(image)} is not a valid repository/tag`);
}

function checkMounts(mounts: readonly Mount[]): void {
  const targets = new Set<string>();
  for (const { target } of mounts) {
    if (targets.has(target)) throw refuse(`ContainerSpec: duplicate mount point: ${target}`);
    targets.add(target);
  }
}

function checkHealth(health: HealthConfig): void {
  for (const [name, ms] of [
    ['Interval', health.intervalMs],
    ['Timeout', health.timeoutMs],
    ['StartPeriod', health.startPeriodMs],
    ['StartInterval', health.startIntervalMs],
  ] as const) {
    if (ms !== undefined && ms < HEALTH_MS_MIN)
      throw refuse(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`);
  }
  if ((health.retries ?? 0) < 0)
    throw refuse('ContainerSpec: Retries in HealthConfig cannot be negative');
}

function checkMode(mode: ServiceMode): void {
  if (mode.kind === 'replicated' && mode.replicas < 0)
    throw refuse('Number of replicas must be non-negative');
  if (mode.kind !== 'replicated-job') return;
  if (mode.maxConcurrent < 0) throw refuse('Maximum concurrent jobs must not be negative');
  if (mode.totalCompletions < 0) throw refuse('Total completed jobs must not be negative');
}

function checkUpdate(update: UpdateConfig | undefined): void {
  if (update === undefined) return;
  if (update.parallelism < 0) throw refuse('TaskSpec: update-parallelism cannot be negative');
  if ((update.delayMs ?? 0) < 0) throw refuse('TaskSpec: update-delay cannot be negative');
  if ((update.monitorMs ?? 0) < 0) throw refuse('TaskSpec: update-monitor cannot be negative');
  const ratio = update.maxFailureRatio ?? 0;
  if (ratio < 0 || ratio > 1)
    throw refuse('TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1');
}

function checkEndpoint(endpoint: EndpointSpec | undefined): void {
  const published = new Set<string>();
  for (const port of endpoint?.ports ?? []) {
    if (port.targetPort === 0) throw refuse('EndpointSpec: a port needs a target port');
    if (endpoint?.mode === 'dnsrr' && port.publishMode === 'ingress')
      throw refuse("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    if (port.publishedPort === undefined || port.publishedPort === 0) continue;
    const key = `${port.publishedPort}/${port.protocol}`;
    if (published.has(key)) throw refuse('EndpointSpec: duplicate published ports provided');
    published.add(key);
  }
}
