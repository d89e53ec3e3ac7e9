import { assert, unreachable } from '../../../base/assert.js';
import type { Core } from '../../../base/core.js';
import { Prng } from '../../../base/prng.js';
import { encodeMembers } from '../wire/members.js';
import { validate } from './config.js';
import type { RaftDropCounts } from './drops.js';
import { Inbox } from './inbox.js';
import type { Leadership } from './leadership.js';
import { bytesOf, RaftLog } from './log.js';
import { changed, MembershipHistory, membershipsIn } from './membership.js';
import { Roles } from './roles.js';
import type { RaftState } from './state.js';
import type {
  FollowerStatus,
  HardState,
  LogIndex,
  MemberChange,
  Membership,
  ProposalOutcome,
  ProposalRefusal,
  RaftConfig,
  RaftId,
  RaftInput,
  RaftReady,
  RaftRestart,
  RaftStatus,
  SnapshotMeta,
  Term,
} from './types.js';
import { WriteAhead } from './write-ahead.js';

/**
 * One member of a raft group: Ongaro and Ousterhout's algorithm with what Ongaro's thesis adds (pre-vote,
 * leadership transfer, single-step membership changes, read index, a leader that writes its disk while its
 * followers do).
 *
 * Appends are not sent where they become possible but when `takeReady` is called, so whatever was stepped since
 * the last time travels together.
 */
export class Raft implements Core<RaftInput, RaftReady> {
  readonly #state: RaftState;
  readonly #roles: Roles;
  readonly #inbox: Inbox;
  /** What was handed over to be applied, and what was reported applied. */
  #deliveredIndex: LogIndex;
  #appliedIndex: LogIndex;

  // Collected for the next Ready, beside what `#roles` collects.
  #restore: SnapshotMeta | undefined;
  #proposals: ProposalOutcome[] = [];

  /**
   * The only voter of a group stands at its first deadline, which is at once.
   * @throws AssertionFailed for a configuration or a restart that makes no sense.
   */
  constructor(config: RaftConfig, restart: RaftRestart, nowMs: number) {
    validate(config);
    this.#state = stateOf(config, restart);
    this.#roles = new Roles(this.#state, new Prng(config.seed), nowMs);
    this.#inbox = new Inbox(this.#roles, (meta) => this.#onRestore(meta));
    this.#deliveredIndex = restart.snapshot.index;
    this.#appliedIndex = restart.snapshot.index;
  }

  /** Messages that went nowhere, by reason. */
  get drops(): Readonly<RaftDropCounts> {
    return this.#roles.drops;
  }

  get lastIndex(): LogIndex {
    return this.#state.log.lastIndex;
  }

  /** `undefined`: compacted, or not there yet. */
  termAt(index: LogIndex): Term | undefined {
    return this.#state.log.termAt(index);
  }

  status(): RaftStatus {
    const { config, term, leader, commitIndex, members, readOnly } = this.#state;
    const { role, leaderReady } = this.#roles;
    const { id } = config;
    return { id, role, term, leader, commitIndex, members: members.current, leaderReady, readOnly };
  }

  /** Empty unless this is the leader. */
  followers(): readonly FollowerStatus[] {
    return this.#roles.leadership?.followers(this.#roles.nowMs) ?? [];
  }

  nextDeadlineMs(): number | undefined {
    const { leadership, election, questions } = this.#roles;
    if (leadership !== undefined) return leadership.deadlineMs;
    return Math.min(election.deadlineMs, questions.deadlineMs ?? Number.POSITIVE_INFINITY);
  }

  step(input: RaftInput, nowMs: number): void {
    assert(nowMs >= this.#roles.nowMs, 'time never goes back');
    this.#roles.nowMs = nowMs;
    switch (input.kind) {
      case 'timeout':
        this.#onTimeout();
        break;
      case 'message':
        this.#inbox.receive(input.message);
        break;
      case 'propose':
        this.#onPropose(input.token, input.data);
        break;
      case 'propose_members':
        this.#onProposeMembers(input.token, input.change);
        break;
      case 'persisted':
        this.#onPersisted(input.persistId);
        break;
      case 'applied':
        this.#onApplied(input.index);
        break;
      case 'compact':
        this.#onCompact(input.meta, input.keepEntries);
        break;
      case 'read':
        this.#onRead(input.request);
        break;
      case 'transfer':
        this.#handOver(input.to);
        break;
      case 'peer_gone':
        this.#onPeerGone(input.peer);
        break;
      case 'peer_unreachable':
        this.#roles.leadership?.onUnreachable(input.peer);
        break;
      case 'snapshot_sent':
        this.#roles.leadership?.onSnapshotSent(input.to, input.ok);
        break;
      case 'read_only':
        this.#onReadOnly(input.on);
        break;
      case 'campaign':
        if (this.#roles.mayStand) this.#roles.askAround();
        break;
      default:
        unreachable(input);
    }
  }

  takeReady(): RaftReady {
    const { log, writes, commitIndex } = this.#state;
    const roles = this.#roles;
    this.#flush();
    const write = writes.take(log, this.#hardState);
    const persist = 'atOnce' in write ? undefined : write;
    if ('atOnce' in write) for (const message of write.atOnce) roles.messages.push(message);

    const deliverTo = Math.min(commitIndex, writes.stableIndex);
    const committed = log.slice(this.#deliveredIndex + 1, deliverTo);
    this.#deliveredIndex = Math.max(this.#deliveredIndex, deliverTo);
    const ready: RaftReady = {
      messages: roles.messages,
      persist,
      restore: this.#restore,
      committed,
      proposals: this.#proposals,
      reads: roles.reads,
      snapshots: roles.leadership?.takeSnapshots() ?? [],
      status: roles.statusChanged ? this.status() : undefined,
    };
    roles.messages = [];
    roles.reads = [];
    roles.statusChanged = false;
    this.#restore = undefined;
    this.#proposals = [];
    return ready;
  }

  get #hardState(): HardState {
    const { term, vote, commitIndex } = this.#state;
    return { term, vote, commitIndex };
  }

  #flush(): void {
    const { leadership, leaderReady, questions, nowMs } = this.#roles;
    if (leadership !== undefined) {
      leadership.flush(this.#roles, leaderReady, nowMs);
      this.#answerReads(leadership);
    } else if (this.#state.leader !== 0) {
      const request = questions.ask(nowMs);
      if (request !== undefined)
        this.#roles.send(this.#state.leader, { kind: 'read_index', request });
    }
  }

  // Time and the world

  #onTimeout(): void {
    const roles = this.#roles;
    for (const request of roles.questions.expired(roles.nowMs))
      roles.reads.push({ request, index: undefined });
    if (roles.leadership !== undefined) this.#onLeaderTimeout(roles.leadership);
    else if (roles.nowMs >= roles.election.deadlineMs) this.#onElectionTimeout();
  }

  #onElectionTimeout(): void {
    if (this.#roles.mayStand) this.#roles.askAround();
    // Who may not stand has no leader either, and goes on waiting for one.
    else this.#roles.becomeFollower(this.#state.term, 0);
  }

  #onLeaderTimeout(leadership: Leadership): void {
    const roles = this.#roles;
    if (!leadership.onTimeout(roles, roles.nowMs)) roles.becomeFollower(this.#state.term, 0);
    else if (this.#state.readOnly && leadership.transferee === 0) this.#handOver();
  }

  #onPeerGone(peer: RaftId): void {
    const roles = this.#roles;
    roles.leadership?.onUnreachable(peer);
    if (roles.role !== 'follower' || this.#state.leader !== peer) return;
    roles.setLeader(0);
    roles.election.leaderGone(roles.nowMs);
  }

  #onReadOnly(on: boolean): void {
    if (this.#state.readOnly === on) return;
    this.#state.readOnly = on;
    this.#roles.statusChanged = true;
    if (on) this.#handOver();
  }

  #handOver(to?: RaftId): void {
    const { leadership, nowMs } = this.#roles;
    const heir = to ?? leadership?.bestFollower(nowMs) ?? 0;
    if (heir !== 0) leadership?.transfer(heir, this.#roles, nowMs);
  }

  // The own disk and the own state machine

  #onPersisted(persistId: number): void {
    const { writes, term, config } = this.#state;
    writes.persisted(persistId);
    const { durable } = writes;
    if (this.#roles.role === 'candidate' && durable.term === term && durable.vote === config.id)
      this.#roles.recordVote(config.id, true);
    this.#roles.tryCommit();
  }

  #onApplied(index: LogIndex): void {
    assert(index <= this.#deliveredIndex, 'only what was handed over is applied');
    this.#appliedIndex = Math.max(this.#appliedIndex, index);
  }

  #onCompact(meta: SnapshotMeta, keepEntries: number): void {
    const { log, members } = this.#state;
    assert(meta.index <= this.#appliedIndex, 'a snapshot is of what is applied');
    const index = meta.index - keepEntries;
    if (index <= log.base.index) return;
    log.compactTo(index);
    members.compactTo(index);
  }

  #onRestore(meta: SnapshotMeta): void {
    const { log, writes, members } = this.#state;
    assert(meta.index > this.#state.commitIndex, 'the state machine never goes back');
    log.reset(meta);
    writes.reset(meta);
    members.reset(meta);
    this.#state.commitIndex = meta.index;
    this.#deliveredIndex = meta.index;
    this.#appliedIndex = meta.index;
    this.#restore = meta;
    this.#roles.statusChanged = true;
  }

  // Proposals

  #onPropose(token: number, data: Uint8Array): void {
    const refused = this.#refusal(bytesOf(data));
    if (refused !== undefined) this.#proposals.push({ token, refused });
    else {
      const { index, term } = this.#roles.appendOwn('command', data);
      this.#proposals.push({ token, index, term });
    }
  }

  #refusal(bytes: number): ProposalRefusal | undefined {
    const { readOnly, members, config } = this.#state;
    const { leadership } = this.#roles;
    if (leadership === undefined) return 'not_leader';
    if (leadership.transferee !== 0 || !members.isVoter(config.id)) return 'transferring';
    if (readOnly) return 'read_only';
    return leadership.mayAdd(bytes) ? undefined : 'overloaded';
  }

  #onProposeMembers(token: number, change: MemberChange): void {
    const next = changed(this.#state.members.current, change);
    const refused = this.#refusal(0) ?? this.#changeRefusal(change, next);
    if (refused !== undefined || next === undefined) {
      this.#proposals.push({ token, refused: refused ?? 'members_invalid' });
      return;
    }
    const { index, term } = this.#roles.appendOwn('members', encodeMembers(next));
    this.#roles.changeMembers(index, next);
    // One voter less may be one answer less to wait for.
    this.#roles.tryCommit();
    this.#proposals.push({ token, index, term });
  }

  #changeRefusal(change: MemberChange, next: Membership | undefined): ProposalRefusal | undefined {
    const { members, commitIndex, log, config } = this.#state;
    // Two leaders, each with a change of its own that the other has not seen, may have quorums that do not
    // meet. An own committed entry shows that no other leader's change can still be committed.
    if (!this.#roles.leaderReady || members.index > commitIndex) return 'members_busy';
    if (next === undefined) return 'members_invalid';
    if (change.kind !== 'promote') return undefined;
    const learner = this.followers().find(({ id }) => id === change.id);
    const isNear =
      learner?.active === true && log.lastIndex - learner.matchIndex <= config.learnerLagMax;
    return isNear ? undefined : 'learner_behind';
  }

  // Reads

  #onRead(request: number): void {
    const { leadership, questions, reads } = this.#roles;
    const accepted = leadership
      ? leadership.rounds.ask({ from: 0, request })
      : this.#state.leader !== 0 && questions.add(request);
    if (!accepted) reads.push({ request, index: undefined });
  }

  #answerReads(leadership: Leadership): void {
    for (const { reader, index } of leadership.confirmedReads()) {
      const { from, request } = reader;
      if (from === 0) this.#roles.reads.push({ request, index });
      else this.#roles.send(from, { kind: 'read_index_reply', request, index });
    }
  }
}

function stateOf(config: RaftConfig, { hardState, snapshot, entries }: RaftRestart): RaftState {
  const log = new RaftLog(snapshot, entries);
  const steps = membershipsIn(entries);
  assert(steps !== undefined, 'the own log is readable');
  const members = new MembershipHistory(snapshot);
  for (const step of steps) members.add(step);
  // A write may have been torn between entries and hard state. In that term nothing was promised then.
  const isBehind = hardState.term < log.lastTerm;
  const onDisk = isBehind ? { ...hardState, term: log.lastTerm, vote: 0 as const } : hardState;
  return {
    config,
    log,
    members,
    writes: new WriteAhead(onDisk, log.lastIndex),
    term: onDisk.term,
    vote: onDisk.vote,
    leader: 0,
    commitIndex: Math.max(snapshot.index, Math.min(hardState.commitIndex, log.lastIndex)),
    readOnly: false,
  };
}
