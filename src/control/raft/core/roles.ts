import { assert } from '../../../base/assert.js';
import type { Prng } from '../../../base/prng.js';
import type { MessageBody } from '../wire/records.js';
import { noDrops, type RaftDrop } from './drops.js';
import { Election } from './election.js';
import { Leadership } from './leadership.js';
import { ReadQuestions } from './read-index.js';
import type { Outbox, RaftState } from './state.js';
import type {
  EntryKind,
  LogEntry,
  LogIndex,
  Membership,
  RaftId,
  RaftMessage,
  RaftReady,
  RaftRole,
  Term,
} from './types.js';

const NO_DATA = new Uint8Array(0);

/**
 * The roles of one member, and how it passes from one to another:
 *
 *             deadline                a quorum would vote         a quorum voted, and the own vote is on disk
 *   follower ──────────► pre_candidate ──────────► candidate ──────────► leader
 *      ▲                       │                       │                    │
 *      └───────────────────────┴───────────────────────┴────────────────────┘
 *        a leader of the term, a higher term, too many refusals; a leader without a quorum of answers
 */
export class Roles implements Outbox {
  readonly state: RaftState;
  readonly election: Election;
  /** Of this member to its leader. */
  readonly questions: ReadQuestions;
  /** Messages that went nowhere, by reason. */
  readonly drops = noDrops();
  nowMs: number;
  role: RaftRole = 'follower';
  /** There exactly while the role is leader. */
  leadership: Leadership | undefined;
  /** An entry of this leadership's own term is committed. */
  leaderReady = false;

  // Collected for the next Ready.
  messages: RaftMessage[] = [];
  reads: RaftReady['reads'][number][] = [];
  statusChanged = true;

  constructor(state: RaftState, prng: Prng, nowMs: number) {
    this.state = state;
    this.nowMs = nowMs;
    this.questions = new ReadQuestions(state.config.electionTimeoutMs, prng);
    this.election = new Election(state.config, prng);
    this.election.begin(nowMs);
    if (this.isOnlyVoter) this.election.standAt(nowMs);
  }

  // Messages

  send(to: RaftId, body: MessageBody, term = this.state.term): void {
    this.messages.push(this.#sealed(to, body, term));
  }

  /** For what promises something that must outlive a crash of this member. */
  sendDurably(to: RaftId, body: MessageBody): void {
    this.state.writes.sendAfter(this.#sealed(to, body, this.state.term));
  }

  drop(reason: RaftDrop): void {
    this.drops[reason]++;
  }

  #sealed(to: RaftId, body: MessageBody, term: Term): RaftMessage {
    return { from: this.state.config.id, to, term, ...body } as RaftMessage;
  }

  // Following

  becomeFollower(term: Term, leader: RaftId | 0): void {
    if (term > this.state.term) this.#setTerm(term, 0);
    this.#setRole('follower');
    this.setLeader(leader);
    if (leader !== 0) this.election.heardLeader(this.nowMs);
  }

  /** Of another leader than this member itself, or of none. */
  setLeader(leader: RaftId | 0): void {
    if (leader === 0) this.election.forgetLeader();
    if (leader === this.state.leader) return;
    this.state.leader = leader;
    this.statusChanged = true;
    for (const request of this.questions.abandon()) this.reads.push({ request, index: undefined });
  }

  // Standing

  get isOnlyVoter(): boolean {
    const { members, config } = this.state;
    return members.voters.length === 1 && members.isVoter(config.id);
  }

  /** A full disk could not take the vote for itself, let alone lead; the only voter has no choice. */
  get mayStand(): boolean {
    const { members, config, readOnly, commitIndex } = this.state;
    if (this.leadership !== undefined || !members.mayBeNeeded(config.id, commitIndex)) return false;
    return !readOnly || this.isOnlyVoter;
  }

  /** Pre-vote: only who could win may disturb the others with a new term (thesis, 9.6). */
  askAround(): void {
    this.#setRole('pre_candidate');
    this.setLeader(0);
    const body = { kind: 'pre_vote', ...this.#lastPlace, transfer: false } as const;
    for (const voter of this.#otherVoters) this.send(voter, body, this.state.term + 1);
    this.recordVote(this.state.config.id, true);
  }

  /**
   * Not even the requests leave before the new term is on disk. Else this member could forget, crash, and stand
   * in the same term once more with a shorter log, and the votes for the longer one would count for it.
   *
   * @param transfer At the wish of the leader, whom the voters then do not cling to.
   */
  stand(transfer: boolean): void {
    this.#setTerm(this.state.term + 1, this.state.config.id);
    this.#setRole('candidate');
    this.setLeader(0);
    const body = { kind: 'vote', ...this.#lastPlace, transfer } as const;
    for (const voter of this.#otherVoters) this.sendDurably(voter, body);
  }

  recordVote(voter: RaftId, granted: boolean): void {
    this.election.record(voter, granted);
    const verdict = this.election.verdict(this.state.members.voters);
    if (verdict === 'lost') this.becomeFollower(this.state.term, 0);
    if (verdict !== 'won') return;
    if (this.role === 'pre_candidate') this.stand(false);
    else this.#becomeLeader();
  }

  get #lastPlace(): { readonly lastIndex: LogIndex; readonly lastTerm: Term } {
    return { lastIndex: this.state.log.lastIndex, lastTerm: this.state.log.lastTerm };
  }

  get #otherVoters(): readonly RaftId[] {
    return this.state.members.voters.filter((voter) => voter !== this.state.config.id);
  }

  // Leading

  #becomeLeader(): void {
    this.#setRole('leader');
    this.setLeader(this.state.config.id);
    // Entries of earlier terms are committed along with one of this (Raft paper, 5.4.2).
    this.appendOwn('noop', NO_DATA);
    this.leadership = new Leadership(this.state, this.nowMs);
  }

  appendOwn(kind: EntryKind, data: Uint8Array): LogEntry {
    const { log, term } = this.state;
    const entry = { index: log.lastIndex + 1, term, kind, data };
    log.append(entry);
    this.leadership?.added(entry);
    return entry;
  }

  /** In effect at once, committed or not. */
  changeMembers(index: LogIndex, members: Membership): void {
    this.state.members.add({ index, members });
    this.statusChanged = true;
    this.leadership?.membersChanged(this.nowMs);
  }

  /** Looks whether a quorum has more by now. */
  tryCommit(): void {
    const { log, term, members, commitIndex, config } = this.state;
    const index = this.leadership?.quorumIndex() ?? 0;
    // An entry of an earlier term may be on a quorum and yet be replaced (Raft paper, figure 8).
    if (index <= commitIndex || log.termAt(index) !== term) return;
    this.commitTo(index);
    this.leaderReady = true;
    if (members.isVoter(config.id) || members.index > index) return;
    this.leadership?.bequeath(this, this.nowMs);
    this.becomeFollower(term, 0);
  }

  commitTo(index: LogIndex): void {
    const { commitIndex, log } = this.state;
    if (index <= commitIndex) return;
    assert(index <= log.lastIndex, 'only what is in the log is committed');
    this.leadership?.committed(log.slice(commitIndex + 1, index));
    this.state.commitIndex = index;
    this.statusChanged = true;
  }

  #setTerm(term: Term, vote: RaftId | 0): void {
    assert(term > this.state.term, 'terms only grow');
    this.state.term = term;
    this.state.vote = vote;
    this.statusChanged = true;
  }

  #setRole(role: RaftRole): void {
    for (const { from, request } of this.leadership?.rounds.abandon() ?? [])
      if (from === 0) this.reads.push({ request, index: undefined });
    if (role !== this.role) this.statusChanged = true;
    this.leadership = undefined;
    this.leaderReady = false;
    this.role = role;
    this.election.begin(this.nowMs);
  }
}
