import fc from 'fast-check';
import t from 'tap';
import type { NetworkObject, NodeId, NodeObject } from '../../../src/base/swarm-model.js';
import {
  type Assignments,
  applyChange,
  changeSince,
  diffAttachments,
  diffShared,
  formatControlAddress,
  fullChange,
  parseControlAddress,
  projectShared,
  splitChange,
} from '../../../src/control/dispatch/core/assignments.js';
import { type Removal, Removals } from '../../../src/control/dispatch/core/removals.js';
import {
  parseAgentMessage,
  parseAssignmentsChange,
  parseManagerMessage,
} from '../../../src/control/dispatch/wire/messages.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { ONLY_ROW } from '../../../src/control/store/core/state.js';
import { ASSIGNMENTS_BYTES_MAX, encodeFrame } from '../../../src/control/wire/frame.js';
import {
  attachmentId,
  Bench,
  networkId,
  networkSpec,
  node,
  nodeId,
  REGISTRATION,
} from '../support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const SECRET = Buffer.alloc(32).toString('base64');

function assignmentsOf(bench: Bench): Assignments {
  const cluster = bench.state.row('cluster', ONLY_ROW);
  if (cluster === undefined) throw new Error('no cluster');
  const shared = projectShared({
    version: bench.state.version,
    cluster,
    gossipKeys: [{ id: 1, secret: SECRET }],
    networks: bench.state.rows('network'),
    nodes: bench.state.rows('node'),
  });
  const own = [...bench.state.attachmentsOf(nodeId(1))].map((id) =>
    bench.state.row('attachment', id),
  );
  return { ...shared, attachments: new Map(own.flatMap((row) => (row ? [[row.id, row]] : []))) };
}

const plain = ({ networks, nodes, attachments, ...rest }: Assignments) =>
  JSON.stringify({
    ...rest,
    networks: [...networks.values()].sort(byId),
    nodes: [...nodes.values()].sort(byId),
    attachments: [...attachments.values()].sort(byId),
  });
const byId = (x: { id: string }, y: { id: string }) => (x.id < y.id ? -1 : 1);

t.test('changes one after another give what the full assignments say', async (t) => {
  const action = fc.tuple(
    fc.constantFrom('network', 'unnetwork', 'attach', 'detach', 'state'),
    fc.nat(6),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      const bench = new Bench();
      bench.do({ kind: 'node_create', node: node(nodeId(1)) });
      let told = assignmentsOf(bench);
      let held: Assignments | undefined = received(told);
      for (const [what, n] of actions) {
        bench.refusal(
          what === 'network'
            ? {
                kind: 'network_create',
                id: networkId(n),
                spec: networkSpec(`net${n}`, { ipv6: true }),
              }
            : what === 'unnetwork'
              ? { kind: 'network_remove', ref: networkId(n) }
              : what === 'attach'
                ? {
                    kind: 'attachment_create',
                    id: attachmentId(n),
                    nodeId: nodeId(1),
                    request: {
                      key: `${n}`,
                      network: networkId(n),
                      addresses: [],
                      name: 'x',
                      aliases: ['y'],
                    },
                  }
                : what === 'detach'
                  ? { kind: 'attachment_remove', id: attachmentId(n) }
                  : {
                      kind: 'node_observe',
                      nodeId: nodeId(1),
                      observation: { state: n % 2 ? 'ready' : 'down' },
                    },
        );
        const after = assignmentsOf(bench);
        const change = diffShared(told, after);
        if (change !== undefined) held = applyChange(held, onTheWire(change));
        const attachments = diffAttachments(told.attachments, after.attachments);
        if (attachments !== undefined)
          held = applyChange(held, onTheWire({ version: after.version, attachments }));
        told = after;
        if (
          held === undefined ||
          plain({ ...held, version: 0 }) !== plain({ ...received(told), version: 0 })
        )
          return false;
      }
      return true;
    }),
    { numRuns: 40 * FUZZ_FACTOR },
  );
  t.pass('held');
});

/** What an agent makes of the full assignments. */
function received(told: Assignments): Assignments {
  let held: Assignments | undefined;
  for (const part of splitChange(fullChange(told))) held = applyChange(held, onTheWire(part));
  if (held === undefined) throw new Error('nothing was received');
  return held;
}

function onTheWire(change: unknown) {
  const read = parseAssignmentsChange(JSON.parse(JSON.stringify(change)));
  if (read === undefined) throw new Error(`not read: ${JSON.stringify(change)}`);
  return read;
}

t.test(
  'what is new since any version is all that is lacking, whoever told that version',
  async (t) => {
    const action = fc.tuple(
      fc.constantFrom('network', 'unnetwork', 'attach', 'detach', 'state', 'session', 'unnode'),
      fc.nat(4),
    );
    fc.assert(
      fc.property(
        fc.array(action, { minLength: 2, maxLength: 40 }),
        fc.nat(),
        fc.nat(),
        (actions, since, start) => {
          const bench = new Bench();
          bench.do({ kind: 'node_create', node: node(nodeId(1)) });
          const then: Assignments[] = [assignmentsOf(bench)];
          // A manager that starts in the middle knows of removals from there on.
          const startAt = start % actions.length;
          let removals: Removals | undefined;
          for (const [n, [what, m]] of actions.entries()) {
            if (n === startAt) removals = new Removals(bench.state.version);
            const before = rowsOf(bench);
            bench.refusal(commandOf(what, m));
            for (const [key, removal] of before)
              if (!rowsOf(bench).has(key)) removals?.add(removal, bench.state.version);
            then.push(assignmentsOf(bench));
          }
          const now = then.at(-1) as Assignments;
          const had = received(then[since % then.length] as Assignments);
          const removed = removals?.since(had.version);
          if (removed === undefined) return since % then.length < startAt;
          const source = { networks: bench.state.rows('network'), nodes: bench.state.rows('node') };
          const change = changeSince(had.version, now, source, nodeId(1), removed);
          let held: Assignments | undefined = had;
          for (const part of splitChange(change)) held = applyChange(held, onTheWire(part));
          return held !== undefined && plain(held) === plain(received(now));
        },
      ),
      { numRuns: 150 * FUZZ_FACTOR },
    );
    t.pass('held');
  },
);

function commandOf(what: string, n: number): CommandBody {
  switch (what) {
    case 'network':
      return { kind: 'network_create', id: networkId(n), spec: networkSpec(`net${n}`) };
    case 'unnetwork':
      return { kind: 'network_remove', ref: networkId(n) };
    case 'attach':
      return {
        kind: 'attachment_create',
        id: attachmentId(n),
        nodeId: nodeId(1 + (n % 2)),
        request: { key: `${n}`, network: networkId(n), addresses: [], name: 'x', aliases: [] },
      };
    case 'detach':
      return { kind: 'attachment_remove', id: attachmentId(n) };
    case 'state':
      return n < 2
        ? { kind: 'node_observe', nodeId: nodeId(1), observation: { state: n ? 'ready' : 'down' } }
        : { kind: 'node_create', node: node(nodeId(n)) };
    case 'session':
      return {
        kind: 'node_observe',
        nodeId: nodeId(1),
        observation: { session: { manager: nodeId('m'), number: n + 1 } },
      };
    default:
      return { kind: 'node_remove', nodeId: nodeId(2 + n), force: true };
  }
}

function rowsOf(bench: Bench): Map<string, Removal> {
  const rows = new Map<string, Removal>();
  for (const { id } of bench.state.rows('network')) rows.set(id + 1, { table: 'network', id });
  for (const { id } of bench.state.rows('node')) rows.set(id + 2, { table: 'node', id });
  for (const { id, nodeId: of } of bench.state.rows('attachment'))
    rows.set(id + 3, { table: 'attachment', id, nodeId: of });
  return rows;
}

t.test('who serves a node is not told, and costs no message', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  const before = assignmentsOf(bench);
  bench.do(commandOf('session', 1));
  const cluster = bench.state.row('cluster', ONLY_ROW);
  if (cluster === undefined) throw new Error('no cluster');
  const source = (leader?: NodeId) => ({
    version: bench.state.version,
    leader,
    cluster,
    gossipKeys: before.gossipKeys,
    networks: bench.state.rows('network'),
    nodes: bench.state.rows('node'),
  });
  t.equal(diffShared(before, projectShared(source(), before)), undefined);
  bench.do({
    kind: 'node_observe',
    nodeId: nodeId(1),
    observation: { manager: { raftId: 1, address: '10.0.0.7:2377' } },
  });
  t.strictSame(diffShared(before, projectShared(source(nodeId(1)), before))?.cluster, {
    ...before.cluster,
    managers: [{ address: '10.0.0.7', port: 2377 }],
    leader: { address: '10.0.0.7', port: 2377 },
  });
});

t.test('a large swarm is told in parts', async (t) => {
  const bench = new Bench();
  bench.do({
    kind: 'node_create',
    node: {
      ...node(nodeId('m'), 'manager'),
      manager: { raftId: 1, address: '[fd00::1]:2377' },
    },
  });
  const base = assignmentsOf(bench);
  t.strictSame(base.cluster.managers, [{ address: 'fd00::1', port: 2377 }]);
  const many = Array.from(
    { length: 12_500 },
    (_, n) => ({ ...node(nodeId(n)), address: 'x'.repeat(200) }) as NodeObject,
  );
  const shared = projectShared({
    version: 1,
    cluster: bench.state.row('cluster', ONLY_ROW) as never,
    gossipKeys: [],
    networks: [] as NetworkObject[],
    nodes: many,
  });
  const parts = splitChange(fullChange({ ...shared, attachments: new Map() }));
  t.ok(parts.length > 6, `${parts.length} parts`);
  t.ok(parts.every((part) => encodeFrame(part).length < ASSIGNMENTS_BYTES_MAX / 3));
  let held: Assignments | undefined;
  for (const part of parts) held = applyChange(held, part);
  t.equal(held?.nodes.size, 12_500);
});

t.test('a change without anything to change is refused', async (t) => {
  t.equal(applyChange(undefined, { era: 0, version: 1 }), undefined);
});

t.test('addresses of managers are text that can be read again', async (t) => {
  for (const text of ['10.0.0.1:2377', '[fd00::1]:2377', 'host.example:1']) {
    const parsed = parseControlAddress(text);
    t.equal(parsed && formatControlAddress(parsed), text);
  }
  for (const text of ['', 'host', 'fd00::1:2377', 'a:99999', '[]:1'])
    t.equal(parseControlAddress(text), undefined, text);
});

t.test('messages are judged without a throw, and only known ones pass', async (t) => {
  t.ok(
    parseAgentMessage({
      kind: 'hello',
      registration: REGISTRATION,
      session: 1,
      era: 0,
      version: 0,
    }),
  );
  t.equal(
    parseAgentMessage({
      kind: 'hello',
      registration: { ...REGISTRATION, gossipPort: 70_000 },
      session: 1,
      era: 0,
      version: 0,
    }),
    undefined,
  );
  t.equal(parseAgentMessage({ kind: 'attach', request: 1, wish: { key: '' } }), undefined);
  t.equal(parseAgentMessage({ kind: 'detach', request: 1, id: '../../etc' }), undefined);
  t.strictSame(
    parseManagerMessage({
      kind: 'refused',
      request: 1,
      refusal: { detail: { code: 'SWARM_OF_TOMORROW' }, message: 'm' },
    }),
    {
      kind: 'refused',
      request: 1,
      refusal: { detail: { code: 'SWARM_INVALID' }, message: 'm' },
    },
  );
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.jsonValue()), (value) => {
      parseAgentMessage(value);
      parseManagerMessage(value);
      parseAssignmentsChange(value);
      return true;
    }),
    { numRuns: 300 * FUZZ_FACTOR },
  );
});
