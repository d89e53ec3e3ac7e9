import type { TLSSocket } from 'node:tls';
import { CoreDriver } from '../../../base/io/driver.js';
import type { AttachmentId, NodeId } from '../../../base/swarm-model.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import type { AttachRequest, KeyedAttachment } from '../../wire/attachment.js';
import { encodeFrame } from '../../wire/frame.js';
import type { NodeRegistration } from '../../wire/model.js';
import { refusalOf } from '../../wire/refusal.js';
import {
  type AssignmentsSource,
  diffAttachments,
  diffShared,
  fullChange,
  projectShared,
  type SharedAssignments,
  splitChange,
} from '../core/assignments.js';
import {
  Liveness,
  type LivenessInput,
  type LivenessReady,
  type MembershipState,
} from '../core/liveness.js';
import {
  type AgentMessage,
  type AssignmentsChange,
  type ManagerMessage,
  parseAgentMessage,
} from '../wire/messages.js';

/** An agent that connected says who it is within this time. */
const HELLO_MS_MAX = 5_000;
/** Questions of one agent that may be unanswered. */
const REQUESTS_MAX = 256;
/** Changes of the state within this time are told together. */
const PUBLISH_DELAY_MS = 5;
const SESSIONS_TOLD_PER_MS = 10;

/** What the dispatcher needs of the manager. */
export interface DispatchBackend {
  readonly log: Logger;
  source(): AssignmentsSource;
  attachmentsOf(node: NodeId): ReadonlyMap<AttachmentId, KeyedAttachment>;
  isMember(node: NodeId): boolean;
  register(
    node: NodeId,
    registration: NodeRegistration,
    remoteAddress: string,
    sessionOpens: boolean,
  ): Promise<void>;
  attach(node: NodeId, wish: AttachRequest): Promise<KeyedAttachment>;
  detach(node: NodeId, id: AttachmentId): Promise<void>;
  leave(node: NodeId): Promise<void>;
  setState(node: NodeId, state: 'ready' | 'down', message: string): void;
}

export interface DispatcherStats {
  readonly sessions: number;
  /** Connections that were given up because of what they sent, or did not send. */
  readonly refusedSessions: number;
}

interface Session {
  readonly nodeId: NodeId;
  readonly channel: Channel;
  readonly remoteAddress: string;
  /** What the agent was told last; nothing before it said hello. */
  told: SharedAssignments | undefined;
  attachments: ReadonlyMap<AttachmentId, KeyedAttachment>;
  greeted: boolean;
  requests: number;
}

/** The manager's end of all sessions: tells agents their assignments and watches who is there. */
export class Dispatcher {
  readonly #backend: DispatchBackend;
  readonly #sessions = new Map<NodeId, Session>();
  readonly #all = new Set<Session>();
  readonly #liveness: CoreDriver<LivenessInput, LivenessReady>;
  #shared: SharedAssignments;
  #publishing: NodeJS.Timeout | undefined;
  #closed = false;
  #refusedSessions = 0;

  constructor(backend: DispatchBackend) {
    this.#backend = backend;
    this.#shared = projectShared(backend.source());
    this.#liveness = new CoreDriver(new Liveness(this.#shared.cluster.heartbeatMs), (ready) =>
      this.#onLiveness(ready),
    );
    this.#liveness.start();
  }

  stats(): DispatcherStats {
    return { sessions: this.#sessions.size, refusedSessions: this.#refusedSessions };
  }

  /** From now the node has three heartbeats to open a session, or it is down. */
  expect(nodeId: NodeId, ready: boolean): void {
    this.#liveness.input({ kind: 'expect', nodeId, ready });
  }

  reportMembership(states: ReadonlyMap<string, MembershipState>): void {
    this.#liveness.input({ kind: 'membership', states: new Map(states) });
  }

  /** Takes over a connection whose certificate names `nodeId`. */
  accept(socket: TLSSocket, nodeId: NodeId, remoteAddress: string): void {
    const timer = setTimeout(() => this.#refuse(session), HELLO_MS_MAX);
    const channel: Channel = new Channel(socket, {
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
    const session: Session = {
      nodeId,
      channel,
      remoteAddress,
      told: undefined,
      attachments: new Map(),
      greeted: false,
      requests: 0,
    };
    this.#all.add(session);
  }

  /** The cluster's state has changed. */
  changed(): void {
    this.#publishing ??= setTimeout(() => {
      this.#publishing = undefined;
      this.#publish();
    }, this.#publishDelayMs());
  }

  /** Each telling costs a message per session, so that in a large swarm more is told at once. */
  #publishDelayMs(): number {
    return PUBLISH_DELAY_MS + this.#sessions.size / SESSIONS_TOLD_PER_MS;
  }

  /** The node was removed: its session ends, and it is told why. */
  remove(nodeId: NodeId): void {
    this.#liveness.input({ kind: 'forget', nodeId });
    const session = this.#sessions.get(nodeId);
    if (session !== undefined) this.#sayGoodbye(session, 'removed');
  }

  close(): void {
    this.#closed = true;
    this.#liveness.stop();
    clearTimeout(this.#publishing);
    for (const session of this.#all) this.#sayGoodbye(session, 'closing');
  }

  #refuse(session: Session): void {
    this.#refusedSessions++;
    session.channel.destroy();
  }

  #sayGoodbye(session: Session, reason: 'removed' | 'replaced' | 'closing'): void {
    this.#send(session, { kind: 'goodbye', reason });
    session.channel.end();
  }

  #send(session: Session, message: ManagerMessage): void {
    session.channel.send(message);
  }

  #onClose(session: Session): void {
    this.#all.delete(session);
    if (this.#sessions.get(session.nodeId) !== session) return;
    this.#sessions.delete(session.nodeId);
    this.#liveness.input({ kind: 'session_close', nodeId: session.nodeId });
  }

  #onMessage(session: Session, message: AgentMessage): void {
    if (this.#closed) return;
    this.#liveness.input({ kind: 'heard', nodeId: session.nodeId });
    if (message.kind === 'hello' ? session.greeted : session.told === undefined)
      this.#refuse(session);
    else if (message.kind === 'hello') void this.#greet(session, message.registration);
    else if (message.kind === 'registration') void this.#update(session, message.registration);
    else if (message.kind === 'heartbeat')
      this.#send(session, { kind: 'heartbeat', heartbeatMs: this.#shared.cluster.heartbeatMs });
    else void this.#answer(session, message);
  }

  async #update({ nodeId, remoteAddress }: Session, registration: NodeRegistration): Promise<void> {
    try {
      await this.#backend.register(nodeId, registration, remoteAddress, false);
    } catch (error) {
      this.#backend.log.warn({ node: nodeId, err: error }, 'node not updated');
    }
  }

  async #greet(session: Session, registration: NodeRegistration): Promise<void> {
    const { nodeId, remoteAddress } = session;
    session.greeted = true;
    if (!this.#backend.isMember(nodeId)) return this.#sayGoodbye(session, 'removed');
    try {
      await this.#backend.register(nodeId, registration, remoteAddress, true);
    } catch (error) {
      this.#backend.log.warn({ node: nodeId, err: error }, 'node not registered');
      return this.#refuse(session);
    }
    if (this.#closed || session.channel.closed) return;
    if (!this.#backend.isMember(nodeId)) return this.#sayGoodbye(session, 'removed');
    const former = this.#sessions.get(nodeId);
    this.#sessions.set(nodeId, session);
    if (former !== undefined) this.#sayGoodbye(former, 'replaced');
    this.#send(session, { kind: 'welcome', heartbeatMs: this.#shared.cluster.heartbeatMs });
    this.#tellAll(session);
    this.#liveness.input({ kind: 'session_open', nodeId });
  }

  #tellAll(session: Session): void {
    session.told = this.#shared;
    session.attachments = this.#backend.attachmentsOf(session.nodeId);
    const change = fullChange({ ...this.#shared, attachments: session.attachments });
    for (const frame of framesOf(change, true)) session.channel.sendFrame(frame);
  }

  async #answer(
    session: Session,
    message: Extract<AgentMessage, { readonly request: number }>,
  ): Promise<void> {
    if (session.requests >= REQUESTS_MAX) return this.#refuse(session);
    session.requests++;
    const { request } = message;
    try {
      const attachment = await this.#perform(session.nodeId, message);
      this.#send(session, { kind: 'answer', request, ...(attachment && { attachment }) });
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === undefined)
        this.#backend.log.error({ node: session.nodeId, err: error }, 'request failed');
      this.#send(session, { kind: 'refused', request, refusal: refusal ?? NOT_NOW });
    } finally {
      session.requests--;
    }
    if (message.kind === 'leave') session.channel.end();
  }

  async #perform(
    nodeId: NodeId,
    message: Extract<AgentMessage, { readonly request: number }>,
  ): Promise<KeyedAttachment | undefined> {
    if (message.kind === 'attach') return this.#backend.attach(nodeId, message.wish);
    if (message.kind === 'detach') await this.#backend.detach(nodeId, message.id);
    else {
      await this.#backend.leave(nodeId);
      this.#liveness.input({ kind: 'forget', nodeId });
    }
    return undefined;
  }

  /** One comparison for all sessions, and one encoding; each has its own attachments besides. */
  #publish(): void {
    const before = this.#shared;
    const after = projectShared(this.#backend.source());
    this.#shared = after;
    if (after.cluster.heartbeatMs !== before.cluster.heartbeatMs)
      this.#liveness.input({
        kind: 'heartbeat_interval',
        heartbeatMs: after.cluster.heartbeatMs,
      });
    const change = diffShared(before, after);
    const frames = change === undefined ? [] : framesOf(change, false);
    for (const session of this.#sessions.values()) {
      if (session.told === undefined) continue;
      if (session.told !== before) this.#tellAll(session);
      else {
        session.told = after;
        for (const frame of frames) session.channel.sendFrame(frame);
        this.#tellAttachments(session);
      }
    }
  }

  #tellAttachments(session: Session): void {
    const after = this.#backend.attachmentsOf(session.nodeId);
    const attachments = diffAttachments(session.attachments, after);
    session.attachments = after;
    if (attachments === undefined) return;
    const change = { version: this.#shared.version, attachments };
    for (const frame of framesOf(change, false)) session.channel.sendFrame(frame);
  }

  #onLiveness({ changes, probes }: LivenessReady): void {
    for (const { nodeId, state, message } of changes) {
      this.#backend.setState(nodeId, state, message);
      // Whoever is down and still connected does not hear us: a new session tells it everything.
      if (state === 'down') this.#sessions.get(nodeId)?.channel.destroy();
    }
    for (const nodeId of probes) {
      const session = this.#sessions.get(nodeId);
      if (session !== undefined) this.#send(session, { kind: 'probe' });
    }
  }
}

const NOT_NOW = {
  detail: { code: 'SWARM_NO_MANAGER' },
  message: 'the manager cannot do this now: try again later',
} as const;

function framesOf(change: AssignmentsChange, reset: boolean): Uint8Array[] {
  const parts = splitChange(change);
  return parts.map((part, index) => {
    const done = index === parts.length - 1;
    const message: ManagerMessage = {
      kind: 'assignments',
      reset: reset && index === 0,
      done,
      change: part,
    };
    return encodeFrame(message);
  });
}
