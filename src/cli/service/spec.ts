import type { Json } from '../compose/convert.js';
import { composeError } from '../compose/error.js';
import { parseBytes, parseDuration } from '../compose/units.js';
import {
  environmentOf,
  fileOf,
  hostOf,
  mappingOf,
  mountOf,
  networkOf,
  numberOf,
  preferenceOf,
  publishOf,
  ulimitOf,
} from './values.js';

/** The flags of `service create`, as commander hands them over. */
export interface ServiceFlags {
  readonly name?: string;
  readonly mode: string;
  readonly replicas?: string;
  readonly maxConcurrent?: string;
  readonly label?: readonly string[];
  readonly containerLabel?: readonly string[];
  readonly env?: readonly string[];
  readonly envFile?: readonly string[];
  readonly mount?: readonly string[];
  readonly network?: readonly string[];
  readonly publish?: readonly string[];
  readonly endpointMode?: string;
  readonly secret?: readonly string[];
  readonly config?: readonly string[];
  readonly constraint?: readonly string[];
  readonly placementPref?: readonly string[];
  readonly replicasMaxPerNode?: string;
  readonly limitCpu?: string;
  readonly limitMemory?: string;
  readonly limitPids?: string;
  readonly reserveCpu?: string;
  readonly reserveMemory?: string;
  readonly restartCondition?: string;
  readonly restartDelay?: string;
  readonly restartMaxAttempts?: string;
  readonly restartWindow?: string;
  readonly updateParallelism?: string;
  readonly updateDelay?: string;
  readonly updateMonitor?: string;
  readonly updateOrder?: string;
  readonly updateFailureAction?: string;
  readonly updateMaxFailureRatio?: string;
  readonly rollbackParallelism?: string;
  readonly rollbackDelay?: string;
  readonly rollbackMonitor?: string;
  readonly rollbackOrder?: string;
  readonly rollbackFailureAction?: string;
  readonly rollbackMaxFailureRatio?: string;
  readonly healthCmd?: string;
  readonly healthInterval?: string;
  readonly healthTimeout?: string;
  readonly healthRetries?: string;
  readonly healthStartPeriod?: string;
  readonly healthcheck?: boolean;
  readonly hostname?: string;
  readonly host?: readonly string[];
  readonly dns?: readonly string[];
  readonly dnsSearch?: readonly string[];
  readonly dnsOption?: readonly string[];
  readonly user?: string;
  readonly group?: readonly string[];
  readonly workdir?: string;
  readonly entrypoint?: string;
  readonly stopSignal?: string;
  readonly stopGracePeriod?: string;
  readonly capAdd?: readonly string[];
  readonly capDrop?: readonly string[];
  readonly sysctl?: readonly string[];
  readonly ulimit?: readonly string[];
  readonly init?: boolean;
  readonly tty?: boolean;
  readonly readOnly?: boolean;
  readonly logDriver?: string;
  readonly logOpt?: readonly string[];
}

/** Leaves out what was not said; `undefined` where nothing was. */
function said(object: Json): Json | undefined {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

function duration(value: string | undefined, flag: string): number | undefined {
  return value === undefined ? undefined : parseDuration(value, `--${flag}`);
}

function count(value: string | undefined, flag: string): number | undefined {
  return value === undefined ? undefined : numberOf(value, flag);
}

function listOf<Value, Result>(
  values: readonly Value[] | undefined,
  convert: (value: Value) => Result,
): readonly Result[] | undefined {
  return values?.map(convert);
}

/** The spec of Docker's API; secrets and configs by name, networks as the user names them. */
export function serviceSpec(image: string, args: readonly string[], flags: ServiceFlags): Json {
  return {
    ...said({ Name: flags.name }),
    Labels: mappingOf(flags.label),
    TaskTemplate: said({
      ContainerSpec: containerSpec(image, args, flags),
      Resources: resourcesOf(flags),
      RestartPolicy: restartOf(flags),
      Placement: said({
        Constraints: flags.constraint,
        Preferences: listOf(flags.placementPref, preferenceOf),
        MaxReplicas: count(flags.replicasMaxPerNode, 'replicas-max-per-node'),
      }),
      Networks: listOf(flags.network, networkOf),
      LogDriver:
        flags.logDriver === undefined
          ? undefined
          : { Name: flags.logDriver, Options: mappingOf(flags.logOpt) },
    }),
    Mode: modeOf(flags),
    ...said({
      UpdateConfig: updateOf(flags, 'update'),
      RollbackConfig: updateOf(flags, 'rollback'),
    }),
    ...said({
      EndpointSpec: said({
        Mode: flags.endpointMode,
        Ports: flags.publish?.flatMap((value) => publishOf(value)),
      }),
    }),
  };
}

/** The part of the spec that says what runs. */
export function containerSpec(
  image: string,
  args: readonly string[],
  flags: Omit<ServiceFlags, 'mode'>,
): Json {
  const env = environmentOf(flags.env ?? [], flags.envFile ?? []);
  return said({
    Image: image,
    Labels: flags.containerLabel && mappingOf(flags.containerLabel),
    Command: flags.entrypoint === undefined ? undefined : [flags.entrypoint],
    Args: args.length > 0 ? args : undefined,
    Hostname: flags.hostname,
    Env: env.length > 0 ? env : undefined,
    Dir: flags.workdir,
    User: flags.user,
    Groups: flags.group,
    Init: flags.init,
    StopSignal: flags.stopSignal,
    TTY: flags.tty,
    ReadOnly: flags.readOnly,
    Mounts: listOf(flags.mount, mountOf),
    StopGracePeriod: duration(flags.stopGracePeriod, 'stop-grace-period'),
    Healthcheck: healthOf(flags),
    Hosts: listOf(flags.host, hostOf),
    DNSConfig: said({
      Nameservers: flags.dns,
      Search: flags.dnsSearch,
      Options: flags.dnsOption,
    }),
    Secrets: listOf(flags.secret, (value) => fileOf(value, 'secret')),
    Configs: listOf(flags.config, (value) => fileOf(value, 'config')),
    Sysctls: flags.sysctl && mappingOf(flags.sysctl),
    CapabilityAdd: flags.capAdd,
    CapabilityDrop: flags.capDrop,
    Ulimits: listOf(flags.ulimit, ulimitOf),
  }) as Json;
}

function healthOf(flags: Omit<ServiceFlags, 'mode'>): Json | undefined {
  if (flags.healthcheck === false) return { Test: ['NONE'] };
  return said({
    Test: flags.healthCmd === undefined ? undefined : ['CMD-SHELL', flags.healthCmd],
    Interval: duration(flags.healthInterval, 'health-interval'),
    Timeout: duration(flags.healthTimeout, 'health-timeout'),
    StartPeriod: duration(flags.healthStartPeriod, 'health-start-period'),
    Retries: count(flags.healthRetries, 'health-retries'),
  });
}

function amounts(cpu: string | undefined, memory: string | undefined, flag: string): Json {
  return {
    NanoCPUs: cpu === undefined ? undefined : Math.round(numberOf(cpu, `${flag}-cpu`) * 1e9),
    MemoryBytes: memory === undefined ? undefined : parseBytes(memory, `--${flag}-memory`),
  };
}

export function resourcesOf(flags: Omit<ServiceFlags, 'mode'>): Json | undefined {
  return said({
    Limits: said({
      ...amounts(flags.limitCpu, flags.limitMemory, 'limit'),
      Pids: count(flags.limitPids, 'limit-pids'),
    }),
    Reservations: said(amounts(flags.reserveCpu, flags.reserveMemory, 'reserve')),
  });
}

export function restartOf(flags: Omit<ServiceFlags, 'mode'>): Json | undefined {
  return said({
    Condition: flags.restartCondition,
    Delay: duration(flags.restartDelay, 'restart-delay'),
    MaxAttempts: count(flags.restartMaxAttempts, 'restart-max-attempts'),
    Window: duration(flags.restartWindow, 'restart-window'),
  });
}

export function updateOf(
  flags: Omit<ServiceFlags, 'mode'>,
  kind: 'update' | 'rollback',
): Json | undefined {
  const given = {
    Parallelism: count(flags[`${kind}Parallelism`], `${kind}-parallelism`),
    Delay: duration(flags[`${kind}Delay`], `${kind}-delay`),
    FailureAction: flags[`${kind}FailureAction`],
    Monitor: duration(flags[`${kind}Monitor`], `${kind}-monitor`),
    MaxFailureRatio: count(flags[`${kind}MaxFailureRatio`], `${kind}-max-failure-ratio`),
    Order: flags[`${kind}Order`],
  };
  const one = said(given);
  return one && { Parallelism: 1, ...one };
}

function modeOf({ mode, replicas, maxConcurrent }: ServiceFlags): Json {
  const number = count(replicas, 'replicas') ?? 1;
  if (replicas !== undefined && mode.startsWith('global'))
    throw composeError('--replicas', `mode ${mode} takes no replicas`);
  switch (mode) {
    case 'replicated':
      return { Replicated: { Replicas: number } };
    case 'global':
      return { Global: {} };
    case 'replicated-job':
      return {
        ReplicatedJob: {
          MaxConcurrent: count(maxConcurrent, 'max-concurrent') ?? number,
          TotalCompletions: number,
        },
      };
    case 'global-job':
      return { GlobalJob: {} };
    default:
      throw composeError(
        '--mode',
        `'${mode}' is not one of replicated, global, replicated-job, global-job`,
      );
  }
}
