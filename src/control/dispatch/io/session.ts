import { randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { Prng } from '../../../base/prng.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { AttachmentId } from '../../../base/swarm-model.js';
import { Backoff } from '../../core/backoff.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import { connectTls } from '../../io/connect.js';
import type { AttachRequest, KeyedAttachment } from '../../wire/attachment.js';
import { ASSIGNMENTS_BYTES_MAX } from '../../wire/frame.js';
import type { ControlAddress, NodeRegistration } from '../../wire/model.js';
import { ALPN_DISPATCH } from '../../wire/protocol.js';
import { errorOf } from '../../wire/refusal.js';
import { type Assignments, applyChange } from '../core/assignments.js';
import { type AgentMessage, type ManagerMessage, parseManagerMessage } from '../wire/messages.js';
import { AssignmentsFile } from './assignments-file.js';

const CONNECT_MS_MAX = 5_000;
const WELCOME_MS_MAX = 5_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;
/** Another agent uses this node's identity: taking turns at it would help neither. */
const REPLACED_RETRY_MS = 10_000;
const REQUEST_MS_MAX = 10_000;
/** Questions that may wait for a manager. */
const REQUESTS_MAX = 256;
const MISSED_HEARTBEATS_MAX = 3;
const DEFAULT_HEARTBEAT_MS = 5_000;

export interface SessionCredentials {
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
}

export interface SessionConfig {
  readonly dataDir: string;
  /** Where managers were known to be; more are learned from the assignments. */
  readonly managers: readonly ControlAddress[];
  readonly log: Logger;
  registration(): NodeRegistration;
  /** Called before each connection and from time to time; may renew the certificate. */
  credentials(remote: ControlAddress): Promise<SessionCredentials>;
}

/** Why a session ended for good. */
export type SessionEnd = 'removed' | 'left' | 'closed';

type Question =
  | { readonly kind: 'attach'; readonly wish: AttachRequest }
  | { readonly kind: 'detach'; readonly id: AttachmentId }
  | { readonly kind: 'leave' };

interface Pending {
  readonly question: Question;
  readonly timer: NodeJS.Timeout;
  readonly resolve: (attachment: KeyedAttachment | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * An agent's end of its session: keeps one open to some manager, holds the assignments, and asks
 * on the agent's behalf. Questions outlive connections; each may be asked again without harm.
 */
export class Session {
  readonly #config: SessionConfig;
  readonly #file: AssignmentsFile;
  readonly #prng = new Prng(randomBytes(4).readUInt32LE());
  readonly #backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS, this.#prng);
  readonly #listeners = new Set<() => void>();
  readonly #endListeners = new Set<(end: SessionEnd) => void>();
  readonly #pending = new Map<number, Pending>();
  readonly #cancel = new AbortController();
  #assignments: Assignments | undefined;
  /** Parts of new assignments that are not all here yet. */
  #partial: Assignments | undefined;
  #channel: Channel | undefined;
  #welcome = false;
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #heardAtMs = 0;
  #turn = 0;
  #lastRequest = 0;
  #end: SessionEnd | undefined;
  #retryMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reported: string | undefined;

  private constructor(config: SessionConfig, file: AssignmentsFile) {
    this.#config = config;
    this.#file = file;
  }

  /** Reads what is on disk; the first connection is made in the background. */
  static async open(config: SessionConfig): Promise<Session> {
    const file = new AssignmentsFile(config.dataDir, config.log);
    const session = new Session(config, file);
    session.#assignments = await file.read();
    void session.#connect();
    return session;
  }

  get connected(): boolean {
    return this.#welcome;
  }

  get ended(): SessionEnd | undefined {
    return this.#end;
  }

  assignments(): Assignments | undefined {
    return this.#assignments;
  }

  /** Called when assignments or the connection have changed. */
  onAssignments(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onEnd(listener: (end: SessionEnd) => void): () => void {
    this.#endListeners.add(listener);
    return () => this.#endListeners.delete(listener);
  }

  managers(): readonly ControlAddress[] {
    const known = new Map<string, ControlAddress>();
    for (const remote of [...(this.#assignments?.cluster.managers ?? []), ...this.#config.managers])
      known.set(`${remote.address} ${remote.port}`, remote);
    return [...known.values()];
  }

  /** @throws SwarmError a refusal, or `SWARM_NO_MANAGER` if none answered in time. */
  async attach(wish: AttachRequest, timeoutMs = REQUEST_MS_MAX): Promise<KeyedAttachment> {
    const attachment = await this.#ask({ kind: 'attach', wish }, timeoutMs);
    if (attachment === undefined) throw noManager('the manager answered nonsense');
    return attachment;
  }

  async detach(id: AttachmentId, timeoutMs = REQUEST_MS_MAX): Promise<void> {
    await this.#ask({ kind: 'detach', id }, timeoutMs);
  }

  /** Tells the manager that the node goes; afterwards the session is over. */
  async leave(timeoutMs: number): Promise<void> {
    try {
      await this.#ask({ kind: 'leave' }, timeoutMs);
    } finally {
      await this.#finish('left');
    }
  }

  /** The description or an address of the node has changed. */
  refreshRegistration(): void {
    if (this.#welcome)
      this.#send({ kind: 'registration', registration: this.#config.registration() });
  }

  async close(): Promise<void> {
    await this.#finish('closed');
  }

  async #finish(end: SessionEnd): Promise<void> {
    this.#stop(end);
    await this.#file.flushed();
  }

  #stop(end: SessionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    clearTimeout(this.#timer);
    this.#cancel.abort();
    this.#channel?.destroy();
    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(noManager('the session with the manager is over'));
    }
    this.#pending.clear();
    for (const listener of this.#endListeners) listener(end);
  }

  async #connect(): Promise<void> {
    const managers = this.managers();
    const remote = managers[this.#turn++ % Math.max(1, managers.length)];
    try {
      if (remote === undefined) throw new Error('no manager is known');
      const credentials = await this.#config.credentials(remote);
      if (this.#end !== undefined) return;
      const socket = await connectTls({
        remote,
        alpn: ALPN_DISPATCH,
        ...credentials,
        timeoutMs: CONNECT_MS_MAX,
        signal: this.#cancel.signal,
      });
      this.#begin(socket);
    } catch (error) {
      if (this.#end !== undefined) return;
      if (error instanceof SwarmError && error.code === 'SWARM_TOKEN_REFUSED')
        return this.#stop('removed');
      this.#report(remote, error);
      this.#retry();
    }
  }

  /** Each new cause once, so that a long absence does not fill the log. */
  #report(remote: ControlAddress | undefined, error: unknown): void {
    const cause = error instanceof Error ? error.message : String(error);
    if (cause === this.#reported) return;
    this.#reported = cause;
    this.#config.log.warn({ remote, cause }, 'no session with a manager: trying again');
  }

  #retry(): void {
    if (this.#end !== undefined) return;
    const waitMs = this.#retryMs ?? this.#backoff.take();
    this.#retryMs = undefined;
    this.#timer = setTimeout(() => void this.#connect(), waitMs);
  }

  #begin(socket: TLSSocket): void {
    this.#heardAtMs = performance.now();
    this.#partial = undefined;
    this.#channel = new Channel(socket, {
      receiveBytesMax: ASSIGNMENTS_BYTES_MAX,
      onMessage: (value) => this.#onMessage(value),
      onClose: () => this.#onClose(),
    });
    this.#send({ kind: 'hello', registration: this.#config.registration() });
    this.#timer = setTimeout(() => this.#channel?.destroy(), WELCOME_MS_MAX);
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    const was = this.#welcome;
    this.#welcome = false;
    this.#channel = undefined;
    if (was) this.#tell();
    this.#retry();
  }

  #send(message: AgentMessage): void {
    this.#channel?.send(message);
  }

  #onMessage(value: unknown): void {
    this.#heardAtMs = performance.now();
    const message = parseManagerMessage(value);
    if (message === undefined) {
      this.#config.log.warn({}, 'the manager sent nonsense');
      this.#channel?.destroy();
    } else this.#perform(message);
  }

  #perform(message: ManagerMessage): void {
    switch (message.kind) {
      case 'welcome':
        this.#onWelcome(message.heartbeatMs);
        break;
      case 'heartbeat':
        this.#heartbeatMs = message.heartbeatMs;
        break;
      case 'probe':
        this.#send({ kind: 'heartbeat' });
        break;
      case 'assignments':
        this.#onAssignments(message);
        break;
      case 'answer':
        this.#settle(message.request, (pending) => pending.resolve(message.attachment));
        break;
      case 'refused':
        this.#settle(message.request, (pending) => pending.reject(errorOf(message.refusal)));
        break;
      case 'goodbye':
        this.#onGoodbye(message.reason);
        break;
    }
  }

  #onWelcome(heartbeatMs: number): void {
    clearTimeout(this.#timer);
    this.#heartbeatMs = heartbeatMs;
    this.#welcome = true;
    this.#reported = undefined;
    this.#backoff.reset();
    this.#beat();
    for (const [request, { question }] of this.#pending) this.#send({ request, ...question });
    this.#tell();
  }

  /** Beats, and gives up a manager that is silent although it answers every beat. */
  #beat(): void {
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > MISSED_HEARTBEATS_MAX * this.#heartbeatMs) {
      this.#channel?.destroy();
      return;
    }
    this.#send({ kind: 'heartbeat' });
    const waitMs = this.#heartbeatMs * (0.75 + this.#prng.nextFloat() / 4);
    this.#timer = setTimeout(() => this.#beat(), waitMs);
  }

  #onAssignments(message: Extract<ManagerMessage, { kind: 'assignments' }>): void {
    const before = message.reset ? undefined : (this.#partial ?? this.#assignments);
    const after = applyChange(before, message.change);
    if (after === undefined || !message.done) {
      this.#partial = after;
      return;
    }
    this.#partial = undefined;
    this.#assignments = after;
    this.#file.write(after);
    this.#tell();
  }

  #onGoodbye(reason: 'removed' | 'replaced' | 'closing'): void {
    if (reason === 'removed') this.#stop('removed');
    if (reason === 'replaced') {
      this.#config.log.error({}, 'another agent uses the identity of this node');
      this.#retryMs = REPLACED_RETRY_MS;
    }
    this.#channel?.destroy();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }

  #ask(question: Question, timeoutMs: number): Promise<KeyedAttachment | undefined> {
    if (this.#end !== undefined)
      return Promise.reject(noManager('the session with the manager is over'));
    if (this.#pending.size >= REQUESTS_MAX)
      return Promise.reject(noManager('too many requests wait for a manager: try again later'));
    const request = ++this.#lastRequest;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(request);
        reject(noManager('no manager can be reached: try again later'));
      }, timeoutMs);
      this.#pending.set(request, { question, timer, resolve, reject });
      if (this.#welcome) this.#send({ request, ...question });
    });
  }

  #settle(request: number, how: (pending: Pending) => void): void {
    const pending = this.#pending.get(request);
    if (pending === undefined) return;
    this.#pending.delete(request);
    clearTimeout(pending.timer);
    how(pending);
  }
}

function noManager(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_NO_MANAGER' }, message);
}
