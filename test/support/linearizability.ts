/**
 * Is a history of operations linearizable? The search of Wing and Gong with Lowe's memory of
 * (linearized operations, state) that were tried already, as porcupine has it: each key on its own,
 * and operations whose outcome nobody knows.
 */

/** `returnMs` undefined: it may have taken effect at any time since its call, or never. */
export interface Operation<Input, Output> {
  readonly key: string;
  readonly input: Input;
  readonly output: Output | undefined;
  readonly callMs: number;
  readonly returnMs: number | undefined;
}

/** What one key should do, one operation at a time. States are compared as strings. */
export interface Model<Input, Output> {
  readonly initial: string;
  /** The next state, or undefined if that output was impossible; an unknown output is undefined. */
  step(state: string, input: Input, output: Output | undefined): string | undefined;
}

export type Verdict<Input, Output> =
  | { readonly kind: 'linearizable'; readonly steps: number }
  /** `stuck`: the first operation that no order explains; `order`: the longest order found. */
  | {
      readonly kind: 'violation';
      readonly key: string;
      readonly stuck: Operation<Input, Output>;
      readonly order: readonly Operation<Input, Output>[];
      readonly steps: number;
    }
  /** The search was given up: nothing is known. */
  | { readonly kind: 'undecided'; readonly key: string; readonly steps: number };

const STEPS_MAX = 2_000_000;

/** @param stepsMax Of the whole history; beyond it the verdict is `undecided`. */
export function checkLinearizable<Input, Output>(
  model: Model<Input, Output>,
  history: readonly Operation<Input, Output>[],
  stepsMax: number = STEPS_MAX,
): Verdict<Input, Output> {
  const byKey = new Map<string, Operation<Input, Output>[]>();
  for (const operation of history) {
    const of = byKey.get(operation.key);
    if (of === undefined) byKey.set(operation.key, [operation]);
    else of.push(operation);
  }
  let steps = 0;
  for (const operations of byKey.values()) {
    const verdict = checkKey(model, operations, stepsMax - steps);
    if (verdict.kind !== 'linearizable') return verdict;
    steps += verdict.steps;
  }
  return { kind: 'linearizable', steps };
}

/** An order with few unknown operations in a row is soon found, if there is one; so those come first. */
const UNKNOWN_IN_A_ROW = [1, 2, 4] as const;
const FIRST_STEPS_MAX = 50_000;

function checkKey<Input, Output>(
  model: Model<Input, Output>,
  operations: readonly Operation<Input, Output>[],
  stepsMax: number,
): Verdict<Input, Output> {
  const unknown = operations.filter(({ returnMs }) => returnMs === undefined).length;
  let steps = 0;
  for (const inARow of UNKNOWN_IN_A_ROW) {
    if (inARow >= unknown) break;
    const most = Math.min(FIRST_STEPS_MAX, stepsMax - steps);
    const verdict = new Search(model, operations, most, inARow).run();
    steps += verdict.steps;
    if (verdict.kind === 'linearizable') return { ...verdict, steps };
  }
  const verdict = new Search(model, operations, stepsMax - steps, undefined).run();
  return { ...verdict, steps: steps + verdict.steps };
}

/** A call or a return, in a doubly linked list in order of time. */
interface Mark<Input, Output> {
  readonly operation: Operation<Input, Output>;
  /** Place in the set of linearized operations. */
  readonly bit: number;
  readonly isCall: boolean;
  /** Of a call: its return, if there was one. */
  end: Mark<Input, Output> | undefined;
  previous: Mark<Input, Output>;
  next: Mark<Input, Output> | undefined;
}

class Search<Input, Output> {
  readonly #model: Model<Input, Output>;
  readonly #stepsMax: number;
  /** Undefined: any number, and all operations are tried in the order of their calls. */
  readonly #inARowMax: number | undefined;
  readonly #head: Mark<Input, Output>;
  readonly #linearized: BitSet;
  readonly #tried = new Set<string>();
  readonly #stack: {
    readonly call: Mark<Input, Output>;
    readonly state: string;
    /** Unknown operations since the last known one, without this. */
    readonly inARow: number;
  }[] = [];
  #open = 0;
  #best: readonly Operation<Input, Output>[] = [];
  #stuck: Operation<Input, Output> | undefined;

  constructor(
    model: Model<Input, Output>,
    operations: readonly Operation<Input, Output>[],
    stepsMax: number,
    inARowMax: number | undefined,
  ) {
    this.#model = model;
    this.#stepsMax = stepsMax;
    this.#inARowMax = inARowMax;
    this.#linearized = new BitSet(operations.length);
    this.#head = this.#link(operations);
  }

  /** With a limit, the known operations that may come next are tried before the unknown ones. */
  run(): Verdict<Input, Output> {
    let { initial: state } = this.#model;
    const max = this.#inARowMax;
    let inARow = 0;
    let isUnknownTurn = false;
    let mark = this.#head.next;
    let steps = 0;
    while (this.#open > 0) {
      if (mark === undefined) throw new Error('an operation with a return is never passed');
      const { key } = mark.operation;
      if (++steps > this.#stepsMax) return { kind: 'undecided', key, steps };
      if (mark.isCall) {
        const isUnknown = mark.end === undefined;
        const isTurn =
          max === undefined || (isUnknown === isUnknownTurn && !(isUnknown && inARow >= max));
        const next = isTurn ? this.#try(mark, state, inARow) : undefined;
        if (next === undefined) mark = mark.next;
        else {
          state = next;
          inARow = isUnknown && max !== undefined ? inARow + 1 : 0;
          isUnknownTurn = false;
          mark = this.#head.next;
        }
        continue;
      }
      if (max !== undefined && !isUnknownTurn) {
        isUnknownTurn = true;
        mark = this.#head.next;
        continue;
      }
      this.#remember(mark.operation);
      const last = this.#stack.pop();
      if (last === undefined) {
        const stuck = this.#stuck ?? mark.operation;
        return { kind: 'violation', key, stuck, order: this.#best, steps };
      }
      ({ state, inARow } = last);
      isUnknownTurn = last.call.end === undefined;
      this.#putBack(last.call);
      mark = last.call.next;
    }
    return { kind: 'linearizable', steps };
  }

  /** Known operations in order of call, then unknown ones, so that the early bits fill up. */
  #link(operations: readonly Operation<Input, Output>[]): Mark<Input, Output> {
    const ordered = [...operations].sort(
      (a, b) =>
        Number(a.returnMs === undefined) - Number(b.returnMs === undefined) || a.callMs - b.callMs,
    );
    const marks: { atMs: number; mark: Mark<Input, Output> }[] = [];
    for (const [bit, operation] of ordered.entries()) {
      const call = { operation, bit, isCall: true } as Mark<Input, Output>;
      marks.push({ atMs: operation.callMs, mark: call });
      if (operation.returnMs === undefined) continue;
      this.#open += 1;
      call.end = { operation, bit, isCall: false } as Mark<Input, Output>;
      marks.push({ atMs: operation.returnMs, mark: call.end });
    }
    // At equal times calls come first: those operations overlap.
    marks.sort((a, b) => a.atMs - b.atMs || Number(b.mark.isCall) - Number(a.mark.isCall));
    const head = { isCall: true, bit: -1 } as Mark<Input, Output>;
    let last = head;
    for (const { mark } of marks) {
      mark.previous = last;
      last.next = mark;
      last = mark;
    }
    return head;
  }

  /** Linearizes the operation here, if it can be and that was not tried before. */
  #try(call: Mark<Input, Output>, state: string, inARow: number): string | undefined {
    const { input, output } = call.operation;
    const next = this.#model.step(state, input, output);
    if (next === undefined) return undefined;
    this.#linearized.add(call.bit);
    const run = call.end === undefined && this.#inARowMax !== undefined ? inARow + 1 : 0;
    const key = `${this.#linearized.key()}|${run}|${next}`;
    if (this.#tried.has(key)) {
      this.#linearized.delete(call.bit);
      return undefined;
    }
    this.#tried.add(key);
    this.#stack.push({ call, state, inARow });
    unlink(call);
    if (call.end !== undefined) {
      unlink(call.end);
      this.#open -= 1;
    }
    return next;
  }

  #putBack(call: Mark<Input, Output>): void {
    this.#linearized.delete(call.bit);
    if (call.end !== undefined) {
      relink(call.end);
      this.#open += 1;
    }
    relink(call);
  }

  #remember(stuck: Operation<Input, Output>): void {
    if (this.#stuck !== undefined && this.#stack.length <= this.#best.length) return;
    this.#stuck = stuck;
    this.#best = this.#stack.map(({ call }) => call.operation);
  }
}

function unlink<Input, Output>(mark: Mark<Input, Output>): void {
  mark.previous.next = mark.next;
  if (mark.next !== undefined) mark.next.previous = mark.previous;
}

function relink<Input, Output>(mark: Mark<Input, Output>): void {
  mark.previous.next = mark;
  if (mark.next !== undefined) mark.next.previous = mark;
}

class BitSet {
  readonly #words: Uint32Array;

  constructor(size: number) {
    this.#words = new Uint32Array(Math.ceil(size / 32));
  }

  add(bit: number): void {
    this.#words[bit >> 5] = (this.#words[bit >> 5] as number) | (1 << (bit & 31));
  }

  delete(bit: number): void {
    this.#words[bit >> 5] = (this.#words[bit >> 5] as number) & ~(1 << (bit & 31));
  }

  /** Short, since most words are full (the past) or empty (the future). */
  key(): string {
    const words = this.#words;
    let full = 0;
    while (full < words.length && words[full] === 0xffffffff) full += 1;
    let key = `${full}`;
    for (let i = full; i < words.length; i++)
      if (words[i] !== 0) key += `,${i - full}:${(words[i] as number).toString(36)}`;
    return key;
  }
}

/** An operation whose place in the log is known. */
export interface Witnessed {
  readonly name: string;
  readonly callMs: number;
  readonly returnMs: number | undefined;
  /** Of a read: the index of the last entry whose effect it may have seen. */
  readonly index: number;
  readonly isRead: boolean;
}

/**
 * The order of the log is a witness, if no operation stands before one that had returned when it was
 * called. In O(n log n), where the search may be exponential; that each output is what the log gives at
 * its index is for the caller to see. Returns what is wrong.
 */
export function checkIndexOrder(operations: readonly Witnessed[]): string | undefined {
  const calls = [...operations].sort((a, b) => a.callMs - b.callMs);
  const returns = operations
    .filter(({ returnMs }) => returnMs !== undefined)
    .sort((a, b) => (a.returnMs as number) - (b.returnMs as number));
  const writers = new Map<number, string>();
  let latest: Witnessed | undefined;
  let returned = 0;
  for (const operation of calls) {
    while (returned < returns.length) {
      const earlier = returns[returned] as Witnessed;
      if ((earlier.returnMs as number) >= operation.callMs) break;
      if (latest === undefined || earlier.index > latest.index) latest = earlier;
      returned += 1;
    }
    const { name, index, isRead } = operation;
    if (!isRead) {
      const other = writers.get(index);
      if (other !== undefined) return `${name} and ${other} are both at ${index}`;
      writers.set(index, name);
    }
    if (latest === undefined) continue;
    if (isRead ? index < latest.index : index <= latest.index)
      return `${name} is at ${index}, though ${latest.name} at ${latest.index} had returned before`;
  }
  return undefined;
}
