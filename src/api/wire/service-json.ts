import type {
  EndpointSpec,
  Placement,
  PortConfig,
  Resources,
  RestartPolicy,
  ServiceEndpoint,
  ServiceMode,
  ServiceObject,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
  UpdateStatus,
} from '../../base/service-model.js';
import type { GenericResource } from '../../base/swarm-model.js';
import { containerSpecJson } from './container-json.js';
import { list, map, nanoseconds, number, sorted, text } from './go-json.js';
import { formatTimeMs } from './time.js';

export const genericResourceJson = ({ kind, name, value }: GenericResource) =>
  kind === 'named'
    ? { NamedResourceSpec: { Kind: text(name), Value: text(value) } }
    : { DiscreteResourceSpec: { Kind: text(name), Value: number(value) } };

const resourcesJson = ({ limits, reservations, swapBytes, memorySwappiness }: Resources) => ({
  Limits: limits && {
    NanoCPUs: number(limits.nanoCpus),
    MemoryBytes: number(limits.memoryBytes),
    Pids: number(limits.pids),
  },
  Reservations: reservations && {
    NanoCPUs: number(reservations.nanoCpus),
    MemoryBytes: number(reservations.memoryBytes),
    GenericResources: list(reservations.generic)?.map(genericResourceJson),
  },
  SwapBytes: swapBytes,
  MemorySwappiness: memorySwappiness,
});

const restartJson = ({ condition, delayMs, maxAttempts, windowMs }: RestartPolicy) => ({
  Condition: condition ?? 'any',
  Delay: nanoseconds(delayMs),
  MaxAttempts: maxAttempts ?? 0,
  Window: nanoseconds(windowMs),
});

const placementJson = (placement: Placement) => ({
  Constraints: list(placement.constraints),
  Preferences: list(placement.spreadOver)?.map((SpreadDescriptor) => ({
    Spread: { SpreadDescriptor },
  })),
  MaxReplicas: number(placement.maxReplicas),
  Platforms: list(placement.platforms)?.map(({ architecture, os }) => ({
    Architecture: text(architecture),
    OS: text(os),
  })),
});

/** `TaskTemplate` of a service without its `Runtime`, and `Spec` of a task. */
export const taskSpecJson = (spec: TaskSpec) => ({
  ContainerSpec: containerSpecJson(spec.container),
  Resources: spec.resources && resourcesJson(spec.resources),
  RestartPolicy: spec.restart && restartJson(spec.restart),
  Placement: spec.placement && placementJson(spec.placement),
  Networks: list(spec.networks)?.map(({ target, aliases, driverOptions }) => ({
    Target: text(target),
    Aliases: list(aliases),
    DriverOpts: map(driverOptions),
  })),
  LogDriver: spec.logDriver && {
    Name: text(spec.logDriver.name),
    Options: map(spec.logDriver.options),
  },
  ForceUpdate: spec.forceUpdate ?? 0,
});

function modeJson(mode: ServiceMode) {
  switch (mode.kind) {
    case 'replicated':
      return { Replicated: { Replicas: mode.replicas } };
    case 'global':
      return { Global: {} };
    case 'replicated-job':
      return {
        ReplicatedJob: {
          MaxConcurrent: mode.maxConcurrent,
          TotalCompletions: mode.totalCompletions,
        },
      };
    case 'global-job':
      return { GlobalJob: {} };
  }
}

const updateJson = (update: UpdateConfig) => ({
  Parallelism: update.parallelism,
  Delay: number(nanoseconds(update.delayMs)),
  FailureAction: update.failureAction ?? 'pause',
  Monitor: number(nanoseconds(update.monitorMs)),
  MaxFailureRatio: update.maxFailureRatio ?? 0,
  Order: update.order ?? 'stop-first',
});

export const portJson = (port: PortConfig) => ({
  Name: text(port.name),
  Protocol: port.protocol,
  TargetPort: number(port.targetPort),
  PublishedPort: number(port.publishedPort),
  PublishMode: port.publishMode,
});

const endpointSpecJson = ({ mode, ports }: EndpointSpec) => ({
  Mode: mode,
  Ports: list(ports)?.map(portJson),
});

const serviceSpecJson = (spec: ServiceSpec) => ({
  Name: text(spec.name),
  Labels: sorted(spec.labels),
  TaskTemplate: { ...taskSpecJson(spec.task), Runtime: 'container' },
  Mode: modeJson(spec.mode),
  UpdateConfig: spec.update && updateJson(spec.update),
  RollbackConfig: spec.rollback && updateJson(spec.rollback),
  EndpointSpec: spec.endpoint && endpointSpecJson(spec.endpoint),
});

/** Where nothing had to be given out, the engine says nothing, not even the mode. */
function endpointJson({ spec, ports, virtualIps }: ServiceEndpoint) {
  if (ports.length === 0 && virtualIps.length === 0 && spec.mode === 'vip') return { Spec: {} };
  return {
    Spec: endpointSpecJson(spec),
    Ports: list(ports)?.map(portJson),
    VirtualIPs: list(virtualIps)?.map(({ networkId, address }) => ({
      NetworkID: networkId,
      Addr: text(address),
    })),
  };
}

const updateStatusJson = ({ state, startedAtMs, completedAtMs, message }: UpdateStatus) => ({
  State: state,
  StartedAt: startedAtMs === undefined ? undefined : formatTimeMs(startedAtMs),
  CompletedAt: completedAtMs === undefined ? undefined : formatTimeMs(completedAtMs),
  Message: text(message),
});

/** A service as `docker service inspect` prints it. */
export const serviceJson = (service: ServiceObject) => ({
  ID: service.id,
  Version: { Index: service.version },
  CreatedAt: formatTimeMs(service.createdAtMs),
  UpdatedAt: formatTimeMs(service.updatedAtMs),
  Spec: serviceSpecJson(service.spec),
  PreviousSpec: service.previousSpec && serviceSpecJson(service.previousSpec),
  Endpoint: endpointJson(service.endpoint),
  UpdateStatus: service.updateStatus && updateStatusJson(service.updateStatus),
  JobStatus: service.job && {
    JobIteration: { Index: number(service.job.iteration) },
    LastExecution: formatTimeMs(service.job.lastExecutionMs),
  },
});
