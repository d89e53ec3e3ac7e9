import type { Core } from '../../../base/core.js';
import { nowMs } from '../../../base/io/driver.js';
import type { RaftInput, RaftMessage, RaftPersist, RaftReady } from '../core/types.js';

/** The parts of a `Ready`, each to be done at once or to be queued, in the order in which they are called. */
export interface RaftEffects {
  /** Before the inputs of a turn are stepped: the last chance to add one. */
  begin(): void;
  /**
   * What the core decided. First, so that a new member can be sent to, and so that whoever proposed is known
   * to have been taken up before anything leaves.
   */
  note(ready: RaftReady): void;
  /** Queues; they may leave. */
  send(messages: readonly RaftMessage[]): void;
  /** Sends what is queued. */
  flush(): void;
  persist(persist: RaftPersist): void;
  /** Everything else: what is to be applied and answered, and who needs a snapshot. */
  perform(ready: RaftReady): void;
  /** A bug, or a state machine that threw: nothing runs any more. */
  failed(error: unknown): void;
}

/**
 * Runs the core on the real clock, once for each turn of the event loop in which something has happened: all
 * inputs of a turn are stepped, then the outcome is performed once. So those who propose in one turn share a
 * frame to each peer and a write to the disk; one who is alone does not wait, since the turn ends when there is
 * nothing else to do.
 */
export class RaftLoop {
  readonly #core: Core<RaftInput, RaftReady>;
  readonly #effects: RaftEffects;
  #inputs: RaftInput[] = [];
  #durable: RaftPersist[] = [];
  #scheduled = false;
  #running = false;
  #stopped = false;
  /** What was queued leaves after this turn. */
  #lingering = false;
  #timer: NodeJS.Timeout | undefined;
  #timerMs = Number.POSITIVE_INFINITY;

  constructor(core: Core<RaftInput, RaftReady>, effects: RaftEffects) {
    this.#core = core;
    this.#effects = effects;
  }

  /** Is stepped in this turn. */
  input(input: RaftInput): void {
    this.#inputs.push(input);
    this.wake();
  }

  /** Is on disk, with everything before it. */
  durable(persist: RaftPersist): void {
    this.#durable.push(persist);
    this.wake();
  }

  /** There will be a turn. */
  wake(): void {
    if (this.#scheduled || this.#running || this.#stopped) return;
    this.#scheduled = true;
    // After this turn's reads from sockets and files, so that a late timer does not overtake what waits there.
    setImmediate(() => this.#turn());
  }

  /** No step and no effect happens after this. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#inputs = [];
    this.#durable = [];
  }

  #turn(): void {
    this.#scheduled = false;
    if (this.#stopped) return;
    this.#running = true;
    try {
      do this.#stepAll();
      while (!this.#stopped && this.#inputs.length + this.#durable.length > 0);
      this.#running = false;
      if (this.#stopped) return;
      this.#arm();
      if (this.#lingering) setImmediate(() => this.#flushLingering());
    } catch (error) {
      this.stop();
      this.#effects.failed(error);
    }
  }

  #stepAll(): void {
    const now = nowMs();
    const durable = this.#durable;
    this.#durable = [];
    const last = durable.at(-1);
    if (last !== undefined) this.#core.step({ kind: 'persisted', persistId: last.persistId }, now);
    for (const { messages } of durable) this.#effects.send(messages);
    this.#effects.begin();
    const inputs = this.#inputs;
    this.#inputs = [];
    for (const input of inputs) this.#core.step(input, now);
    if ((this.#core.nextDeadlineMs() ?? Number.POSITIVE_INFINITY) <= now)
      this.#core.step({ kind: 'timeout' }, now);
    const ready = this.#core.takeReady();
    this.#effects.note(ready);
    this.#effects.send(ready.messages);
    this.#flush(ready.messages, durable);
    if (ready.persist !== undefined) this.#effects.persist(ready.persist);
    this.#effects.perform(ready);
  }

  /** News of what is committed leave after the answers to those who wait for it. */
  #flush(messages: readonly RaftMessage[], durable: readonly RaftPersist[]): void {
    const urgent =
      durable.some((persist) => persist.messages.length > 0) || !messages.every(isNews);
    if (urgent) {
      this.#lingering = false;
      this.#effects.flush();
    } else if (messages.length > 0) this.#lingering = true;
  }

  #flushLingering(): void {
    if (!this.#lingering || this.#stopped) return;
    this.#lingering = false;
    this.#effects.flush();
  }

  /** A timer that is too early is left alone: deadlines mostly move away before they come. */
  #arm(): void {
    const deadlineMs = this.#core.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (deadlineMs >= this.#timerMs || deadlineMs === Number.POSITIVE_INFINITY) return;
    clearTimeout(this.#timer);
    this.#timerMs = deadlineMs;
    this.#timer = setTimeout(
      () => {
        this.#timerMs = Number.POSITIVE_INFINITY;
        this.wake();
      },
      Math.max(0, Math.ceil(deadlineMs - nowMs())),
    );
  }
}

/** Nobody waits for it to commit anything. */
function isNews(message: RaftMessage): boolean {
  return message.kind === 'append' && message.entries.length === 0;
}
