import { unreachable } from '../../../base/assert.js';
import type { RaftDrop } from './drops.js';
import type { LogPlace } from './log.js';
import { isUsable, membershipsIn } from './membership.js';
import type { Roles } from './roles.js';
import type { LogEntry, LogIndex, RaftMessage, SnapshotMeta } from './types.js';

type Message<Kind extends RaftMessage['kind']> = Extract<RaftMessage, { readonly kind: Kind }>;

/** What messages of other members lead to. Whatever they say, nothing here throws: nonsense is counted. */
export class Inbox {
  readonly #roles: Roles;
  readonly #restore: (meta: SnapshotMeta) => void;

  /** @param restore Replaces log and state by a snapshot. */
  constructor(roles: Roles, restore: (meta: SnapshotMeta) => void) {
    this.#roles = roles;
    this.#restore = restore;
  }

  receive(message: RaftMessage): void {
    const drop = this.#receive(message);
    if (drop !== undefined) this.#roles.drop(drop);
  }

  #receive(message: RaftMessage): RaftDrop | undefined {
    const { state } = this.#roles;
    const { from, to, term } = message;
    if (to !== state.config.id || from === state.config.id) return 'misaddressed';
    if (term < state.term) return this.#onLowerTerm(message);
    if (term > state.term) {
      if (this.#isDisturbance(message)) return 'leader_alive';
      this.#enterTerm(message);
    }
    return this.#dispatch(message);
  }

  #dispatch(message: RaftMessage): RaftDrop | undefined {
    switch (message.kind) {
      case 'pre_vote':
        return this.#onPreVote(message);
      case 'vote':
        return this.#onVote(message);
      case 'pre_vote_reply':
      case 'vote_reply':
        return this.#onVoteReply(message);
      case 'append':
        return this.#onAppend(message);
      case 'heartbeat':
        return this.#onHeartbeat(message);
      case 'snapshot':
        return this.#onSnapshot(message);
      case 'append_reply':
      case 'heartbeat_reply':
      case 'read_index':
        return this.#toLeader(message);
      case 'timeout_now':
        return this.#onTimeoutNow();
      case 'read_index_reply':
        return this.#onReadIndexReply(message);
      default:
        return unreachable(message);
    }
  }

  // Terms

  /** Asks for an election while there is a leader, and not at its wish. */
  #isDisturbance(message: RaftMessage): boolean {
    const asks = message.kind === 'pre_vote' || message.kind === 'vote';
    return asks && !message.transfer && this.#hasLeader;
  }

  #enterTerm(message: RaftMessage): void {
    const { kind, from, term } = message;
    // The term of a pre-vote is one that nobody is in yet.
    if (kind === 'pre_vote' || (kind === 'pre_vote_reply' && message.granted)) return;
    const leads = kind === 'append' || kind === 'heartbeat' || kind === 'snapshot';
    this.#roles.becomeFollower(term, leads || kind === 'timeout_now' ? from : 0);
  }

  /** Answered where the sender goes on in vain until it learns of the present term. */
  #onLowerTerm(message: RaftMessage): RaftDrop | undefined {
    const { kind, from } = message;
    if (kind === 'append' || kind === 'heartbeat') this.#refuse(from, 0, { index: 0, term: 0 });
    else if (kind === 'pre_vote')
      this.#roles.send(from, { kind: 'pre_vote_reply', granted: false });
    else if (kind === 'vote') this.#roles.sendDurably(from, { kind: 'vote_reply', granted: false });
    // What a snapshot holds is committed, whoever leads now.
    else if (this.#isUseful(message)) this.#restore(message.meta);
    else return 'stale_term';
    return undefined;
  }

  /** A leader holds a quorum by check-quorum, so it is its own reason not to listen to candidates. */
  get #hasLeader(): boolean {
    const { leadership, election, nowMs } = this.#roles;
    return leadership !== undefined || election.clingsToLeader(nowMs);
  }

  // Votes

  #onPreVote(message: Message<'pre_vote' | 'vote'>): RaftDrop | undefined {
    const { from, term } = message;
    const { state } = this.#roles;
    const granted = (term > state.term || this.#isFree(message)) && this.#isCovered(message);
    // Who asked must know its own question by the answer, hence its term and not ours.
    this.#roles.send(from, { kind: 'pre_vote_reply', granted }, granted ? term : state.term);
    return undefined;
  }

  #onVote(message: Message<'pre_vote' | 'vote'>): RaftDrop | undefined {
    const { state, election, nowMs } = this.#roles;
    const granted = this.#isFree(message) && this.#isCovered(message);
    if (granted) {
      state.vote = message.from;
      election.postpone(nowMs);
    }
    this.#roles.sendDurably(message.from, { kind: 'vote_reply', granted });
    return undefined;
  }

  /** One vote a term; the same again if it was lost. */
  #isFree({ from }: RaftMessage): boolean {
    const { vote, leader } = this.#roles.state;
    return vote === from || (vote === 0 && leader === 0);
  }

  #isCovered({ lastIndex, lastTerm }: Message<'pre_vote' | 'vote'>): boolean {
    return this.#roles.state.log.isCoveredBy({ index: lastIndex, term: lastTerm });
  }

  #onVoteReply({
    kind,
    from,
    term,
    granted,
  }: Message<'pre_vote_reply' | 'vote_reply'>): RaftDrop | undefined {
    const { state, role } = this.#roles;
    if (!state.members.isVoter(from)) return 'unknown_sender';
    const isPre = kind === 'pre_vote_reply';
    const awaited = role === (isPre ? 'pre_candidate' : 'candidate');
    if (!awaited || term !== state.term + (isPre && granted ? 1 : 0)) return 'unexpected';
    this.#roles.recordVote(from, granted);
    return undefined;
  }

  #onTimeoutNow(): RaftDrop | undefined {
    if (this.#roles.role !== 'follower' || !this.#roles.mayStand) return 'unexpected';
    this.#roles.stand(true);
    return undefined;
  }

  // From the leader

  /** @returns False if the term has another leader, which cannot be. */
  #follow({ from }: RaftMessage): boolean {
    const { state, role, election, nowMs } = this.#roles;
    if (state.leader !== 0 && state.leader !== from) return false;
    if (role !== 'follower') this.#roles.becomeFollower(state.term, from);
    this.#roles.setLeader(from);
    election.heardLeader(nowMs);
    return true;
  }

  #onHeartbeat(message: Message<'heartbeat'>): RaftDrop | undefined {
    if (!this.#follow(message)) return 'second_leader';
    const { log } = this.#roles.state;
    // A leader knows what this member once had on disk. If that is gone, no answer can make it right, but
    // an election that this member could not win would not help either.
    const isKnown = message.commitIndex <= log.lastIndex;
    if (isKnown) this.#roles.commitTo(message.commitIndex);
    this.#roles.send(message.from, { kind: 'heartbeat_reply', readRound: message.readRound });
    return isKnown ? undefined : 'beyond_log';
  }

  #onAppend(message: Message<'append'>): RaftDrop | undefined {
    const { state } = this.#roles;
    if (!isContiguous(message)) return 'entries_invalid';
    if (membershipsIn(message.entries) === undefined) return 'members_invalid';
    if (!this.#follow(message)) return 'second_leader';

    const { prev, entries } = sinceCommitted(message, state.commitIndex);
    if (prev.index < state.commitIndex) this.#accept(message.from, state.commitIndex);
    else if (state.log.has(prev)) this.#take(message, prev, entries);
    else if (prev.index === state.commitIndex) return 'committed_conflict';
    else this.#refuse(message.from, message.prevIndex, state.log.lastCandidate(prev));
    return undefined;
  }

  #take(message: Message<'append'>, prev: LogPlace, entries: readonly LogEntry[]): void {
    this.#append(entries);
    const last = prev.index + entries.length;
    this.#roles.commitTo(Math.min(message.commitIndex, last));
    this.#accept(message.from, last);
  }

  /** They follow a place that the log has. What it has of them already stays, with what comes after. */
  #append(entries: readonly LogEntry[]): void {
    const { log, writes, members } = this.#roles.state;
    const first = log.firstNew(entries);
    if (first === undefined) return;
    if (first.index <= log.lastIndex) {
      log.cutFrom(first.index);
      writes.cutFrom(first.index);
      members.cutFrom(first.index);
      this.#roles.statusChanged = true;
    }
    const fresh = entries.filter(({ index }) => index >= first.index);
    for (const entry of fresh) log.append(entry);
    for (const { index, members: next } of membershipsIn(fresh) ?? [])
      this.#roles.changeMembers(index, next);
  }

  #onSnapshot(message: Message<'snapshot'>): RaftDrop | undefined {
    const { state } = this.#roles;
    if (!isSound(message)) return 'snapshot_invalid';
    if (!this.#follow(message)) return 'second_leader';
    if (this.#isAhead(message.meta)) this.#restore(message.meta);
    // The log has it all, so it stays, with what comes after.
    else if (state.log.has(message.meta)) this.#roles.commitTo(message.meta.index);
    this.#accept(message.from, state.commitIndex);
    return undefined;
  }

  /** Even of an earlier term. A leader needs none: it has all that was committed before its own. */
  #isUseful(message: RaftMessage): message is Message<'snapshot'> {
    if (message.kind !== 'snapshot' || this.#roles.role !== 'follower') return false;
    return isSound(message) && this.#isAhead(message.meta);
  }

  #isAhead(meta: SnapshotMeta): boolean {
    const { commitIndex, log } = this.#roles.state;
    return meta.index > commitIndex && !log.has(meta);
  }

  #accept(to: RaftMessage['from'], index: LogIndex): void {
    const none = { hintIndex: 0, hintTerm: 0 };
    this.#roles.sendDurably(to, { kind: 'append_reply', index, accepted: true, ...none });
  }

  #refuse(to: RaftMessage['from'], index: LogIndex, hint: LogPlace): void {
    this.#roles.sendDurably(to, {
      kind: 'append_reply',
      index,
      accepted: false,
      hintIndex: hint.index,
      hintTerm: hint.term,
    });
  }

  #onReadIndexReply({ from, request, index }: Message<'read_index_reply'>): RaftDrop | undefined {
    const { state, questions, reads } = this.#roles;
    const requests = from === state.leader ? questions.answered(request) : [];
    if (requests.length === 0) return 'unexpected';
    for (const asked of requests) reads.push({ request: asked, index });
    return undefined;
  }

  // To the leader

  #toLeader(
    message: Message<'append_reply' | 'heartbeat_reply' | 'read_index'>,
  ): RaftDrop | undefined {
    const { leadership, nowMs } = this.#roles;
    if (leadership === undefined) return 'unexpected';
    if (!leadership.follows(message.from)) return 'unknown_sender';
    if (message.kind === 'read_index') return leadership.onReadIndex(message);
    if (message.kind === 'heartbeat_reply') return leadership.onHeartbeatReply(message, nowMs);
    const drop = leadership.onAppendReply(message, this.#roles, nowMs);
    this.#roles.tryCommit();
    return drop;
  }
}

function isSound({ term, meta }: Message<'snapshot'>): boolean {
  return meta.index > 0 && meta.term > 0 && meta.term <= term && isUsable(meta.members);
}

function isContiguous({ term, prevIndex, prevTerm, entries }: Message<'append'>): boolean {
  let last: LogPlace = { index: prevIndex, term: prevTerm };
  for (const entry of entries) {
    if (entry.index !== last.index + 1 || entry.term < last.term) return false;
    last = entry;
  }
  return last.term <= term;
}

/** The append without what is committed here, which is the same everywhere and may be compacted. */
function sinceCommitted(
  { prevIndex, prevTerm, entries }: Message<'append'>,
  commitIndex: LogIndex,
): { readonly prev: LogPlace; readonly entries: readonly LogEntry[] } {
  const known = Math.min(commitIndex - prevIndex, entries.length);
  if (known <= 0) return { prev: { index: prevIndex, term: prevTerm }, entries };
  return { prev: entries[known - 1] as LogEntry, entries: entries.slice(known) };
}
