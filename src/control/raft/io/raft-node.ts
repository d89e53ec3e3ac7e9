import { randomInt } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { nowMs } from '../../../base/io/driver.js';
import { Prng } from '../../../base/prng.js';
import { raftConfig } from '../core/config.js';
import { Raft } from '../core/raft.js';
import type {
  LogIndex,
  MemberChange,
  RaftId,
  RaftReady,
  RaftStatus,
  SnapshotMeta,
} from '../core/types.js';
import { Applier, readSnapshot } from './applier.js';
import { LogWriter } from './log-writer.js';
import { Proposals } from './proposals.js';
import { closedError, RaftError, refusalError, timeoutError } from './raft-error.js';
import { RaftLoop } from './raft-loop.js';
import type { RaftNodeConfig, RaftNodeStatus, RaftPurpose } from './raft-node-config.js';
import { Reads } from './reads.js';
import { SnapshotReceiver } from './snapshot-receiver.js';
import { SnapshotSender } from './snapshot-sender.js';
import { Snapshotter } from './snapshotter.js';
import { StallWatch } from './stall-watch.js';
import type { SnapshotReader } from './storage.js';
import { Transport } from './transport.js';

/** What a proposal may be at most. */
export const PROPOSAL_BYTES_MAX = 1_536 * 1_024;
/** A leader whose event loop stood still so long says so, or gives its place away. */
const STALL_LOG_MS = 300;
const STALL_TRANSFER_MS = 1_000;
/** What closing may take beyond the disk's own time. */
const CLOSE_TRANSFER_MS_MAX = 1_000;

/** One member of a raft group in the real world: the core, its disk, its peers and its state machine. */
export class RaftNode {
  readonly #config: RaftNodeConfig;
  readonly #electionTimeoutMs: number;
  readonly #core: Raft;
  readonly #loop: RaftLoop;
  readonly #transport: Transport;
  readonly #writer: LogWriter;
  readonly #applier: Applier;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;
  readonly #snapshotter: Snapshotter;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #stallWatch: StallWatch;
  readonly #ticker: NodeJS.Timeout;
  /** Who waits for a received snapshot to be in the log and in the machine, or refused. */
  readonly #undigested: (() => void)[] = [];
  readonly #listeners = new Set<(status: RaftStatus) => void>();
  #status: RaftStatus;
  #outcomeTimer: NodeJS.Timeout | undefined;
  #stalls = 0;
  #state: 'open' | 'closing' | 'closed' = 'open';
  #failed = false;
  #closed: Promise<void> | undefined;

  /** @throws RaftError RAFT_SNAPSHOT_MISSING, or what the storage throws for a damaged snapshot. */
  static async open(config: RaftNodeConfig): Promise<RaftNode> {
    const { snapshot } = config.storage.restart;
    let restored = snapshot;
    if (snapshot.index > 0) {
      const { meta, data } = await readSnapshot(config.storage, snapshot);
      config.machine.restore(data, meta);
      restored = meta;
    }
    return new RaftNode(config, restored);
  }

  private constructor(config: RaftNodeConfig, snapshot: SnapshotMeta) {
    this.#config = config;
    const { id, storage, machine, log } = config;
    const seed = randomInt(2 ** 47);
    const raft = raftConfig({
      id,
      seed,
      ...(config.electionTimeoutMs === undefined
        ? {}
        : { electionTimeoutMs: config.electionTimeoutMs }),
      ...(config.heartbeatMs === undefined ? {} : { heartbeatMs: config.heartbeatMs }),
    });
    this.#electionTimeoutMs = raft.electionTimeoutMs;
    this.#core = new Raft(raft, storage.restart, nowMs());
    this.#status = this.#core.status();
    this.#loop = new RaftLoop(this.#core, {
      begin: () => this.#reads.poll(),
      note: (ready) => this.#note(ready),
      send: (messages) => {
        for (const message of messages) this.#transport.send(message);
      },
      flush: () => this.#transport.flush(),
      persist: (persist) => this.#writer.write(persist),
      perform: (ready) => this.#perform(ready),
      failed: (error) => this.#fail(error),
    });
    this.#transport = new Transport({
      self: id,
      prng: new Prng(seed),
      silenceMs: 2 * raft.electionTimeoutMs,
      dial: (member, signal) => config.dial(member, 'log', signal),
      onMessage: (message) => this.#loop.input({ kind: 'message', message }),
      onGone: (peer) => this.#loop.input({ kind: 'peer_gone', peer }),
      onLoss: (peer) => this.#loop.input({ kind: 'peer_unreachable', peer }),
    });
    this.#writer = new LogWriter({
      storage,
      onDurable: (persist) => this.#loop.durable(persist),
      onFull: (on) => {
        if (on) log.error({}, 'the disk is full: nothing is written until there is room again');
        else log.info({}, 'the disk has room again');
        this.#loop.input({ kind: 'read_only', on });
      },
      onFailed: (error) => this.#fail(error),
    });
    this.#applier = new Applier({
      machine,
      storage,
      snapshot,
      handedIndex: storage.restart.snapshot.index,
      onApplied: (entry, result) => this.#proposals.onApplied(entry, result),
      onRestored: (meta) => {
        this.#proposals.onRestored(meta);
        this.#snapshotter.onRestored(meta);
      },
      onProgress: () => {
        this.#loop.input({ kind: 'applied', index: this.#applier.knownIndex });
        this.#reads.onApplied(this.#applier.appliedIndex);
        this.#snapshotter.poll();
      },
      onFailed: (error) => this.#fail(error),
    });
    this.#reads = new Reads({
      ask: (request) => this.#loop.input({ kind: 'read', request }),
      firstRequest: 1 + randomInt(2 ** 40),
      roundMs: raft.electionTimeoutMs / 2,
      retryMs: raft.heartbeatMs / 2,
      patienceMs: 2 * raft.electionTimeoutMs,
    });
    this.#snapshotter = new Snapshotter({
      machine,
      applier: this.#applier,
      storage,
      log,
      snapshotEntries: config.snapshotEntries ?? 10_000,
      snapshotBytes: config.snapshotBytes ?? 64 << 20,
      lastIndex: snapshot.index,
      onSaved: (meta) => this.#onSaved(meta),
    });
    this.#sender = new SnapshotSender({
      self: id,
      log,
      dial: (member, signal) => config.dial(member, 'snapshot', signal),
      open: () => this.#openSnapshot(),
      onSent: (to, ok) => this.#loop.input({ kind: 'snapshot_sent', to, ok }),
    });
    this.#receiver = new SnapshotReceiver({
      self: id,
      log,
      judge: (term, meta) => {
        if (term < this.#status.term) return 'stale';
        return meta.index <= this.#status.commitIndex ? 'have' : 'wanted';
      },
      open: (meta, sizeBytes, digest) => storage.receiveSnapshot(meta, sizeBytes, digest),
      onReceived: (from, term, meta) =>
        new Promise((resolve) => {
          this.#undigested.push(resolve);
          const message = { kind: 'snapshot', from, to: id, term, meta } as const;
          this.#loop.input({ kind: 'message', message });
        }),
    });
    this.#stallWatch = new StallWatch(STALL_LOG_MS, (stalledMs) => this.#onStall(stalledMs));
    this.#ticker = setInterval(() => this.#tick(), raft.heartbeatMs);
    this.#transport.setMembers(this.#status.members);
    this.#loop.wake();
  }

  /**
   * Resolves with the state machine's result when the proposal is committed, and applied here.
   *
   * @param data Not to be changed afterwards.
   * @throws RaftError RAFT_NOT_LEADER, RAFT_OUTCOME_UNKNOWN, RAFT_LOST, RAFT_OVERLOADED, RAFT_READ_ONLY,
   * RAFT_TOO_LARGE, RAFT_CLOSED (as a rejection).
   */
  propose(data: Uint8Array): Promise<unknown> {
    if (this.#state !== 'open') return Promise.reject(closedError());
    if (data.length > PROPOSAL_BYTES_MAX)
      return Promise.reject(
        new RaftError(
          {
            code: 'RAFT_TOO_LARGE',
            sizeBytes: data.length,
            sizeBytesMax: PROPOSAL_BYTES_MAX,
          },
          `a change of ${data.length} bytes is too large: at most ${PROPOSAL_BYTES_MAX}`,
        ),
      );
    if (this.#status.role !== 'leader') return Promise.reject(this.#notLeader());
    return this.#proposals.add(data.length, (token) =>
      this.#loop.input({ kind: 'propose', token, data }),
    );
  }

  /**
   * Linearizable: when this resolves, the local state is at least as new as any was when it was called.
   *
   * @throws RaftError RAFT_NO_LEADER, RAFT_OVERLOADED, RAFT_CLOSED (as a rejection).
   */
  read(): Promise<void> {
    if (this.#state !== 'open') return Promise.reject(closedError());
    const read = this.#reads.add();
    this.#loop.wake();
    return read;
  }

  /**
   * Resolves when the change is committed.
   *
   * @throws RaftError RAFT_MEMBERS, RAFT_NOT_LEADER, RAFT_OUTCOME_UNKNOWN, RAFT_LOST, RAFT_CLOSED (as a rejection).
   */
  async changeMembers(change: MemberChange): Promise<void> {
    if (this.#state !== 'open') throw closedError();
    if (this.#status.role !== 'leader') throw this.#notLeader();
    await this.#proposals.add(0, (token) =>
      this.#loop.input({ kind: 'propose_members', token, change }),
    );
  }

  /**
   * Adds a voter safely: as a learner first, which is promoted when it has caught up; until then the group
   * does not depend on it. A learner that does not catch up in time stays one.
   *
   * @param context See `Member`.
   * @throws RaftError As `changeMembers`, and RAFT_TIMEOUT.
   */
  async addVoter(
    id: RaftId,
    context: string,
    { timeoutMs = 30_000 }: { readonly timeoutMs?: number } = {},
  ): Promise<void> {
    const untilMs = nowMs() + timeoutMs;
    for (;;) {
      const member = this.#status.members.find((known) => known.id === id);
      if (member?.voter === true) return;
      try {
        await this.changeMembers(
          member === undefined ? { kind: 'add_learner', id, context } : { kind: 'promote', id },
        );
      } catch (error) {
        if (!isPassing(error)) throw error;
        if (nowMs() > untilMs) throw timeoutError('waiting for the new manager', timeoutMs);
        await pause(this.#electionTimeoutMs / 10);
      }
    }
  }

  /**
   * Resolves when another member is known to lead.
   *
   * @param to Default: whoever has most of the log.
   * @throws RaftError RAFT_NOT_LEADER, RAFT_TIMEOUT, RAFT_MEMBERS if there is nobody to lead, RAFT_CLOSED.
   */
  async transferLeadership(to?: RaftId, timeoutMs = 4 * this.#electionTimeoutMs): Promise<void> {
    if (this.#state === 'closed') throw closedError();
    const { role, members, id } = this.#status;
    if (role !== 'leader') throw this.#notLeader();
    const able = members.some((m) => m.voter && m.id !== id && (to === undefined || m.id === to));
    if (!able) throw refusalError('members_invalid', 0);
    const given = await this.#until(
      timeoutMs,
      ({ leader }) => leader !== 0 && leader !== id,
      () => this.#loop.input({ kind: 'transfer', ...(to === undefined ? {} : { to }) }),
    );
    if (!given) throw timeoutError('changing the leader', timeoutMs);
  }

  /** What `onStatus` told last. Costs nothing, unlike `status`, which looks into every part. */
  get current(): RaftStatus {
    return this.#status;
  }

  get appliedIndex(): LogIndex {
    return this.#applier.appliedIndex;
  }

  status(): RaftNodeStatus {
    return {
      ...this.#status,
      lastIndex: this.#core.lastIndex,
      lastTerm: this.#core.termAt(this.#core.lastIndex) ?? 0,
      appliedIndex: this.#applier.appliedIndex,
      followers: this.#core.followers(),
      peers: this.#transport.peers,
      storage: this.#config.storage.stats(),
      proposals: this.#proposals.count,
      reads: this.#reads.count,
      snapshots: {
        ...this.#snapshotter.stats(),
        sending: this.#sender.stats(),
        receiving: this.#receiver.stats(),
      },
      dropped: this.#transport.dropped,
      ignored: { ...this.#core.drops },
      stalls: this.#stalls,
    };
  }

  /** Calls back on each change until the returned function is called. */
  onStatus(listener: (status: RaftStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes over an incoming, authenticated connection. @param from Whose the certificate says it is. */
  accept(stream: Duplex, purpose: RaftPurpose, from?: RaftId): void {
    if (purpose === 'log') this.#transport.accept(stream, from);
    else this.#receiver.accept(stream, from);
  }

  /**
   * Takes a snapshot of the state as it is now, or a little later; resolves when it is durable.
   *
   * @throws RaftError RAFT_CLOSED, or what the storage throws.
   */
  snapshot(): Promise<SnapshotMeta> {
    return this.#snapshotter.take();
  }

  /** Addresses may have changed: peers that are not connected are dialled at once. */
  updateDials(): void {
    this.#transport.updateDials();
  }

  /** Gives leadership away if it can, then stops, and closes the storage. Never rejects twice; idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#state === 'open') {
      this.#state = 'closing';
      const untilMs = nowMs() + CLOSE_TRANSFER_MS_MAX;
      const reachesOther = this.#status.members.some(
        ({ id, voter }) => voter && this.#transport.connectedTo(id),
      );
      if (this.#status.role === 'leader' && reachesOther)
        await this.transferLeadership(undefined, CLOSE_TRANSFER_MS_MAX).catch(() => {});
      // The next leader says what became of what was proposed here.
      if (this.#status.leader !== 0 && this.#proposals.count > 0)
        while (this.#proposals.count > 0 && nowMs() < untilMs) await pause(5);
    }
    this.#halt(true);
    await Promise.all([this.#snapshotter.stop(), this.#receiver.stop()]);
    if (!this.#failed) await this.#config.storage.close();
  }

  #note(ready: RaftReady): void {
    if (ready.status !== undefined) this.#onStatus(ready.status);
    for (const outcome of ready.proposals) this.#proposals.onOutcome(outcome, this.#status.leader);
  }

  #perform(ready: RaftReady): void {
    if (ready.restore !== undefined) this.#applier.restore(ready.restore);
    this.#applier.apply(ready.committed);
    for (const { request, index } of ready.reads)
      this.#reads.onAnswer(request, index, this.#applier.appliedIndex);
    for (const to of ready.snapshots) this.#sendSnapshot(to);
    this.#reads.poll();
    this.#digest();
  }

  /** The next snapshot may be received when the last one is nowhere on its way any more. */
  #digest(): void {
    if (this.#undigested.length === 0) return;
    if (this.#state !== 'closed' && (this.#writer.resetting || this.#applier.restoring)) return;
    for (const resolve of this.#undigested.splice(0)) resolve();
  }

  #onStatus(status: RaftStatus): void {
    const before = this.#status;
    this.#status = status;
    if (status.members !== before.members) this.#transport.setMembers(status.members);
    if (status.leader !== before.leader || status.term !== before.term) this.#onLeader(before);
    for (const listener of [...this.#listeners]) listener(status);
  }

  #onLeader(before: RaftStatus): void {
    const { role, term, leader, id } = this.#status;
    if (leader !== 0) {
      this.#config.log.info({ term, leader, self: leader === id }, 'raft has a leader');
      this.#reads.onLeader();
    } else if (before.leader !== 0) this.#config.log.info({ term }, 'raft has no leader');
    if (before.role !== 'leader' || role === 'leader') return;
    this.#sender.abort();
    clearTimeout(this.#outcomeTimer);
    // The next leader settles it by what it commits; but there may be none for a long time.
    this.#outcomeTimer = setTimeout(
      () => this.#proposals.forgetBefore(term + 1),
      4 * this.#electionTimeoutMs,
    );
  }

  #sendSnapshot(to: RaftId): void {
    const member = this.#status.members.find(({ id }) => id === to);
    if (member !== undefined) this.#sender.send(member, this.#status.term);
    else this.#loop.input({ kind: 'snapshot_sent', to, ok: false });
  }

  /** One from which the log goes on. */
  async #openSnapshot(): Promise<SnapshotReader> {
    const latest = await this.#config.storage.openSnapshot();
    if (latest !== undefined && this.#core.termAt(latest.meta.index) !== undefined) return latest;
    await latest?.close();
    await this.#snapshotter.take();
    const taken = await this.#config.storage.openSnapshot();
    if (taken !== undefined) return taken;
    throw new RaftError({ code: 'RAFT_SNAPSHOT_MISSING' }, 'there is no snapshot to send');
  }

  #onSaved(meta: SnapshotMeta): void {
    const { keepEntries = 500, storage } = this.#config;
    // Else it is of a snapshot of which the core is only about to hear.
    if (meta.index > this.#applier.knownIndex) return;
    this.#loop.input({ kind: 'compact', meta, keepEntries });
    storage.compact(Math.max(0, meta.index - keepEntries));
  }

  #tick(): void {
    this.#transport.tick();
    this.#sender.tick();
    this.#receiver.tick();
  }

  #onStall(stalledMs: number): void {
    if (this.#status.role !== 'leader' || this.#state !== 'open') return;
    this.#stalls++;
    this.#config.log.warn({ stalledMs: Math.round(stalledMs) }, 'the leader stood still');
    if (stalledMs > STALL_TRANSFER_MS) this.#loop.input({ kind: 'transfer' });
  }

  /** Resolves with whether the status came to be so in time. @param begin Called when it is watched. */
  #until(
    timeoutMs: number,
    wanted: (status: RaftStatus) => boolean,
    begin: () => void,
  ): Promise<boolean> {
    return new Promise((resolve) => {
      const settle = (came: boolean) => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        resolve(came);
      };
      const listener = (status: RaftStatus) => {
        if (wanted(status)) settle(true);
      };
      const timer = setTimeout(() => settle(false), timeoutMs);
      this.#listeners.add(listener);
      begin();
    });
  }

  #notLeader(): RaftError {
    return refusalError('not_leader', this.#status.leader);
  }

  /** Nothing leaves, is written, applied or answered after this. */
  #halt(gently: boolean): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#loop.stop();
    this.#writer.stop();
    this.#applier.stop();
    this.#transport.stop(gently);
    this.#sender.stop();
    void this.#receiver.stop();
    this.#stallWatch.stop();
    clearInterval(this.#ticker);
    clearTimeout(this.#outcomeTimer);
    this.#proposals.close(closedError());
    this.#reads.close(closedError());
    this.#digest();
  }

  #fail(error: unknown): void {
    if (this.#state === 'closed') return;
    this.#failed = true;
    this.#halt(false);
    void this.#snapshotter.stop();
    this.#config.log.error({ err: error }, 'raft has stopped for good');
    this.#config.onFatal(error instanceof Error ? error : new Error(String(error)));
  }
}

/** Whether asking again a little later may help. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof RaftError)) return false;
  const { detail } = error;
  if (detail.code === 'RAFT_MEMBERS')
    return detail.reason === 'members_busy' || detail.reason === 'learner_behind';
  return detail.code === 'RAFT_OVERLOADED';
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
