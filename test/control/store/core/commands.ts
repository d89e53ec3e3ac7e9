import fc from 'fast-check';
import {
  type PortConfig,
  type ServiceSpec,
  TASK_STATES,
  type TaskStatus,
} from '../../../../src/base/service-model.js';
import type { ConfigId, SecretId, ServiceId, TaskId } from '../../../../src/base/swarm-model.js';
import type { Command, CommandBody } from '../../../../src/control/store/core/command.js';
import {
  attachmentId,
  CLUSTER_SPEC,
  clusterCreate,
  networkId,
  networkSpec,
  node,
  nodeId,
} from '../../support.js';

const padded = (text: string) => text.padStart(25, '0');
export const secretId = (n: number) => padded(`s${n}`) as SecretId;
export const configId = (n: number) => padded(`c${n}`) as ConfigId;
export const serviceId = (n: number) => padded(`v${n}`) as ServiceId;
export const taskId = (n: number) => padded(`t${n}`) as TaskId;

export const TRUST = {
  rootCaPem: 'root',
  certIssuerSubject: 's',
  certIssuerPublicKey: 'p',
  rootRotationInProgress: false,
};

const few = fc.nat(4);
/** Mostly stale ones, since each command raises it; small, so that some are right. */
const version = fc.integer({ min: 1, max: 12 });
const labels = fc.constantFrom({}, { a: '1' });
const data = fc.constantFrom('eA==', 'eHk=', '', 'not base64');
const role = fc.constantFrom('worker' as const, 'manager' as const);
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const make = <T>(shape: { [Key in keyof T]: fc.Arbitrary<T[Key]> }) =>
  fc.record(shape) as fc.Arbitrary<T>;
/** JSON has no `undefined`: what is absent is left out. */
const clean = (body: CommandBody) => JSON.parse(JSON.stringify(body)) as CommandBody;

const port = make<PortConfig>({
  protocol: fc.constantFrom('tcp', 'udp'),
  targetPort: fc.constantFrom(80, 81),
  publishedPort: fc.constantFrom(0, 0, 8080, 30_000, 30_001),
  publishMode: fc.constantFrom('ingress', 'ingress', 'host'),
});

/** A service that can be made of nothing but its name. */
export function serviceSpec(name: string, more: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    name,
    labels: {},
    task: { container: { image: 'host' } },
    mode: { kind: 'replicated', replicas: 1 },
    ...more,
  };
}

const anyServiceSpec = fc
  .record({
    n: few,
    secrets: fc.array(few, { maxLength: 2 }),
    configs: fc.array(few, { maxLength: 2 }),
    networks: fc.array(few.map(networkId), { maxLength: 2 }),
    ports: fc.array(port, { maxLength: 2 }),
    mode: fc.constantFrom<ServiceSpec['mode']>(
      { kind: 'replicated', replicas: 2 },
      { kind: 'replicated', replicas: 2 },
      { kind: 'global' },
      { kind: 'global-job' },
    ),
    endpointMode: fc.constantFrom('vip' as const, 'vip' as const, 'dnsrr' as const),
  })
  .map(({ n, secrets, configs, networks, ports, mode, endpointMode }) =>
    serviceSpec(`web${n}`, {
      task: {
        container: {
          image: 'host',
          secrets: secrets.map((s, at) => ({
            secretId: secretId(s),
            secretName: `blob${s}`,
            file: { name: `s${at}`, uid: '0', gid: '0', mode: 0o444 },
          })),
          configs: configs.map((c, at) => ({
            configId: configId(c),
            configName: `blob${c}`,
            file: { name: `c${at}`, uid: '0', gid: '0', mode: 0o444 },
          })),
        },
        networks: networks.map((target) => ({ target })),
      },
      mode,
      endpoint: { mode: endpointMode, ports },
    }),
  );

const taskStatus = fc
  .constantFrom(...TASK_STATES)
  .map((state): TaskStatus => ({ state, atMs: 1, message: state }));
const specVersion = fc.integer({ min: 1, max: 12 });
const updateStatus = fc
  .constantFrom('updating' as const, 'paused' as const, 'completed' as const)
  .map((state) => ({ state, message: state }));

const blob = (kind: 'secret' | 'config', idOf: (n: number) => string): fc.Arbitrary<CommandBody> =>
  fc.oneof(
    fc.tuple(few, few, data).map(
      ([n, named, text]) =>
        ({
          kind: `${kind}_create`,
          id: idOf(n),
          spec: { name: `blob${named}`, labels: {} },
          data: text,
        }) as CommandBody,
    ),
    fc.tuple(few, version, labels, maybe(data)).map(([n, at, l, text]) =>
      clean({
        kind: `${kind}_update`,
        id: idOf(n),
        version: at,
        labels: l,
        data: text,
      } as CommandBody),
    ),
    few.map((n) => ({ kind: `${kind}_remove`, id: idOf(n) }) as CommandBody),
  );

/** Every kind of command there is, in small worlds, so that refusals are as common as success. */
export const bodies: Readonly<Record<CommandBody['kind'], fc.Arbitrary<CommandBody>>> = {
  cluster_create: fc.constant(clusterCreate()),
  cluster_update: fc
    .tuple(version, fc.boolean(), maybe(fc.constant('key')))
    .map(([at, autolock, unlockKey]) =>
      clean({
        kind: 'cluster_update',
        version: at,
        spec: { ...CLUSTER_SPEC, autolock },
        joinTokens: autolock ? { worker: `w${at}` } : {},
        unlockKey,
      } as CommandBody),
    ),
  ca_rotation_start: few.map((n) => ({ kind: 'ca_rotation_start', ca: { n }, trust: TRUST })),
  ca_rotation_finish: version.map((at) => ({
    kind: 'ca_rotation_finish',
    version: at,
    ca: {},
    trust: TRUST,
    joinTokens: { worker: 'w2', manager: 'm2' },
  })),
  gossip_keys_rotate: few.map((n) => ({ kind: 'gossip_keys_rotate', secret: `k${n}` })),
  node_create: fc.tuple(few, role).map(([n, as]) => ({
    kind: 'node_create',
    node: node(nodeId(n), as),
  })),
  node_update: fc.tuple(few, version, role).map(([n, at, as]) => ({
    kind: 'node_update',
    nodeId: nodeId(n),
    version: at,
    spec: node(nodeId(n), as).spec,
  })),
  node_observe: fc
    .tuple(few, fc.constantFrom('ready' as const, 'down' as const), maybe(few), maybe(few))
    .map(([n, state, by, of]) => ({
      kind: 'node_observe',
      nodeId: nodeId(n),
      observation: {
        state,
        ...(by !== undefined && { session: { manager: nodeId(by), number: by } }),
      },
      ...(of !== undefined && { ifSession: of }),
    })),
  nodes_forget_state: few.map((n) => ({
    kind: 'nodes_forget_state',
    except: nodeId(n),
    stateMessage: 'new leader',
  })),
  node_leave: few.map((n) => ({ kind: 'node_leave', nodeId: nodeId(n) })),
  node_role: fc.tuple(few, role).map(([n, as]) => ({
    kind: 'node_role',
    nodeId: nodeId(n),
    role: as,
    ...(as === 'manager' && { manager: { raftId: n + 1, address: `10.0.0.${n}:2377` } }),
  })),
  node_remove: fc.tuple(few, fc.boolean()).map(([n, force]) => ({
    kind: 'node_remove',
    nodeId: nodeId(n),
    force,
  })),
  network_create: fc.tuple(few, few).map(([n, named]) => ({
    kind: 'network_create',
    id: networkId(n),
    spec: networkSpec(`net${named}`),
  })),
  network_remove: few.map((n) => ({ kind: 'network_remove', ref: `net${n}` })),
  ingress_create: few.map((n) => ({ kind: 'ingress_create', id: networkId(`i${n}`) })),
  ingress_attach: fc.constant({ kind: 'ingress_attach' }),
  attachment_create: fc.tuple(fc.nat(12), few, few).map(([n, on, to]) => ({
    kind: 'attachment_create',
    id: attachmentId(n),
    nodeId: nodeId(on),
    request: { key: `k${n}`, network: `net${to}`, addresses: [], name: 'x', aliases: [] },
  })),
  attachment_remove: fc.nat(12).map((n) => ({ kind: 'attachment_remove', id: attachmentId(n) })),
  secret_create: blob('secret', secretId),
  secret_update: blob('secret', secretId),
  secret_remove: blob('secret', secretId),
  config_create: blob('config', configId),
  config_update: blob('config', configId),
  config_remove: blob('config', configId),
  service_create: fc
    .tuple(few, anyServiceSpec, maybe(fc.constant('auth')))
    .map(([n, spec, registryAuth]) =>
      clean({ kind: 'service_create', id: serviceId(n), spec, registryAuth } as CommandBody),
    ),
  service_update: fc
    .tuple(few, version, maybe(anyServiceSpec), fc.constantFrom('spec', 'previous-spec'))
    .map(([n, at, spec, authFrom]) =>
      clean({
        kind: 'service_update',
        id: serviceId(n),
        version: at,
        spec,
        authFrom,
      } as CommandBody),
    ),
  service_remove: few.map((n) => ({ kind: 'service_remove', id: serviceId(n) })),
  service_purge: few.map((n) => ({ kind: 'service_purge', id: serviceId(n) })),
  service_status: fc.tuple(few, specVersion, updateStatus).map(([n, at, status]) => ({
    kind: 'service_status',
    id: serviceId(n),
    specVersion: at,
    updateStatus: status,
  })),
  service_rollback: fc.tuple(few, specVersion, updateStatus).map(([n, at, status]) => ({
    kind: 'service_rollback',
    id: serviceId(n),
    specVersion: at,
    updateStatus: status,
  })),
  task_create: fc
    .tuple(fc.nat(9), few, maybe(few), specVersion, taskStatus)
    .map(([n, of, on, at, status]) =>
      clean({
        kind: 'task_create',
        task: {
          id: taskId(n),
          serviceId: serviceId(of),
          slot: on === undefined ? n + 1 : 0,
          nodeId: on === undefined ? undefined : nodeId(on),
          specVersion: at,
          desiredState: 'running',
          status,
        },
      } as CommandBody),
    ),
  task_assign: fc.tuple(fc.nat(9), few).map(([n, on]) => ({
    kind: 'task_assign',
    id: taskId(n),
    nodeId: nodeId(on),
    status: { state: 'assigned', atMs: 1, message: 'assigned' },
  })),
  task_desired: fc.tuple(fc.nat(9), fc.constantFrom(...TASK_STATES)).map(([n, desiredState]) => ({
    kind: 'task_desired',
    id: taskId(n),
    desiredState,
  })),
  task_status: fc
    .tuple(maybe(few), fc.array(fc.tuple(fc.nat(9), taskStatus), { maxLength: 4 }))
    .map(([by, reports]) =>
      clean({
        kind: 'task_status',
        nodeId: by === undefined ? undefined : nodeId(by),
        reports: reports.map(([n, status]) => ({ taskId: taskId(n), status })),
      } as CommandBody),
    ),
  task_remove: fc.nat(9).map((n) => ({ kind: 'task_remove', id: taskId(n) })),
};

const anyBody = fc.oneof(...Object.values(bodies));

/** One command of any kind, transactions among them, without the time at which it was given. */
export const anyCommand: fc.Arbitrary<Omit<Command, 'atMs'>> = fc.oneof(
  { weight: 6, arbitrary: anyBody },
  {
    weight: 1,
    arbitrary: fc
      .array(anyBody, { maxLength: 4 })
      .map((commands) => ({ kind: 'transaction' as const, commands, by: 'test' })),
  },
);
