import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { CoreDriver } from '../../../base/io/driver.js';
import type { ServiceObject, TaskObject } from '../../../base/service-model.js';
import type {
  AttachmentId,
  NodeId,
  NodeObject,
  NodeSession,
  ServiceId,
} from '../../../base/swarm-model.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import type { AttachRequest, KeyedAttachment } from '../../wire/attachment.js';
import type { NodeRegistration } from '../../wire/model.js';
import { refusalOf } from '../../wire/refusal.js';
import type { TaskReport } from '../../wire/task-model.js';
import {
  type AssignmentsSource,
  diffShared,
  projectShared,
  type SharedAssignments,
} from '../core/assignments.js';
import {
  Liveness,
  type LivenessInput,
  type LivenessReady,
  type MembershipState,
} from '../core/liveness.js';
import {
  differsForNode,
  NOTHING_OWN,
  type OwnAssignments,
  type OwnSource,
  projectOwn,
} from '../core/own-assignments.js';
import { Removals } from '../core/removals.js';
import { type AgentMessage, type GoodbyeReason, parseAgentMessage } from '../wire/messages.js';
import { AgentSession, type PeerFacts, SharedChange } from './agent-session.js';

/** An agent that connected says who it is within this time. */
const HELLO_MS_MAX = 5_000;
/** Questions of one agent that may be unanswered. */
const REQUESTS_MAX = 256;
/** How long an agent that knows more than this manager waits for it to catch up. */
const BEHIND_MS_MAX = 2_000;
/** A session that is not known to all managers by then begins with what is known here. */
const PROVISIONAL_AFTER_MS = 1_000;
const REGISTER_RETRY_MS = 1_000;
/** Changes of the state within this time are told together. */
const PUBLISH_DELAY_MS = 5;
const SESSIONS_TOLD_PER_MS = 10;

/** What the dispatcher needs of the manager. */
export interface DispatchBackend {
  readonly log: Logger;
  /** This manager's node. */
  readonly self: NodeId;
  source(): AssignmentsSource;
  /** What is the node's own. */
  own(node: NodeId): OwnSource;
  /** The node as the state here has it; absent: it is no member, or the state lags behind. */
  node(id: NodeId): NodeObject | undefined;
  /** True: certainly a member no more. Absent: only a state that is `current` can tell. */
  isRemoved?(node: NodeId): boolean;
  /** Resolves when the state here has all that was committed before; rejects if that cannot be. */
  current?(): Promise<void>;
  /** True: this manager cannot reach most of the others, so that its state may be an old one. */
  stale?(): boolean;
  /**
   * Keeps what a node says of itself, and with `session` also that it is ready and served by it.
   * Resolves when the state here has it.
   */
  register(
    node: NodeId,
    registration: NodeRegistration,
    remoteAddress: string,
    session: NodeSession | undefined,
    peer: PeerFacts | undefined,
  ): Promise<void>;
  attach(node: NodeId, wish: AttachRequest): Promise<KeyedAttachment>;
  detach(node: NodeId, id: AttachmentId): Promise<void>;
  /** Keeps what a node says of its tasks. Resolves when the state here has it. */
  report(node: NodeId, reports: readonly TaskReport[]): Promise<void>;
  leave(node: NodeId): Promise<void>;
  /**
   * Keeps the state of a node, unless its latest session is not number `ifSession` any more. What
   * fails is asked again as long as it holds.
   */
  setState(
    node: NodeId,
    state: 'ready' | 'down',
    message: string,
    ifSession: number,
  ): Promise<void> | void;
}

/** A row of the store before and after, as far as the dispatcher looks into it. */
export interface RowChange {
  readonly table: string;
  readonly key: string;
  readonly before: unknown;
  readonly after: unknown;
}

export interface DispatcherStats {
  readonly sessions: number;
  /** Of those: sessions that could not be made known to the other managers yet. */
  readonly provisionalSessions: number;
  /** Connections that were given up because of what they sent, or did not send. */
  readonly refusedSessions: number;
  /** Agents that were sent on because they knew more than this manager. */
  readonly behind: number;
  /** How agents were told their assignments at first: all of them, or what was new to them. */
  readonly fullTells: number;
  readonly partialTells: number;
}

/**
 * A manager's end of its sessions: tells agents their assignments, and watches who is there, as
 * every other manager does with its own. The leader watches also those whom nobody serves.
 */
export class Dispatcher {
  readonly #backend: DispatchBackend;
  readonly #sessions = new Map<NodeId, AgentSession>();
  readonly #all = new Set<AgentSession>();
  readonly #liveness: CoreDriver<LivenessInput, LivenessReady>;
  readonly #removals: Removals;
  /** Those who wait for a later state. */
  readonly #waiters = new Set<() => void>();
  #shared: SharedAssignments;
  /** Of the state that was told last. */
  #version: number;
  /** What all nodes are told alike has changed since. */
  #sharedIsOld = false;
  /** Nodes whose own has changed since. */
  readonly #ownIsOld = new Set<NodeId>();
  #publishing: NodeJS.Timeout | undefined;
  #managers: { readonly leading: boolean; readonly reachable: ReadonlySet<NodeId> } = {
    leading: false,
    reachable: new Set(),
  };
  #leader: NodeId | undefined;
  #closed = false;
  #stale = false;
  #refusedSessions = 0;
  #behind = 0;
  #fullTells = 0;
  #partialTells = 0;

  constructor(backend: DispatchBackend) {
    this.#backend = backend;
    const source = backend.source();
    this.#shared = projectShared(source);
    this.#version = source.version;
    this.#removals = new Removals(source.version);
    this.#liveness = new CoreDriver(
      new Liveness(backend.self, this.#shared.cluster.heartbeatMs),
      (ready) => this.#onLiveness(ready),
    );
    this.#liveness.input({ kind: 'nodes', nodes: backend.source().nodes });
    this.#liveness.start();
  }

  stats(): DispatcherStats {
    let provisionalSessions = 0;
    for (const session of this.#sessions.values()) if (!session.registered) provisionalSessions++;
    return {
      sessions: this.#sessions.size,
      provisionalSessions,
      refusedSessions: this.#refusedSessions,
      behind: this.#behind,
      fullTells: this.#fullTells,
      partialTells: this.#partialTells,
    };
  }

  /**
   * Whether this manager leads, and which managers (itself included) look after the nodes that they
   * serve: members of the raft group that the leader hears of. To be called at every change of that,
   * and of who leads; once too often is harmless.
   */
  setManagers(leading: boolean, reachable: ReadonlySet<NodeId>): void {
    if (this.#closed) return;
    const before = this.#managers;
    if (leading !== before.leading || !isSameSet(reachable, before.reachable)) {
      this.#managers = { leading, reachable: new Set(reachable) };
      this.#liveness.input({ kind: 'managers', ...this.#managers });
    }
    const { leader } = this.#backend.source();
    // Agents prefer the others, so that they are told.
    if (leader !== this.#leader) this.changed([]);
    this.#leader = leader;
    this.pulse();
  }

  /** Agents hear at once, and not with their next heartbeat, that this manager is stale, or not any more. */
  pulse(): void {
    const stale = this.#backend.stale?.() === true;
    if (stale === this.#stale || this.#closed) return;
    this.#stale = stale;
    for (const session of this.#sessions.values())
      session.send({ kind: 'heartbeat', ...this.#pulseOf(session) });
  }

  reportMembership(states: ReadonlyMap<string, MembershipState>): void {
    this.#liveness.input({ kind: 'membership', states: new Map(states) });
  }

  /** Takes over a connection whose certificate names `nodeId`. */
  accept(stream: Duplex, nodeId: NodeId, remoteAddress: string, peer?: PeerFacts): void {
    const timer = setTimeout(() => this.#refuse(session), HELLO_MS_MAX);
    const channel: Channel = new Channel(stream, {
      onMessage: (value) => {
        const message = parseAgentMessage(value);
        if (message === undefined) return this.#refuse(session);
        if (message.kind === 'hello') clearTimeout(timer);
        this.#onMessage(session, message);
      },
      onClose: () => {
        clearTimeout(timer);
        this.#onClose(session);
      },
    });
    const session = new AgentSession(nodeId, channel, remoteAddress, peer);
    this.#all.add(session);
  }

  /**
   * The cluster's state has changed.
   * @param changes All rows that changed since the last call, also those that were made and removed
   *   since; absent: that is not known, as after a snapshot took the place of the state.
   */
  changed(changes?: readonly RowChange[]): void {
    const { version } = this.#backend.source();
    if (changes === undefined) {
      this.#removals.reset(version);
      for (const nodeId of this.#sessions.keys()) this.#ownIsOld.add(nodeId);
    } else
      for (const change of changes) {
        this.#noteRemoval(change, version);
        this.#noteOwn(change);
      }
    // Who leads is in no row: then there is no change to tell of.
    if (changes === undefined || changes.length === 0 || changes.some(isShared))
      this.#sharedIsOld = true;
    for (const wake of [...this.#waiters]) wake();
    this.#publishing ??= setTimeout(() => this.#publish(), this.#publishDelayMs());
  }

  /** The node was removed: its session ends, and it is told why. */
  remove(nodeId: NodeId): void {
    const session = this.#sessions.get(nodeId);
    if (session !== undefined) this.#sayGoodbye(session, 'removed');
  }

  /** Agents go to other managers at once. */
  close(): void {
    this.#closed = true;
    this.#liveness.stop();
    clearTimeout(this.#publishing);
    for (const session of this.#all) this.#sayGoodbye(session, 'closing');
    for (const wake of [...this.#waiters]) wake();
  }

  /** Each telling costs a message per session, so that in a large swarm more is told at once. */
  #publishDelayMs(): number {
    return PUBLISH_DELAY_MS + this.#sessions.size / SESSIONS_TOLD_PER_MS;
  }

  #noteRemoval({ table, key, before, after }: RowChange, version: number): void {
    if (table === 'service' && isHidden(after) && !isHidden(before))
      this.#removals.add({ table, id: key as ServiceId }, version);
    if (after !== undefined || before === undefined) return;
    if (table === 'network' || table === 'node')
      this.#removals.add({ table, id: key as never }, version);
    if (table === 'attachment' || table === 'task') {
      const { nodeId } = before as { readonly nodeId?: NodeId };
      if (nodeId !== undefined) this.#removals.add({ table, id: key as never, nodeId }, version);
    }
  }

  #noteOwn({ table, before, after }: RowChange): void {
    if (table === 'attachment') {
      const row = (after ?? before) as KeyedAttachment | undefined;
      if (row !== undefined) this.#ownIsOld.add(row.nodeId);
    }
    if (table !== 'task') return;
    const [from, to] = [before, after] as (TaskObject | undefined)[];
    const nodeId = to?.nodeId ?? from?.nodeId;
    if (nodeId === undefined) return;
    if (from === undefined || to === undefined || differsForNode(from, to))
      this.#ownIsOld.add(nodeId);
  }

  #refuse(session: AgentSession): void {
    this.#refusedSessions++;
    session.channel.destroy();
  }

  #sayGoodbye(session: AgentSession, reason: GoodbyeReason, number?: number): void {
    session.send({
      kind: 'goodbye',
      reason,
      ...(number !== undefined && { session: number }),
    });
    session.channel.end();
  }

  #onClose(session: AgentSession): void {
    this.#all.delete(session);
    session.wake();
    const { nodeId, number } = session;
    if (this.#sessions.get(nodeId) !== session) return;
    this.#sessions.delete(nodeId);
    this.#liveness.input({ kind: 'session_close', nodeId, number });
  }

  #onMessage(session: AgentSession, message: AgentMessage): void {
    if (this.#closed) return;
    if (message.kind === 'hello') {
      if (session.number === 0) void this.#greet(session, message);
      else this.#refuse(session);
    } else if (session.told === undefined) this.#refuse(session);
    else this.#onTold(session, message);
  }

  /** From an agent that was welcomed. */
  #onTold(session: AgentSession, message: Exclude<AgentMessage, { kind: 'hello' }>): void {
    const { nodeId, number } = session;
    this.#liveness.input({ kind: 'heard', nodeId, number });
    if (message.kind === 'registration') {
      session.wanted = message.registration;
      void this.#register(session);
    } else if (message.kind === 'heartbeat')
      session.send({ kind: 'heartbeat', ...this.#pulseOf(session) });
    else void this.#answer(session, message);
  }

  #pulseOf(session: AgentSession): { readonly heartbeatMs: number; readonly stale: boolean } {
    const stale = !session.registered || this.#backend.stale?.() === true;
    return { heartbeatMs: this.#shared.cluster.heartbeatMs, stale };
  }

  async #greet(
    session: AgentSession,
    hello: Extract<AgentMessage, { kind: 'hello' }>,
  ): Promise<void> {
    session.number = hello.session;
    session.bare = hello.bare;
    const goodbye = await this.#reasonAgainst(session, hello);
    if (this.#closed || session.channel.closed) return;
    if (goodbye !== undefined) return this.#turnAway(session, goodbye);
    session.wanted = hello.registration;
    const timer = setTimeout(() => this.#open(session, hello), PROVISIONAL_AFTER_MS);
    await this.#register(session);
    clearTimeout(timer);
    if (session.registered) this.#open(session, hello);
  }

  /** Why the agent has no business here; `undefined`: it has. */
  async #reasonAgainst(
    { nodeId, number }: AgentSession,
    { era, version }: Extract<AgentMessage, { kind: 'hello' }>,
  ): Promise<GoodbyeReason | undefined> {
    const { isRemoved } = this.#backend;
    if (isRemoved?.call(this.#backend, nodeId) === true) return 'removed';
    if (!(await this.#hasSeen(era, version))) return 'behind';
    // A node that joined elsewhere a moment ago may not be known here yet.
    if (this.#backend.node(nodeId) === undefined) {
      if (!(await this.#isCurrent())) return 'behind';
    }
    if (this.#backend.node(nodeId) === undefined) return 'removed';
    return number < this.#latestOf(nodeId) ? 'replaced' : undefined;
  }

  async #isCurrent(): Promise<boolean> {
    const late = delay(BEHIND_MS_MAX, false, { ref: false });
    const current = (this.#backend.current?.() ?? Promise.resolve()).then(
      () => true,
      () => false,
    );
    return Promise.race([current, late]);
  }

  #turnAway(session: AgentSession, reason: GoodbyeReason): void {
    if (reason === 'behind') this.#behind++;
    this.#sayGoodbye(session, reason, this.#latestOf(session.nodeId));
  }

  /** Number of the node's latest session that is known here. */
  #latestOf(nodeId: NodeId): number {
    const elsewhere = this.#backend.node(nodeId)?.session?.number ?? 0;
    return Math.max(elsewhere, this.#sessions.get(nodeId)?.number ?? 0);
  }

  /** Waits a while for the state to be at least the one that the agent has seen. */
  #hasSeen(era: number, version: number): Promise<boolean> {
    const seen = () => {
      const source = this.#backend.source();
      const own = source.era ?? 0;
      return own > era || (own === era && source.version >= version);
    };
    if (seen()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const settle = (outcome: boolean) => {
        clearTimeout(timer);
        this.#waiters.delete(look);
        resolve(outcome);
      };
      const look = () => {
        if (this.#closed || seen()) settle(!this.#closed);
      };
      const timer = setTimeout(() => settle(false), BEHIND_MS_MAX);
      this.#waiters.add(look);
    });
  }

  /** Goes on until the state has what the agent says of itself, or the agent is gone. */
  async #register(session: AgentSession): Promise<void> {
    if (session.registering) return;
    session.registering = true;
    const { nodeId, number, channel, remoteAddress, peer } = session;
    while (session.wanted !== undefined && !channel.closed && !this.#closed) {
      const registration = session.wanted;
      const opens = session.registered ? undefined : { manager: this.#backend.self, number };
      try {
        await this.#backend.register(nodeId, registration, remoteAddress, opens, peer);
        if (session.wanted === registration) session.wanted = undefined;
        this.#onRegistered(session);
      } catch (error) {
        if (refusalOf(error)?.detail.code === 'SWARM_NOT_FOUND') {
          this.#sayGoodbye(session, 'removed');
          break;
        }
        this.#backend.log.warn({ node: nodeId, err: error }, 'node not registered yet');
        await session.pause(REGISTER_RETRY_MS);
      }
    }
    session.registering = false;
  }

  #onRegistered(session: AgentSession): void {
    if (session.registered) return;
    session.registered = true;
    // It began without, and is told that it is one like any other now.
    if (session.told !== undefined) session.send({ kind: 'welcome', ...this.#pulseOf(session) });
  }

  #open(session: AgentSession, { era, version }: Extract<AgentMessage, { kind: 'hello' }>): void {
    const { nodeId, number, channel } = session;
    if (session.told !== undefined || this.#closed || channel.closed) return;
    if (number < this.#latestOf(nodeId)) {
      this.#turnAway(session, 'replaced');
      return;
    }
    const former = this.#sessions.get(nodeId);
    this.#sessions.set(nodeId, session);
    if (former !== undefined) this.#sayGoodbye(former, 'replaced', number);
    session.send({ kind: 'welcome', ...this.#pulseOf(session) });
    if (era === this.#shared.era && version > this.#version) this.#publish();
    this.#tell(session, era === this.#shared.era ? version : 0);
    this.#liveness.input({ kind: 'session_open', nodeId, number });
  }

  /** @param version What the agent has already; 0: nothing, or nothing that is worth anything. */
  #tell(session: AgentSession, version: number): void {
    const { nodeId: self, bare } = session;
    const own = projectOwn(this.#backend.own(self), NOTHING_OWN);
    const removals = version === 0 ? undefined : this.#removals.since(version);
    if (removals === undefined) {
      this.#fullTells++;
      session.tellAll(this.#version, this.#shared, own);
    } else {
      this.#partialTells++;
      const since = { version, self, removals, bare };
      session.tellSince(since, this.#version, this.#shared, own, this.#backend.source());
    }
  }

  async #answer(
    session: AgentSession,
    message: Extract<AgentMessage, { readonly request: number }>,
  ): Promise<void> {
    if (session.requests >= REQUESTS_MAX) return this.#refuse(session);
    session.requests++;
    const { request } = message;
    try {
      const attachment = await this.#perform(session, message);
      session.send({ kind: 'answer', request, ...(attachment && { attachment }) });
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === undefined)
        this.#backend.log.error({ node: session.nodeId, err: error }, 'request failed');
      session.send({ kind: 'refused', request, refusal: refusal ?? NOT_NOW });
    } finally {
      session.requests--;
    }
    if (message.kind === 'leave') session.channel.end();
  }

  async #perform(
    { nodeId, number }: AgentSession,
    message: Extract<AgentMessage, { readonly request: number }>,
  ): Promise<KeyedAttachment | undefined> {
    if (message.kind === 'attach') return this.#backend.attach(nodeId, message.wish);
    if (message.kind === 'status') await this.#backend.report(nodeId, message.reports);
    else if (message.kind === 'detach') await this.#backend.detach(nodeId, message.id);
    else {
      // Before the state says that the node is down, or it would be found to be there all the same.
      this.#liveness.input({ kind: 'session_close', nodeId, number });
      await this.#backend.leave(nodeId);
    }
    return undefined;
  }

  /**
   * One comparison for all sessions, and one encoding, of what all are told alike; besides, only those
   * are looked at whose own has changed.
   */
  #publish(): void {
    clearTimeout(this.#publishing);
    this.#publishing = undefined;
    const source = this.#backend.source();
    this.#version = source.version;
    const before = this.#shared;
    const change = this.#sharedIsOld
      ? this.#shareAnew(source)
      : new SharedChange(before, undefined);
    const isForAll = !change.isNothing || change.after !== before;
    for (const nodeId of isForAll ? this.#sessions.keys() : this.#ownIsOld) {
      const session = this.#sessions.get(nodeId);
      if (session?.told === undefined) continue;
      if (!change.after.nodes.has(nodeId)) this.#sayGoodbye(session, 'removed');
      else session.tellChange(this.#version, before, change, this.#ownNow(session));
    }
    this.#ownIsOld.clear();
  }

  #ownNow({ nodeId, own }: AgentSession): OwnAssignments | undefined {
    return this.#ownIsOld.has(nodeId) ? projectOwn(this.#backend.own(nodeId), own) : undefined;
  }

  #shareAnew(source: AssignmentsSource): SharedChange {
    const before = this.#shared;
    const after = projectShared(source, before);
    this.#shared = after;
    this.#sharedIsOld = false;
    const { heartbeatMs } = after.cluster;
    if (heartbeatMs !== before.cluster.heartbeatMs)
      this.#liveness.input({ kind: 'heartbeat_interval', heartbeatMs });
    this.#liveness.input({ kind: 'nodes', nodes: this.#backend.source().nodes });
    return new SharedChange(after, diffShared(before, after));
  }

  #onLiveness({ reports, hangUps, probes }: LivenessReady): void {
    for (const { nodeId, state, message, ifSession } of reports)
      void this.#setState(nodeId, state, message, ifSession);
    for (const { nodeId, number, reason } of hangUps) {
      const session = this.#sessions.get(nodeId);
      if (session?.number !== number) continue;
      // Whoever is silent does not hear us either: a new session tells it everything.
      if (reason === 'silent') session.channel.destroy();
      else this.#sayGoodbye(session, 'replaced', this.#latestOf(nodeId));
    }
    for (const nodeId of probes) this.#sessions.get(nodeId)?.send({ kind: 'probe' });
  }

  async #setState(
    nodeId: NodeId,
    state: 'ready' | 'down',
    message: string,
    ifSession: number,
  ): Promise<void> {
    try {
      await this.#backend.setState(nodeId, state, message, ifSession);
    } catch (error) {
      if (!this.#closed)
        this.#backend.log.warn({ node: nodeId, err: error }, 'state of a node was not kept yet');
    }
  }
}

const SHARED_TABLES: ReadonlySet<string> = new Set([
  'cluster',
  'secrets',
  'node',
  'network',
  'service',
]);

function isShared({ table }: RowChange): boolean {
  return SHARED_TABLES.has(table);
}

/** A service that is there no more, or is being removed. */
function isHidden(row: unknown): boolean {
  return row === undefined || (row as ServiceObject).pendingDelete === true;
}

function isSameSet<Item>(a: ReadonlySet<Item>, b: ReadonlySet<Item>): boolean {
  return a.size === b.size && [...a].every((item) => b.has(item));
}

const NOT_NOW = {
  detail: { code: 'SWARM_NO_MANAGER' },
  message: 'the manager cannot do this now: try again later',
} as const;
