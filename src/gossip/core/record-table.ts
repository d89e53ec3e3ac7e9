import { assert } from '../../base/assert.js';
import { ByteWriter, UINT48_MAX } from '../wire/record-bytes.js';
import {
  type Delta,
  DIRECTORY,
  decodeSubscription,
  encodeSubscription,
  type Subscription,
} from '../wire/record-delta.js';
import type { OwnerVersion } from '../wire/record-exchange.js';
import { RecordLog } from './record-log.js';

/** A record as its readers see it. */
export interface GossipRecord {
  readonly owner: string;
  readonly key: string;
  readonly value: Uint8Array;
  /** The owner is dead or has left: the record is kept, for it may come back, but is not to be used. */
  readonly suspended: boolean;
}

/** 32 bytes of a collision-resistant hash: the shell gives SHA-256. */
export type Hash = (bytes: Uint8Array) => Uint8Array;

export interface RecordLimits {
  readonly topicsMax: number;
  readonly ownersMax: number;
  /** Live records of one owner on one topic. */
  readonly keysPerOwnerMax: number;
  readonly tombstonesPerOwnerMax: number;
  readonly tombstoneMsMax: number;
  /** Deltas that wait for a gap before them to close: per owner and topic, and in all. */
  readonly waitingPerOwnerMax: number;
  readonly waitingMax: number;
  readonly waitingMsMax: number;
}

export const RECORD_LIMITS: RecordLimits = {
  topicsMax: 512,
  ownersMax: 8192,
  keysPerOwnerMax: 2048,
  tombstonesPerOwnerMax: 1024,
  tombstoneMsMax: 3_600_000,
  waitingPerOwnerMax: 8,
  waitingMax: 256,
  waitingMsMax: 30_000,
};

/** A clock is not set back by more than this: a hundred years. */
const OUTBID_MS_MAX = 3.16e12;

/**
 * What `merge` did. `own_echo`: our own words came back; `own_ahead`: somebody has writes in our
 * name that we did not make (a clock that was set back before a restart, or a copied identity).
 */
export type Merged =
  | 'merged'
  | 'stale'
  | 'gap'
  | 'own_echo'
  | 'own_ahead'
  | 'topic_unknown'
  | 'owner_not_admitted'
  | 'epoch_void'
  | 'owners_over_limit'
  | 'keys_over_limit'
  | 'waiting_over_limit';

/** A delta that waits for the writes before it. */
interface Parked {
  readonly delta: Delta;
  readonly parkedMs: number;
}

interface Topic {
  readonly logs: Map<string, RecordLog>;
  /** Deltas of the future, by owner. */
  readonly waiting: Map<string, Parked[]>;
  /** Our own writes up to here were handed to gossip. */
  announcedSeq: number;
  vectorDigest: Uint8Array | undefined;
  recordsDigest: string | undefined;
  records: readonly GossipRecord[] | undefined;
}

/**
 * The replicated records of this node: a topic per overlay network and, per topic, a log per owner.
 *
 * There is one writer per record, its owner, so merging needs no clock and no tie-break: per owner
 * the higher (epoch, seq) has everything that the lower has. Merging is therefore idempotent,
 * commutative and associative, whatever way a delta came.
 *
 * An owner's epochs never repeat: they start at its boot time and each topic it enters takes the
 * next. The directory, a topic of all members, maps topics to epochs per owner. It tells which
 * records a restarted or departed owner no longer stands for, and who shares a topic with whom.
 */
export class RecordTable {
  readonly #self: string;
  readonly #hash: Hash;
  readonly #limits: RecordLimits;
  readonly #topics = new Map<string, Topic>();
  readonly #subscriptions = new Map<string, ReadonlyMap<string, Subscription>>();
  readonly #changed = new Set<string>();
  #admitted: ReadonlySet<string> = new Set();
  #suspended: ReadonlySet<string> = new Set();
  readonly #epochMax: number;
  #epoch: number;
  #waitingCount = 0;

  /** @param epoch Above all that this owner ever used: its wall clock at boot, in milliseconds. */
  constructor(self: string, epoch: number, hash: Hash, limits: RecordLimits = RECORD_LIMITS) {
    assert(epoch > 0 && epoch < UINT48_MAX - 2 * OUTBID_MS_MAX, 'an epoch is a 48-bit time');
    this.#self = self;
    this.#epochMax = epoch + OUTBID_MS_MAX;
    this.#epoch = epoch;
    this.#hash = hash;
    this.#limits = limits;
    this.#openTopic(DIRECTORY);
  }

  /** Deltas parked behind a gap, on all topics. */
  get waitingCount(): number {
    return this.#waitingCount;
  }

  /** The directory first: what it voids must be known before other topics are compared. */
  topics(): readonly string[] {
    return [...this.#topics.keys()];
  }

  has(topic: string): boolean {
    return this.#topics.has(topic);
  }

  /** @returns False if the limit of topics is reached. Subscribing twice is once. */
  subscribe(topic: string, nowMs: number): boolean {
    if (this.#topics.has(topic)) return true;
    if (this.#topics.size >= this.#limits.topicsMax) return false;
    const epoch = this.#openTopic(topic);
    this.#announce(topic, { epoch, active: true }, nowMs);
    return true;
  }

  /** Our own records of the topic become void everywhere, and all others are forgotten here. */
  unsubscribe(topic: string, nowMs: number): void {
    assert(topic !== DIRECTORY, 'the directory is never left');
    const held = this.#topics.get(topic);
    if (held === undefined) return;
    const epoch = this.#ownLog(held).epoch;
    for (const owner of [...held.waiting.keys()]) this.#forgetWaiting(held, owner);
    this.#topics.delete(topic);
    this.#changed.add(topic);
    this.#announce(topic, { epoch, active: false }, nowMs);
  }

  /** @returns False if the owner's limit of keys is reached. The topic must be subscribed. */
  publish(topic: string, key: string, value: Uint8Array | undefined, nowMs: number): boolean {
    const held = this.#topics.get(topic);
    assert(held !== undefined, 'records are published on subscribed topics');
    const log = this.#ownLog(held);
    const before = log.valueOf(key);
    if (value === undefined ? before === undefined : before !== undefined && same(before, value)) {
      return true;
    }
    if (before === undefined && log.liveCount >= this.#limits.keysPerOwnerMax) return false;
    log.write(key, value, nowMs);
    log.forget(Number.NEGATIVE_INFINITY, this.#limits.tombstonesPerOwnerMax);
    this.#touch(topic, held);
    return true;
  }

  /** Our writes that gossip has not been given yet; they count as given from now on. */
  takeAnnouncement(topic: string): Delta | undefined {
    const held = this.#topics.get(topic);
    if (held === undefined) return undefined;
    const log = this.#ownLog(held);
    // A topic entered without a write is news too: the epoch voids what we wrote before a restart.
    const since = Math.max(held.announcedSeq, 0);
    if (held.announcedSeq >= log.seq) return undefined;
    held.announcedSeq = log.seq;
    const delta = log.deltaSince(since === 0 ? 0 : log.epoch, since);
    return delta && { topic, owner: this.#self, ...delta };
  }

  /** Merges what an owner is said to have written. Never throws. */
  merge(delta: Delta, nowMs: number): Merged {
    const { topic, owner } = delta;
    if (owner === this.#self) return this.isAhead(topic, delta.epoch, delta.to);
    const held = this.#topics.get(topic);
    if (held === undefined) return 'topic_unknown';
    if (!this.#admitted.has(owner)) return 'owner_not_admitted';
    if (this.#isVoid(topic, owner, delta.epoch)) return 'epoch_void';
    const log = held.logs.get(owner);
    const fit = RecordLog.fit(log, delta);
    if (fit === 'stale') return fit;
    if (fit === 'gap') return this.#park(held, { delta, parkedMs: nowMs });
    if (log === undefined && held.logs.size >= this.#limits.ownersMax) return 'owners_over_limit';

    // Epoch 0 is below all epochs: even a first state without a write is news to such a log.
    const grown = log ?? new RecordLog(0);
    if (grown.liveCountAfter(delta) > this.#limits.keysPerOwnerMax) return 'keys_over_limit';
    grown.merge(delta, nowMs);
    grown.forget(Number.NEGATIVE_INFINITY, this.#limits.tombstonesPerOwnerMax);
    held.logs.set(owner, grown);
    this.#touch(topic, held);
    if (topic === DIRECTORY) this.#readDirectory(owner, grown);
    this.#unpark(held, owner, nowMs);
    return 'merged';
  }

  /** Whether (epoch, seq) in our own name is beyond what we wrote. */
  isAhead(topic: string, epoch: number, seq: number): 'own_ahead' | 'own_echo' {
    const held = this.#topics.get(topic);
    if (held === undefined) return epoch > this.#epoch ? 'own_ahead' : 'own_echo';
    const log = this.#ownLog(held);
    return epoch > log.epoch || (epoch === log.epoch && seq > log.seq) ? 'own_ahead' : 'own_echo';
  }

  /**
   * Outbids writes in our own name up to `epoch`: every topic gets a new epoch above it and our
   * records anew. Defends against accidents only; members are authenticated, not distrusted.
   *
   * @returns False, and nothing is done, if `epoch` is absurd: whoever claims it must not use up
   *   the numbers.
   */
  outbid(epoch: number, nowMs: number): boolean {
    const lowest = Math.max(this.#epoch, epoch);
    if (lowest > this.#epochMax) return false;
    this.#epoch = lowest;
    for (const [topic, held] of this.#topics) {
      const before = this.#ownLog(held);
      this.#epoch += 1;
      const log = new RecordLog(this.#epoch);
      if (topic !== DIRECTORY)
        for (const [key, value] of before.live()) log.write(key, value, nowMs);
      held.logs.set(this.#self, log);
      held.announcedSeq = -1;
      this.#touch(topic, held);
    }
    for (const [topic, held] of this.#topics) {
      if (topic === DIRECTORY) continue;
      this.#announce(topic, { epoch: this.#ownLog(held).epoch, active: true }, nowMs);
    }
    return true;
  }

  /** What one who knows `owner` up to `have` lacks; `undefined`: nothing. */
  deltaFor(topic: string, owner: string, have: OwnerVersion | undefined): Delta | undefined {
    const delta = this.#topics
      .get(topic)
      ?.logs.get(owner)
      ?.deltaSince(have?.epoch ?? 0, have?.seq ?? 0);
    return delta && { topic, owner, ...delta };
  }

  /** Whether this node knows writes of the owner that one with `have` lacks. */
  knowsMore(topic: string, owner: string, have: OwnerVersion | undefined): boolean {
    const log = this.#topics.get(topic)?.logs.get(owner);
    if (log === undefined) return false;
    if (have === undefined || log.epoch !== have.epoch) return log.epoch > (have?.epoch ?? 0);
    return log.seq > have.seq;
  }

  /** Up to where the owner's writes are known; `undefined`: nothing of it, or no such topic. */
  versionOf(topic: string, owner: string): Omit<OwnerVersion, 'owner'> | undefined {
    const log = this.#topics.get(topic)?.logs.get(owner);
    return log && { epoch: log.epoch, seq: log.seq };
  }

  vector(topic: string): readonly OwnerVersion[] {
    const logs = this.#topics.get(topic)?.logs ?? new Map<string, RecordLog>();
    return [...logs].map(([owner, { epoch, seq }]) => ({ owner, epoch, seq }));
  }

  /** 32 bytes, equal on two nodes if and only if their vectors of the topic are. */
  vectorDigest(topic: string): Uint8Array {
    const held = this.#topics.get(topic);
    if (held?.vectorDigest !== undefined) return held.vectorDigest;
    const writer = new ByteWriter();
    for (const { owner, epoch, seq } of [...this.vector(topic)].sort(byOwner)) {
      writer.text8(owner);
      writer.uint48(epoch);
      writer.uint48(seq);
    }
    const digest = this.#hash(writer.finish());
    if (held !== undefined) held.vectorDigest = digest;
    return digest;
  }

  /** Hex; equal on two nodes if and only if they hold the same live records, suspended or not. */
  recordsDigest(topic: string): string {
    const held = this.#topics.get(topic);
    if (held?.recordsDigest !== undefined) return held.recordsDigest;
    const writer = new ByteWriter(4096);
    const sorted = [...this.records(topic)].sort((a, b) => byOwner(a, b) || order(a.key, b.key));
    for (const { owner, key, value } of sorted) {
      writer.text8(owner);
      writer.text8(key);
      writer.uint16(value.length);
      writer.bytes(value);
    }
    const digest = Buffer.from(this.#hash(writer.finish())).toString('hex');
    if (held !== undefined) held.recordsDigest = digest;
    return digest;
  }

  records(topic: string): readonly GossipRecord[] {
    const held = this.#topics.get(topic);
    if (held === undefined) return [];
    if (held.records !== undefined) return held.records;
    const records: GossipRecord[] = [];
    for (const [owner, log] of held.logs) {
      const suspended = this.#suspended.has(owner);
      for (const [key, value] of log.live()) records.push({ owner, key, value, suspended });
    }
    held.records = records;
    return records;
  }

  /** Owners other than ourselves that take part in the topic, as far as the directory tells. */
  subscribersOf(topic: string): readonly string[] {
    const owners: string[] = [];
    for (const [owner, topics] of this.#subscriptions) {
      if (topic === DIRECTORY || topics.get(topic)?.active === true) owners.push(owner);
    }
    return owners;
  }

  /** Owners outside `admitted` are forgotten, and not listened to. */
  setAdmitted(admitted: ReadonlySet<string>): void {
    this.#admitted = admitted;
    for (const owner of this.#subscriptions.keys()) {
      if (!admitted.has(owner)) this.#subscriptions.delete(owner);
    }
    for (const [topic, held] of this.#topics) {
      for (const owner of [...held.logs.keys(), ...held.waiting.keys()]) {
        if (owner !== this.#self && !admitted.has(owner)) this.#forgetOwner(topic, held, owner);
      }
    }
  }

  /** Whose records are suspended. */
  setSuspended(suspended: ReadonlySet<string>): void {
    const before = this.#suspended;
    this.#suspended = suspended;
    const differs = (owner: string) => before.has(owner) !== suspended.has(owner);
    const owners = new Set([...before, ...suspended].filter(differs));
    for (const [topic, held] of this.#topics) {
      const touched = [...owners].some((owner) => (held.logs.get(owner)?.liveCount ?? 0) > 0);
      if (!touched) continue;
      held.records = undefined;
      this.#changed.add(topic);
    }
  }

  /** Forgets tombstones, and deltas that wait for what nobody has, when they are old enough. */
  sweep(nowMs: number): void {
    const beforeMs = nowMs - this.#limits.tombstoneMsMax;
    const recent = ({ parkedMs }: Parked) => parkedMs > nowMs - this.#limits.waitingMsMax;
    for (const held of this.#topics.values()) {
      for (const log of held.logs.values()) {
        log.forget(beforeMs, this.#limits.tombstonesPerOwnerMax);
      }
      for (const [owner, parked] of [...held.waiting]) {
        this.#keepWaiting(held, owner, parked.filter(recent));
      }
    }
  }

  /** Topics whose records changed since the last call; never the directory. */
  takeChanged(): readonly string[] {
    this.#changed.delete(DIRECTORY);
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  counts(): { readonly topics: number; readonly records: number; readonly tombstones: number } {
    let records = 0;
    let tombstones = 0;
    for (const [topic, { logs }] of this.#topics) {
      if (topic === DIRECTORY) continue;
      for (const log of logs.values()) {
        records += log.liveCount;
        tombstones += log.tombstoneCount;
      }
    }
    return { topics: this.#topics.size - 1, records, tombstones };
  }

  #ownLog(held: Topic): RecordLog {
    const log = held.logs.get(this.#self);
    assert(log !== undefined, 'every topic has our own log');
    return log;
  }

  #openTopic(topic: string): number {
    this.#epoch += 1;
    this.#topics.set(topic, {
      logs: new Map([[this.#self, new RecordLog(this.#epoch)]]),
      waiting: new Map(),
      announcedSeq: -1,
      vectorDigest: undefined,
      recordsDigest: undefined,
      records: undefined,
    });
    return this.#epoch;
  }

  #announce(topic: string, subscription: Subscription, nowMs: number): void {
    const value = encodeSubscription(subscription);
    if (this.publish(DIRECTORY, topic, value, nowMs)) return;
    // Topics of the past fill our directory. In a new epoch it names only those of today.
    this.outbid(this.#epoch, nowMs);
  }

  #touch(topic: string, held: Topic): void {
    held.vectorDigest = undefined;
    held.recordsDigest = undefined;
    held.records = undefined;
    this.#changed.add(topic);
  }

  /** Whether the directory says that the owner does not stand for what it wrote in `epoch`. */
  #isVoid(topic: string, owner: string, epoch: number): boolean {
    if (topic === DIRECTORY) return false;
    const directory = this.#topics.get(DIRECTORY)?.logs.get(owner);
    if (directory === undefined) return false;
    if (epoch < directory.epoch) return true;
    const subscription = this.#subscriptions.get(owner)?.get(topic);
    if (subscription === undefined) return false;
    return subscription.active ? epoch < subscription.epoch : epoch <= subscription.epoch;
  }

  #readDirectory(owner: string, log: RecordLog): void {
    const topics = new Map<string, Subscription>();
    for (const [topic, value] of log.live()) {
      const subscription = decodeSubscription(value);
      if (subscription !== undefined) topics.set(topic, subscription);
    }
    this.#subscriptions.set(owner, topics);
    for (const [topic, held] of this.#topics) {
      const log = held.logs.get(owner);
      if (log !== undefined && this.#isVoid(topic, owner, log.epoch)) {
        this.#forgetOwner(topic, held, owner);
      }
      const standing = ({ delta }: Parked) => !this.#isVoid(topic, owner, delta.epoch);
      const parked = held.waiting.get(owner);
      if (parked !== undefined) this.#keepWaiting(held, owner, parked.filter(standing));
    }
  }

  #forgetOwner(topic: string, held: Topic, owner: string): void {
    this.#forgetWaiting(held, owner);
    if (held.logs.delete(owner)) this.#touch(topic, held);
  }

  #park(held: Topic, parked: Parked): Merged {
    const { owner } = parked.delta;
    const others = held.waiting.get(owner) ?? [];
    const { waitingPerOwnerMax, waitingMax } = this.#limits;
    if (others.length >= waitingPerOwnerMax || this.#waitingCount >= waitingMax) {
      return 'waiting_over_limit';
    }
    this.#keepWaiting(held, owner, [...others, parked]);
    return 'gap';
  }

  #unpark(held: Topic, owner: string, nowMs: number): void {
    const parked = held.waiting.get(owner);
    if (parked === undefined) return;
    this.#forgetWaiting(held, owner);
    // Each comes back here only if it merged, so this ends; those still early park again.
    const byStart = (a: Parked, b: Parked) =>
      a.delta.epoch - b.delta.epoch || a.delta.from - b.delta.from;
    for (const { delta } of parked.sort(byStart)) this.merge(delta, nowMs);
  }

  #keepWaiting(held: Topic, owner: string, parked: Parked[]): void {
    this.#forgetWaiting(held, owner);
    if (parked.length > 0) held.waiting.set(owner, parked);
    this.#waitingCount += parked.length;
  }

  #forgetWaiting(held: Topic, owner: string): void {
    this.#waitingCount -= held.waiting.get(owner)?.length ?? 0;
    held.waiting.delete(owner);
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function byOwner(a: { readonly owner: string }, b: { readonly owner: string }): number {
  return order(a.owner, b.owner);
}
