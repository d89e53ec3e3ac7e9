import type { Prng } from '../../../src/base/prng.js';
import type { RaftId } from '../../../src/control/raft/core/types.js';
import type { Operation, Witnessed } from '../../support/linearizability.js';
import type { Request } from './machine.js';
import type { Reply, SimNode } from './node.js';
import type { Scheduler } from './scheduler.js';

export interface ClientConfig {
  readonly count: number;
  readonly keys: number;
  readonly thinkMs: number;
  readonly timeoutMs: number;
  /** Share of reads. */
  readonly reads: number;
  /** Share of writes that are sent again under the same id when their outcome is not known. */
  readonly dedupes: number;
}

const CALM_THINK = 3;
const CALM_TIMEOUT = 30;

type History = {
  -readonly [K in keyof Operation<Request, string>]: Operation<Request, string>[K];
} & {
  readonly name: string;
  index: number | undefined;
};

export interface ClientWorld {
  readonly scheduler: Scheduler;
  nodesUp(): readonly SimNode[];
  node(id: RaftId): SimNode | undefined;
  clientDelayMs(): number;
  trace(text: () => string): void;
}

/** Clients that write and read, one operation at a time each, and keep the history of what they saw. */
export class Clients {
  readonly history: History[] = [];
  isStopped = false;
  /** They wait longer, and for longer: what is left of an overload passes. */
  isCalm = false;
  readonly #world: ClientWorld;
  readonly #prng: Prng;
  readonly #config: ClientConfig;
  #count = 0;
  /** Writes that each client has had acknowledged. */
  readonly acknowledged: number[] = [];

  constructor(world: ClientWorld, prng: Prng, config: ClientConfig) {
    this.#world = world;
    this.#prng = prng;
    this.#config = config;
    for (let client = 0; client < config.count; client++) {
      this.acknowledged.push(0);
      this.#think(client, 0);
    }
  }

  witnesses(): Witnessed[] {
    const known: Witnessed[] = [];
    for (const { name, callMs, returnMs, index, input } of this.history)
      if (index !== undefined && returnMs !== undefined)
        known.push({ name, callMs, returnMs, index, isRead: input.kind === 'read' });
    return known;
  }

  #think(client: number, leader: RaftId | 0): void {
    const thinkMs = this.#config.thinkMs * (this.isCalm ? CALM_THINK : 1);
    const forMs = this.#prng.nextFloat() * 2 * thinkMs;
    this.#world.scheduler.after(forMs, () => {
      if (!this.isStopped) this.#begin(client, leader);
    });
  }

  #begin(client: number, leader: RaftId | 0): void {
    const input = this.#request();
    const name = `c${client}.${++this.#count}`;
    const operation: History = {
      key: input.key,
      input,
      output: undefined,
      callMs: this.#world.scheduler.nowMs,
      returnMs: undefined,
      name,
      index: undefined,
    };
    const isRead = input.kind === 'read';
    // A read that was never answered has had no effect, and is not in the history.
    if (!isRead) this.history.push(operation);
    const dedupe = this.#prng.chance(this.#config.dedupes) ? name : '';
    this.#world.trace(() => `${name} ${describe(input)}`);
    this.#attempt(client, operation, dedupe, leader, false);
  }

  #request(): Request {
    const prng = this.#prng;
    const key = `k${prng.nextBelow(this.#config.keys)}`;
    if (!this.isCalm && prng.chance(this.#config.reads)) return { kind: 'read', key };
    const value = `v${this.#count + 1}`;
    const kind = prng.nextBelow(4);
    if (kind === 0) return { kind: 'put', key, value };
    if (kind < 3) return { kind: 'append', key, value };
    const seen = this.history.filter((done) => done.key === key && done.output !== undefined);
    const expected = seen[seen.length - 1 - prng.nextBelow(2)]?.output ?? '';
    return { kind: 'cas', key, expected, value };
  }

  /** @param isTainted Whether an earlier attempt may have been taken up. */
  #attempt(
    client: number,
    operation: History,
    dedupe: string,
    leader: RaftId | 0,
    isTainted: boolean,
  ): void {
    const { scheduler } = this.#world;
    const { input, name } = operation;
    const node = this.#choose(leader);
    let isOver = false;
    const once = (reply: Reply) => {
      if (isOver) return;
      isOver = true;
      this.#world.trace(
        () =>
          `${name} at ${node?.name ?? 'nobody'}: ${reply.kind} ${'value' in reply ? reply.value : 'why' in reply ? reply.why : ''}`,
      );
      this.#onReply(client, operation, dedupe, isTainted, reply);
    };
    const onReply = (reply: Reply) =>
      scheduler.after(this.#world.clientDelayMs(), () => once(reply));
    const timeoutMs = this.#config.timeoutMs * (this.isCalm ? CALM_TIMEOUT : 1);
    scheduler.after(timeoutMs, () => once({ kind: 'unknown' }));
    if (node === undefined) {
      onReply({ kind: 'refused', why: 'no_leader', leader: 0 });
      return;
    }
    scheduler.after(this.#world.clientDelayMs(), () => {
      if (isOver) return;
      if (input.kind === 'read') node.read(input.key, onReply);
      else node.write(input, dedupe, onReply);
    });
  }

  #choose(leader: RaftId | 0): SimNode | undefined {
    const known = leader === 0 ? undefined : this.#world.node(leader);
    if (known !== undefined && this.#prng.chance(0.8)) return known;
    const up = this.#world.nodesUp();
    return up[this.#prng.nextBelow(Math.max(up.length, 1))];
  }

  #onReply(
    client: number,
    operation: History,
    dedupe: string,
    isTainted: boolean,
    reply: Reply,
  ): void {
    if (reply.kind === 'ok') {
      this.#onDone(client, operation, reply.value, reply.index);
      return;
    }
    const isRead = operation.input.kind === 'read';
    const leader = reply.kind === 'refused' ? reply.leader : 0;
    const mayBeDone = isTainted || reply.kind === 'unknown';
    const isAgain = dedupe !== '' || isRead || !mayBeDone;
    if (this.isStopped || !isAgain || this.#prng.chance(0.1)) {
      if (!mayBeDone && !isRead) this.#forget(operation);
      // Unknown for good: a client that goes on is another one to the history.
      this.#think(client, leader);
      return;
    }
    this.#world.scheduler.after(this.#prng.nextFloat() * this.#config.thinkMs, () =>
      this.#attempt(client, operation, dedupe, leader, mayBeDone),
    );
  }

  #onDone(client: number, operation: History, value: string, index: number): void {
    operation.output = value;
    operation.returnMs = this.#world.scheduler.nowMs;
    operation.index = index;
    if (operation.input.kind === 'read') this.history.push(operation);
    else this.acknowledged[client] = (this.acknowledged[client] as number) + 1;
    this.#think(client, 0);
  }

  /** It was refused every time it was tried, so nothing of it is anywhere: if it is, that shows. */
  #forget(operation: History): void {
    const at = this.history.lastIndexOf(operation);
    this.history.splice(at, 1);
  }
}

function describe(input: Request): string {
  const value = input.kind === 'read' ? '' : ` ${input.value}`;
  return `${input.kind} ${input.key}${value}${input.kind === 'cas' ? ` if ${input.expected}` : ''}`;
}
