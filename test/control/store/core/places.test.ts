import fc from 'fast-check';
import t from 'tap';
import type {
  PortConfig,
  ServiceSpec,
  TaskObject,
  TaskState,
  TaskStatus,
} from '../../../../src/base/service-model.js';
import { compareTaskStates, isTerminal } from '../../../../src/base/service-model.js';
import type { NetworkId } from '../../../../src/base/swarm-model.js';
import type { Command, CommandBody } from '../../../../src/control/store/core/command.js';
import { apply } from '../../../../src/control/store/core/decide.js';
import { derivedId } from '../../../../src/control/store/core/derived-id.js';
import { ONLY_ROW, State } from '../../../../src/control/store/core/state.js';
import {
  attachmentId,
  Bench,
  clusterCreate,
  networkId,
  networkSpec,
  node,
  nodeId,
} from '../../support.js';
import { anyCommand, serviceId, serviceSpec, taskId } from './commands.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

const status = (state: TaskState): TaskStatus => ({ state, atMs: 1, message: state });
const port = (publishedPort: number): PortConfig => ({
  protocol: 'tcp',
  targetPort: 80,
  publishedPort,
  publishMode: 'ingress',
});
const on = (...networks: (string | number)[]): Partial<ServiceSpec> => ({
  task: {
    container: { image: 'host' },
    networks: networks.map((id) => ({ target: networkId(id), aliases: ['db'] })),
  },
});
const create = (n: number, name: string, more: Partial<ServiceSpec> = {}): CommandBody => ({
  kind: 'service_create',
  id: serviceId(n),
  spec: serviceSpec(name, more),
});
const task = (bench: Bench, n: number): TaskObject => {
  const row = bench.state.row('task', taskId(n));
  if (row === undefined) throw new Error('no such task');
  return row;
};
const service = (bench: Bench, n: number) => {
  const row = bench.state.row('service', serviceId(n));
  if (row === undefined) throw new Error('no such service');
  return row;
};

function run(bench: Bench, n: number, of: number, where = 1): void {
  const { specVersion } = service(bench, of);
  const rest = { specVersion, desiredState: 'running', status: status('pending') } as const;
  bench.do({
    kind: 'task_create',
    task: { id: taskId(n), serviceId: serviceId(of), slot: n, ...rest },
  });
  bench.do({
    kind: 'task_assign',
    id: taskId(n),
    nodeId: nodeId(where),
    status: status('assigned'),
  });
}

/** Two nodes on the ingress network, and the network `net1`. */
function begun(): Bench {
  const bench = new Bench();
  for (const n of [1, 2]) bench.do({ kind: 'node_create', node: node(nodeId(n)) });
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  bench.do({ kind: 'ingress_attach' });
  bench.network(1);
  return bench;
}

t.test('a swarm has an ingress network once, with a place for every node', async (t) => {
  const bench = begun();
  t.match(bench.state.row('network', networkId('i')), {
    spec: { name: 'ingress', ingress: true, attachable: false },
    vni: 4096,
    subnets: [{ subnet: '10.0.0.0/24' }],
  });
  const rows = [...bench.state.rows('attachment')];
  t.match(rows, [
    { nodeId: nodeId(1), key: 'ingress', name: 'ingress-host', addresses: ['10.0.0.2/24'] },
    { nodeId: nodeId(2), key: 'ingress', addresses: ['10.0.0.3/24'] },
  ]);
  const { version } = bench.state;
  bench.do({ kind: 'ingress_create', id: networkId('j') });
  bench.do({ kind: 'ingress_attach' });
  t.equal(bench.state.version, version, 'done already');
  t.match(bench.refusal({ kind: 'attachment_remove', id: rows[0]?.id ?? attachmentId(0) }), {
    code: 'SWARM_PRECONDITION',
  });
  t.match(
    bench.refusal({
      kind: 'attachment_create',
      id: attachmentId(9),
      nodeId: nodeId(1),
      request: { key: 'ingress', network: 'net1', addresses: [], name: 'x', aliases: [] },
    })?.message,
    /the swarm's own/,
  );
  bench.do({ kind: 'network_remove', ref: 'ingress' });
  t.equal(bench.state.size('attachment'), 0);
  t.equal(bench.state.row('secrets', ONLY_ROW)?.ingressMade, true, 'nobody wants it back');
  t.strictSame(bench.refusal(create(1, 'web', { endpoint: { mode: 'vip', ports: [port(80)] } })), {
    code: 'SWARM_PRECONDITION',
    message: 'service needs ingress network, but no ingress network is present',
  });
});

t.test('an older swarm may have what would be in the way', async (t) => {
  const bench = new Bench();
  bench.network(1, {}, 'ingress');
  bench.do({ kind: 'node_create', node: { ...node(nodeId(1)), state: 'down' } });
  bench.do({ kind: 'ingress_attach' });
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  t.match(bench.state.row('network', networkId('i')), { spec: { name: 'ingress2' }, vni: 4096 });
  bench.do({ kind: 'ingress_attach' });
  t.equal(bench.state.size('attachment'), 0, 'nodes that are down come later');
  const own = new Bench();
  own.network(1, { ingress: true, attachable: false }, 'mine');
  own.do({ kind: 'ingress_create', id: networkId('i') });
  t.equal(own.state.size('network'), 1);
});

t.test('a full ingress network takes as many nodes as it can', async (t) => {
  const bench = new Bench(clusterCreate(['10.0.0.0/8'], 29));
  for (let n = 1; n <= 9; n++) bench.do({ kind: 'node_create', node: node(nodeId(n)) });
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  bench.do({ kind: 'ingress_attach' });
  t.equal(bench.state.size('attachment'), 5);
  const { version } = bench.state;
  bench.do({ kind: 'ingress_attach' });
  t.equal(bench.state.version, version);
  bench.do({ kind: 'node_remove', nodeId: nodeId(1), force: true });
  bench.do({ kind: 'ingress_attach' });
  t.equal(bench.state.size('attachment'), 5);
});

t.test('on a network of both families a service has an address of each', async (t) => {
  const bench = begun();
  bench.network(6, { ipv6: true, ipam: [{ subnet: 'fd66::/64' }, { subnet: '10.66.0.0/24' }] });
  bench.do(create(1, 'web', { ...on(6), endpoint: { mode: 'vip', ports: [port(80)] } }));
  const both = [
    { networkId: networkId('i'), address: '10.0.0.4/24' },
    { networkId: networkId(6), address: '10.66.0.2/24' },
    { networkId: networkId(6), address: 'fd66::2/64' },
  ];
  t.strictSame(service(bench, 1).endpoint.virtualIps, both);
  for (const address of ['10.66.0.2', 'fd66::2'])
    t.equal(bench.state.addressesOn(networkId(6)).get(address), serviceId(1));
  bench.do({
    kind: 'service_update',
    id: serviceId(1),
    version: service(bench, 1).version,
    spec: serviceSpec('web', { ...on(6, 1), endpoint: { mode: 'vip', ports: [port(80)] } }),
    authFrom: 'spec',
  });
  t.strictSame(service(bench, 1).endpoint.virtualIps, [
    ...both,
    { networkId: networkId(1), address: '10.0.1.2/24' },
  ]);
});

t.test('a service has one address on each of its networks, and keeps it', async (t) => {
  const bench = begun();
  bench.network(2);
  bench.do(create(1, 'web', { ...on(1), endpoint: { mode: 'vip', ports: [port(80)] } }));
  t.strictSame(service(bench, 1).endpoint.virtualIps, [
    { networkId: networkId('i'), address: '10.0.0.4/24' },
    { networkId: networkId(1), address: '10.0.1.2/24' },
  ]);
  t.equal(bench.state.addressesOn(networkId(1)).get('10.0.1.2'), serviceId(1));
  t.match(
    bench.refusal({
      kind: 'attachment_create',
      id: attachmentId(1),
      nodeId: nodeId(1),
      request: { key: 'k', network: 'net1', addresses: ['10.0.1.2'], name: 'x', aliases: [] },
    })?.message,
    /already in use by service .* \(web\)/,
  );
  const change = (more: Partial<ServiceSpec>) =>
    bench.do({
      kind: 'service_update',
      id: serviceId(1),
      version: service(bench, 1).version,
      spec: serviceSpec('web', more),
      authFrom: 'spec',
    });
  change(on(2, 1, 1));
  t.strictSame(service(bench, 1).endpoint.virtualIps, [
    { networkId: networkId(2), address: '10.0.2.2/24' },
    { networkId: networkId(1), address: '10.0.1.2/24' },
  ]);
  t.notOk(bench.state.addressesOn(networkId('i')).has('10.0.0.4'));
  change({ ...on(1), endpoint: { mode: 'dnsrr' } });
  t.strictSame(service(bench, 1).endpoint.virtualIps, [{ networkId: networkId(1) }]);
  change(on(1));
  t.strictSame(service(bench, 1).endpoint.virtualIps[0]?.address, '10.0.1.3/24', 'a new one');
  bench.do({ kind: 'service_remove', id: serviceId(1) });
  t.ok(bench.state.addressesOn(networkId(1)).has('10.0.1.3'), 'its tasks may still be there');
  bench.do({ kind: 'service_purge', id: serviceId(1) });
  t.equal(bench.state.addressesOn(networkId(1)).size, 0);
});

t.test('a task gets its places with its node, and gives them back at its end', async (t) => {
  const bench = begun();
  bench.do(create(1, 'web', { ...on(1), endpoint: { mode: 'vip', ports: [port(80)] } }));
  run(bench, 1, 1, 2);
  const { networks } = task(bench, 1);
  t.match(networks, [
    { networkId: networkId('i'), addresses: ['10.0.0.5/24'], aliases: [] },
    {
      networkId: networkId(1),
      addresses: ['10.0.1.3/24'],
      aliases: ['db'],
      mac: '02:42:0a:00:01:03',
    },
  ]);
  t.match(bench.state.row('attachment', networks[1]?.attachmentId ?? ''), {
    key: `task:${taskId(1)}:${networkId(1)}`,
    nodeId: nodeId(2),
    name: `web.1.${taskId(1)}`,
    aliases: ['db'],
    addresses: ['10.0.1.3/24'],
  });
  bench.do({
    kind: 'task_status',
    nodeId: nodeId(2),
    reports: [{ taskId: taskId(1), status: status('failed') }],
  });
  t.equal(bench.state.row('attachment', networks[1]?.attachmentId ?? ''), undefined);
  t.equal(task(bench, 1).networks.length, 2, 'it is still told where it was');
  run(bench, 2, 1, 1);
  t.match(task(bench, 2).networks[1]?.addresses, ['10.0.1.4/24'], 'not the same one again');
  bench.do({ kind: 'task_remove', id: taskId(2) });
  t.equal(bench.state.addressesOn(networkId(1)).size, 1, 'only the service has one');
});

t.test('networks of the node itself need no place', async (t) => {
  const bench = begun();
  const networks = [{ target: 'host' as NetworkId }];
  bench.do(create(1, 'web', { task: { container: { image: 'host' }, networks } }));
  run(bench, 1, 1);
  t.strictSame(task(bench, 1).networks, []);
  t.strictSame(service(bench, 1).endpoint.virtualIps, []);
});

t.test('a task without an address waits, says why, and comes later', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  bench.network(1, { ipam: [{ subnet: '10.9.0.0/29' }] });
  bench.do(create(1, 'web', on(1)));
  for (const n of [1, 2, 3, 4, 5]) run(bench, n, 1);
  t.match(task(bench, 4).status, { state: 'assigned' });
  t.match(task(bench, 5), {
    status: {
      state: 'pending',
      message: 'waiting for addresses',
      error: 'no available IPv4 address is left on network net1',
    },
  });
  t.equal(task(bench, 5).nodeId, undefined);
  const { version } = bench.state;
  const again: CommandBody = {
    kind: 'task_assign',
    id: taskId(5),
    nodeId: nodeId(1),
    status: status('assigned'),
  };
  bench.do(again);
  t.equal(bench.state.version, version, 'nothing new');
  bench.do({ kind: 'task_remove', id: taskId(1) });
  bench.do(again);
  t.match(task(bench, 5).status, { state: 'assigned' });
});

t.test('a network in use is not removed, in swarmkit’s words', async (t) => {
  const bench = begun();
  bench.do(create(1, 'web', { ...on(1), endpoint: { mode: 'vip', ports: [port(80)] } }));
  run(bench, 1, 1);
  const remove = (ref: string): CommandBody => ({ kind: 'network_remove', ref });
  t.strictSame(bench.refusal(remove('net1')), {
    code: 'SWARM_IN_USE',
    message: `network ${networkId(1)} is in use by service ${serviceId(1)}`,
  });
  t.strictSame(bench.refusal(remove('ingress')), {
    code: 'SWARM_PRECONDITION',
    message: `ingress network cannot be removed because service ${serviceId(1)} depends on it`,
  });
  const { version } = service(bench, 1);
  const spec = serviceSpec('web');
  bench.do({ kind: 'service_update', id: serviceId(1), version, spec, authFrom: 'spec' });
  t.strictSame(bench.refusal(remove('net1')), {
    code: 'SWARM_IN_USE',
    message: `network ${networkId(1)} is in use by task ${taskId(1)}`,
  });
  bench.do({ kind: 'task_desired', id: taskId(1), desiredState: 'shutdown' });
  bench.do(remove('net1'));
  t.equal(task(bench, 1).status.state, 'assigned', 'it ends by itself');

  const stack = begun();
  stack.do(create(1, 'web', on(1)));
  run(stack, 1, 1);
  stack.do({ kind: 'service_remove', id: serviceId(1) });
  stack.do(remove('net1'));
  t.equal(stack.state.size('network'), 1, 'as `stack rm` does it, without a wait');
});

t.test('tasks of a node that is gone are orphans', async (t) => {
  const bench = begun();
  bench.do(create(1, 'web', on(1)));
  for (const n of [1, 2, 3]) run(bench, n, 1, n === 3 ? 2 : 1);
  bench.do({
    kind: 'task_status',
    reports: [{ taskId: taskId(2), status: status('complete') }],
  });
  bench.do({ kind: 'node_remove', nodeId: nodeId(1), force: true });
  t.match(task(bench, 1).status, {
    state: 'orphaned',
    message: 'Task belonged to a node that has been deleted',
  });
  t.equal(task(bench, 2).status.state, 'complete');
  bench.do({ kind: 'node_leave', nodeId: nodeId(2) });
  t.equal(task(bench, 3).status.state, 'assigned', 'what was last reported stays');
  t.equal(bench.state.addressesOn(networkId(1)).size, 1);
});

t.test('ids that are derived are like others, and differ', async (t) => {
  const seen = new Set<string>();
  for (let n = 0; n < 20_000; n++)
    seen.add(derivedId(`${nodeId(n)}/task:${taskId(n)}:${networkId(1)}`));
  t.equal(seen.size, 20_000);
  t.ok([...seen].every((id) => /^[0-9a-z]{25}$/.test(id)));
  t.equal(derivedId('a'), derivedId('a'));
});

const DEEDS = [
  'network',
  'unnetwork',
  'attach',
  'service',
  'update',
  'unservice',
  'purge',
  'task',
  'task',
  'task',
  'assign',
  'assign',
  'assign',
  'status',
  'desire',
  'untask',
  'node',
  'unnode',
] as const;

/** Mostly what makes sense, and among it anything. */
const step = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constantFrom(...DEEDS), fc.nat(7), fc.nat(3)) },
  { weight: 1, arbitrary: anyCommand },
);

function commandFor(state: State, deed: (typeof DEEDS)[number], n: number, m: number): CommandBody {
  const service = state.row('service', serviceId(m));
  const spec = serviceSpec(`web${m}`, {
    ...on(n % 3, (n + 1) % 3),
    endpoint: { mode: n === 7 ? 'dnsrr' : 'vip', ports: n === 7 ? [] : [port(n < 3 ? 0 : 80 + n)] },
  });
  switch (deed) {
    case 'network':
      return {
        kind: 'network_create',
        id: networkId(n % 3),
        spec: networkSpec(`net${n % 3}`, { ipam: [{ subnet: `10.${9 + (n % 3)}.0.0/28` }] }),
      };
    case 'unnetwork':
      return { kind: 'network_remove', ref: m === 3 ? 'ingress' : networkId(n % 3) };
    case 'attach':
      return {
        kind: 'attachment_create',
        id: attachmentId(n),
        nodeId: nodeId(m),
        request: { key: `k${n}`, network: `net${m}`, addresses: [], name: 'x', aliases: [] },
      };
    case 'service':
      return { kind: 'service_create', id: serviceId(m), spec };
    case 'update':
      return {
        kind: 'service_update',
        id: serviceId(m),
        version: service?.version ?? 0,
        authFrom: 'spec',
        ...(n < 6 && { spec }),
      };
    case 'unservice':
      return { kind: 'service_remove', id: serviceId(m) };
    case 'purge':
      return { kind: 'service_purge', id: serviceId(m) };
    case 'task':
      return {
        kind: 'task_create',
        task: {
          id: taskId(n),
          serviceId: serviceId(m),
          slot: n,
          specVersion: service?.specVersion ?? 0,
          desiredState: 'running',
          status: status('pending'),
        },
      };
    case 'assign':
      return {
        kind: 'task_assign',
        id: taskId(n),
        nodeId: nodeId(m),
        status: status('assigned'),
      };
    case 'status': {
      const state: TaskState =
        (['preparing', 'running', 'failed', 'complete'] as const)[m] ?? 'new';
      return { kind: 'task_status', reports: [{ taskId: taskId(n), status: status(state) }] };
    }
    case 'desire':
      return { kind: 'task_desired', id: taskId(n), desiredState: m < 2 ? 'shutdown' : 'remove' };
    case 'untask':
      return { kind: 'task_remove', id: taskId(n) };
    case 'node':
      return n < 4 ? { kind: 'node_create', node: node(nodeId(n)) } : { kind: 'ingress_attach' };
    default:
      return n < 2
        ? { kind: 'node_leave', nodeId: nodeId(m) }
        : { kind: 'node_remove', nodeId: nodeId(m), force: true };
  }
}

/** Every address has one holder, every published port one service, and tasks only get further. */
t.test('whatever is done, nothing is given to two', async (t) => {
  let placed = 0;
  let virtual = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 150 }), (steps) => {
      const state = new State();
      let atMs = 0;
      const give = (body: CommandBody | Omit<Command, 'atMs'>) => {
        const before = new Map([...state.rows('task')].map((row) => [row.id, row]));
        try {
          apply(state, { ...body, atMs: ++atMs } as Command);
        } catch {
          // A refusal; what a bug is the test beside this one finds.
        }
        check(state, before);
      };
      give(clusterCreate());
      for (const n of [0, 1]) give({ kind: 'node_create', node: node(nodeId(n)) });
      give({ kind: 'ingress_create', id: networkId('i') });
      for (const n of [0, 1, 2]) give(commandFor(state, 'network', n, 0));
      for (const n of [0, 1])
        give(create(n, `web${n}`, { ...on(n), endpoint: { mode: 'vip', ports: [port(0)] } }));
      for (const one of steps)
        give(typeof one === 'object' && 'kind' in one ? one : commandFor(state, ...one));
      placed += [...state.rows('task')].filter(({ networks }) => networks.length > 0).length;
      for (const { endpoint } of state.rows('service')) virtual += endpoint.virtualIps.length;
      const restored = State.restore(JSON.parse(JSON.stringify(state.snapshot())));
      check(restored, new Map());
      return JSON.stringify(restored.snapshot()) === JSON.stringify(state.snapshot());
    }),
    { numRuns: 150 * FUZZ_FACTOR },
  );
  t.ok(placed > 10 && virtual > 10, `${placed} tasks with places, ${virtual} virtual addresses`);
});

function check(state: State, before: ReadonlyMap<string, TaskObject>): void {
  const holders = new Map<string, string>();
  const hold = (network: string, cidr: string | undefined, id: string) => {
    if (cidr === undefined) return;
    const address = cidr.slice(0, cidr.indexOf('/'));
    const key = `${network}/${address}`;
    if (holders.has(key)) throw new Error(`${key} is held by ${holders.get(key)} and ${id}`);
    holders.set(key, id);
    const indexed = state.addressesOn(network as NetworkId).get(address);
    if (state.row('network', network) !== undefined && indexed !== id)
      throw new Error(`${key} is ${id}'s and not ${indexed}'s`);
  };
  for (const { id, networkId: on, addresses } of state.rows('attachment'))
    for (const cidr of addresses) hold(on, cidr, id);
  const ports = new Map<string, string>();
  for (const { id, endpoint, pendingDelete } of state.rows('service')) {
    for (const vip of endpoint.virtualIps) hold(vip.networkId, vip.address, id);
    if (pendingDelete === true) continue;
    for (const { publishMode, protocol, publishedPort } of endpoint.ports) {
      if (publishMode !== 'ingress') continue;
      const key = `${protocol}/${publishedPort}`;
      if (ports.has(key) || publishedPort === 0) throw new Error(`${key} is published twice`);
      ports.set(key, id);
    }
  }
  for (const row of state.rows('task')) {
    const { status: now, networks, nodeId: at, id } = row;
    for (const { attachmentId: place } of networks) {
      const isThere = state.row('attachment', place) !== undefined;
      if (isThere && isTerminal(now.state)) throw new Error(`${id} has ended and holds ${place}`);
    }
    const then = before.get(id);
    if (then === undefined) continue;
    if (compareTaskStates(now.state, then.status.state) < 0) throw new Error(`${id} went back`);
    if (compareTaskStates(row.desiredState, then.desiredState) < 0)
      throw new Error(`the wish for ${id} went back`);
    if (then.networks.length > 0 && at !== then.nodeId) throw new Error(`${id} has moved`);
  }
}
