import type { Core } from '../../../base/core.js';
import type { NodeId } from '../../../base/swarm-model.js';

/** Gossip's verdict about a node. */
export type MembershipState = 'alive' | 'suspect' | 'dead' | 'left';

/** So many heartbeats in a row must be missed before silence alone means that a node is down. */
const MISSED_HEARTBEATS_MAX = 3;
/** How long a node that gossip calls dead has to answer on its session. */
const PROBE_MS_MAX = 1_000;

export type LivenessInput =
  /** A node that may be there: from now it has three heartbeats to open a session. */
  | { readonly kind: 'expect'; readonly nodeId: NodeId; readonly ready: boolean }
  /** The node left or was removed. */
  | { readonly kind: 'forget'; readonly nodeId: NodeId }
  | { readonly kind: 'session_open'; readonly nodeId: NodeId }
  | { readonly kind: 'session_close'; readonly nodeId: NodeId }
  /** Anything came in on the node's session. */
  | { readonly kind: 'heard'; readonly nodeId: NodeId }
  | { readonly kind: 'membership'; readonly states: ReadonlyMap<string, MembershipState> }
  | { readonly kind: 'heartbeat_interval'; readonly heartbeatMs: number }
  | { readonly kind: 'timeout' };

export interface LivenessChange {
  readonly nodeId: NodeId;
  readonly state: 'ready' | 'down';
  readonly message: string;
}

/** First the changes are recorded, then the probes are sent. */
export interface LivenessReady {
  readonly changes: readonly LivenessChange[];
  /** Sessions on which the node must now be asked whether it is there. */
  readonly probes: readonly NodeId[];
}

interface Watched {
  ready: boolean;
  down: boolean;
  session: boolean;
  heardMs: number;
  probeDeadlineMs: number | undefined;
}

/**
 * Which nodes are ready and which are down, from two witnesses: the node's session and gossip.
 *
 * Silence for three heartbeats is enough by itself. Gossip's word that a node is dead is enough
 * once the session is gone; while there is one, it makes the manager ask on it, since a session
 * whose other end lost its power looks open for long, and gossip may be cut off where TCP is not.
 */
export class Liveness implements Core<LivenessInput, LivenessReady> {
  readonly #nodes = new Map<NodeId, Watched>();
  #verdicts: ReadonlyMap<string, MembershipState> = new Map();
  #heartbeatMs: number;
  #changes: LivenessChange[] = [];
  #probes: NodeId[] = [];
  /** Never later than the first deadline; hearing of a node only makes deadlines later. */
  #deadlineMs: number | undefined;

  constructor(heartbeatMs: number) {
    this.#heartbeatMs = heartbeatMs;
  }

  step(input: LivenessInput, nowMs: number): void {
    switch (input.kind) {
      case 'expect':
        this.#nodes.set(input.nodeId, {
          ready: input.ready,
          down: false,
          session: false,
          heardMs: nowMs,
          probeDeadlineMs: undefined,
        });
        break;
      case 'forget':
        this.#nodes.delete(input.nodeId);
        break;
      case 'session_open':
        this.#onOpen(input.nodeId, nowMs);
        break;
      case 'session_close':
        this.#onClose(input.nodeId);
        break;
      case 'heard':
        this.#onHeard(input.nodeId, nowMs);
        return;
      case 'membership':
        this.#verdicts = input.states;
        for (const [nodeId, watched] of this.#nodes) this.#weigh(nodeId, watched, nowMs);
        break;
      case 'heartbeat_interval':
        this.#heartbeatMs = input.heartbeatMs;
        break;
      case 'timeout':
        this.#onTimeout(nowMs);
        break;
    }
    this.#deadlineMs = this.#firstDeadlineMs();
  }

  takeReady(): LivenessReady {
    const ready = { changes: this.#changes, probes: this.#probes };
    this.#changes = [];
    this.#probes = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    return this.#deadlineMs;
  }

  #onOpen(nodeId: NodeId, nowMs: number): void {
    const watched = this.#nodes.get(nodeId) ?? {
      ready: false,
      down: false,
      session: true,
      heardMs: nowMs,
      probeDeadlineMs: undefined,
    };
    this.#nodes.set(nodeId, watched);
    watched.session = true;
    this.#onHeard(nodeId, nowMs);
  }

  #onHeard(nodeId: NodeId, nowMs: number): void {
    const watched = this.#nodes.get(nodeId);
    if (watched === undefined || !watched.session) return;
    watched.heardMs = nowMs;
    watched.probeDeadlineMs = undefined;
    watched.down = false;
    if (watched.ready) return;
    watched.ready = true;
    this.#changes.push({ nodeId, state: 'ready', message: '' });
    this.#deadlineMs = this.#firstDeadlineMs();
  }

  #onClose(nodeId: NodeId): void {
    const watched = this.#nodes.get(nodeId);
    if (watched === undefined) return;
    watched.session = false;
    watched.probeDeadlineMs = undefined;
    if (this.#isDead(nodeId)) this.#declareDown(nodeId, watched, GONE);
  }

  #weigh(nodeId: NodeId, watched: Watched, nowMs: number): void {
    if (watched.down || !this.#isDead(nodeId)) return;
    if (!watched.session) this.#declareDown(nodeId, watched, GONE);
    else if (watched.probeDeadlineMs === undefined) {
      watched.probeDeadlineMs = nowMs + PROBE_MS_MAX;
      this.#probes.push(nodeId);
    }
  }

  #onTimeout(nowMs: number): void {
    for (const [nodeId, watched] of this.#nodes) {
      if (watched.down) continue;
      if (watched.probeDeadlineMs !== undefined && watched.probeDeadlineMs <= nowMs)
        this.#declareDown(nodeId, watched, GONE);
      else if (this.#silentAtMs(watched) <= nowMs)
        this.#declareDown(nodeId, watched, 'heartbeat failure');
    }
  }

  #declareDown(nodeId: NodeId, watched: Watched, message: string): void {
    if (watched.down) return;
    watched.down = true;
    watched.ready = false;
    watched.probeDeadlineMs = undefined;
    this.#changes.push({ nodeId, state: 'down', message });
  }

  #isDead(nodeId: NodeId): boolean {
    const verdict = this.#verdicts.get(nodeId);
    return verdict === 'dead' || verdict === 'left';
  }

  #silentAtMs(watched: Watched): number {
    return watched.heardMs + MISSED_HEARTBEATS_MAX * this.#heartbeatMs;
  }

  #firstDeadlineMs(): number | undefined {
    let first: number | undefined;
    for (const watched of this.#nodes.values()) {
      if (watched.down) continue;
      const silentMs = this.#silentAtMs(watched);
      const deadlineMs = Math.min(silentMs, watched.probeDeadlineMs ?? silentMs);
      if (first === undefined || deadlineMs < first) first = deadlineMs;
    }
    return first;
  }
}

const GONE = 'gossip and the session agree that the node is gone';
