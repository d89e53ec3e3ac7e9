import { assert } from '../../../base/assert.js';
import type { RaftDrop } from './drops.js';
import { bytesOf } from './log.js';
import { Progress } from './progress.js';
import { quorumOf, reachedByQuorum } from './quorum.js';
import { type ReadAnswer, ReadRounds } from './read-index.js';
import type { Outbox, RaftState } from './state.js';
import type { FollowerStatus, LogEntry, LogIndex, RaftId, RaftMessage } from './types.js';

type Reply<Kind extends RaftMessage['kind']> = Extract<RaftMessage, { readonly kind: Kind }>;

/** What a leader has beside its state, from its election until it steps down, and nothing of it longer. */
export class Leadership {
  readonly rounds = new ReadRounds();
  readonly #state: RaftState;
  readonly #progress = new Map<RaftId, Progress>();
  readonly #needSnapshot = new Set<RaftId>();
  #heartbeatDeadlineMs: number;
  #quorumDeadlineMs: number;
  #quorumCheckedMs: number;
  #checkSkipped = false;
  /** To whom the leadership is being handed over; 0: to nobody. */
  #transferee: RaftId | 0 = 0;
  #transferDeadlineMs = Number.POSITIVE_INFINITY;
  #uncommittedBytes = 0;

  /** The no-op of the new leader is in the log already. */
  constructor(state: RaftState, nowMs: number) {
    this.#state = state;
    this.#heartbeatDeadlineMs = nowMs + state.config.heartbeatMs;
    this.#quorumDeadlineMs = nowMs + state.config.electionTimeoutMs;
    this.#quorumCheckedMs = nowMs;
    for (const entry of state.log.slice(state.commitIndex + 1, state.log.lastIndex))
      this.#uncommittedBytes += bytesOf(entry.data);
    this.membersChanged(nowMs);
  }

  get transferee(): RaftId | 0 {
    return this.#transferee;
  }

  get deadlineMs(): number | undefined {
    const ms = Math.min(
      this.#heartbeatDeadlineMs,
      this.#quorumDeadlineMs,
      this.#transferDeadlineMs,
    );
    return this.#progress.size === 0 ? undefined : ms;
  }

  follows(id: RaftId): boolean {
    return this.#progress.has(id);
  }

  followers(nowMs: number): FollowerStatus[] {
    const sinceMs = nowMs - this.#state.config.electionTimeoutMs;
    return [...this.#progress].map(([id, { matchIndex, mode, heardMs }]) => ({
      id,
      matchIndex,
      mode,
      active: heardMs >= sinceMs,
    }));
  }

  /** Followers come and go with the membership in effect. */
  membersChanged(nowMs: number): void {
    const { members, log, config } = this.#state;
    for (const { id } of members.current) {
      if (id === config.id || this.#progress.has(id)) continue;
      // The last entry is what came with the new follower: the first no-op, or the membership.
      this.#progress.set(id, new Progress(config, log.lastIndex, nowMs));
    }
    for (const id of this.#progress.keys())
      if (members.find(id) === undefined) this.#progress.delete(id);
    if (this.#transferee !== 0 && !members.isVoter(this.#transferee)) this.endTransfer();
  }

  // Uncommitted bytes

  /** One entry passes whatever its size, or it never would. */
  mayAdd(bytes: number): boolean {
    const sum = this.#uncommittedBytes + bytes;
    return this.#uncommittedBytes === 0 || sum <= this.#state.config.uncommittedBytesMax;
  }

  added(entry: LogEntry): void {
    this.#uncommittedBytes += bytesOf(entry.data);
  }

  committed(entries: readonly LogEntry[]): void {
    for (const entry of entries) this.#uncommittedBytes -= bytesOf(entry.data);
    assert(this.#uncommittedBytes >= 0, 'what is committed was counted');
  }

  // What followers have

  /** What a quorum has on disk; this member counts itself only as far as its own disk is (thesis, 10.2.1). */
  quorumIndex(): LogIndex {
    const { config, members, writes } = this.#state;
    return reachedByQuorum(members.voters, (voter) =>
      voter === config.id ? writes.stableIndex : this.#of(voter).matchIndex,
    );
  }

  onAppendReply(reply: Reply<'append_reply'>, out: Outbox, nowMs: number): RaftDrop | undefined {
    const progress = this.#heard(reply.from, nowMs);
    if (!reply.accepted) this.#onRefusal(progress, reply);
    else if (reply.index > this.#state.log.lastIndex) return 'beyond_log';
    else this.#onMatch(progress, reply, out);
    return undefined;
  }

  #onRefusal(progress: Progress, { index, hintIndex, hintTerm }: Reply<'append_reply'>): void {
    const hint = { index: hintIndex, term: hintTerm };
    const candidate = hintTerm === 0 ? hintIndex : this.#state.log.lastCandidate(hint).index;
    progress.refused(index, candidate);
  }

  #onMatch(progress: Progress, { from, index }: Reply<'append_reply'>, out: Outbox): void {
    const { log } = this.#state;
    progress.matched(index);
    const isCurrent = index === progress.matchIndex;
    // What a follower needs after its snapshot is in the log again, if it got there by whatever way.
    const isBack = progress.mode === 'snapshot' && index >= log.base.index;
    if ((progress.mode === 'probe' && isCurrent) || isBack) progress.replicate();
    if (from === this.#transferee && index === log.lastIndex)
      out.send(from, { kind: 'timeout_now' });
  }

  onHeartbeatReply(reply: Reply<'heartbeat_reply'>, nowMs: number): RaftDrop | undefined {
    const progress = this.#heard(reply.from, nowMs);
    if (reply.readRound > this.rounds.round) return 'beyond_log';
    progress.readRound = Math.max(progress.readRound, reply.readRound);
    progress.heartbeatAnswered(this.#state.log.lastIndex);
    return undefined;
  }

  onReadIndex({ from, request }: Reply<'read_index'>): RaftDrop | undefined {
    return this.rounds.ask({ from, request }) ? undefined : 'reads_overflow';
  }

  onUnreachable(id: RaftId): void {
    const progress = this.#progress.get(id);
    if (progress?.mode === 'replicate') progress.probe();
  }

  onSnapshotSent(to: RaftId, ok: boolean): void {
    this.#progress.get(to)?.snapshotSent(ok);
  }

  // Reads

  /** Reads that a quorum's answers have confirmed by now. */
  confirmedReads(): readonly ReadAnswer[] {
    if (!this.rounds.isOpen) return [];
    const { config, members } = this.#state;
    const round = reachedByQuorum(members.voters, (voter) =>
      voter === config.id ? this.rounds.round : this.#of(voter).readRound,
    );
    return this.rounds.confirm(round);
  }

  // Handing over

  /** @returns Whether `to` can take over. */
  transfer(to: RaftId, out: Outbox, nowMs: number): boolean {
    const { members, log, config } = this.#state;
    const progress = this.#progress.get(to);
    if (progress === undefined || !members.isVoter(to) || to === this.#transferee) return false;
    this.#transferee = to;
    this.#transferDeadlineMs = nowMs + config.electionTimeoutMs;
    if (progress.matchIndex === log.lastIndex) out.send(to, { kind: 'timeout_now' });
    return true;
  }

  endTransfer(): void {
    this.#transferee = 0;
    this.#transferDeadlineMs = Number.POSITIVE_INFINITY;
  }

  /** The voter that is there and has the most of the log; 0: there is none. */
  bestFollower(nowMs: number): RaftId | 0 {
    const able = this.followers(nowMs).filter(
      ({ id, active }) => active && this.#state.members.isVoter(id),
    );
    const best = Math.max(...able.map(({ matchIndex }) => matchIndex));
    return able.find(({ matchIndex }) => matchIndex === best)?.id ?? 0;
  }

  /** The last words of a leader that has removed itself: what is committed, and who goes on. */
  bequeath(out: Outbox, nowMs: number): void {
    this.flush(out, false, nowMs);
    const heir = this.bestFollower(nowMs);
    if (heir !== 0) out.send(heir, { kind: 'timeout_now' });
  }

  // Time

  /** @returns False if a quorum has not been heard of for an election timeout. */
  onTimeout(out: Outbox, nowMs: number): boolean {
    if (nowMs >= this.#transferDeadlineMs) this.endTransfer();
    if (nowMs >= this.#heartbeatDeadlineMs) this.#heartbeat(out, nowMs);
    return nowMs < this.#quorumDeadlineMs || this.#checkQuorum(nowMs);
  }

  #checkQuorum(nowMs: number): boolean {
    const { config, members } = this.#state;
    const sinceMs = this.#quorumCheckedMs;
    const heard = members.voters.filter(
      (voter) => voter === config.id || this.#of(voter).heardMs > sinceMs,
    );
    // A check that comes late tells that this process stood still, and answers may be waiting to be read.
    const late = nowMs > this.#quorumDeadlineMs + config.heartbeatMs && !this.#checkSkipped;
    this.#checkSkipped = late;
    this.#quorumCheckedMs = nowMs;
    this.#quorumDeadlineMs = nowMs + config.electionTimeoutMs;
    return late || heard.length >= quorumOf(members.voters.length);
  }

  #heartbeat(out: Outbox, nowMs: number): void {
    const { commitIndex, config } = this.#state;
    this.#heartbeatDeadlineMs = nowMs + config.heartbeatMs;
    for (const [to, { matchIndex }] of this.#progress)
      out.send(to, {
        kind: 'heartbeat',
        commitIndex: Math.min(matchIndex, commitIndex),
        readRound: this.rounds.round,
      });
  }

  // Sending, once for all that was stepped since the last time

  flush(out: Outbox, ready: boolean, nowMs: number): void {
    if (ready && this.rounds.begin(this.#state.commitIndex)) this.#heartbeat(out, nowMs);
    for (const [to, progress] of this.#progress) this.#flushTo(to, progress, out);
  }

  /** Followers that need a snapshot, each named once. */
  takeSnapshots(): readonly RaftId[] {
    if (this.#needSnapshot.size === 0) return [];
    const ids = [...this.#needSnapshot];
    this.#needSnapshot.clear();
    return ids;
  }

  #flushTo(to: RaftId, progress: Progress, out: Outbox): void {
    const { log, commitIndex } = this.#state;
    while (!progress.paused && progress.nextIndex <= log.lastIndex) this.#append(to, progress, out);
    const news = progress.mode === 'replicate' && progress.commitSent < commitIndex;
    if (progress.nudge || (news && !progress.paused)) this.#append(to, progress, out);
  }

  #append(to: RaftId, progress: Progress, out: Outbox): void {
    const { log, commitIndex, config } = this.#state;
    const prevIndex = progress.nextIndex - 1;
    const prevTerm = log.termAt(prevIndex);
    if (prevTerm === undefined) {
      progress.snapshot(log.base.index);
      this.#needSnapshot.add(to);
      return;
    }
    const entries = progress.paused ? [] : log.batch(progress.nextIndex, config.appendBytesMax);
    out.send(to, { kind: 'append', prevIndex, prevTerm, entries, commitIndex });
    progress.nudge = false;
    progress.commitSent = commitIndex;
    progress.sent(
      prevIndex + entries.length,
      entries.reduce((sum, e) => sum + bytesOf(e.data), 0),
    );
  }

  #heard(from: RaftId, nowMs: number): Progress {
    const progress = this.#of(from);
    progress.heardMs = nowMs;
    return progress;
  }

  #of(id: RaftId): Progress {
    const progress = this.#progress.get(id);
    assert(progress !== undefined, 'every other member is followed');
    return progress;
  }
}
