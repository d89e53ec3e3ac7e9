import type {
  LogEntry,
  LogIndex,
  Membership,
  RaftId,
  RaftMessage,
  RaftPersist,
  RaftReady,
  RaftRestart,
  RaftStatus,
  SnapshotMeta,
  Term,
} from '../../../src/control/raft/core/types.js';
import { decodeMembers } from '../../../src/control/raft/wire/members.js';
import type { Disk } from './disk.js';
import { LogImage } from './log-image.js';
import { chainOf, hashOfEntry, nameOf } from './machine.js';
import type { Sights } from './sights.js';
import { Violation } from './violation.js';

interface Committed {
  readonly term: Term;
  readonly hash: number;
  /** Digest of the log up to here. */
  readonly chain: number;
}

type Candidacy = Extract<RaftMessage, { readonly kind: 'pre_vote' | 'vote' }>;

/** What the ledger knows of one member over all its lives. */
interface Account {
  readonly id: RaftId;
  readonly disk: Disk;
  /** Of this life: undefined while it is down. */
  status: RaftStatus | undefined;
  /** The log as the core has it, on disk or not yet. */
  log: LogImage;
  /** Steps since the last `Ready` in which it committed more, and what it was before each. */
  advances: { readonly status: RaftStatus; readonly before: RaftStatus | undefined }[];
  /** The highest term it spoke in as one who must remember it. */
  promisedTerm: Term;
  readonly votes: Map<Term, RaftId>;
  persistId: number;
  /** Where its log ended at the last `Ready`. */
  end: { readonly index: LogIndex; readonly term: Term };
}

/**
 * Sees everything that every member does, and throws at the first thing that must never be. With `guards`
 * off only what the outside could see counts: leaders, logs and what is applied; not how it came to that.
 */
export class Ledger {
  readonly #guards: boolean;
  readonly #sights: Sights;
  readonly #accounts = new Map<RaftId, Account>();
  readonly #leaders = new Map<Term, RaftId>();
  /** The last entry of each commitment, which is of the term of the leader that made it. */
  readonly #commitments: { readonly index: LogIndex; readonly term: Term }[] = [];
  /** The last question of each kind, candidate and term. */
  readonly #candidacies = new Map<string, Candidacy>();
  /** Terms whose leader was seen to have what was committed. */
  readonly #complete = new Set<Term>();
  /** By index, then by term: what the entry is, and the term of the one before it. */
  readonly #entries = new Map<LogIndex, Map<Term, { hash: number; previous: Term }>>();
  readonly committed: Committed[] = [{ term: 0, hash: 0, chain: 0 }];
  /** The highest that any member took for committed. */
  commitIndex: LogIndex = 0;
  /** Of the last committed change. */
  members: Membership;
  /** Who is or was a member in any log, even if that was never committed. */
  readonly everMembers = new Set<RaftId>();
  /** After a change was committed. */
  onMembers: ((before: Membership, after: Membership) => void) | undefined;
  elections = 0;

  constructor(guards: boolean, sights: Sights, members: Membership) {
    this.#guards = guards;
    this.#sights = sights;
    this.members = members;
  }

  add(id: RaftId, disk: Disk): void {
    this.#accounts.set(id, {
      id,
      disk,
      status: undefined,
      log: disk.durable,
      advances: [],
      promisedTerm: 0,
      votes: new Map(),
      persistId: 0,
      end: { index: 0, term: 0 },
    });
  }

  get appliedIndex(): LogIndex {
    return this.committed.length - 1;
  }

  leaderOf(term: Term): RaftId | 0 {
    return this.#leaders.get(term) ?? 0;
  }

  started(id: RaftId, { hardState, snapshot, entries }: RaftRestart): void {
    const account = this.#account(id);
    const { term, vote } = hardState;
    account.status = undefined;
    account.advances = [];
    account.persistId = 0;
    account.log = new LogImage(snapshot);
    account.log.apply({ entries, reset: undefined, hardState: undefined });
    if (!this.#guards) return;
    const found = Math.max(term, account.log.lastTerm);
    if (found < account.promisedTerm)
      fail(`${nameOf(id)} restarts in term ${found}, but had promised ${account.promisedTerm}`);
    const given = account.votes.get(term);
    if (given !== undefined && given !== vote)
      fail(`${nameOf(id)} voted for ${nameOf(given)} in term ${term} and forgot it`);
  }

  stopped(id: RaftId): void {
    this.#account(id).status = undefined;
  }

  /** After every step. */
  observe(id: RaftId, status: RaftStatus): void {
    const account = this.#account(id);
    const before = account.status;
    account.status = status;
    if (before !== undefined) {
      if (status.term < before.term) fail(`${nameOf(id)} goes back to term ${status.term}`);
      if (status.commitIndex < before.commitIndex)
        fail(`${nameOf(id)} goes back to commit ${status.commitIndex} from ${before.commitIndex}`);
    }
    if (status.commitIndex > Math.max(before?.commitIndex ?? 0, this.commitIndex))
      account.advances.push({ status, before });
    if (status.role !== 'leader') return;
    if (this.#leaders.get(status.term) !== id) this.#elected(account, status.term);
  }

  /** At every `Ready`, before any of it is done. */
  readies(id: RaftId, { messages, persist }: RaftReady): void {
    const account = this.#account(id);
    account.end = { index: account.log.lastIndex, term: account.log.lastTerm };
    if (persist !== undefined) this.#persists(account, persist);
    for (const message of messages) this.#expectCovered(account, message);
    for (const message of persist?.messages ?? []) this.#expectCovered(account, message);
    const { status, log } = account;
    if (status === undefined) return;
    if (status.role === 'leader' && !this.#complete.has(status.term)) {
      this.#complete.add(status.term);
      // Leader completeness: what is committed is in the log of every later leader. One that was paused
      // may read its votes when others are terms ahead; it owes nothing to what those committed.
      const owed = this.#commitments.findLast(({ term }) => term < status.term);
      if (owed !== undefined && !log.has(owed.index, owed.term))
        fail(`${nameOf(id)} is elected without ${owed.index} of term ${owed.term}`);
    }
    for (const advance of account.advances)
      if (advance.status.commitIndex > this.commitIndex)
        this.#commits(account, advance.status, advance.before);
    account.advances = [];
  }

  #commits({ id, log }: Account, status: RaftStatus, before: RaftStatus | undefined): void {
    const { commitIndex } = status;
    const term = log.termAt(commitIndex);
    if (term === 0) fail(`${nameOf(id)} commits ${commitIndex}, which it does not have`);
    if (this.#guards) {
      // It may have stepped down at once, if it is not a member any more.
      const leader = status.role === 'leader' ? status : before;
      if (leader?.role !== 'leader' || leader.term !== status.term)
        fail(`${nameOf(id)} is the first to commit ${commitIndex}, as ${status.role}`);
      this.#expectQuorum(status, term);
    }
    this.commitIndex = commitIndex;
    this.#commitments.push({ index: commitIndex, term });
    for (const other of this.#accounts.values()) {
      const { status: held } = other;
      if (held?.role !== 'leader' || held.term <= term || !this.#complete.has(held.term)) continue;
      if (!other.log.has(commitIndex, term))
        fail(`${nameOf(other.id)} leads term ${held.term} without ${commitIndex} of ${term}`);
    }
  }

  #persists(account: Account, persist: RaftPersist): void {
    const { id, log } = account;
    if (persist.persistId <= account.persistId) fail(`${nameOf(id)} uses a persist id again`);
    account.persistId = persist.persistId;
    if (this.#guards && account.status?.role === 'leader') this.#expectOneChange(account, persist);
    if ((persist.entries[0]?.index ?? Number.MAX_VALUE) <= log.lastIndex)
      this.#sights.see('log_cut');
    log.apply(persist);
    if ((persist.hardState?.commitIndex ?? 0) > log.lastIndex)
      fail(`${nameOf(id)} calls committed on disk what it does not have`);
    for (const entry of persist.entries)
      this.#expectMatching(account, entry, log.termAt(entry.index - 1));
  }

  sends(id: RaftId, message: RaftMessage): void {
    if (message.from !== id) fail(`${nameOf(id)} speaks as ${nameOf(message.from)}`);
    const account = this.#account(id);
    const { durable } = account.disk;
    const { term } = message;
    switch (message.kind) {
      case 'pre_vote':
      case 'vote':
        this.#candidacies.set(`${message.kind}_reply ${id} ${term}`, message);
        return;
      case 'vote_reply':
        if (!message.granted) return;
        this.#votes(account, term, message.to);
        if (this.#guards) this.#expectVote(account, term, message.to);
        return;
      case 'append_reply':
        if (!message.accepted || !this.#guards) return;
        account.promisedTerm = Math.max(account.promisedTerm, term);
        this.#expectTerm(account, term);
        if (durable.hardState.term === term && durable.lastIndex < message.index)
          fail(`${nameOf(id)} acknowledges ${message.index}, has ${durable.lastIndex} on disk`);
        return;
      case 'append':
      case 'heartbeat':
      case 'timeout_now':
        if (this.#leaders.get(term) !== id) fail(`${nameOf(id)} acts as leader of term ${term}`);
        if (!this.#guards) return;
        this.#expectVote(account, term, id);
        if (message.kind !== 'timeout_now' && message.commitIndex > this.commitIndex)
          fail(`${nameOf(id)} calls ${message.commitIndex} committed, which nothing is`);
        return;
      default:
    }
  }

  /** Entry by entry, as a member applies them. */
  applies(id: RaftId, entry: LogEntry): void {
    const { index, term } = entry;
    const hash = hashOfEntry(entry);
    const known = this.committed[index];
    if (known === undefined) {
      if (index !== this.committed.length) fail(`${nameOf(id)} applies ${index} before its past`);
      const chain = chainOf((this.committed[index - 1] as Committed).chain, entry);
      this.committed.push({ term, hash, chain });
      if (entry.kind === 'members') {
        const before = this.members;
        this.members = membersOf(entry);
        this.onMembers?.(before, this.members);
      }
    } else if (known.term !== term || known.hash !== hash) {
      fail(`${nameOf(id)} applies another entry at ${index}: term ${term}, was ${known.term}`);
    }
    const { durable } = this.#account(id).disk;
    if (this.#guards && !durable.has(index, term))
      fail(`${nameOf(id)} applies ${index}, which is not on its disk`);
  }

  restores(id: RaftId, meta: SnapshotMeta, chain: number): void {
    const known = this.committed[meta.index];
    if (known?.term !== meta.term || known.chain !== chain)
      fail(`${nameOf(id)} restores a state at ${meta.index} that never was`);
  }

  #elected(account: Account, term: Term): void {
    const other = this.#leaders.get(term);
    if (other !== undefined)
      fail(`${nameOf(other)} and ${nameOf(account.id)} both lead term ${term}`);
    this.#leaders.set(term, account.id);
    this.#votes(account, term, account.id);
    this.elections += 1;
    this.#sights.see('election');
  }

  #votes(account: Account, term: Term, candidate: RaftId): void {
    const given = account.votes.get(term);
    if (this.#guards && given !== undefined && given !== candidate)
      fail(
        `${nameOf(account.id)} votes for ${nameOf(given)} and ${nameOf(candidate)} in term ${term}`,
      );
    account.votes.set(term, candidate);
    account.promisedTerm = Math.max(account.promisedTerm, term);
  }

  /** Nobody helps one whose log is behind its own. */
  #expectCovered({ id, log, end }: Account, message: RaftMessage): void {
    const { kind, to: candidate, term } = message;
    if (kind !== 'pre_vote_reply' && kind !== 'vote_reply') return;
    if (!message.granted || !this.#guards) return;
    const asked = this.#candidacies.get(`${kind} ${candidate} ${term}`);
    if (asked === undefined) fail(`${nameOf(id)} answers what ${nameOf(candidate)} never asked`);
    // Its log may have grown after it had answered, in the same turn.
    const isBehind = (place: { readonly index: LogIndex; readonly term: Term }) =>
      asked.lastTerm < place.term ||
      (asked.lastTerm === place.term && asked.lastIndex < place.index);
    if (isBehind(end) && isBehind({ index: log.lastIndex, term: log.lastTerm }))
      fail(
        `${nameOf(id)} gives a ${kind} of term ${term} to ${nameOf(candidate)}, which is behind`,
      );
  }

  #expectTerm({ id, disk }: Account, term: Term): void {
    // An entry of a term is as good as the term itself: a restart finds it.
    const { hardState, lastTerm } = disk.durable;
    const durable = Math.max(hardState.term, lastTerm);
    if (durable < term) fail(`${nameOf(id)} speaks in term ${term}, has ${durable} on disk`);
  }

  #expectVote(account: Account, term: Term, candidate: RaftId): void {
    this.#expectTerm(account, term);
    const { hardState } = account.disk.durable;
    if (hardState.term < term || (hardState.term === term && hardState.vote !== candidate))
      fail(`${nameOf(account.id)} voted for ${nameOf(candidate)} and has not got it on disk`);
  }

  /** Commitment: an entry of its own term, on the disks of a quorum of its own membership. */
  #expectQuorum({ id, term, commitIndex, members }: RaftStatus, entryTerm: Term): void {
    if (entryTerm !== term)
      fail(`${nameOf(id)} of term ${term} commits ${commitIndex} of term ${entryTerm} by counting`);
    const voters = members.filter(({ voter }) => voter);
    const holders = voters.filter(
      (member) => this.#accounts.get(member.id)?.disk.durable.has(commitIndex, entryTerm) === true,
    );
    if (holders.length * 2 <= voters.length)
      fail(
        `${nameOf(id)} commits ${commitIndex}, on ${holders.length} disks of ${voters.length} voters`,
      );
  }

  /** Log matching, by induction: the same index and term mean the same entry after the same term. */
  #expectMatching({ id, disk }: Account, entry: LogEntry, previous: Term): void {
    let terms = this.#entries.get(entry.index);
    if (terms === undefined) {
      terms = new Map();
      this.#entries.set(entry.index, terms);
    }
    const hash = hashOfEntry(entry);
    const known = terms.get(entry.term);
    if (known === undefined) {
      terms.set(entry.term, { hash, previous });
      if (entry.kind === 'members')
        for (const member of membersOf(entry)) this.everMembers.add(member.id);
    } else if (known.hash !== hash || known.previous !== previous)
      fail(`${nameOf(id)} has another entry at ${entry.index} of term ${entry.term}`);
    const done = this.committed[entry.index];
    if (done === undefined || done.term === entry.term) return;
    if (disk.durable.has(entry.index, done.term))
      fail(`${nameOf(id)} overwrites ${entry.index}, which is committed`);
  }

  #expectOneChange({ id, status, log }: Account, { entries }: RaftPersist): void {
    const changes = entries.filter(({ kind, term }) => kind === 'members' && term === status?.term);
    const [change] = changes;
    if (change === undefined || status === undefined) return;
    if (changes.length > 1) fail(`${nameOf(id)} makes two membership changes at once`);
    const open = log.entries.findLast(
      ({ kind, index }) => kind === 'members' && index < change.index,
    );
    if (open !== undefined && open.index > status.commitIndex)
      fail(`${nameOf(id)} changes members at ${change.index}, ${open.index} is not committed`);
    const first = log.entries.find(({ term }) => term === status.term);
    const isEstablished =
      log.base.term === status.term || (first?.index ?? Number.MAX_VALUE) <= status.commitIndex;
    if (!isEstablished)
      fail(`${nameOf(id)} changes members before its term ${status.term} has committed anything`);
  }

  #account(id: RaftId): Account {
    return this.#accounts.get(id) ?? fail(`nobody knows ${nameOf(id)}`);
  }
}

function membersOf(entry: LogEntry): Membership {
  return decodeMembers(entry.data) ?? fail('a membership does not decode');
}

function fail(what: string): never {
  throw new Violation(what);
}
