import type { Prng } from '../../../src/base/prng.js';
import type {
  LogEntry,
  LogIndex,
  MemberChange,
  Membership,
  ProposalRefusal,
  RaftConfig,
  RaftId,
  RaftInput,
  RaftMessage,
  RaftPersist,
  RaftReady,
  RaftRestart,
  RaftStatus,
  SnapshotMeta,
  Term,
} from '../../../src/control/raft/core/types.js';
import { decodeMembers } from '../../../src/control/raft/wire/members.js';
import { describeWrite } from './describe.js';
import type { Disk } from './disk.js';
import type { Ledger } from './ledger.js';
import {
  EMPTY_IMAGE,
  encodeCommand,
  Machine,
  type MachineImage,
  nameOf,
  type Request,
} from './machine.js';
import type { Scheduler } from './scheduler.js';
import type { Sight } from './sights.js';
import { Violation } from './violation.js';

/** The core, as far as the world needs it; a mutant has the same form. */
export interface RaftCore {
  step(input: RaftInput, nowMs: number): void;
  takeReady(): RaftReady;
  nextDeadlineMs(): number | undefined;
  status(): RaftStatus;
}

export type RaftClass = new (config: RaftConfig, restart: RaftRestart, nowMs: number) => RaftCore;

/** Where a node lives. */
export interface Surroundings {
  readonly scheduler: Scheduler;
  readonly ledger: Ledger;
  readonly raft: RaftClass;
  trace(text: () => string): void;
  see(sight: Sight): void;
  send(message: RaftMessage): void;
  sendSnapshot(from: SimNode, to: RaftId): void;
  /** The node ended by itself: a planned crash, or a disk that failed. */
  ended(node: SimNode): void;
}

/** How the shell around the core behaves. */
export interface ShellConfig {
  /** From the arrival of an input to its turn. */
  readonly turnMsMax: number;
  readonly applyMsMax: number;
  readonly snapshotEntries: number;
  readonly keepEntries: number;
  /** Chance that a `Ready` is taken after a step, though more inputs wait. */
  readonly readyEarly: number;
}

export type Reply =
  | { readonly kind: 'ok'; readonly value: string; readonly index: LogIndex }
  /** Not done, and it never will be. */
  | {
      readonly kind: 'refused';
      readonly why: ProposalRefusal | 'lost' | 'no_leader';
      readonly leader: RaftId | 0;
    }
  | { readonly kind: 'unknown' };

interface Waiter {
  readonly reply: (reply: Reply) => void;
  readonly term: Term;
}

interface Reader {
  readonly key: string;
  readonly reply: (reply: Reply) => void;
}

type Task =
  | { readonly kind: 'input'; readonly input: RaftInput }
  | { readonly kind: 'persisted'; readonly persist: RaftPersist };

type Apply =
  | { readonly kind: 'restore'; readonly meta: SnapshotMeta }
  | { readonly kind: 'entries'; readonly entries: readonly LogEntry[] };

/** One member: a host with a disk and a clock, and on it, when it is up, the shell around a real core. */
export class SimNode {
  readonly id: RaftId;
  readonly disk: Disk;
  core: RaftCore | undefined;
  /** Counts its processes, so that what belongs to a former one is void. */
  life = 0;
  machine = new Machine(EMPTY_IMAGE);
  /** Ends the process after so many more effects. */
  fuse: number | undefined;
  pausedUntilMs = 0;
  /** Chunks of a snapshot that arrived, of a transfer that may go on. */
  partial: { readonly index: LogIndex; readonly term: Term; readonly chunks: number } | undefined;
  /** Taken away, never to start again. */
  isRetired = false;
  /** It began without knowing any member. */
  isJoiner = false;
  readonly #around: Surroundings;
  readonly #config: RaftConfig;
  readonly #shell: ShellConfig;
  readonly #prng: Prng;
  #clock: { readonly atMs: number; readonly localMs: number; readonly rate: number };
  #inbox: Task[] = [];
  #isTurnPlanned = false;
  #plannedMs: number | undefined;
  #token = 0;
  #request = 0;
  readonly #proposals = new Map<number, (reply: Reply) => void>();
  readonly #changes = new Map<number, (refused: ProposalRefusal | undefined) => void>();
  readonly #waiters = new Map<LogIndex, Waiter>();
  readonly #readers = new Map<number, Reader>();
  #readable: { readonly index: LogIndex; readonly reader: Reader }[] = [];
  #applies: Apply[] = [];
  #isApplying = false;
  /** Membership and term at the machine's index. */
  #members: Membership = [];
  #appliedTerm: Term = 0;
  #snapshotIndex: LogIndex = 0;
  #isSavingSnapshot = false;
  /** Writes that found the disk full, to be tried again in their order. */
  #stalled: RaftPersist[] = [];
  #isFull = false;

  constructor(
    around: Surroundings,
    prng: Prng,
    config: RaftConfig,
    shell: ShellConfig,
    disk: Disk,
  ) {
    this.id = config.id;
    this.disk = disk;
    this.#around = around;
    this.#prng = prng;
    this.#config = config;
    this.#shell = shell;
    this.#clock = { atMs: 0, localMs: Math.floor(prng.nextFloat() * 1e9), rate: 1 };
  }

  get name(): string {
    return nameOf(this.id);
  }

  get isPaused(): boolean {
    return this.pausedUntilMs > this.#around.scheduler.nowMs;
  }

  status(): RaftStatus | undefined {
    return this.core?.status();
  }

  /** Of this machine: it starts where it likes, and goes at its own pace. */
  #nowMs(): number {
    const { atMs, localMs, rate } = this.#clock;
    return localMs + (this.#around.scheduler.nowMs - atMs) * rate;
  }

  skew(rate: number): void {
    this.#clock = { atMs: this.#around.scheduler.nowMs, localMs: this.#nowMs(), rate };
    this.#plannedMs = undefined;
    if (this.core !== undefined) this.#plan(this.core);
  }

  start(): void {
    if (this.core !== undefined || this.isRetired) return;
    const restart = this.disk.recover();
    const { snapshot, entries, hardState } = restart;
    const image = snapshot.index === 0 ? EMPTY_IMAGE : this.#imageAt(snapshot);
    this.life += 1;
    this.machine = new Machine(image);
    this.#members = snapshot.members;
    this.#appliedTerm = snapshot.term;
    this.#snapshotIndex = snapshot.index;
    this.#around.trace(
      () =>
        `${this.name} starts: term ${hardState.term} vote ${nameOf(hardState.vote)} commit ${hardState.commitIndex}` +
        ` snapshot ${snapshot.index} log to ${snapshot.index + entries.length}`,
    );
    this.#around.ledger.started(this.id, restart);
    const config = { ...this.#config, seed: this.#prng.nextUint32() };
    const core = new this.#around.raft(config, restart, this.#nowMs());
    this.core = core;
    this.#around.ledger.observe(this.id, core.status());
    this.#perform(core);
  }

  /** The process ends. @param survives Whether what it had written but not flushed is on disk for certain. */
  crash(survives: boolean): void {
    if (this.core === undefined) return;
    this.core = undefined;
    this.life += 1;
    this.fuse = undefined;
    this.pausedUntilMs = 0;
    this.#inbox = [];
    this.#isTurnPlanned = false;
    this.#plannedMs = undefined;
    this.#applies = [];
    this.#isApplying = false;
    this.#isSavingSnapshot = false;
    this.#stalled = [];
    this.#isFull = false;
    this.disk.crash(survives);
    this.#around.ledger.stopped(this.id);
    // Its clients see their connections end.
    for (const reply of this.#proposals.values()) reply({ kind: 'unknown' });
    for (const { reply } of this.#waiters.values()) reply({ kind: 'unknown' });
    for (const { reply } of this.#readers.values()) reply({ kind: 'unknown' });
    for (const { reader } of this.#readable) reader.reply({ kind: 'unknown' });
    this.#proposals.clear();
    this.#changes.clear();
    this.#waiters.clear();
    this.#readers.clear();
    this.#readable = [];
  }

  pause(forMs: number): void {
    this.pausedUntilMs = this.#around.scheduler.nowMs + forMs;
    this.#around.scheduler.after(forMs, () => this.resume());
  }

  resume(): void {
    if (this.core === undefined || this.isPaused) return;
    this.#plannedMs = undefined;
    if (this.#inbox.length > 0) this.#turnSoon();
    this.#plan(this.core);
  }

  input(input: RaftInput): void {
    if (this.core === undefined) return;
    this.#inbox.push({ kind: 'input', input });
    this.#turnSoon();
  }

  write(
    request: Exclude<Request, { kind: 'read' }>,
    dedupe: string,
    reply: (reply: Reply) => void,
  ): void {
    if (this.core === undefined) {
      reply({ kind: 'refused', why: 'no_leader', leader: 0 });
      return;
    }
    const token = ++this.#token;
    this.#proposals.set(token, reply);
    this.input({ kind: 'propose', token, data: encodeCommand({ dedupe, request }) });
  }

  read(key: string, reply: (reply: Reply) => void): void {
    if (this.core === undefined) {
      reply({ kind: 'refused', why: 'no_leader', leader: 0 });
      return;
    }
    const request = ++this.#request;
    this.#readers.set(request, { key, reply });
    this.input({ kind: 'read', request });
  }

  changeMembers(change: MemberChange, done: (refused: ProposalRefusal | undefined) => void): void {
    if (this.core === undefined) return;
    const token = ++this.#token;
    this.#changes.set(token, done);
    this.input({ kind: 'propose_members', token, change });
  }

  takeSnapshot(): void {
    const { core, machine } = this;
    if (core === undefined || this.#isSavingSnapshot || machine.index <= this.#snapshotIndex)
      return;
    const meta = { index: machine.index, term: this.#appliedTerm, members: this.#members };
    this.#isSavingSnapshot = true;
    this.disk.saveSnapshot(meta, machine.capture(), (ok) => {
      if (this.core !== core) return;
      this.#isSavingSnapshot = false;
      if (!ok) return;
      this.#around.trace(() => `${this.name} has a snapshot of its own at ${meta.index}`);
      this.#around.see('own_snapshot');
      this.#snapshotIndex = Math.max(this.#snapshotIndex, meta.index);
      const keepEntries = this.#prng.nextBelow(this.#shell.keepEntries + 1);
      this.input({ kind: 'compact', meta, keepEntries });
      this.disk.compact();
    });
  }

  #turnSoon(): void {
    if (this.#isTurnPlanned || this.isPaused) return;
    this.#isTurnPlanned = true;
    const { life } = this;
    this.#around.scheduler.after(this.#prng.nextFloat() * this.#shell.turnMsMax, () => {
      if (this.life !== life) return;
      this.#isTurnPlanned = false;
      if (!this.isPaused) this.#turn();
    });
  }

  #turn(): void {
    const { core } = this;
    if (core === undefined) return;
    const deadlineMs = core.nextDeadlineMs();
    const isDue = deadlineMs !== undefined && deadlineMs <= this.#nowMs();
    // Timers and sockets are looked at in either order.
    const isTimerFirst = this.#prng.chance(0.5);
    if (isDue && isTimerFirst) this.#step(core, { kind: 'timeout' });
    const inbox = this.#inbox;
    this.#inbox = [];
    for (const task of inbox) {
      if (task.kind === 'input') this.#step(core, task.input);
      else if (!this.#persisted(core, task.persist)) return;
      if (this.#prng.chance(this.#shell.readyEarly)) this.#perform(core);
      if (this.core !== core) return;
    }
    if (isDue && !isTimerFirst) this.#step(core, { kind: 'timeout' });
    this.#perform(core);
  }

  #step(core: RaftCore, input: RaftInput): void {
    core.step(input, this.#nowMs());
    this.#around.ledger.observe(this.id, core.status());
  }

  #persisted(core: RaftCore, { persistId, messages }: RaftPersist): boolean {
    this.#around.trace(() => `${this.name} has write ${persistId} on disk`);
    this.#step(core, { kind: 'persisted', persistId });
    return this.#send(core, messages);
  }

  #plan(core: RaftCore): void {
    const deadlineMs = core.nextDeadlineMs();
    if (deadlineMs === undefined) return;
    const { atMs, localMs, rate } = this.#clock;
    const { nowMs } = this.#around.scheduler;
    const wakeMs = Math.max(nowMs, atMs + (deadlineMs - localMs) / rate + 1e-6);
    if (this.#plannedMs !== undefined && this.#plannedMs <= wakeMs && this.#plannedMs > nowMs)
      return;
    this.#plannedMs = wakeMs;
    const { life } = this;
    this.#around.scheduler.at(wakeMs, () => {
      if (this.life !== life || this.#plannedMs !== wakeMs) return;
      this.#plannedMs = undefined;
      if (!this.isPaused) this.#turn();
    });
  }

  /** In the order that `RaftReady` states; the process may end between any two effects. */
  #perform(core: RaftCore): void {
    const ready = core.takeReady();
    const status = core.status();
    this.#around.ledger.readies(this.id, ready);
    if (ready.status !== undefined) this.#onStatus(ready.status);
    for (const outcome of ready.proposals) this.#onProposal(outcome, status);
    if (!this.#send(core, ready.messages)) return;
    if (ready.persist !== undefined) {
      if (!this.#burn()) return;
      this.#write(core, ready.persist);
    }
    if (ready.restore !== undefined) this.#applies.push({ kind: 'restore', meta: ready.restore });
    if (ready.committed.length > 0)
      this.#applies.push({ kind: 'entries', entries: ready.committed });
    this.#applySoon(core);
    if (this.core !== core) return;
    for (const { request, index } of ready.reads) this.#onRead(request, index, status);
    this.#answerReads();
    for (const to of ready.snapshots) this.#around.sendSnapshot(this, to);
    this.#plan(core);
  }

  #onStatus({ role, term, leader, commitIndex, members }: RaftStatus): void {
    this.#around.trace(
      () =>
        `${this.name} is ${role} of term ${term}, leader ${nameOf(leader)}, commit ${commitIndex},` +
        ` members ${members.map(({ id, voter }) => `${id}${voter ? '' : '?'}`).join(' ')}`,
    );
  }

  #onProposal(outcome: RaftReady['proposals'][number], { leader }: RaftStatus): void {
    const change = this.#changes.get(outcome.token);
    const reply = this.#proposals.get(outcome.token);
    this.#changes.delete(outcome.token);
    this.#proposals.delete(outcome.token);
    if ('refused' in outcome) {
      change?.(outcome.refused);
      reply?.({ kind: 'refused', why: outcome.refused, leader });
      return;
    }
    change?.(undefined);
    if (reply === undefined) return;
    const { index, term } = outcome;
    this.#waiters.get(index)?.reply({ kind: 'refused', why: 'lost', leader });
    this.#waiters.set(index, { term, reply });
  }

  #send(core: RaftCore, messages: readonly RaftMessage[]): boolean {
    for (const message of messages) {
      if (this.core !== core || !this.#burn()) return false;
      this.#around.ledger.sends(this.id, message);
      this.#around.send(message);
    }
    return this.core === core;
  }

  #write(core: RaftCore, persist: RaftPersist): void {
    this.#around.trace(() => `${this.name} ${describeWrite(persist)}`);
    if (this.#isFull) {
      this.#stalled.push(persist);
      return;
    }
    this.disk.write(persist, (failure) => {
      if (this.core !== core) return;
      if (failure === 'failed') return this.#around.ended(this);
      if (failure === 'full') return this.#onFull(core, persist);
      this.#inbox.push({ kind: 'persisted', persist });
      this.#turnSoon();
    });
  }

  #onFull(core: RaftCore, persist: RaftPersist): void {
    this.#stalled.push(persist);
    if (this.#isFull) return;
    this.#isFull = true;
    this.#around.trace(() => `${this.name} finds its disk full`);
    this.input({ kind: 'read_only', on: true });
    const retry = () => {
      if (this.core !== core) return;
      if (this.disk.isFull) return this.#around.scheduler.after(50, retry);
      this.#isFull = false;
      const stalled = this.#stalled;
      this.#stalled = [];
      for (const held of stalled) this.#write(core, held);
      this.input({ kind: 'read_only', on: false });
    };
    this.#around.scheduler.after(50, retry);
  }

  #applySoon(core: RaftCore): void {
    if (this.#isApplying || this.#applies.length === 0) return;
    const delayMs = this.#prng.nextFloat() * this.#shell.applyMsMax;
    if (delayMs === 0) {
      this.#apply(core);
      return;
    }
    this.#isApplying = true;
    this.#around.scheduler.after(delayMs, () => {
      if (this.core !== core) return;
      this.#isApplying = false;
      this.#apply(core);
    });
  }

  #apply(core: RaftCore): void {
    const applies = this.#applies;
    this.#applies = [];
    for (const apply of applies) {
      if (apply.kind === 'restore') this.#restore(apply.meta);
      else for (const entry of apply.entries) this.#applyEntry(entry);
      if (!this.#burn()) return;
    }
    this.#answerReads();
    if (this.core !== core) return;
    this.input({ kind: 'applied', index: this.machine.index });
    if (this.machine.index - this.#snapshotIndex >= this.#shell.snapshotEntries)
      this.takeSnapshot();
  }

  #applyEntry(entry: LogEntry): void {
    if (entry.index !== this.machine.index + 1)
      throw new Violation(`${this.name} is to apply ${entry.index} after ${this.machine.index}`);
    this.#around.ledger.applies(this.id, entry);
    const value = this.machine.apply(entry);
    this.#appliedTerm = entry.term;
    if (entry.kind === 'members') this.#members = decodeMembers(entry.data) ?? [];
    const waiter = this.#waiters.get(entry.index);
    if (waiter === undefined) return;
    this.#waiters.delete(entry.index);
    if (waiter.term === entry.term) waiter.reply({ kind: 'ok', value, index: entry.index });
    else {
      this.#around.see('proposal_lost');
      waiter.reply({ kind: 'refused', why: 'lost', leader: 0 });
    }
  }

  #restore(meta: SnapshotMeta): void {
    if (meta.index <= this.machine.index)
      throw new Violation(`${this.name} goes back to ${meta.index} from ${this.machine.index}`);
    const image = this.#imageAt(meta);
    this.#around.see('snapshot_restored');
    this.machine = new Machine(image);
    this.#members = meta.members;
    this.#appliedTerm = meta.term;
    this.#snapshotIndex = meta.index;
    for (const [index, { reply }] of this.#waiters) {
      if (index > meta.index) continue;
      this.#waiters.delete(index);
      reply({ kind: 'unknown' });
    }
  }

  #imageAt(meta: SnapshotMeta): MachineImage {
    const image = this.disk.imageAt(meta);
    if (image === undefined)
      throw new Violation(`${this.name} has no durable snapshot at ${meta.index}`);
    this.#around.ledger.restores(this.id, meta, image.chain);
    return image;
  }

  #onRead(request: number, index: LogIndex | undefined, { leader }: RaftStatus): void {
    const reader = this.#readers.get(request);
    this.#readers.delete(request);
    if (reader === undefined) return;
    if (index === undefined) reader.reply({ kind: 'refused', why: 'no_leader', leader });
    else {
      if (leader !== this.id) this.#around.see('read_at_follower');
      this.#readable.push({ index, reader });
    }
  }

  #answerReads(): void {
    if (this.#readable.length === 0) return;
    const { machine } = this;
    const waiting = this.#readable.filter(({ index }) => index > machine.index);
    const answered = this.#readable.filter(({ index }) => index <= machine.index);
    this.#readable = waiting;
    for (const { reader } of answered)
      reader.reply({ kind: 'ok', value: machine.read(reader.key), index: machine.index });
  }

  #burn(): boolean {
    if (this.fuse === undefined) return true;
    if (this.fuse-- > 0) return true;
    this.#around.see('ended_midway');
    this.#around.trace(() => `${this.name} ends in the middle of a turn`);
    this.#around.ended(this);
    return false;
  }
}
