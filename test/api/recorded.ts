import { readFileSync } from 'node:fs';
import { readServiceSpec } from '../../src/api/wire/service-requests.js';
import type {
  PortConfig,
  ServiceObject,
  ServiceSpec,
  TaskObject,
  TaskState,
  UpdateState,
} from '../../src/base/service-model.js';
import type {
  NetworkId,
  NetworkObject,
  NodeId,
  ServiceId,
  TaskId,
} from '../../src/base/swarm-model.js';

/**
 * Recorded conversations about services and tasks, and the way back from an engine's answer to the
 * objects that would make us give the same one.
 */

// biome-ignore lint/suspicious/noExplicitAny: a foreign engine's JSON
export type Json = any;

export interface RecordedExchange {
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly request?: Json;
  readonly status: number;
  /** Content type, where it is not JSON. */
  readonly type?: string;
  readonly answer?: Json;
}

export interface Recording {
  readonly name: string;
  readonly command: string;
  readonly exchanges: readonly RecordedExchange[];
}

const lines = readFileSync(
  new URL('../fixtures/docker-api/services.ndjson', import.meta.url),
  'utf8',
)
  .trimEnd()
  .split('\n')
  .map((line): Json => JSON.parse(line));
const pool = lines.filter((line) => 'pool' in line).map((line) => line.pool);

function unpacked(value: Json): Json {
  if (value === null || typeof value !== 'object') return value;
  if (typeof value.$ === 'number') return unpacked(pool[value.$]);
  if (Array.isArray(value)) return value.map(unpacked);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpacked(item)]));
}

const all = (kind: string): Json[] =>
  lines.filter((line) => kind in line).map((line) => unpacked(line[kind]));

export const recordings: readonly Recording[] = all('recording');
/** Specs as an engine shows them, besides those in the recordings. */
export const recordedSpecs: readonly Json[] = all('spec');
export const recordedEvents: readonly Json[] = all('event');

/** Milliseconds are all that we keep of a time. */
export const timeMs = (text: string) =>
  Math.floor(Date.parse(text.replace(/(\.\d{3})\d+Z/, '$1Z')));

/** As it would be without the parts of a time which are smaller than a millisecond. */
export function inMilliseconds(value: Json): Json {
  if (typeof value === 'string' && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) {
    const [whole = '', fraction = ''] = value.slice(0, -1).split('.');
    const kept = fraction.slice(0, 3).replace(/0+$/, '');
    return `${whole}${kept === '' ? '' : `.${kept}`}Z`;
  }
  if (Array.isArray(value)) return value.map(inMilliseconds);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, inMilliseconds(item)]),
  );
}

const metaOf = (json: Json) => ({
  version: json.Version.Index as number,
  createdAtMs: timeMs(json.CreatedAt),
  updatedAtMs: timeMs(json.UpdatedAt),
});

const portsOf = (ports: Json[] | undefined): (PortConfig & { publishedPort: number })[] =>
  (ports ?? []).map((port) => ({
    protocol: port.Protocol,
    targetPort: port.TargetPort,
    publishedPort: port.PublishedPort,
    publishMode: port.PublishMode,
  }));

export function serviceOf(json: Json): ServiceObject {
  const { Endpoint: endpoint, UpdateStatus: update, JobStatus: job } = json;
  return {
    ...metaOf(json),
    id: json.ID as ServiceId,
    spec: readServiceSpec(json.Spec),
    specVersion: json.Version.Index,
    ...(json.PreviousSpec && { previousSpec: readServiceSpec(json.PreviousSpec) }),
    endpoint: {
      spec: {
        mode: endpoint.Spec.Mode ?? 'vip',
        ...(endpoint.Spec.Ports && { ports: portsOf(endpoint.Spec.Ports) }),
      },
      ports: portsOf(endpoint.Ports),
      virtualIps: (endpoint.VirtualIPs ?? []).map((vip: Json) => ({
        networkId: vip.NetworkID as NetworkId,
        address: vip.Addr,
      })),
    },
    ...(update && {
      updateStatus: {
        state: update.State as UpdateState,
        ...(update.StartedAt && { startedAtMs: timeMs(update.StartedAt) }),
        ...(update.CompletedAt && { completedAtMs: timeMs(update.CompletedAt) }),
        message: update.Message ?? '',
      },
    }),
    ...(job && {
      job: {
        iteration: job.JobIteration.Index ?? 0,
        lastExecutionMs: timeMs(job.LastExecution),
      },
    }),
  };
}

/** A network as tasks carry it. */
export function networkOf(json: Json): NetworkObject {
  const { Spec: spec, DriverState: state, IPAMOptions: ipam } = json;
  const { 'com.docker.network.driver.overlay.vxlanid_list': vni, ...options } = state.Options;
  return {
    ...metaOf(json),
    id: json.ID as NetworkId,
    vni: Number(vni),
    spec: {
      name: spec.Name,
      labels: spec.Labels,
      driver: state.Name,
      driverOptions: options,
      attachable: spec.Attachable === true,
      internal: spec.Internal === true,
      ingress: spec.Ingress === true,
      ipv6: spec.IPv6Enabled === true,
      ipamDriver: ipam.Driver.Name,
      ipamOptions: {},
      ipam: (spec.IPAMOptions?.Configs ?? []).map((config: Json) => ({
        subnet: config.Subnet,
        ...(config.Gateway && { gateway: config.Gateway }),
      })),
    },
    subnets: ipam.Configs.map((config: Json) => ({
      subnet: config.Subnet,
      gateway: config.Gateway,
    })),
  };
}

export const networksOf = (task: Json): NetworkObject[] =>
  (task.NetworksAttachments ?? []).map(({ Network }: Json) => networkOf(Network));

export function taskOf(json: Json, service: ServiceSpec): TaskObject {
  const { Status: status } = json;
  return {
    ...metaOf(json),
    id: json.ID as TaskId,
    serviceId: json.ServiceID as ServiceId,
    serviceName: service.name,
    serviceLabels: service.labels,
    slot: (json.Slot ?? 0) + (json.JobIteration ? 1 : 0),
    ...(json.NodeID && { nodeId: json.NodeID as NodeId }),
    spec: readServiceSpec({ Name: 'x', TaskTemplate: json.Spec }).task,
    specVersion: 9,
    ...(json.JobIteration && { jobIteration: json.JobIteration.Index ?? 0 }),
    desiredState: json.DesiredState as TaskState,
    status: {
      state: status.State as TaskState,
      atMs: timeMs(status.Timestamp),
      message: status.Message ?? '',
      ...(status.Err && { error: status.Err }),
      ...(status.ContainerStatus && {
        container: {
          id: status.ContainerStatus.ContainerID,
          pid: status.ContainerStatus.PID,
          exitCode: status.ContainerStatus.ExitCode,
        },
      }),
      ...(status.PortStatus.Ports && { ports: portsOf(status.PortStatus.Ports) }),
    },
    networks: (json.NetworksAttachments ?? []).map(({ Network, Addresses }: Json) => ({
      networkId: Network.ID as NetworkId,
      attachmentId: '',
      addresses: Addresses,
      mac: '',
      aliases: [],
    })),
    ports: [],
  };
}
