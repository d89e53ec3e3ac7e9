import { raftConfig } from '../../../../src/control/raft/core/config.js';
import { Raft } from '../../../../src/control/raft/core/raft.js';
import type {
  HardState,
  LogEntry,
  RaftConfig,
  RaftInput,
  RaftMessage,
  RaftReady,
} from '../../../../src/control/raft/core/types.js';
import type { MessageBody } from '../../../../src/control/raft/wire/records.js';
import { membersOf, raftId } from '../group.js';

/** Entries from index 1 on, with these terms. */
export const logOf = (...terms: readonly number[]): LogEntry[] =>
  terms.map((term, i) => ({
    index: i + 1,
    term,
    kind: 'command',
    data: Buffer.from(`${i + 1}@${term}`),
  }));

export interface SingleOptions {
  readonly entries?: readonly LogEntry[];
  readonly hardState?: Partial<HardState>;
  readonly config?: Partial<RaftConfig>;
}

/** Member 1 of a group, with the test in the place of all others and of the disk. */
export class Single {
  readonly raft: Raft;
  nowMs = 0;
  /** What left, in order, whether it had to wait for the disk or not. */
  sent: RaftMessage[] = [];
  /** What waits for the disk. */
  waiting: RaftMessage[] = [];
  #persistId = 0;
  last: RaftReady | undefined;

  constructor(voters: readonly number[], options: SingleOptions = {}) {
    const { entries = [], hardState, config } = options;
    const term = entries.at(-1)?.term ?? 0;
    this.raft = new Raft(
      raftConfig({ seed: 7, ...config, id: raftId(1) }),
      {
        hardState: { term, vote: 0, commitIndex: 0, ...hardState },
        snapshot: { index: 0, term: 0, members: membersOf(voters) },
        entries,
      },
      this.nowMs,
    );
    this.take();
  }

  get status() {
    return this.raft.status();
  }

  get terms(): (number | undefined)[] {
    return Array.from({ length: this.raft.lastIndex }, (_, i) => this.raft.termAt(i + 1));
  }

  step(input: RaftInput): void {
    this.raft.step(input, this.nowMs);
    this.take();
  }

  hear(from: number, term: number, body: MessageBody): void {
    const message = { from: raftId(from), to: raftId(1), term, ...body } as RaftMessage;
    this.step({ kind: 'message', message });
  }

  take(): RaftReady {
    const ready = this.raft.takeReady();
    this.sent.push(...ready.messages);
    if (ready.persist !== undefined) {
      this.#persistId = ready.persist.persistId;
      this.waiting.push(...ready.persist.messages);
    }
    this.last = ready;
    return ready;
  }

  /** All that was handed over is on disk. */
  flush(): void {
    if (this.#persistId === 0) return;
    this.raft.step({ kind: 'persisted', persistId: this.#persistId }, this.nowMs);
    this.sent.push(...this.waiting);
    this.waiting = [];
    this.take();
  }

  /** Passes time up to the next deadline, and wakes it. */
  wake(): void {
    this.nowMs = Math.max(this.nowMs, this.raft.nextDeadlineMs() ?? this.nowMs);
    this.step({ kind: 'timeout' });
  }

  /** What left since the last look, without the envelope. */
  takeSent(): { readonly to: number; readonly term: number; readonly body: MessageBody }[] {
    const sent = this.sent.map(({ from: _from, to, term, ...body }) => ({ to, term, body }));
    this.sent = [];
    return sent as { to: number; term: number; body: MessageBody }[];
  }

  /** Elected by the answers of `voters`, with its first entry on disk. */
  lead(...voters: readonly number[]): void {
    this.step({ kind: 'campaign' });
    const term = this.status.term + 1;
    for (const voter of voters) this.hear(voter, term, { kind: 'pre_vote_reply', granted: true });
    this.flush();
    for (const voter of voters) this.hear(voter, term, { kind: 'vote_reply', granted: true });
    this.flush();
  }

  accept(from: number, index: number, term = this.status.term): void {
    const none = { hintIndex: 0, hintTerm: 0 };
    this.hear(from, term, { kind: 'append_reply', index, accepted: true, ...none });
  }

  propose(text: string): void {
    this.step({ kind: 'propose', token: 0, data: Buffer.from(text) });
  }
}

export function append(
  prev: readonly [index: number, term: number],
  entries: readonly LogEntry[] = [],
  commitIndex = 0,
): MessageBody {
  return { kind: 'append', prevIndex: prev[0], prevTerm: prev[1], entries, commitIndex };
}

export const heartbeat = (commitIndex = 0, readRound = 0): MessageBody => ({
  kind: 'heartbeat',
  commitIndex,
  readRound,
});

export const ask = (
  kind: 'vote' | 'pre_vote',
  lastIndex: number,
  lastTerm: number,
  transfer = false,
): MessageBody => ({ kind, lastIndex, lastTerm, transfer });
