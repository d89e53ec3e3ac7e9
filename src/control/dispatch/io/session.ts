import { randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { Prng } from '../../../base/prng.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { AttachmentId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { Backoff } from '../../core/backoff.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import { connectTls } from '../../io/connect.js';
import type { AttachRequest, KeyedAttachment } from '../../wire/attachment.js';
import { ASSIGNMENTS_BYTES_MAX } from '../../wire/frame.js';
import type { ControlAddress, NodeRegistration } from '../../wire/model.js';
import { ALPN_DISPATCH } from '../../wire/protocol.js';
import { errorOf } from '../../wire/refusal.js';
import type { TaskReport } from '../../wire/task-model.js';
import { type Assignments, applyChange } from '../core/assignments.js';
import { ManagerChoice } from '../core/manager-choice.js';
import {
  type AgentMessage,
  type GoodbyeReason,
  type ManagerMessage,
  parseManagerMessage,
} from '../wire/messages.js';
import { AssignmentsFile } from './assignments-file.js';
import { StatusReports } from './status-reports.js';

const CONNECT_MS_MAX = 5_000;
/** While there are others to try, one that does not answer costs no more than this. */
const FIRST_CONNECT_MS_MAX = 2_000;
const WELCOME_MS_MAX = 5_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;
/** All agents of a manager that ends look for another at once, but not in the same instant. */
const MOVE_JITTER_MS = 200;
/** A session that ended sooner was none: the next attempt waits. */
const SHORT_SESSION_MS = 1_000;
/** So long an agent looks for a manager that knows at least what it knows itself. */
const BEHIND_MS_MAX = 30_000;
/**
 * How long a manager that is cut off from the others is put up with, at first: longer than an
 * election takes, and shorter than the three heartbeats after which the others miss the node.
 */
const STALE_FIRST_MS = 3_000;
/** How often such a manager is asked whether it still is. */
const STALE_BEAT_MS = 1_000;
/** The patience doubles with every round of managers that are no better, up to this. */
const STALE_MAX_MS = 240_000;
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
  /** Whose session it is; without it the session does not know its own role. */
  readonly nodeId?: NodeId;
  /** Where managers were known to be; more are learned from the assignments. */
  readonly managers: readonly ControlAddress[];
  /** The manager on this very node, if there is one now. */
  localManager?(): ControlAddress | undefined;
  /** Where else managers may be found: what gossip knows. */
  extraManagers?(): readonly ControlAddress[];
  readonly log: Logger;
  registration(): NodeRegistration;
  /** Called before each connection and from time to time; may renew the certificate. */
  credentials(remote: ControlAddress): Promise<SessionCredentials>;
  /**
   * Looks at what the manager shows of itself, and asks for another certificate if this node's is of
   * a root that the swarm has given up. True: there is another one, connect again.
   */
  renewedFor?(socket: TLSSocket, remote: ControlAddress): Promise<boolean>;
}

/** Why a session ended for good. */
export type SessionEnd = 'removed' | 'left' | 'closed';

type Question =
  | { readonly kind: 'attach'; readonly wish: AttachRequest }
  | { readonly kind: 'detach'; readonly id: AttachmentId }
  | { readonly kind: 'leave' }
  | { readonly kind: 'status'; readonly reports: readonly TaskReport[] };

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
  readonly #choice = new ManagerChoice(this.#prng);
  readonly #listeners = new Set<() => void>();
  readonly #endListeners = new Set<(end: SessionEnd) => void>();
  readonly #reportListeners = new Set<(reports: readonly TaskReport[]) => void>();
  readonly #pending = new Map<number, Pending>();
  readonly #cancel = new AbortController();
  readonly #reports = new StatusReports({
    send: async (reports) => {
      await this.#ask({ kind: 'status', reports }, REQUEST_MS_MAX);
    },
    told: (reports) => {
      for (const listener of this.#reportListeners) listener(reports);
    },
  });
  /** The assignments are from the disk, which has no secrets. */
  #bare = false;
  #assignments: Assignments | undefined;
  /** Parts of new assignments that are not all here yet. */
  #partial: Assignments | undefined;
  #channel: Channel | undefined;
  #remote: ControlAddress | undefined;
  /** The manager that served this node last. */
  #lastRemote: ControlAddress | undefined;
  #welcome = false;
  #welcomedAtMs = 0;
  #stale = false;
  #staleSinceMs: number | undefined;
  #stalePatienceMs = STALE_FIRST_MS;
  /** A manager was left because it is cut off, and others of this round are not tried yet. */
  #leftStale = false;
  /** Since when all managers that answered knew less than this agent. */
  #behindSinceMs: number | undefined;
  /** Raised at each attempt, and beyond what it was before a restart. */
  #number = 0;
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #heardAtMs = 0;
  #lastRequest = 0;
  #end: SessionEnd | undefined;
  #retryMs: number | undefined;
  #reopening = false;
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
    const kept = await file.read();
    session.#assignments = kept?.assignments;
    session.#bare = kept !== undefined;
    session.#lastRemote = kept?.manager;
    void session.#connect();
    return session;
  }

  get connected(): boolean {
    return this.#welcome;
  }

  /** True: the manager is cut off from the others; what it says may be old. */
  get stale(): boolean {
    return this.#welcome && this.#stale;
  }

  /** The manager that serves this node now. */
  get remote(): ControlAddress | undefined {
    return this.#welcome ? this.#remote : undefined;
  }

  /** The role that the swarm wants this node to have; `undefined`: not known. */
  get role(): NodeRole | undefined {
    const { nodeId } = this.#config;
    return nodeId && this.#assignments?.nodes.get(nodeId)?.role;
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

  /** Called when the wanted role is another than it was. */
  onRole(listener: (role: NodeRole) => void): () => void {
    let told = this.role;
    return this.onAssignments(() => {
      const { role } = this;
      if (role === undefined || role === told) return;
      told = role;
      listener(role);
    });
  }

  managers(): readonly ControlAddress[] {
    return this.#choice.all(this.#known());
  }

  /** Begins the session anew, with whatever `credentials` answers now. */
  reopen(): void {
    if (this.#channel === undefined) return;
    this.#reopening = true;
    this.#channel.destroy();
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

  /** The assignments are a manager's word since this session began, and not only what was on the disk. */
  get confirmed(): boolean {
    return this.#assignments !== undefined && !this.#bare;
  }

  /** Called with reports that the managers have now. */
  onReported(listener: (reports: readonly TaskReport[]) => void): () => void {
    this.#reportListeners.add(listener);
    return () => this.#reportListeners.delete(listener);
  }

  /** What has become of tasks; told again to every manager, for as long as the tasks are assigned. */
  reportTasks(reports: readonly TaskReport[]): void {
    this.#reports.add(reports);
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
    this.#reports.close();
    this.#channel?.destroy();
    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(noManager('the session with the manager is over'));
    }
    this.#pending.clear();
    for (const listener of this.#endListeners) listener(end);
  }

  #known() {
    const { managers, localManager, extraManagers } = this.#config;
    const cluster = this.#assignments?.cluster;
    return {
      local: localManager?.call(this.#config),
      listed: cluster?.managers ?? [],
      leader: cluster?.leader,
      others: [
        ...(this.#lastRemote ? [this.#lastRemote] : []),
        ...managers,
        ...(extraManagers?.call(this.#config) ?? []),
      ],
    };
  }

  async #connect(): Promise<void> {
    const known = this.#known();
    const remote = this.#choice.next(known);
    if (remote === undefined) {
      if (this.#choice.all(known).length === 0)
        this.#report(undefined, new Error('no manager is known'));
      this.#choice.startRound();
      if (this.#leftStale)
        this.#stalePatienceMs = Math.min(STALE_MAX_MS, this.#stalePatienceMs * 2);
      this.#leftStale = false;
      return this.#retry(this.#backoff.take());
    }
    try {
      const credentials = await this.#config.credentials(remote);
      if (this.#end !== undefined) return;
      const alone = this.#choice.all(known).length === 1;
      const socket = await connectTls({
        remote,
        alpn: ALPN_DISPATCH,
        ...credentials,
        timeoutMs: alone ? CONNECT_MS_MAX : FIRST_CONNECT_MS_MAX,
        signal: this.#cancel.signal,
      });
      if ((await this.#config.renewedFor?.(socket, remote)) === true) {
        // The certificate that this connection was made with is worth nothing here.
        socket.destroy();
        return this.#retry(0);
      }
      if (this.#end !== undefined) {
        socket.destroy();
        return;
      }
      this.#begin(socket, remote);
    } catch (error) {
      if (this.#end !== undefined) return;
      if (error instanceof SwarmError && error.code === 'SWARM_TOKEN_REFUSED')
        return this.#stop('removed');
      this.#report(remote, error);
      this.#retry(0);
    }
  }

  /** Each new cause once, so that a long absence does not fill the log. */
  #report(remote: ControlAddress | undefined, error: unknown): void {
    const cause = error instanceof Error ? error.message : String(error);
    if (cause === this.#reported) return;
    this.#reported = cause;
    this.#config.log.warn({ remote, cause }, 'no session with a manager: trying again');
  }

  #retry(waitMs: number): void {
    if (this.#end !== undefined) return;
    this.#timer = setTimeout(() => void this.#connect(), this.#retryMs ?? waitMs);
    this.#retryMs = undefined;
  }

  #begin(socket: TLSSocket, remote: ControlAddress): void {
    this.#heardAtMs = performance.now();
    this.#partial = undefined;
    this.#remote = remote;
    this.#channel = new Channel(socket, {
      receiveBytesMax: ASSIGNMENTS_BYTES_MAX,
      onMessage: (value) => this.#onMessage(value),
      onClose: () => this.#onClose(),
    });
    this.#number = Math.max(this.#number + 1, Date.now());
    const { era, version } = this.#floor();
    this.#send({
      kind: 'hello',
      registration: this.#config.registration(),
      session: this.#number,
      era,
      version,
      bare: this.#bare,
    });
    this.#timer = setTimeout(() => this.#channel?.destroy(), WELCOME_MS_MAX);
  }

  /** What this agent has seen, and is not taken back from while some manager may know as much. */
  #floor(): { readonly era: number; readonly version: number } {
    const sinceMs = this.#behindSinceMs;
    const gaveUp = sinceMs !== undefined && performance.now() - sinceMs > BEHIND_MS_MAX;
    return gaveUp || this.#assignments === undefined ? { era: 0, version: 0 } : this.#assignments;
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    const was = this.#welcome;
    this.#welcome = false;
    this.#reports.close();
    this.#channel = undefined;
    if (was) this.#tell();
    const lastedMs = performance.now() - this.#welcomedAtMs;
    const reopening = this.#reopening;
    this.#reopening = false;
    if (was && !this.#leftStale) this.#choice.startRound(reopening ? undefined : this.#remote);
    if (!was || reopening || this.#leftStale) this.#retry(0);
    else if (lastedMs < SHORT_SESSION_MS) this.#retry(this.#backoff.take());
    else {
      this.#backoff.reset();
      this.#retry(this.#prng.nextBelow(MOVE_JITTER_MS));
    }
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
        this.#onPulse(message);
        if (!this.#welcome) this.#onWelcome();
        break;
      case 'heartbeat':
        this.#onPulse(message);
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
        this.#onGoodbye(message.reason, message.session ?? 0);
        break;
    }
  }

  #onPulse({ heartbeatMs, stale }: { heartbeatMs: number; stale: boolean }): void {
    this.#heartbeatMs = heartbeatMs;
    const changes = stale !== this.#stale && this.#welcome;
    this.#stale = stale;
    if (!stale) {
      this.#staleSinceMs = undefined;
      this.#stalePatienceMs = STALE_FIRST_MS;
      this.#leftStale = false;
    } else this.#staleSinceMs ??= performance.now();
    if (!changes) return;
    clearTimeout(this.#timer);
    this.#beat();
    this.#tell();
  }

  #onWelcome(): void {
    clearTimeout(this.#timer);
    this.#welcome = true;
    this.#welcomedAtMs = performance.now();
    this.#lastRemote = this.#remote;
    this.#reported = undefined;
    if (!this.#stale) this.#choice.startRound();
    this.#beat();
    for (const [request, { question }] of this.#pending) this.#send({ request, ...question });
    this.#reports.open();
    this.#tell();
  }

  /** Beats, and gives up a manager that is silent although it answers every beat. */
  #beat(): void {
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > MISSED_HEARTBEATS_MAX * this.#heartbeatMs || this.#isTiredOfStale()) {
      this.#channel?.destroy();
      return;
    }
    this.#send({ kind: 'heartbeat' });
    const waitMs = this.#heartbeatMs * (0.75 + this.#prng.nextFloat() / 4);
    this.#timer = setTimeout(
      () => this.#beat(),
      this.#stale ? Math.min(waitMs, STALE_BEAT_MS) : waitMs,
    );
  }

  /** Another manager may be on the side of those who can still decide. */
  #isTiredOfStale(): boolean {
    const sinceMs = this.#staleSinceMs;
    if (sinceMs === undefined || performance.now() - sinceMs < this.#stalePatienceMs) return false;
    if (this.managers().length < 2) return false;
    this.#staleSinceMs = undefined;
    this.#leftStale = true;
    if (this.#remote) this.#choice.skip(this.#remote);
    return true;
  }

  #onAssignments(message: Extract<ManagerMessage, { kind: 'assignments' }>): void {
    const before = message.reset ? undefined : (this.#partial ?? this.#assignments);
    const after = applyChange(before, message.change);
    if (after === undefined || !message.done) {
      this.#partial = after;
      return;
    }
    this.#partial = undefined;
    const floor = this.#floor();
    if (after.era < floor.era || (after.era === floor.era && after.version < floor.version)) {
      this.#config.log.warn({ remote: this.#remote }, 'the manager went back to an earlier state');
      this.#channel?.destroy();
      return;
    }
    this.#behindSinceMs = undefined;
    this.#bare = false;
    this.#assignments = after;
    this.#reports.keep(after.tasks);
    this.#file.write({ assignments: after, manager: this.#lastRemote });
    this.#tell();
  }

  #onGoodbye(reason: GoodbyeReason, number: number): void {
    if (reason === 'removed') this.#stop('removed');
    if (reason === 'behind') this.#behindSinceMs ??= performance.now();
    if (reason === 'replaced') {
      // Before the welcome it is only this host's clock that went back.
      this.#number = Math.max(this.#number, number);
      if (this.#welcome) {
        this.#config.log.error({}, 'another agent uses the identity of this node');
        this.#retryMs = REPLACED_RETRY_MS;
      }
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
