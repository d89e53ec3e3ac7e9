import { assert } from '../../../src/base/assert.js';
import { raftConfig } from '../../../src/control/raft/core/config.js';
import { Raft } from '../../../src/control/raft/core/raft.js';
import type {
  HardState,
  LogEntry,
  Membership,
  ProposalOutcome,
  RaftConfig,
  RaftId,
  RaftInput,
  RaftMessage,
  RaftPersist,
  RaftReady,
  RaftRestart,
  RaftStatus,
  SnapshotMeta,
} from '../../../src/control/raft/core/types.js';
import { decodeMembers } from '../../../src/control/raft/wire/members.js';

export const raftId = (id: number) => id as RaftId;

/** A new group's members, all voters unless named among `learners`. */
export function membersOf(ids: readonly number[], learners: readonly number[] = []): Membership {
  return ids.map((id) => ({ id: raftId(id), voter: !learners.includes(id), context: `m${id}` }));
}

const NOTHING_VOTED: HardState = { term: 0, vote: 0, commitIndex: 0 };

/** What a member has on its disk: what was persisted, and nothing else, survives `crash`. */
export class Disk {
  hardState: HardState = NOTHING_VOTED;
  /** The latest, of the own state machine or of a leader. */
  snapshot: SnapshotMeta;
  /** Where the log begins; it may lag behind the snapshot. */
  #base: SnapshotMeta;
  entries: LogEntry[] = [];

  constructor(members: Membership) {
    this.snapshot = { index: 0, term: 0, members };
    this.#base = this.snapshot;
  }

  restart(): RaftRestart {
    const { index, term } = this.snapshot;
    // Then the snapshot was received and the log, which is behind it or wrong, was not yet reset.
    if (this.termAt(index) !== term) {
      this.#base = this.snapshot;
      this.entries = [];
    }
    const entries = this.entries.filter((entry) => entry.index > index);
    return { hardState: this.hardState, snapshot: this.snapshot, entries };
  }

  termAt(index: number): number | undefined {
    if (index === this.#base.index) return this.#base.term;
    return this.entries.find((entry) => entry.index === index)?.term;
  }

  write({ entries, reset, hardState }: RaftPersist): void {
    if (reset !== undefined) {
      this.#base = reset;
      this.entries = [];
    }
    const first = entries[0];
    if (first !== undefined) {
      const kept = this.entries.filter(({ index }) => index < first.index);
      const lastIndex = kept.at(-1)?.index ?? this.#base.index;
      assert(first.index === lastIndex + 1, 'the log on disk has no gaps');
      this.entries = [...kept, ...entries];
    }
    if (hardState !== undefined) this.hardState = hardState;
  }
}

/** One member: its core, its disk, and a shell that does what each Ready says, in its order. */
export class GroupMember {
  readonly id: RaftId;
  readonly disk: Disk;
  readonly #config: RaftConfig;
  #starts = 0;
  raft: Raft;
  /** Handed to the disk, and not on it. */
  writes: RaftPersist[] = [];
  /** What the state machine has, from index 1 on; a snapshot fills the gap with nothing. */
  applied: LogEntry[] = [];
  appliedIndex = 0;
  appliedTerm = 0;
  appliedMembers: Membership;
  proposals: ProposalOutcome[] = [];
  reads: RaftReady['reads'][number][] = [];
  snapshotsWanted: RaftId[] = [];
  status: RaftStatus;
  up = true;
  /** Sees every input before the core does. */
  onInput: (input: RaftInput) => void = () => {};
  /** Sees every Ready before it is performed, and every write when it is on disk. */
  onReady: (ready: RaftReady) => void = () => {};
  onPersisted: (write: RaftPersist) => void = () => {};

  constructor(config: RaftConfig, disk: Disk, nowMs: number) {
    this.id = config.id;
    this.#config = config;
    this.disk = disk;
    this.raft = new Raft(config, disk.restart(), nowMs);
    this.status = this.raft.status();
    this.appliedMembers = disk.snapshot.members;
  }

  /** What a snapshot of the state machine would be of. */
  get appliedMeta(): SnapshotMeta {
    return { index: this.appliedIndex, term: this.appliedTerm, members: this.appliedMembers };
  }

  #begin({ index, term, members }: SnapshotMeta): void {
    this.applied = [];
    this.appliedIndex = index;
    this.appliedTerm = term;
    this.appliedMembers = members;
  }

  /** Does what is to be done at once, and answers with the messages that may leave. */
  perform(nowMs: number): RaftMessage[] {
    const ready = this.raft.takeReady();
    this.onReady(ready);
    if (ready.persist !== undefined) this.writes.push(ready.persist);
    if (ready.restore !== undefined) this.#begin(ready.restore);
    for (const entry of ready.committed) {
      assert(entry.index === this.appliedIndex + 1, 'entries are applied once, in order');
      this.applied.push(entry);
      this.appliedIndex = entry.index;
      this.appliedTerm = entry.term;
      if (entry.kind === 'members') this.appliedMembers = decodeMembers(entry.data) ?? [];
    }
    if (ready.committed.length > 0)
      this.raft.step({ kind: 'applied', index: this.appliedIndex }, nowMs);
    this.proposals.push(...ready.proposals);
    this.reads.push(...ready.reads);
    this.snapshotsWanted.push(...ready.snapshots);
    if (ready.status !== undefined) this.status = ready.status;
    return [...ready.messages];
  }

  /** The oldest writes reach the disk. */
  persist(nowMs: number, count = this.writes.length): RaftMessage[] {
    const done = this.writes.splice(0, count);
    const last = done.at(-1);
    if (last === undefined) return [];
    for (const write of done) {
      this.disk.write(write);
      this.onPersisted(write);
    }
    this.raft.step({ kind: 'persisted', persistId: last.persistId }, nowMs);
    return done.flatMap(({ messages }) => messages);
  }

  crash(): void {
    this.up = false;
    this.writes = [];
  }

  restart(nowMs: number): void {
    this.up = true;
    this.#starts++;
    this.raft = new Raft(
      { ...this.#config, seed: this.#config.seed + this.#starts * 1_000 },
      this.disk.restart(),
      nowMs,
    );
    this.status = this.raft.status();
    this.#begin(this.disk.snapshot);
  }

  /** Snapshots the state machine, as far as it is, and drops the log before it but for a tail. */
  compact(nowMs: number, keepEntries = 0): void {
    const meta = this.appliedMeta;
    this.disk.snapshot = meta;
    this.raft.step({ kind: 'compact', meta, keepEntries }, nowMs);
  }
}

export interface GroupOptions {
  readonly learners?: readonly number[];
  readonly config?: Partial<RaftConfig>;
  /** Writes reach the disk as soon as they are handed over (the default). */
  readonly promptDisks?: boolean;
}

/** Some members, and the messages between them, which travel only when told to. */
export class Group {
  readonly members = new Map<number, GroupMember>();
  /** In flight, oldest first. */
  network: RaftMessage[] = [];
  /** Members that nothing gets to or from. */
  readonly cutOff = new Set<number>();
  /** Members that nothing gets to. */
  readonly deaf = new Set<number>();
  nowMs = 0;
  promptDisks: boolean;
  readonly #config: Partial<RaftConfig>;

  constructor(ids: readonly number[], options: GroupOptions = {}) {
    this.promptDisks = options.promptDisks ?? true;
    this.#config = options.config ?? {};
    for (const id of ids) this.add(id, membersOf(ids, options.learners));
  }

  /** @param members Of the new group; none for a member that joins one. */
  add(id: number, members: Membership = []): GroupMember {
    const config = raftConfig({ ...this.#config, id: raftId(id), seed: id });
    const member = new GroupMember(config, new Disk(members), this.nowMs);
    this.members.set(id, member);
    this.#perform(member);
    return member;
  }

  member(id: number): GroupMember {
    const member = this.members.get(id);
    assert(member !== undefined, `member ${id} is there`);
    return member;
  }

  raft(id: number): Raft {
    return this.member(id).raft;
  }

  step(id: number, input: RaftInput): void {
    this.stepAll(id, [input]);
  }

  /** Several inputs, and only then a Ready, as a shell does that batches. */
  stepAll(id: number, inputs: readonly RaftInput[]): void {
    const member = this.member(id);
    for (const input of inputs) {
      member.onInput(input);
      member.raft.step(input, this.nowMs);
    }
    this.#perform(member);
  }

  propose(id: number, ...texts: readonly string[]): void {
    this.stepAll(
      id,
      texts.map((text) => ({ kind: 'propose', token: 0, data: Buffer.from(text) })),
    );
  }

  persist(id: number, count?: number): void {
    const member = this.member(id);
    this.#post(member.persist(this.nowMs, count));
    this.#perform(member);
  }

  /** The messages in flight that `which` picks arrive; those they lead to stay in flight. */
  deliver(which: (message: RaftMessage) => boolean = () => true): number {
    const arriving = this.network.filter(which);
    this.network = this.network.filter((message) => !arriving.includes(message));
    for (const message of arriving) {
      const to = this.members.get(message.to);
      if (to?.up) this.step(message.to, { kind: 'message', message });
    }
    return arriving.length;
  }

  drop(which: (message: RaftMessage) => boolean = () => true): number {
    const before = this.network.length;
    this.network = this.network.filter((message) => !which(message));
    return before - this.network.length;
  }

  /** Everything arrives and is written until nothing more happens. */
  settle(which: (message: RaftMessage) => boolean = () => true): void {
    for (let round = 0; round < 1_000; round++) {
      const wrote = [...this.members.values()].filter(({ up, writes }) => up && writes.length > 0);
      for (const { id } of wrote) this.persist(id);
      if (this.deliver(which) === 0 && wrote.length === 0) return;
    }
    assert(false, 'the group settles');
  }

  /** Time goes on, with every deadline met on the way. */
  tick(durationMs: number, ids: readonly number[] = [...this.members.keys()]): void {
    const endMs = this.nowMs + durationMs;
    for (;;) {
      const due = ids
        .map((id) => this.member(id))
        .filter(({ up }) => up)
        .map((member) => ({ member, atMs: member.raft.nextDeadlineMs() ?? Infinity }))
        .sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined || due.atMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, due.atMs);
      this.step(due.member.id, { kind: 'timeout' });
    }
    this.nowMs = endMs;
  }

  /** Time goes on with nothing lost: what is in flight arrives between any two deadlines. */
  run(durationMs: number, which?: (message: RaftMessage) => boolean): void {
    const endMs = this.nowMs + durationMs;
    this.settle(which);
    while (this.nowMs < endMs) {
      this.tick(Math.min(10, endMs - this.nowMs));
      this.settle(which);
    }
  }

  elect(id: number): void {
    this.step(id, { kind: 'campaign' });
    this.settle();
    assert(this.raft(id).status().role === 'leader', `member ${id} was elected`);
  }

  crash(id: number): void {
    this.member(id).crash();
  }

  restart(id: number): void {
    const member = this.member(id);
    member.restart(this.nowMs);
    this.#perform(member);
  }

  /** The snapshot that `from` was asked for gets to `to`, whose shell has it on disk then. */
  sendSnapshot(from: number, to: number): void {
    const sender = this.member(from);
    const meta = sender.disk.snapshot;
    const { term } = sender.raft.status();
    sender.snapshotsWanted = sender.snapshotsWanted.filter((id) => id !== to);
    const message = { kind: 'snapshot', from: raftId(from), to: raftId(to), term, meta } as const;
    const receiver = this.member(to);
    if (receiver.up) {
      if (receiver.disk.snapshot.index < meta.index) receiver.disk.snapshot = meta;
      this.step(to, { kind: 'message', message });
    }
    this.step(from, { kind: 'snapshot_sent', to: raftId(to), ok: receiver.up });
  }

  compact(id: number, keepEntries?: number): void {
    const member = this.member(id);
    member.compact(this.nowMs, keepEntries);
    this.#perform(member);
  }

  /** The commands that a member's state machine has, since its last snapshot. */
  commandsOf(id: number): string[] {
    return this.member(id)
      .applied.filter(({ kind }) => kind === 'command')
      .map(({ data }) => Buffer.from(data).toString());
  }

  #post(messages: readonly RaftMessage[]): void {
    for (const message of messages) {
      const { from, to } = message;
      const isLost = this.cutOff.has(from) || this.cutOff.has(to) || this.deaf.has(to);
      if (!isLost) this.network.push(message);
    }
  }

  #perform(member: GroupMember): void {
    // An only voter commits by its own disk, so that one Ready leads to the next.
    for (let round = 0; round < 100; round++) {
      this.#post(member.perform(this.nowMs));
      if (!this.promptDisks || member.writes.length === 0) return;
      this.#post(member.persist(this.nowMs));
    }
    assert(false, 'a member comes to rest');
  }
}
