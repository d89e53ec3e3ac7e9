import fc from 'fast-check';
import t from 'tap';
import { SwarmError } from '../../../../src/base/swarm-error.js';
import type { ControlError } from '../../../../src/control/core/control-error.js';
import type { Command, CommandBody } from '../../../../src/control/store/core/command.js';
import {
  encodeBatch,
  inspectSnapshot,
  StoreMachine,
} from '../../../../src/control/store/core/machine.js';
import { type Change, ONLY_ROW } from '../../../../src/control/store/core/state.js';
import { clusterCreate, networkId, networkSpec, node, nodeId } from '../../support.js';
import { anyCommand, secretId } from './commands.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

interface Made {
  readonly machine: StoreMachine;
  readonly fatal: ControlError[];
  readonly faults: unknown[];
}

function make(): Made {
  const fatal: ControlError[] = [];
  const faults: unknown[] = [];
  const machine = new StoreMachine({
    onFatal: (error) => fatal.push(error),
    onFault: (error) => faults.push(error),
  });
  return { machine, fatal, faults };
}

const bytesOf = (machine: StoreMachine) => Buffer.concat([...machine.capture()]);
let index = 0;
let atMs = 1_000_000;
const give = (machine: StoreMachine, ...items: readonly [string, object][]) => {
  const commands = items.map(([dedupe, body]) => ({
    dedupe,
    command: { ...body, atMs: ++atMs } as Command,
  }));
  return machine.apply({ index: ++index, data: encodeBatch(commands) });
};
const begun = () => {
  const made = make();
  give(made.machine, ['', clusterCreate()]);
  return made;
};
const net = (n: number, id = n): CommandBody => ({
  kind: 'network_create',
  id: networkId(id),
  spec: networkSpec(`net${n}`),
});

t.test(
  'same entries, same bytes: with refusals, repeats, and a restore in the middle',
  async (t) => {
    const entry = fc.array(fc.tuple(fc.nat(40), anyCommand), { minLength: 1, maxLength: 4 });
    const entries = fc.array(entry, { maxLength: 60 });
    let refused = 0;
    let done = 0;
    fc.assert(
      fc.property(entries, fc.nat(60), (log, at) => {
        const [one, two] = [begun(), begun()];
        const first = Buffer.concat([...one.machine.capture()]);
        two.machine.restore(first);
        let third: Made | undefined;
        for (const [i, batch] of log.entries()) {
          if (i === at) {
            third = make();
            third.machine.restore(bytesOf(one.machine));
          }
          const data = encodeBatch(
            batch.map(([dedupe, body]) => ({
              // Zero is nobody's; the others come again and again.
              dedupe: dedupe === 0 ? '' : `d${dedupe}-${JSON.stringify(body).length}`,
              command: { ...body, atMs: i } as Command,
            })),
          );
          const results = one.machine.apply({ index: i, data });
          const others = [two, third].map((made) => made?.machine.apply({ index: i, data }));
          for (const other of others)
            if (other !== undefined && shown(other) !== shown(results)) return false;
          refused += results.filter((result) => result instanceof SwarmError).length;
          done += results.filter((result) => !(result instanceof SwarmError)).length;
        }
        const bytes = bytesOf(one.machine);
        return (
          bytes.equals(bytesOf(two.machine)) &&
          (third === undefined || bytes.equals(bytesOf(third.machine))) &&
          one.fatal.length === 0
        );
      }),
      { numRuns: 60 * FUZZ_FACTOR },
    );
    t.ok(refused > 100 && done > 100, `${done} done and ${refused} refused`);
  },
);

function shown(results: readonly unknown[]): string {
  return JSON.stringify(
    results.map((one) => (one instanceof SwarmError ? [one.detail, one.message] : one)),
  );
}

t.test('each command of a batch is done or refused by itself, in order', async (t) => {
  const { machine } = begun();
  const [one, two, three] = give(machine, ['a', net(1)], ['b', net(1, 2)], ['c', net(2)]);
  t.match(one, { id: networkId(1) });
  t.match(two, { code: 'SWARM_NAME_TAKEN', message: 'network with name net1 already exists' });
  t.ok(two instanceof SwarmError);
  t.match(three, { id: networkId(2) });
  t.equal(machine.state.version, 3);
});

t.test('a command that comes again is answered again and not done again', async (t) => {
  const { machine } = begun();
  const rotate = { kind: 'gossip_keys_rotate', secret: 'x' };
  const ids = () => machine.state.row('secrets', ONLY_ROW)?.gossipKeys.map(({ id }) => id);
  give(machine, ['r1', rotate]);
  const before = bytesOf(machine);
  const [again] = give(machine, ['r1', rotate]);
  t.match(again, { id: ONLY_ROW });
  t.strictSame(ids(), [1, 0, 2]);
  t.ok(before.equals(bytesOf(machine)));
  give(machine, ['n', net(1)], ['m', net(1, 2)]);
  t.match(give(machine, ['m', net(9)])[0], { code: 'SWARM_NAME_TAKEN' }, 'refusals, too');
  t.equal(machine.stats().repeated, 2);

  const restored = make().machine;
  restored.restore(bytesOf(machine));
  t.match(give(restored, ['r1', rotate])[0], { id: ONLY_ROW }, 'also after a restore');
  t.equal(restored.state.version, machine.state.version);

  give(machine, ['', rotate], ['', rotate]);
  t.strictSame(ids(), [3, 2, 4], 'without a name every one counts');
});

t.test('only the latest outcomes are remembered', async (t) => {
  const { machine } = begun();
  const rotate = { kind: 'gossip_keys_rotate', secret: 'x' };
  for (let n = 0; n < 4_097; n++) give(machine, [`d${n}`, rotate]);
  const { version } = machine.state;
  give(machine, ['d1', rotate]);
  t.equal(machine.state.version, version, 'the 4,096th is known');
  give(machine, ['d0', rotate]);
  t.equal(machine.state.version, version + 1, 'the one before it is not');
  t.equal(inspectSnapshot(bytesOf(machine)).outcomes, 4_096);
});

t.test('a transaction is done as a whole or not at all', async (t) => {
  const { machine } = begun();
  const [done] = give(machine, ['a', { kind: 'transaction', commands: [net(1), net(2)] }]);
  t.strictSame(done, { id: networkId(2), ids: [networkId(1), networkId(2)] });
  const before = bytesOf(machine);
  const rotate = { kind: 'gossip_keys_rotate', secret: 'x' };
  const commands = [net(3), rotate, { kind: 'network_remove', ref: 'net1' }, net(2, 9)];
  const [refused] = give(machine, ['', { kind: 'transaction', commands }]);
  t.match(refused, { code: 'SWARM_NAME_TAKEN' });
  t.equal(machine.state.row('network', networkId(3)), undefined);
  t.same(
    lines(bytesOf(machine)).sort(),
    lines(before).sort(),
    'only the order of rows may differ, and does so everywhere',
  );
  const many = Array.from({ length: 1_025 }, () => rotate);
  t.match(give(machine, ['', { kind: 'transaction', commands: many }])[0], {
    code: 'SWARM_INVALID',
  });
});

const lines = (bytes: Buffer) => bytes.toString().split('\n');

t.test('a command that meets a bug is refused everywhere, and ends nobody', async (t) => {
  const { machine, faults, fatal } = begun();
  const [result] = give(machine, ['a', { kind: 'network_create' }], ['b', net(1)]);
  t.match(result, { code: 'SWARM_INTERNAL' });
  t.strictSame([faults.length, fatal.length, machine.stats().faults], [1, 0, 1]);
  t.ok(machine.state.row('network', networkId(1)), 'the next one is done');
  t.match(give(machine, ['a', { kind: 'network_create' }])[0], { code: 'SWARM_INTERNAL' });
});

t.test('what a newer program wrote, or what is damaged, stops the machine', async (t) => {
  const unknown = encodeBatch([{ dedupe: '', command: { kind: 'from_the_future' } as never }]);
  const part = encodeBatch([
    { dedupe: '', command: { kind: 'transaction', commands: [{ kind: 'x' } as never], atMs: 1 } },
  ]);
  for (const [data, code] of [
    [unknown, 'CONTROL_STORE_SCHEMA'],
    [part, 'CONTROL_STORE_SCHEMA'],
    [Uint8Array.of(2, 91, 93), 'CONTROL_STORE_SCHEMA'],
    [Uint8Array.of(), 'CONTROL_STORE_CORRUPT'],
    [Uint8Array.of(1, 123), 'CONTROL_STORE_CORRUPT'],
    [Uint8Array.of(1, ...Buffer.from('[["a"]]')), 'CONTROL_STORE_CORRUPT'],
    [Uint8Array.of(1, ...Buffer.from('[["a",null]]')), 'CONTROL_STORE_CORRUPT'],
  ] as const) {
    const { machine, fatal } = begun();
    const good = bytesOf(machine);
    t.strictSame(machine.apply({ index: 7, data }), []);
    t.strictSame(give(machine, ['', net(1)]), [], 'nothing is applied after it');
    t.match(fatal, [{ code }]);
    t.equal(fatal.length, 1);
    t.throws(() => machine.capture(), { code });
    machine.restore(good);
    t.match(give(machine, ['', net(1)]), [{ id: networkId(1) }]);
  }
});

t.test('watchers are told once per batch of entries, and of what a restore changed', async (t) => {
  const { machine } = begun();
  const told: (readonly Change[])[] = [];
  const stop = machine.watch((changes) => told.push(changes));
  give(machine, ['', net(1)]);
  give(machine, ['', net(2)], ['', net(2, 3)]);
  t.equal(told.length, 0);
  machine.applied();
  machine.applied();
  const keys = () => told.map((changes) => changes.map(({ table, key }) => [table, key]));
  t.strictSame(keys(), [
    [
      ['network', networkId(1)],
      ['network', networkId(2)],
    ],
  ]);
  const other = begun().machine;
  other.restore(bytesOf(machine));
  give(other, ['', { kind: 'network_remove', ref: 'net1' }], ['', net(4)]);
  const { state } = machine;
  machine.restore(bytesOf(other));
  t.equal(machine.state, state, 'the state is the same object');
  t.match(told[1], [
    { table: 'network', key: networkId(4), before: undefined },
    { table: 'network', key: networkId(1), after: undefined },
  ]);
  t.equal(told[1]?.length, 2);
  stop();
  give(machine, ['', net(5)]);
  machine.applied();
  t.equal(told.length, 2);
});

t.test('a capture is of its moment, however late it is read', async (t) => {
  const { machine } = begun();
  for (let n = 0; n < 900; n++) give(machine, ['', net(n)]);
  const now = bytesOf(machine);
  const chunks = machine.capture();
  const read: Uint8Array[] = [];
  for (const chunk of chunks) {
    read.push(chunk);
    give(machine, ['', { kind: 'network_remove', ref: `net${read.length}` }]);
  }
  t.ok(read.length > 3, `${read.length} chunks`);
  t.ok(Buffer.concat(read).equals(now));
  t.ok(read.every(({ length }) => length < 100_000));
});

t.test(
  'a snapshot that is damaged, cut, or of another form is refused and changes nothing',
  async (t) => {
    const { machine } = begun();
    give(machine, ['a', net(1)]);
    const good = bytesOf(machine);
    const other = make().machine;
    for (const [bytes, code] of [
      [Buffer.alloc(0), 'CONTROL_STORE_CORRUPT'],
      [good.subarray(0, good.length - 1), 'CONTROL_STORE_CORRUPT'],
      [good.subarray(0, good.indexOf('["=end"')), 'CONTROL_STORE_CORRUPT'],
      [Buffer.concat([good, Buffer.from('\n')]), 'CONTROL_STORE_CORRUPT'],
      [Buffer.from(good.toString().replace('["node"', '["node')), 'CONTROL_STORE_CORRUPT'],
      [Buffer.from(good.toString().replace(/^.*"=outcome".*\n/m, '')), 'CONTROL_STORE_CORRUPT'],
      [Buffer.from(good.toString().replace('"schema":3', '"schema":4')), 'CONTROL_STORE_SCHEMA'],
    ] as const) {
      if (bytes.equals(good)) continue;
      t.throws(() => other.restore(bytes), { code });
      t.equal(other.state.version, 0);
    }
    other.restore(good);
    t.ok(bytesOf(other).equals(good));
    t.match(inspectSnapshot(good), { schema: 3, version: 2, rows: { network: 1, cluster: 1 } });
  },
);

t.test('a snapshot from before there were services is gone on with', async (t) => {
  const { machine } = begun();
  give(machine, ['', { kind: 'node_create', node: node(nodeId(1)) }], ['', net(1)]);
  const old = Buffer.from(bytesOf(machine).toString().replace('"schema":3', '"schema":2'));
  t.match(inspectSnapshot(old), { schema: 2, rows: { service: 0, task: 0 } });
  const { machine: restored } = make();
  restored.restore(old);
  give(
    restored,
    ['', { kind: 'ingress_create', id: networkId(9) }],
    ['', { kind: 'ingress_attach' }],
  );
  t.match([...restored.state.rows('attachment')], [{ nodeId: nodeId(1), key: 'ingress' }]);
  const { machine: again } = make();
  again.restore(bytesOf(restored));
  t.ok(bytesOf(again).equals(bytesOf(restored)));
});

t.test('the history tells what was changed, when and by whom, and no secret', async (t) => {
  const { machine } = begun();
  give(
    machine,
    ['', { kind: 'node_create', node: node(nodeId(1)), by: 'node a' }],
    ['', { ...net(1), by: 'node a' }],
    ['', net(1, 2)],
    ['', { kind: 'gossip_keys_rotate', secret: 'hush' }],
    [
      '',
      {
        kind: 'node_observe',
        nodeId: nodeId(1),
        observation: { state: 'down', stateMessage: 'heartbeat failure' },
      },
    ],
    [
      '',
      {
        kind: 'node_observe',
        nodeId: nodeId(1),
        observation: { session: { manager: nodeId(1), number: 1 } },
      },
    ],
    [
      '',
      {
        kind: 'transaction',
        commands: [
          {
            kind: 'secret_create',
            id: secretId(1),
            spec: { name: 'sec1', labels: {} },
            data: 'aHVzaA==',
          },
          { kind: 'network_remove', ref: 'net1' },
        ],
      },
    ],
  );
  const told = machine.history().map(({ atMs: _, ...entry }) => entry);
  const host = { objectKind: 'node', id: nodeId(1), name: 'host' };
  t.match(told, [
    {
      version: 1,
      kind: 'cluster_create',
      action: 'create',
      objectKind: 'cluster',
      name: 'default',
    },
    { version: 2, kind: 'node_create', action: 'create', ...host, by: 'node a' },
    { version: 3, kind: 'network_create', objectKind: 'network', name: 'net1', by: 'node a' },
    { version: 4, kind: 'gossip_keys_rotate', action: 'update', objectKind: 'cluster' },
    { version: 5, kind: 'node_observe', ...host, note: 'ready → down (heartbeat failure)' },
    { version: 7, kind: 'secret_create', objectKind: 'secret', name: 'sec1' },
    { version: 8, kind: 'network_remove', action: 'remove', name: 'net1' },
  ]);
  t.equal(told.length, 7, 'neither the refused command nor the session is told');
  t.notMatch(JSON.stringify(told), /hush|aHVz/);
});

t.test('the history keeps the latest ten thousand', async (t) => {
  const { machine } = begun();
  for (let n = 0; n < 200; n++)
    give(
      machine,
      ...Array.from({ length: 101 }, (_, i): [string, object] => [
        '',
        { kind: 'gossip_keys_rotate', secret: `${i}` },
      ]),
    );
  const history = machine.history();
  t.equal(history.length, 10_000);
  t.equal(history.at(-1)?.version, machine.state.version);
  t.equal(history[0]?.version, machine.state.version - 9_999);
  t.equal(inspectSnapshot(bytesOf(machine)).history, 10_000);
});
