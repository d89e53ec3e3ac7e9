import t from 'tap';
import { Prng } from '../../src/base/prng.js';
import { fuzzRuns } from './fuzz.js';
import {
  checkIndexOrder,
  checkLinearizable,
  type Model,
  type Operation,
  type Witnessed,
} from './linearizability.js';

type Input =
  | { readonly kind: 'read' }
  | { readonly kind: 'put'; readonly value: string }
  | { readonly kind: 'append'; readonly value: string }
  | { readonly kind: 'cas'; readonly expected: string; readonly value: string };

type Op = Operation<Input, string>;

const register: Model<Input, string> = {
  initial: '',
  step(state, input, output) {
    switch (input.kind) {
      case 'read':
        return output === undefined || output === state ? state : undefined;
      case 'put':
        return input.value;
      case 'append': {
        const next = state + input.value;
        return output === undefined || output === next ? next : undefined;
      }
      case 'cas': {
        const next = input.expected === state ? input.value : state;
        return output === undefined || output === next ? next : undefined;
      }
    }
  },
};

const put = (callMs: number, returnMs: number | undefined, value: string, key = 'x'): Op => ({
  key,
  input: { kind: 'put', value },
  output: returnMs === undefined ? undefined : value,
  callMs,
  returnMs,
});
const append = (
  callMs: number,
  returnMs: number | undefined,
  value: string,
  output?: string,
): Op => ({
  key: 'x',
  input: { kind: 'append', value },
  output,
  callMs,
  returnMs,
});
const read = (callMs: number, returnMs: number, output: string, key = 'x'): Op => ({
  key,
  input: { kind: 'read' },
  output,
  callMs,
  returnMs,
});
const cas = (
  callMs: number,
  returnMs: number,
  expected: string,
  value: string,
  output: string,
): Op => ({
  key: 'x',
  input: { kind: 'cas', expected, value },
  output,
  callMs,
  returnMs,
});

const GOOD: readonly (readonly [string, readonly Op[]])[] = [
  ['nothing', []],
  ['one after the other', [put(0, 1, 'a'), read(2, 3, 'a'), put(4, 5, 'b'), read(6, 7, 'b')]],
  ['a read beside a write sees the new', [put(0, 9, 'a'), read(1, 2, 'a')]],
  ['a read beside a write sees the old', [put(0, 9, 'a'), read(1, 2, '')]],
  ['old, then new, beside one write', [put(0, 9, 'a'), read(1, 2, ''), read(3, 4, 'a')]],
  ['two writes at once, in either order', [put(0, 9, 'a'), put(0, 9, 'b'), read(10, 11, 'a')]],
  ['an unknown write took effect', [put(0, undefined, 'a'), read(5, 6, 'a')]],
  ['an unknown write did not', [put(0, undefined, 'a'), read(5, 6, '')]],
  ['an unknown write took effect late', [put(0, undefined, 'a'), read(5, 6, ''), read(7, 8, 'a')]],
  [
    'an unknown write between two known ones',
    [put(0, undefined, 'a'), put(1, 2, 'b'), read(3, 4, 'b'), read(5, 6, 'a')],
  ],
  [
    'cas decides between two',
    [cas(0, 9, '', 'a', 'a'), cas(0, 9, '', 'b', 'a'), read(10, 11, 'a')],
  ],
  ['appends in the order of their results', [append(0, 9, 'a', 'ba'), append(0, 9, 'b', 'b')]],
  [
    'keys do not order each other',
    [put(0, 1, 'a', 'x'), read(2, 3, '', 'y'), put(4, 5, 'b', 'y'), read(6, 7, 'a', 'x')],
  ],
  [
    'a return at the instant of a call overlaps it',
    [put(0, 5, 'a'), read(5, 6, ''), read(6, 7, 'a')],
  ],
];

const BAD: readonly (readonly [string, readonly Op[]])[] = [
  ['a stale read', [put(0, 1, 'a'), put(2, 3, 'b'), read(4, 5, 'a')]],
  ['a lost write', [put(0, 1, 'a'), read(2, 3, '')]],
  ['a read of the future', [read(0, 1, 'a'), put(2, 3, 'a')]],
  ['a value that nobody wrote', [put(0, 1, 'a'), read(2, 3, 'z')]],
  ['new, then old again', [put(0, 9, 'a'), read(1, 2, 'a'), read(3, 4, '')]],
  [
    'two readers disagree on the order of two writes',
    [put(0, 9, 'a'), put(0, 9, 'b'), read(10, 11, 'a'), read(12, 13, 'b')],
  ],
  ['a doubled append', [append(0, 1, 'a', 'a'), read(2, 3, 'aa')]],
  ['a doubled unknown append', [append(0, undefined, 'a'), read(2, 3, 'aa')]],
  ['an append lost between two', [append(0, 1, 'a', 'a'), append(2, 3, 'b', 'b')]],
  ['two of one cas win', [cas(0, 9, '', 'a', 'a'), cas(0, 9, '', 'b', 'b')]],
  [
    'an unknown write comes and goes',
    [put(0, undefined, 'a'), read(1, 2, 'a'), put(3, 4, 'b'), read(5, 6, 'a'), read(7, 8, 'b')],
  ],
  ['an unknown write before its call', [read(0, 1, 'a'), put(2, undefined, 'a')]],
  [
    'one key of two',
    [put(0, 1, 'a', 'x'), put(2, 3, 'b', 'y'), read(4, 5, 'b', 'y'), read(4, 5, '', 'x')],
  ],
];

t.test('histories that are linearizable pass', async (t) => {
  for (const [name, history] of GOOD) {
    t.equal(checkLinearizable(register, history).kind, 'linearizable', name);
    t.equal(checkLinearizable(register, [...history].reverse()).kind, 'linearizable', name);
  }
});

t.test('histories that are not are found out', async (t) => {
  for (const [name, history] of BAD) {
    t.equal(checkLinearizable(register, history).kind, 'violation', name);
    t.equal(checkLinearizable(register, [...history].reverse()).kind, 'violation', name);
  }
});

t.test('a violation names the operation that nothing explains', async (t) => {
  const stale = read(4, 5, 'a');
  const history = [put(0, 1, 'a'), put(2, 3, 'b'), stale, read(6, 7, 'b')];
  const verdict = checkLinearizable(register, history);
  t.match(verdict, { kind: 'violation', key: 'x', stuck: stale });
  t.equal(verdict.kind === 'violation' && verdict.order.length, 2);
});

t.test('a search that is too long is undecided, and says so', async (t) => {
  const many = Array.from({ length: 40 }, (_, i) => put(0, 9, `v${i}`));
  const verdict = checkLinearizable(register, [...many, read(10, 11, 'nobody')], 10_000);
  t.match(verdict, { kind: 'undecided', key: 'x', steps: 10_001 });
});

/** Clients on a register that really is one: each operation takes effect at an instant of its own. */
function realHistory(prng: Prng, count: number, clients: number, keys: number): Op[] {
  const pending: { atMs: number; op: { -readonly [K in keyof Op]: Op[K] } }[] = [];
  const freeMs = Array.from({ length: clients }, () => 0);
  for (let i = 0; i < count; i++) {
    const client = prng.nextBelow(clients);
    const callMs = (freeMs[client] as number) + prng.nextFloat() * 5;
    const atMs = callMs + prng.nextFloat() * 10;
    const returnMs = atMs + prng.nextFloat() * 10;
    freeMs[client] = returnMs + 0.001;
    const kinds: Input[] = [
      { kind: 'read' },
      { kind: 'put', value: `p${i}.` },
      { kind: 'append', value: `a${i}.` },
      { kind: 'cas', expected: `p${i - prng.nextBelow(20)}.`, value: `c${i}.` },
    ];
    const input = kinds[prng.nextBelow(4)] as Input;
    pending.push({
      atMs,
      op: { key: `k${prng.nextBelow(keys)}`, input, output: '', callMs, returnMs },
    });
  }
  const states = new Map<string, string>();
  for (const { op } of pending.sort((a, b) => a.atMs - b.atMs)) {
    const isUnknown = prng.chance(0.05);
    if (isUnknown) {
      op.output = undefined;
      op.returnMs = undefined;
      if (op.input.kind === 'read' || prng.chance(0.5)) continue;
    }
    const next = register.step(states.get(op.key) ?? '', op.input, undefined) as string;
    states.set(op.key, next);
    if (!isUnknown) op.output = next;
  }
  return pending.map(({ op }) => op);
}

t.test('whatever a real register does passes', async (t) => {
  for (let seed = 1; seed <= fuzzRuns(150); seed++) {
    const prng = new Prng(seed);
    const clients = 2 + prng.nextBelow(8);
    const history = realHistory(prng, 150, clients, 1 + prng.nextBelow(4));
    const verdict = checkLinearizable(register, history);
    if (verdict.kind !== 'linearizable') t.fail(`seed ${seed}: ${JSON.stringify(verdict)}`);
  }
  t.pass('checked');
});

t.test('one read of it that is made stale is always found out', async (t) => {
  for (let seed = 1; seed <= fuzzRuns(150); seed++) {
    const prng = new Prng(seed);
    const history = realHistory(prng, 120, 4, 1).filter(({ input }) => input.kind !== 'put');
    // Appends only grow, so what was there before the first known one can never be seen again.
    const appends = history.filter(
      ({ input, returnMs }) => input.kind === 'append' && returnMs !== undefined,
    );
    const grown = replay(history, prng);
    const [first] = appends.sort((a, b) => (a.returnMs as number) - (b.returnMs as number));
    const reads = grown.filter(
      ({ input, callMs, returnMs }) =>
        input.kind === 'read' &&
        returnMs !== undefined &&
        callMs > ((first as Op).returnMs as number),
    );
    const victim = reads[prng.nextBelow(reads.length)] as Op;
    const spoilt = grown.map((op) => (op === victim ? { ...op, output: '' } : op));
    if (checkLinearizable(register, grown).kind !== 'linearizable') t.fail(`seed ${seed}: before`);
    if (checkLinearizable(register, spoilt).kind !== 'violation') t.fail(`seed ${seed}: after`);
  }
  t.pass('checked');
});

t.test('many unknown operations do not drown the known ones', async (t) => {
  const lost = Array.from({ length: 30 }, (_, i) => append(i, undefined, `lost${i}.`));
  const known = [append(40, 41, 'a', 'lost7.a'), append(42, 43, 'b', 'lost7.alost3.b')];
  const verdict = checkLinearizable(register, [...lost, ...known, read(44, 45, 'lost7.alost3.b')]);
  t.equal(verdict.kind, 'linearizable');
  t.ok(verdict.kind === 'linearizable' && verdict.steps < 10_000, 'steps, not time');
});

/** The same calls and returns with the outputs of one order that respects them. */
function replay(history: readonly Op[], prng: Prng): Op[] {
  const order = history
    .filter(({ input, returnMs }) => returnMs !== undefined && input.kind !== 'cas')
    .map((op) => ({
      op,
      atMs: op.callMs + prng.nextFloat() * ((op.returnMs as number) - op.callMs),
    }))
    .sort((a, b) => a.atMs - b.atMs);
  let state = '';
  return order.map(({ op }) => {
    state = register.step(state, op.input, undefined) as string;
    return { ...op, output: state };
  });
}

t.test('thousands of operations on a hundred keys take well under a second', async (t) => {
  const history = realHistory(new Prng(7), 20_000, 20, 100);
  const verdict = checkLinearizable(register, history);
  t.equal(verdict.kind, 'linearizable');
  t.ok(verdict.kind === 'linearizable' && verdict.steps < 400_000, 'steps, not time');
});

const at = (
  name: string,
  callMs: number,
  returnMs: number | undefined,
  index: number,
  isRead = false,
): Witnessed => ({ name, callMs, returnMs, index, isRead });

t.test('an order of the log that is against that of the clients is found', async (t) => {
  const cases: readonly (readonly [string, readonly Witnessed[], RegExp | undefined])[] = [
    ['in order', [at('a', 0, 1, 1), at('b', 2, 3, 2), at('r', 4, 5, 2, true)], undefined],
    ['at once, either way', [at('a', 0, 9, 2), at('b', 1, 8, 1)], undefined],
    ['unknown ones order nobody', [at('a', 0, undefined, 5), at('b', 6, 7, 3)], undefined],
    ['a write before its past', [at('a', 0, 1, 2), at('b', 2, 3, 1)], /b is at 1/],
    ['an unknown write before its past', [at('a', 0, 1, 2), at('b', 2, undefined, 1)], /b is at 1/],
    ['a stale read', [at('a', 0, 1, 2), at('r', 2, 3, 1, true)], /r is at 1/],
    ['two at one index', [at('a', 0, 9, 1), at('b', 0, 9, 1)], /both at 1/],
    ['a write before what was read', [at('r', 0, 1, 3, true), at('b', 2, 3, 3)], /b is at 3/],
    ['reads go backwards', [at('r', 0, 1, 3, true), at('s', 2, 3, 2, true)], /s is at 2/],
  ];
  for (const [name, operations, want] of cases) {
    const found = checkIndexOrder(operations);
    if (want === undefined) t.equal(found, undefined, name);
    else t.match(found, want, name);
  }
});
