import fc from 'fast-check';
import t from 'tap';
import type { TaskState, TaskStatus } from '../../../src/base/service-model.js';
import type { NetworkObject, NodeId, NodeObject } from '../../../src/base/swarm-model.js';
import {
  type Assignments,
  applyChange,
  changeSince,
  diffOwn,
  diffShared,
  formatControlAddress,
  fullChange,
  parseControlAddress,
  projectShared,
  splitChange,
} from '../../../src/control/dispatch/core/assignments.js';
import {
  NOTHING_OWN,
  type OwnSource,
  projectOwn,
} from '../../../src/control/dispatch/core/own-assignments.js';
import { type Removal, Removals } from '../../../src/control/dispatch/core/removals.js';
import {
  parseAgentMessage,
  parseAssignmentsChange,
  parseManagerMessage,
} from '../../../src/control/dispatch/wire/messages.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { ONLY_ROW } from '../../../src/control/store/core/state.js';
import { ASSIGNMENTS_BYTES_MAX, encodeFrame } from '../../../src/control/wire/frame.js';
import type { AssignedTask } from '../../../src/control/wire/task-model.js';
import { configId, secretId, serviceId, serviceSpec, taskId } from '../store/core/commands.js';
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

const sourceOf = (bench: Bench) => ({
  networks: bench.state.rows('network'),
  nodes: bench.state.rows('node'),
  services: bench.state.rows('service'),
});

function ownSourceOf({ state }: Bench): OwnSource {
  return {
    attachments: [...state.attachmentsOf(nodeId(1))].flatMap(
      (id) => state.row('attachment', id) ?? [],
    ),
    tasks: [...state.tasksOnNode(nodeId(1))].flatMap((id) => state.row('task', id) ?? []),
    service: (id) => state.row('service', id),
    secret: (id) => state.row('secret', id),
    config: (id) => state.row('config', id),
  };
}

/** @param before What was told; its entries are used again. */
function assignmentsOf(bench: Bench, before?: Assignments): Assignments {
  const cluster = bench.state.row('cluster', ONLY_ROW);
  if (cluster === undefined) throw new Error('no cluster');
  const shared = projectShared(
    {
      version: bench.state.version,
      cluster,
      gossipKeys: [{ id: 1, secret: SECRET }],
      ...sourceOf(bench),
    },
    before,
  );
  return { ...shared, ...projectOwn(ownSourceOf(bench), before ?? NOTHING_OWN) };
}

/** Of a task's state its node knows more than it is told, and credentials are told once. */
const known = ({
  status: _,
  version: __,
  updatedAtMs: ___,
  runningAtMs: ____,
  endedAtMs: _____,
  registryAuth,
  ...task
}: AssignedTask) => task;
const plain = (all: Assignments) => {
  const { networks, nodes, services, attachments, tasks, secrets, configs, ...rest } = all;
  return JSON.stringify({
    ...rest,
    networks: [...networks.values()].sort(byId),
    nodes: [...nodes.values()].sort(byId),
    services: [...services.values()].map((one) => ({ ...one, version: 0 })).sort(byId),
    attachments: [...attachments.values()].sort(byId),
    tasks: [...tasks.values()].map(known).sort(byId),
    secrets: [...secrets.values()].sort(byId),
    configs: [...configs.values()].sort(byId),
  });
};
const byId = (x: { id: string }, y: { id: string }) => (x.id < y.id ? -1 : 1);

const ACTIONS = [
  'network',
  'unnetwork',
  'attach',
  'detach',
  'state',
  'service',
  'update',
  'unservice',
  'task',
  'untask',
  'desire',
  'status',
] as const;

t.test('changes one after another give what the full assignments say', async (t) => {
  const action = fc.tuple(fc.constantFrom(...ACTIONS), fc.nat(6));
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const bench = begun();
      let told = assignmentsOf(bench);
      let held: Assignments | undefined = received(told);
      for (const [what, n] of actions) {
        for (const command of commandsOf(bench, what, n)) bench.refusal(command);
        const after = assignmentsOf(bench, told);
        const change = diffShared(told, after);
        if (change !== undefined) held = applyChange(held, onTheWire(change));
        const own = diffOwn(told, after);
        if (own !== undefined)
          for (const part of splitChange({ era: 0, version: after.version, ...own }))
            held = applyChange(held, onTheWire(part));
        told = after;
        if (
          held === undefined ||
          plain({ ...held, version: 0 }) !==
            plain({ ...received(assignmentsOf(bench)), version: 0 })
        )
          return false;
      }
      return true;
    }),
    { numRuns: 60 * FUZZ_FACTOR },
  );
  t.pass('held');
});

/** A swarm of two nodes, with secrets and configs. */
function begun(): Bench {
  const bench = new Bench();
  for (const n of [1, 2]) bench.do({ kind: 'node_create', node: node(nodeId(n)) });
  for (const n of [0, 1]) {
    const spec = { name: `blob${n}`, labels: {} };
    bench.do({ kind: 'secret_create', id: secretId(n), spec, data: 'eA==' });
    bench.do({ kind: 'config_create', id: configId(n), spec, data: 'eA==' });
  }
  return bench;
}

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
    const action = fc.tuple(fc.constantFrom(...ACTIONS, 'session', 'unnode'), fc.nat(4));
    fc.assert(
      fc.property(
        fc.array(action, { minLength: 2, maxLength: 40 }),
        fc.nat(),
        fc.nat(),
        fc.boolean(),
        (actions, since, start, bare) => {
          const bench = begun();
          const then: Assignments[] = [assignmentsOf(bench)];
          // A manager that starts in the middle knows of removals from there on.
          const startAt = start % actions.length;
          let removals: Removals | undefined;
          for (const [n, [what, m]] of actions.entries()) {
            if (n === startAt) removals = new Removals(bench.state.version);
            for (const command of commandsOf(bench, what, m)) {
              const before = rowsOf(bench);
              bench.refusal(command);
              for (const [key, removal] of before)
                if (!rowsOf(bench).has(key)) removals?.add(removal, bench.state.version);
            }
            then.push(assignmentsOf(bench));
          }
          const now = then.at(-1) as Assignments;
          const had = received(then[since % then.length] as Assignments);
          const removed = removals?.since(had.version);
          if (removed === undefined) return since % then.length < startAt;
          const asked = { version: had.version, self: nodeId(1), removals: removed, bare };
          const change = changeSince(asked, now, sourceOf(bench));
          let held: Assignments | undefined = bare ? { ...had, secrets: new Map() } : had;
          for (const part of splitChange(change)) held = applyChange(held, onTheWire(part));
          return held !== undefined && plain(held) === plain(received(now));
        },
      ),
      { numRuns: 200 * FUZZ_FACTOR },
    );
    t.pass('held');
  },
);

/** With a secret and a config of the number. */
function specOf(n: number) {
  const file = { name: 'x', uid: '0', gid: '0', mode: 0o444 };
  return serviceSpec(`web${n}`, {
    task: {
      container: {
        image: 'host',
        secrets: [{ secretId: secretId(n % 2), secretName: `blob${n % 2}`, file }],
        configs: [{ configId: configId(n % 2), configName: `blob${n % 2}`, file }],
      },
    },
  });
}

function commandsOf(bench: Bench, what: string, n: number): CommandBody[] {
  const service = bench.state.row('service', serviceId(n % 2));
  switch (what) {
    case 'network':
      return [
        {
          kind: 'network_create',
          id: networkId(n),
          spec: networkSpec(`net${n}`, { ipv6: n % 2 === 1 }),
        },
      ];
    case 'unnetwork':
      return [{ kind: 'network_remove', ref: networkId(n) }];
    case 'attach':
      return [
        {
          kind: 'attachment_create',
          id: attachmentId(n),
          nodeId: nodeId(1 + (n % 2)),
          request: { key: `${n}`, network: networkId(n), addresses: [], name: 'x', aliases: ['y'] },
        },
      ];
    case 'detach':
      return [{ kind: 'attachment_remove', id: attachmentId(n) }];
    case 'state':
      return [
        n < 2
          ? {
              kind: 'node_observe',
              nodeId: nodeId(1),
              observation: { state: n ? 'ready' : 'down' },
            }
          : { kind: 'node_create', node: node(nodeId(n + 1)) },
      ];
    case 'session':
      return [
        {
          kind: 'node_observe',
          nodeId: nodeId(1),
          observation: { session: { manager: nodeId('m'), number: n + 1 } },
        },
      ];
    case 'service':
      return [
        {
          kind: 'service_create',
          id: serviceId(n % 2),
          spec: specOf(n),
          registryAuth: 'auth',
        },
      ];
    case 'update':
      return service === undefined
        ? []
        : [
            {
              kind: 'service_update',
              id: service.id,
              version: service.version,
              spec: { ...service.spec, task: specOf(n + 1).task, labels: { n: `${n}` } },
              authFrom: 'spec',
            },
          ];
    case 'unservice':
      return [
        { kind: 'service_remove', id: serviceId(n % 2) },
        ...[...bench.state.tasksOfService(serviceId(n % 2))].map(
          (id) => ({ kind: 'task_remove', id }) as const,
        ),
        { kind: 'service_purge', id: serviceId(n % 2) },
      ];
    case 'task':
      return service === undefined
        ? []
        : [
            {
              kind: 'task_create',
              task: {
                id: taskId(n),
                serviceId: service.id,
                slot: n,
                specVersion: service.specVersion,
                desiredState: 'running',
                status: status('pending'),
              },
            },
            {
              kind: 'task_assign',
              id: taskId(n),
              nodeId: nodeId(1 + (n % 3 === 0 ? 1 : 0)),
              status: status('assigned'),
            },
          ];
    case 'untask':
      return [{ kind: 'task_remove', id: taskId(n) }];
    case 'desire':
      return [{ kind: 'task_desired', id: taskId(n), desiredState: 'shutdown' }];
    case 'status':
      return [
        {
          kind: 'task_status',
          reports: [{ taskId: taskId(n), status: status(n % 2 ? 'running' : 'failed') }],
        },
      ];
    default:
      return [{ kind: 'node_remove', nodeId: nodeId(3 + n), force: true }];
  }
}

function status(state: TaskState): TaskStatus {
  return { state, atMs: 1, message: state };
}

function rowsOf(bench: Bench): Map<string, Removal> {
  const rows = new Map<string, Removal>();
  for (const { id } of bench.state.rows('network')) rows.set(id + 1, { table: 'network', id });
  for (const { id } of bench.state.rows('node')) rows.set(id + 2, { table: 'node', id });
  for (const { id, nodeId: of } of bench.state.rows('attachment'))
    rows.set(id + 3, { table: 'attachment', id, nodeId: of });
  for (const { id, pendingDelete } of bench.state.rows('service'))
    if (pendingDelete !== true) rows.set(id + 4, { table: 'service', id });
  for (const { id, nodeId: of } of bench.state.rows('task'))
    if (of !== undefined) rows.set(id + 5, { table: 'task', id, nodeId: of });
  return rows;
}

t.test('what a node has said itself it is not told again', async (t) => {
  const bench = begun();
  for (const what of ['service', 'task', 'service'] as const)
    for (const command of commandsOf(bench, what, 1)) bench.refusal(command);
  const before = assignmentsOf(bench);
  t.match([...before.tasks.values()], [{ id: taskId(1), registryAuth: 'auth' }]);
  t.strictSame([...before.secrets.keys()], [secretId(1)]);
  for (const command of commandsOf(bench, 'status', 1)) bench.do(command);
  const after = assignmentsOf(bench, before);
  t.equal(bench.state.row('task', taskId(1))?.status.state, 'running');
  t.equal(diffShared(before, after), undefined);
  t.equal(diffOwn(before, after), undefined);
  t.notHas([...assignmentsOf(bench).tasks.values()][0], { registryAuth: 'auth' }, 'it is pulled');
  for (const command of commandsOf(bench, 'desire', 1)) bench.do(command);
  const over = assignmentsOf(bench, after);
  t.match(diffOwn(after, over)?.tasks?.put, [{ desiredState: 'shutdown' }]);
  t.equal(over.secrets.size, 0, 'nobody needs them any more');
});

t.test('who serves a node is not told, and costs no message', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  const before = assignmentsOf(bench);
  for (const command of commandsOf(bench, 'session', 1)) bench.do(command);
  const cluster = bench.state.row('cluster', ONLY_ROW);
  if (cluster === undefined) throw new Error('no cluster');
  const source = (leader?: NodeId) => ({
    version: bench.state.version,
    leader,
    cluster,
    gossipKeys: before.gossipKeys,
    ...sourceOf(bench),
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
    services: [],
  });
  const parts = splitChange(fullChange({ ...shared, ...NOTHING_OWN }));
  t.ok(parts.length > 6, `${parts.length} parts`);
  t.ok(parts.every((part) => encodeFrame(part).length < ASSIGNMENTS_BYTES_MAX / 3));
  let held: Assignments | undefined;
  for (const part of parts) held = applyChange(held, part);
  t.equal(held?.nodes.size, 12_500);
});

/** Another value somewhere inside. */
function spoiled(value: unknown, path: readonly number[], other: unknown): unknown {
  const [at, ...rest] = path;
  if (at === undefined || typeof value !== 'object' || value === null) return other;
  const keys = Object.keys(value);
  const key = keys[at % Math.max(1, keys.length)];
  if (key === undefined) return other;
  const copy = (Array.isArray(value) ? [...value] : { ...value }) as Record<string, unknown>;
  copy[key] = spoiled(copy[key], rest, other);
  return copy;
}

t.test(
  'assignments and reports that are spoiled anywhere are taken or not, without a throw',
  async (t) => {
    const bench = begun();
    for (const what of ['network', 'attach', 'service', 'task'] as const)
      for (const command of commandsOf(bench, what, 1)) bench.refusal(command);
    const whole = JSON.parse(JSON.stringify(fullChange(assignmentsOf(bench))));
    t.equal(whole.tasks.put.length, 1);
    const report = {
      kind: 'status',
      request: 1,
      reports: [
        { taskId: taskId(1), status: { ...status('running'), container: { id: 'c', pid: 1 } } },
      ],
    };
    const path = fc.array(fc.nat(20), { minLength: 1, maxLength: 9 });
    let taken = 0;
    fc.assert(
      fc.property(path, fc.jsonValue(), (where, other) => {
        const change = parseAssignmentsChange(spoiled(whole, where, other));
        if (change !== undefined) {
          taken++;
          applyChange(undefined, change);
        }
        parseAgentMessage(spoiled(report, where, other));
        return true;
      }),
      { numRuns: 2_000 * FUZZ_FACTOR },
    );
    t.ok(taken > 20, `${taken} are still assignments`);
  },
);

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
  const report = (state: string, more = {}) => ({
    kind: 'status',
    request: 1,
    reports: [{ taskId: taskId(1), status: { state, atMs: 1, message: 'm', ...more } }],
  });
  t.ok(parseAgentMessage(report('running', { container: { id: 'c', pid: 7 } })));
  for (const state of ['new', 'pending', 'assigned', 'orphaned', 'x'])
    t.equal(parseAgentMessage(report(state)), undefined, state);
  t.equal(parseAgentMessage(report('running', { message: 'x'.repeat(5_000) })), undefined);
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
