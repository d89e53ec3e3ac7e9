import fc from 'fast-check';
import t from 'tap';
import type { CommandBody } from '../../../../src/control/store/core/command.js';
import { apply, decide } from '../../../../src/control/store/core/decide.js';
import { ONLY_ROW, State } from '../../../../src/control/store/core/state.js';
import {
  attachmentId,
  Bench,
  CLUSTER_SPEC,
  clusterCreate,
  networkId,
  networkSpec,
  node,
  nodeId,
} from '../../support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

t.test('one index counts all changes, and an update must name the version it read', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1), 'manager') });
  bench.network(1);
  t.equal(bench.state.row('cluster', ONLY_ROW)?.version, 1);
  t.equal(bench.state.row('network', networkId(1))?.version, 3);
  const stale: CommandBody = {
    kind: 'cluster_update',
    version: 2,
    spec: CLUSTER_SPEC,
    joinTokens: {},
  };
  t.strictSame(bench.refusal(stale), {
    code: 'SWARM_OUT_OF_SEQUENCE',
    message: 'update out of sequence',
  });
  bench.do({ ...stale, version: 1, joinTokens: { worker: 'new' } });
  const cluster = bench.state.row('cluster', ONLY_ROW);
  t.equal(cluster?.version, 4);
  t.strictSame(cluster?.joinTokens, { worker: 'new', manager: 'm' });
  t.ok((cluster?.updatedAtMs ?? 0) > (cluster?.createdAtMs ?? 0));
});

t.test('settings of the cluster are judged', async (t) => {
  const bench = new Bench();
  const update = (more: object): CommandBody => ({
    kind: 'cluster_update',
    version: 1,
    spec: { ...CLUSTER_SPEC, ...more },
    joinTokens: {},
  });
  t.equal(bench.refusal(update({ dispatcherHeartbeatMs: -1 }))?.code, 'SWARM_INVALID');
  t.equal(
    bench.refusal(update({ nodeCertExpiryMs: 1 }))?.message,
    'minimum certificate expiry time must be: 1h0m0s',
  );
  const external = { protocol: 'cfssl', url: 'https://ca', options: {}, caCertPem: '' };
  const ca = { forceRotate: 0, externalCas: [external] };
  t.equal(bench.refusal(update({ ca }))?.code, 'SWARM_UNSUPPORTED');
  t.match(bench.refusal(update({ autolock: true }))?.message, /without a key/);
  t.equal(bench.refusal(update({ labels: { a: 'x'.repeat(70_000) } }))?.code, 'SWARM_INVALID');
  for (const pools of [
    [],
    ['x'],
    ['10.0.0.1/8'],
    ['10.0.0.0/25'],
    ['fd00::/8'],
    ['10.0.0.0/8', '10.1.0.0/16'],
  ]) {
    t.throws(() => new Bench(clusterCreate(pools)), { code: 'SWARM_INVALID' }, String(pools));
  }
});

t.test(
  'a node leaves, is down, and may then be removed; its addresses are free again',
  async (t) => {
    const bench = new Bench();
    bench.do({ kind: 'node_create', node: node(nodeId('m'), 'manager') });
    bench.do({ kind: 'node_create', node: node(nodeId(1)) });
    bench.network(1);
    bench.attach(1, 'net1');
    const removal = {
      kind: 'node_remove',
      nodeId: nodeId(1),
      force: false,
    } as const;
    t.strictSame(bench.refusal({ kind: 'network_remove', ref: 'net1' }), {
      code: 'SWARM_IN_USE',
      message: `network ${networkId(1)} is in use by task ${attachmentId(1)}`,
    });
    t.strictSame(bench.refusal(removal), {
      code: 'SWARM_NODE_NOT_DOWN',
      message: `node ${nodeId(1)} is not down and can't be removed`,
    });
    bench.do({ kind: 'node_leave', nodeId: nodeId(1) });
    t.equal(bench.state.row('node', nodeId(1))?.state, 'down');
    t.equal(bench.state.addressesOn(networkId(1)).size, 0);
    bench.do(removal);
    t.equal(bench.state.row('node', nodeId(1)), undefined);
    bench.do({ kind: 'network_remove', ref: 'net1' });
    t.strictSame(bench.refusal({ ...removal, nodeId: nodeId('m'), force: true }), {
      code: 'SWARM_PRECONDITION',
      message: `node ${nodeId('m')} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    });
    t.equal(bench.refusal({ ...removal, nodeId: nodeId('z') })?.code, 'SWARM_NOT_FOUND');
  },
);

t.test('removing a ready node with force releases its attachments too', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  bench.network(1);
  bench.attach(1, 'net1');
  bench.do({ kind: 'node_remove', nodeId: nodeId(1), force: true });
  t.same([...bench.state.rows('attachment')], []);
  t.equal(bench.state.attachmentsOf(nodeId(1)).size, 0);
});

t.test('a node is promoted and demoted, and the last manager stays', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId('m'), 'manager') });
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  const row = (id: string | number) => bench.state.row('node', nodeId(id));
  const update = (id: string | number, role: 'worker' | 'manager'): CommandBody => ({
    kind: 'node_update',
    nodeId: nodeId(id),
    version: row(id)?.version ?? 0,
    spec: { ...node(nodeId(id), role).spec, availability: 'drain' },
  });
  t.strictSame(bench.refusal(update('m', 'worker')), {
    code: 'SWARM_PRECONDITION',
    message: 'attempting to demote the last manager of the swarm',
  });
  bench.do(update(1, 'manager'));
  t.match(row(1), { spec: { role: 'manager' }, observedRole: 'worker', manager: undefined });
  const manager = { raftId: 7, address: '127.0.0.1:2377' };
  bench.do({ kind: 'node_role', nodeId: nodeId(1), role: 'manager', manager });
  t.match(row(1), { observedRole: 'manager', manager });
  const { version } = bench.state;
  bench.do({ kind: 'node_role', nodeId: nodeId(1), role: 'manager', manager });
  t.equal(bench.state.version, version, 'what is known is no change');

  bench.do(update(1, 'worker'));
  bench.do({ kind: 'node_observe', nodeId: nodeId(1), observation: { state: 'down' } });
  const removal = { kind: 'node_remove', nodeId: nodeId(1), force: false } as const;
  t.match(bench.refusal(removal)?.message, /must be demoted to worker/, 'still in the raft group');
  bench.do({ kind: 'node_role', nodeId: nodeId(1), role: 'worker' });
  t.strictSame([row(1)?.observedRole, row(1)?.manager], ['worker', undefined]);
  bench.do(removal);
});

t.test('a node that was demoted while it was away is removed with force', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId('m'), 'manager') });
  const manager = { raftId: 7, address: '127.0.0.1:2377' };
  bench.do({ kind: 'node_create', node: { ...node(nodeId(1)), manager } });
  bench.do({ kind: 'node_remove', nodeId: nodeId(1), force: true });
  t.equal(bench.state.row('node', nodeId(1)), undefined);
});

t.test('no more than seven managers', async (t) => {
  const bench = new Bench();
  for (let n = 0; n < 7; n++) bench.do({ kind: 'node_create', node: node(nodeId(n), 'manager') });
  const eighth = { kind: 'node_create', node: node(nodeId(8), 'manager') } as const;
  t.equal(bench.refusal(eighth)?.code, 'SWARM_PRECONDITION');
  bench.do({ kind: 'node_create', node: node(nodeId(8)) });
  const { version, spec } = {
    version: 0,
    ...node(nodeId(8)),
    ...bench.state.row('node', nodeId(8)),
  };
  const promotion: CommandBody = {
    kind: 'node_update',
    nodeId: nodeId(8),
    version,
    spec: { ...spec, role: 'manager' },
  };
  t.equal(bench.refusal(promotion)?.code, 'SWARM_PRECONDITION');
});

t.test('a removed node is remembered until its certificate would expire', async (t) => {
  const bench = new Bench();
  const removed = () => [...bench.state.rows('removed')].map((one) => one.nodeId);
  const remove = (n: number, certExpiresAtMs?: number) => {
    bench.do({ kind: 'node_create', node: node(nodeId(n)) });
    bench.do({
      kind: 'node_remove',
      nodeId: nodeId(n),
      force: true,
      ...(certExpiresAtMs !== undefined && { certExpiresAtMs }),
    });
  };
  remove(1);
  const [first] = bench.state.rows('removed');
  t.equal((first?.expiresAtMs ?? 0) - (first?.atMs ?? 0), CLUSTER_SPEC.nodeCertExpiryMs);
  remove(2, (first?.atMs ?? 0) + 5_000);
  remove(3);
  t.strictSame(removed(), [nodeId(1), nodeId(2), nodeId(3)]);
  remove(4);
  t.strictSame(removed(), [nodeId(1), nodeId(3), nodeId(4)], 'the expired one is forgotten');
});

t.test('the latest session of a node counts, and what was seen in another is void', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  const row = () => bench.state.row('node', nodeId(1));
  const observe = (observation: object, ifSession?: number) =>
    bench.do({
      kind: 'node_observe',
      nodeId: nodeId(1),
      observation,
      ...(ifSession !== undefined && { ifSession }),
    });
  const session = (id: string, number: number) => ({ manager: nodeId(id), number });
  observe({ state: 'down' }, 1);
  t.equal(row()?.state, 'ready', 'there is no such session');
  observe({ state: 'down' }, 0);
  t.equal(row()?.state, 'down');
  observe({ session: session('m', 4), state: 'ready' });
  t.match(row(), { state: 'ready', session: session('m', 4) });
  observe({ session: session('n', 6) });
  observe({ session: session('m', 5), address: 'elsewhere' });
  t.match(row(), { session: session('n', 6), address: '127.0.0.1' });
  observe({ state: 'down' }, 4);
  t.equal(row()?.state, 'ready', 'its old manager does not know of the new session');
  observe({ state: 'down' }, 6);
  t.equal(row()?.state, 'down');
  const { version } = bench.state;
  observe({ session: session('n', 6) });
  t.equal(bench.state.version, version);
});

t.test('there is an unlock key while autolock is on, and it turns with an update', async (t) => {
  const bench = new Bench();
  const key = () => bench.state.row('secrets', ONLY_ROW)?.unlockKey;
  const update = (autolock: boolean, unlockKey?: string) =>
    bench.do({
      kind: 'cluster_update',
      version: bench.state.row('cluster', ONLY_ROW)?.version ?? 0,
      spec: { ...CLUSTER_SPEC, autolock },
      joinTokens: {},
      ...(unlockKey !== undefined && { unlockKey }),
    });
  t.equal(key(), undefined);
  update(true, 'one');
  t.equal(key(), 'one');
  update(true);
  t.equal(key(), 'one');
  update(true, 'two');
  t.equal(key(), 'two');
  update(false, 'three');
  t.equal(key(), undefined);
  t.notOk('unlockKey' in (bench.state.row('secrets', ONLY_ROW) ?? {}));
});

t.test('a change of the root ends only if nothing else began meanwhile', async (t) => {
  const bench = new Bench();
  const trust = {
    rootCaPem: 'old',
    certIssuerSubject: 's',
    certIssuerPublicKey: 'p',
    rootRotationInProgress: true,
  };
  const cluster = () => {
    const row = bench.state.row('cluster', ONLY_ROW);
    if (row === undefined) throw new Error('no cluster');
    return row;
  };
  bench.do({ kind: 'ca_rotation_start', ca: { rotation: 1 }, trust });
  t.match(cluster(), { ...trust, joinTokens: { worker: 'w' } });
  const { version } = cluster();
  bench.do({ kind: 'ca_rotation_start', ca: { rotation: 2 }, trust });
  const finish = {
    kind: 'ca_rotation_finish',
    ca: {},
    trust: { ...trust, rootCaPem: 'new', rootRotationInProgress: false },
    joinTokens: { worker: 'w2', manager: 'm2' },
  } as const;
  t.equal(bench.refusal({ ...finish, version })?.code, 'SWARM_OUT_OF_SEQUENCE');
  t.strictSame(bench.state.row('secrets', ONLY_ROW)?.ca, { rotation: 2 });
  bench.do({ ...finish, version: cluster().version });
  t.match(cluster(), { rootCaPem: 'new', joinTokens: finish.joinTokens });
  t.strictSame(bench.state.row('secrets', ONLY_ROW)?.ca, {});
});

t.test('asking twice changes nothing the second time', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  t.equal(
    bench.do({ kind: 'node_create', node: { ...node(nodeId(2)), peerId: `peer-${nodeId(1)}` } }),
    nodeId(1),
  );
  bench.network(1);
  bench.network(2);
  bench.attach(1, 'net1', { key: 'same' });
  const before = bench.state.version;
  t.equal(bench.attach(2, 'net1', { key: 'same' }), attachmentId(1));
  t.equal(bench.state.version, before);
  t.throws(() => bench.attach(3, 'net2', { key: 'same' }), { code: 'SWARM_INVALID' });
  bench.do({ kind: 'attachment_remove', id: attachmentId(1), nodeId: nodeId(1) });
  bench.do({ kind: 'attachment_remove', id: attachmentId(1), nodeId: nodeId(1) });
  bench.do({ kind: 'node_observe', nodeId: nodeId(1), observation: { state: 'ready' } });
  t.equal(bench.state.version, before + 1, 'seeing what was known is no change');
});

t.test('networks are found by id, name, then prefix; some refuse to be attached to', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  bench.network('7aa', { attachable: false }, 'closed');
  bench.network('7ab');
  t.throws(() => bench.attach(1, 'closed'), {
    code: 'SWARM_NOT_ATTACHABLE',
    message: 'network closed not manually attachable',
  });
  t.throws(() => bench.attach(1, '0000'), { code: 'SWARM_AMBIGUOUS' });
  t.throws(() => bench.attach(1, 'nope'), {
    code: 'SWARM_NOT_FOUND',
    message: 'network nope not found',
  });
  t.throws(() => bench.attach(1, ''), { code: 'SWARM_NOT_FOUND' });
  bench.attach(1, networkId('7ab'));
  t.throws(
    () => bench.do({ kind: 'attachment_remove', id: attachmentId(1), nodeId: nodeId(2) }),
    { code: 'SWARM_NOT_FOUND' },
    'one node cannot release for another',
  );
});

t.test('a gossip key is announced for one period before it seals', async (t) => {
  const bench = new Bench();
  const ids = () => bench.state.row('secrets', ONLY_ROW)?.gossipKeys.map((key) => key.id);
  t.strictSame(ids(), [0, 1]);
  bench.do({ kind: 'gossip_keys_rotate', secret: 'c' });
  t.strictSame(ids(), [1, 0, 2]);
  bench.do({ kind: 'gossip_keys_rotate', secret: 'd' });
  t.strictSame(ids(), [2, 1, 3]);
  for (let i = 0; i < 253; i++) bench.do({ kind: 'gossip_keys_rotate', secret: 'e' });
  t.strictSame(ids(), [255, 254, 0]);
});

t.test('when a manager starts it knows no other node to be ready', async (t) => {
  const bench = new Bench();
  for (const id of ['m', 1, 2]) bench.do({ kind: 'node_create', node: node(nodeId(id)) });
  bench.do({ kind: 'node_observe', nodeId: nodeId(2), observation: { state: 'down' } });
  bench.do({ kind: 'nodes_forget_state', except: nodeId('m'), stateMessage: 'restarted' });
  t.strictSame(
    [...bench.state.rows('node')].map((one) => one.state),
    ['ready', 'unknown', 'down'],
  );
});

t.test('the same commands give the same state; a revert and a snapshot lose nothing', async (t) => {
  const bodies = fc.array(
    fc.oneof(
      fc.nat(5).map((n): CommandBody => ({ kind: 'node_create', node: node(nodeId(n)) })),
      fc.nat(9).map(
        (n): CommandBody => ({
          kind: 'network_create',
          id: networkId(n),
          spec: networkSpec(`net${n}`),
        }),
      ),
      fc.nat(9).map((n): CommandBody => ({ kind: 'network_remove', ref: networkId(n) })),
      fc.tuple(fc.nat(30), fc.nat(5), fc.nat(9)).map(
        ([n, on, to]): CommandBody => ({
          kind: 'attachment_create',
          id: attachmentId(n),
          nodeId: nodeId(on),
          request: { key: `k${n}`, network: networkId(to), addresses: [], name: 'x', aliases: [] },
        }),
      ),
      fc.nat(30).map((n): CommandBody => ({ kind: 'attachment_remove', id: attachmentId(n) })),
      fc.nat(5).map((n): CommandBody => ({ kind: 'node_leave', nodeId: nodeId(n) })),
      fc.nat(5).map(
        (n): CommandBody => ({
          kind: 'node_remove',
          nodeId: nodeId(n),
          force: false,
        }),
      ),
    ),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(bodies, (commands) => {
      const bench = new Bench();
      const twin = new State();
      apply(twin, { ...clusterCreate(), atMs: 1_001_000 });
      let atMs = 1_001_000;
      for (const body of commands) {
        atMs += 1_000;
        try {
          const { changes } = decide(twin, { ...body, atMs });
          const before = JSON.stringify(twin.snapshot());
          twin.commit(changes);
          twin.revert(changes);
          // A row that is put back moves to the end of its table, which is no difference.
          if (sorted(twin) !== sortedText(before)) return false;
          twin.commit(changes);
        } catch {
          // Refused here as well as there.
        }
        bench.refusal(body);
      }
      const restored = State.restore(JSON.parse(JSON.stringify(twin.snapshot())));
      return sorted(bench.state) === sorted(twin) && sorted(restored) === sorted(twin);
    }),
    { numRuns: 60 * FUZZ_FACTOR },
  );
  t.pass('held');
});

function sorted(state: State): string {
  return sortedText(JSON.stringify(state.snapshot()));
}

function sortedText(snapshot: string): string {
  const { version, rows } = JSON.parse(snapshot) as {
    version: number;
    rows: Record<string, [string, unknown][]>;
  };
  for (const table of Object.values(rows)) table.sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ version, rows });
}
