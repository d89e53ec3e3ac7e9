import type { Core } from '../../../base/core.js';
import type { NodeId, NodeObject } from '../../../base/swarm-model.js';

/** Gossip's verdict about a node. */
export type MembershipState = 'alive' | 'suspect' | 'dead' | 'left';

/** So many heartbeats in a row must be missed before silence alone means that a node is down. */
const MISSED_HEARTBEATS_MAX = 3;
/** How long a node that gossip calls dead has to answer on its session. */
const PROBE_MS_MAX = 1_000;
/**
 * How long gossip must suspect a node that has no session, or does not answer on it, for the two together to
 * be enough. A suspicion by itself lasts some seconds longer before it is a death.
 */
const SUSPECT_MS = 2_000;
/** What was reported and is not in the state yet is reported again, since it may have been lost. */
const REPORT_AGAIN_MS = 2_000;

/** What of a node's row counts here. */
export type NodeRow = Pick<NodeObject, 'id' | 'state' | 'session'>;

export type LivenessInput =
  /** All nodes as the state has them now. Rows are never altered, so the same row is no change. */
  | { readonly kind: 'nodes'; readonly nodes: Iterable<NodeRow> }
  /** Whether this manager leads, and which managers look after the nodes that they serve. */
  | {
      readonly kind: 'managers';
      readonly leading: boolean;
      readonly reachable: ReadonlySet<NodeId>;
    }
  /** A session here. Its number is what the node's row has, or is going to have. */
  | { readonly kind: 'session_open'; readonly nodeId: NodeId; readonly number: number }
  | { readonly kind: 'session_close'; readonly nodeId: NodeId; readonly number: number }
  /** Anything came in on the node's session. */
  | { readonly kind: 'heard'; readonly nodeId: NodeId; readonly number: number }
  | { readonly kind: 'membership'; readonly states: ReadonlyMap<string, MembershipState> }
  | { readonly kind: 'heartbeat_interval'; readonly heartbeatMs: number }
  | { readonly kind: 'timeout' };

export interface LivenessReport {
  readonly nodeId: NodeId;
  readonly state: 'ready' | 'down';
  readonly message: string;
  /** The report is about this session of the node (0: it never had one), and void for any other. */
  readonly ifSession: number;
}

export interface HangUp {
  readonly nodeId: NodeId;
  readonly number: number;
  /** `moved`: the node has a later session with another manager. */
  readonly reason: 'silent' | 'moved';
}

/** First the reports are sent on their way, then sessions are ended, then the probes are sent. */
export interface LivenessReady {
  readonly reports: readonly LivenessReport[];
  readonly hangUps: readonly HangUp[];
  /** Sessions on which the node must now be asked whether it is there. */
  readonly probes: readonly NodeId[];
}

interface Served {
  readonly number: number;
  open: boolean;
  heardMs: number;
  probeDeadlineMs: number | undefined;
}

interface Watched {
  row: NodeRow | undefined;
  /** The latest session here. */
  served: Served | undefined;
  /** Since when the node is this manager's to answer for and has no session; undefined: it is not so. */
  lostSinceMs: number | undefined;
  /** Since when gossip has suspected it. */
  suspectSinceMs: number | undefined;
  reportedMs: number | undefined;
}

/**
 * Which nodes are ready and which are down, decided by several managers without a conflict: each
 * answers for the nodes whose row names it as the one who serves them, and the leader also for
 * those whose manager is gone and who have none. A report names the session that it is about, so
 * that it is void once the node has another.
 *
 * A node without a session has three heartbeats to open one anywhere; a session that is silent for
 * as long is none. Gossip is the second witness: its word that a node is dead is enough when there
 * is no session, and so is a suspicion that nobody refutes for a while. While there is a session both make the
 * manager ask on it, since a session whose other end lost its power looks open for long, and gossip may be cut
 * off where TCP is not.
 *
 * Nothing here remembers what was decided: each report is made again until the state says so, and
 * taken back by the state, so that lost commands and changes of the leader mend themselves.
 */
export class Liveness implements Core<LivenessInput, LivenessReady> {
  readonly #self: NodeId;
  readonly #nodes = new Map<NodeId, Watched>();
  #leading = false;
  #reachable: ReadonlySet<NodeId> = new Set();
  #verdicts: ReadonlyMap<string, MembershipState> = new Map();
  #heartbeatMs: number;
  #reports: LivenessReport[] = [];
  #hangUps: HangUp[] = [];
  #probes: NodeId[] = [];
  /** Never later than the first deadline. */
  #deadlineMs: number | undefined;

  constructor(self: NodeId, heartbeatMs: number) {
    this.#self = self;
    this.#heartbeatMs = heartbeatMs;
  }

  step(input: LivenessInput, nowMs: number): void {
    switch (input.kind) {
      case 'nodes':
        this.#onNodes(input.nodes, nowMs);
        break;
      case 'managers':
        this.#leading = input.leading;
        this.#reachable = input.reachable;
        this.#weighAll(nowMs);
        break;
      case 'session_open':
        this.#onOpen(input.nodeId, input.number, nowMs);
        break;
      case 'session_close':
        this.#onClose(input.nodeId, input.number, nowMs);
        break;
      case 'heard':
        this.#onHeard(input.nodeId, input.number, nowMs);
        break;
      case 'membership':
        this.#verdicts = input.states;
        this.#weighAll(nowMs);
        break;
      case 'heartbeat_interval':
        this.#heartbeatMs = input.heartbeatMs;
        this.#weighAll(nowMs);
        break;
      case 'timeout':
        if (this.#deadlineMs !== undefined && this.#deadlineMs <= nowMs) this.#weighAll(nowMs);
        break;
    }
  }

  takeReady(): LivenessReady {
    const ready = { reports: this.#reports, hangUps: this.#hangUps, probes: this.#probes };
    this.#reports = [];
    this.#hangUps = [];
    this.#probes = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    return this.#deadlineMs;
  }

  #onNodes(rows: Iterable<NodeRow>, nowMs: number): void {
    const seen = new Set<NodeId>();
    for (const row of rows) {
      seen.add(row.id);
      const watched = this.#watchedOf(row.id);
      const before = watched.row;
      if (before === row) continue;
      watched.row = row;
      if (before?.state !== row.state || numberOf(before) !== numberOf(row))
        watched.reportedMs = undefined;
      if (before?.session?.manager !== row.session?.manager || numberOf(before) !== numberOf(row))
        watched.lostSinceMs = undefined;
      this.#weigh(row.id, watched, nowMs);
    }
    for (const [nodeId, watched] of this.#nodes) {
      if (seen.has(nodeId)) continue;
      watched.row = undefined;
      if (watched.served?.open !== true) this.#nodes.delete(nodeId);
    }
  }

  #onOpen(nodeId: NodeId, number: number, nowMs: number): void {
    const watched = this.#watchedOf(nodeId);
    if (watched.served !== undefined && watched.served.number > number) return;
    watched.served = { number, open: true, heardMs: nowMs, probeDeadlineMs: undefined };
    this.#weigh(nodeId, watched, nowMs);
  }

  #onClose(nodeId: NodeId, number: number, nowMs: number): void {
    const watched = this.#nodes.get(nodeId);
    if (watched?.served?.number !== number) return;
    watched.served.open = false;
    watched.served.probeDeadlineMs = undefined;
    if (watched.row === undefined) this.#nodes.delete(nodeId);
    else this.#weigh(nodeId, watched, nowMs);
  }

  /** Deadlines only move away, so that nothing needs to be weighed. */
  #onHeard(nodeId: NodeId, number: number, nowMs: number): void {
    const served = this.#nodes.get(nodeId)?.served;
    if (served?.number !== number || !served.open) return;
    served.heardMs = nowMs;
    served.probeDeadlineMs = undefined;
  }

  #watchedOf(nodeId: NodeId): Watched {
    const known = this.#nodes.get(nodeId);
    if (known !== undefined) return known;
    const watched: Watched = {
      row: undefined,
      served: undefined,
      lostSinceMs: undefined,
      suspectSinceMs: undefined,
      reportedMs: undefined,
    };
    this.#nodes.set(nodeId, watched);
    return watched;
  }

  #weighAll(nowMs: number): void {
    this.#deadlineMs = undefined;
    for (const [nodeId, watched] of this.#nodes) this.#weigh(nodeId, watched, nowMs);
  }

  #weigh(nodeId: NodeId, watched: Watched, nowMs: number): void {
    const { served } = watched;
    if (this.#verdicts.get(nodeId) !== 'suspect') watched.suspectSinceMs = undefined;
    else watched.suspectSinceMs ??= nowMs;
    if (served?.open === true) this.#weighSession(nodeId, watched, served, nowMs);
    if (served?.open === true) {
      watched.lostSinceMs = undefined;
      this.#weighReady(nodeId, watched, served, nowMs);
    } else this.#weighLost(nodeId, watched, nowMs);
  }

  /** Is the session one that counts? If not it is over, and the node without one. */
  #weighSession(nodeId: NodeId, watched: Watched, served: Served, nowMs: number): void {
    const { row, suspectSinceMs } = watched;
    const { number } = served;
    const silentAtMs = served.heardMs + MISSED_HEARTBEATS_MAX * this.#heartbeatMs;
    if (numberOf(row) > number) {
      served.open = false;
      this.#hangUps.push({ nodeId, number, reason: 'moved' });
    } else if (
      nowMs >= silentAtMs ||
      nowMs >= (served.probeDeadlineMs ?? Number.POSITIVE_INFINITY)
    ) {
      served.open = false;
      this.#hangUps.push({ nodeId, number, reason: 'silent' });
    } else {
      // A suspicion that it answered is settled for this session, until it is another.
      const suspected = suspectSinceMs !== undefined && served.heardMs <= suspectSinceMs;
      if (served.probeDeadlineMs === undefined && (suspected || this.#isDead(nodeId))) {
        served.probeDeadlineMs = nowMs + (suspected ? SUSPECT_MS : PROBE_MS_MAX);
        this.#probes.push(nodeId);
      }
      this.#wakeAt(Math.min(silentAtMs, served.probeDeadlineMs ?? silentAtMs));
    }
  }

  /** Someone called a node down that is here: it is not. */
  #weighReady(nodeId: NodeId, watched: Watched, { number }: Served, nowMs: number): void {
    const { row } = watched;
    if (row === undefined || row.state === 'ready' || numberOf(row) !== number) return;
    this.#report({ nodeId, state: 'ready', message: '', ifSession: number }, watched, nowMs);
  }

  #weighLost(nodeId: NodeId, watched: Watched, nowMs: number): void {
    const { row } = watched;
    const charge = row && this.#chargeOf(row);
    if (row === undefined || row.state === 'down' || charge === undefined) {
      watched.lostSinceMs = undefined;
      return;
    }
    const ifSession = numberOf(row);
    const { served } = watched;
    watched.lostSinceMs ??=
      charge === 'own' && served?.number === ifSession ? served.heardMs : nowMs;
    const downAtMs = watched.lostSinceMs + MISSED_HEARTBEATS_MAX * this.#heartbeatMs;
    // A manager that has only just started has no session of its own to go by, and what it hears may be old.
    const suspectSinceMs = served?.number === ifSession ? watched.suspectSinceMs : undefined;
    const goneAtMs = (suspectSinceMs ?? Number.POSITIVE_INFINITY) + SUSPECT_MS;
    if (this.#isDead(nodeId) || nowMs >= goneAtMs)
      this.#report({ nodeId, state: 'down', message: GONE, ifSession }, watched, nowMs);
    else if (nowMs >= downAtMs)
      this.#report({ nodeId, state: 'down', message: SILENT[charge], ifSession }, watched, nowMs);
    else this.#wakeAt(Math.min(downAtMs, goneAtMs));
  }

  #chargeOf({ session }: NodeRow): 'own' | 'orphan' | undefined {
    if (session?.manager === this.#self) return 'own';
    if (!this.#leading) return undefined;
    return session !== undefined && this.#reachable.has(session.manager) ? undefined : 'orphan';
  }

  #report(report: LivenessReport, watched: Watched, nowMs: number): void {
    const again = watched.reportedMs === undefined ? nowMs : watched.reportedMs + REPORT_AGAIN_MS;
    if (nowMs >= again) {
      watched.reportedMs = nowMs;
      this.#reports.push(report);
    }
    this.#wakeAt((watched.reportedMs ?? nowMs) + REPORT_AGAIN_MS);
  }

  #isDead(nodeId: NodeId): boolean {
    const verdict = this.#verdicts.get(nodeId);
    return verdict === 'dead' || verdict === 'left';
  }

  #wakeAt(deadlineMs: number): void {
    if (this.#deadlineMs === undefined || deadlineMs < this.#deadlineMs)
      this.#deadlineMs = deadlineMs;
  }
}

/** 0: the node never had a session. */
function numberOf(row: NodeRow | undefined): number {
  return row?.session?.number ?? 0;
}

const GONE = 'gossip and the session agree that the node is gone';
const SILENT = {
  own: 'heartbeat failure',
  orphan: 'heartbeat failure: its manager is gone, and it came to no other',
} as const;
