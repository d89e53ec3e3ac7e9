import { randomUUID } from 'node:crypto';
import type { ServiceEntry } from '../../base/service-model.js';
import { SwarmError } from '../../base/swarm-error.js';
import type {
  AttachmentId,
  AttachmentObject,
  ConfigId,
  NetworkObject,
  SecretId,
  Templating,
} from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  type Assignments as AssignmentTables,
  type ClusterFacts,
  type NodeEntry,
  Session,
  type SessionEnd,
} from '../dispatch/index.js';
import type { NodeIdentity, SaveOptions } from '../identity/index.js';
import type { KeyedAttachment } from '../wire/attachment.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';
import type { AssignedBlob, AssignedTask, TaskReport } from '../wire/task-model.js';
import { Renewal } from './renewal.js';

/** How often an open session looks whether its certificate is due. */
const RENEWAL_CHECK_MS = 60_000;

/** All that an agent needs for doing its part, also when no manager can be reached. */
export interface Assignments {
  /** Raised when the swarm was made anew of one manager's copy; versions count within an era. */
  readonly era: number;
  /** Version of the cluster's state. */
  readonly version: number;
  readonly cluster: ClusterFacts;
  /** First seals, all open. */
  readonly gossipKeys: readonly { readonly id: number; readonly secret: Uint8Array }[];
  /** All networks of the swarm. */
  readonly networks: readonly NetworkObject[];
  /** All nodes of the swarm. */
  readonly nodes: readonly NodeEntry[];
  /** All services of the swarm, but those that are being removed. */
  readonly services: readonly ServiceEntry[];
  /** This node's own. */
  readonly attachments: readonly KeyedAttachment[];
  /**
   * Tasks that are placed on this node, until they are removed, also those that have ended. `status`
   * may be older than what the node itself has reported.
   */
  readonly tasks: readonly AssignedTask[];
  /**
   * Those that its tasks refer to, as long as these are to run. After a start without a manager there
   * are none: they are on no disk.
   */
  readonly secrets: ReadonlyMap<SecretId, TaskBlob>;
  readonly configs: ReadonlyMap<ConfigId, TaskBlob>;
}

/** A secret or a config with its contents. */
export interface TaskBlob {
  readonly name: string;
  /** Absent: the contents are used as they are. */
  readonly templating?: Templating;
  readonly data: Uint8Array;
}

export interface ManagerSessionConfig {
  readonly identity: NodeIdentity;
  /** Where managers were known to be; others are learned, and kept. */
  readonly managers: readonly ControlAddress[];
  readonly registration: () => NodeRegistration;
  readonly dataDir: string;
  readonly log: Logger;
  /** How the node's key is kept. */
  readonly saveOptions?: () => SaveOptions;
  /** The manager on this very node, while there is one. */
  readonly localManager?: () => ControlAddress | undefined;
  /** Where else managers may be found: what gossip knows. */
  readonly extraManagers?: () => readonly ControlAddress[];
}

export interface AttachOptions {
  /** Id, exact name or unique prefix of an id. */
  readonly networkId: string;
  /** Addresses wanted, at most one of each family. */
  readonly ip?: string | undefined;
  readonly ip6?: string | undefined;
  /** Name that the network's resolver answers for. */
  readonly name: string;
  readonly aliases: readonly string[];
  /** The same key again gives the same attachment; made up if absent. */
  readonly key?: string;
  readonly timeoutMs?: number;
}

/**
 * A node's session with its managers: keeps itself open, keeps the latest assignments (on disk,
 * too), and renews the node's certificate in time.
 */
export class ManagerSession {
  readonly #session: Session;
  readonly #renewal: Renewal;
  #view: { readonly of: AssignmentTables; readonly assignments: Assignments } | undefined;

  private constructor(session: Session, renewal: Renewal) {
    this.#session = session;
    this.#renewal = renewal;
  }

  /** Returns when what is on disk was read; the first connection is made in the background. */
  static async open(config: ManagerSessionConfig): Promise<ManagerSession> {
    const { dataDir, log, managers, registration, localManager, extraManagers } = config;
    const { nodeId } = config.identity;
    let session: Session | undefined;
    const renewal = new Renewal({
      identity: config.identity,
      dataDir,
      log,
      saveOptions: config.saveOptions ?? (() => ({})),
      isManager: () => localManager?.() !== undefined,
      told: () => {
        const told = session?.assignments();
        return told && { role: told.nodes.get(nodeId)?.role, caPem: told.cluster.rootCaPem };
      },
      remotes: () => remotesOf(session),
      nodes: () => session?.assignments()?.nodes.size ?? 1,
    });
    session = await Session.open({
      dataDir,
      nodeId,
      managers,
      log,
      registration,
      credentials: (remote) => renewal.credentials(remote),
      renewedFor: (socket, remote) => renewal.renewedFor(socket, remote),
      ...(localManager && { localManager }),
      ...(extraManagers && { extraManagers }),
    });
    const opened = session;
    // A session that was opened with the old certificate tells the managers nothing of the new one.
    renewal.onIdentity(() => opened.reopen());
    const look = () => renewal.look();
    const timer = setInterval(look, RENEWAL_CHECK_MS);
    timer.unref();
    const end = opened.onAssignments(look);
    opened.onEnd(() => {
      clearInterval(timer);
      end();
      renewal.stop();
    });
    return new ManagerSession(opened, renewal);
  }

  /** As renewed last. */
  get identity(): NodeIdentity {
    return this.#renewal.identity;
  }

  /** Called when the certificate was renewed, which may have another role. */
  onIdentity(listener: (identity: NodeIdentity) => void): () => void {
    return this.#renewal.onIdentity(listener);
  }

  get connected(): boolean {
    return this.#session.connected;
  }

  /** Connected, and to a manager that reaches most of the others: what it is told is kept. */
  get heard(): boolean {
    return this.#session.connected && !this.#session.stale;
  }

  /** The assignments are a manager's word since this agent began, and not only what was on the disk. */
  get confirmed(): boolean {
    return this.#session.confirmed;
  }

  /** `removed`: the swarm does not know this node any more. */
  get ended(): SessionEnd | undefined {
    return this.#session.ended;
  }

  /** `undefined`: none were ever received. */
  assignments(): Assignments | undefined {
    const tables = this.#session.assignments();
    if (tables === undefined) return undefined;
    if (this.#view?.of !== tables) this.#view = { of: tables, assignments: viewOf(tables) };
    return this.#view.assignments;
  }

  /** Called with every new version of the assignments. */
  onAssignments(listener: (assignments: Assignments) => void): () => void {
    let told = this.assignments();
    return this.#session.onAssignments(() => {
      const assignments = this.assignments();
      if (assignments === undefined || assignments === told) return;
      told = assignments;
      listener(assignments);
    });
  }

  /** Called when the session with a manager begins or ends. */
  onConnection(listener: (connected: boolean) => void): () => void {
    let told = this.connected;
    return this.#session.onAssignments(() => {
      if (this.connected === told) return;
      told = this.connected;
      listener(told);
    });
  }

  /** Called when `heard` has changed. */
  onHeard(listener: (heard: boolean) => void): () => void {
    let told = this.heard;
    return this.#session.onAssignments(() => {
      if (this.heard === told) return;
      told = this.heard;
      listener(told);
    });
  }

  /** Called with reports of tasks that the managers have now. */
  onReported(listener: (reports: readonly TaskReport[]) => void): () => void {
    return this.#session.onReported(listener);
  }

  /** Called once, when the session is over for good. */
  onEnd(listener: (end: SessionEnd) => void): () => void {
    return this.#session.onEnd(listener);
  }

  /** The first assignments, now or when they come. @throws SwarmError `SWARM_NO_MANAGER`. */
  async firstAssignments(timeoutMs: number): Promise<Assignments> {
    const known = this.assignments();
    if (known !== undefined) return known;
    return new Promise((resolve, reject) => {
      const settle = (settled: () => void) => {
        clearTimeout(timer);
        end();
        settled();
      };
      const end = this.onAssignments((assignments) => settle(() => resolve(assignments)));
      const timer = setTimeout(
        () =>
          settle(() =>
            reject(
              new SwarmError(
                { code: 'SWARM_NO_MANAGER' },
                'no manager can be reached: try again later',
              ),
            ),
          ),
        timeoutMs,
      );
    });
  }

  managers(): readonly ControlAddress[] {
    return this.#session.managers();
  }

  /** Another connection, by the credentials and managers as they are now. */
  reopen(): void {
    this.#session.reopen();
  }

  /** @throws SwarmError a refusal, or `SWARM_NO_MANAGER` if none answered in time. */
  attach(options: AttachOptions): Promise<AttachmentObject> {
    const { networkId, ip, ip6, name, aliases, key = randomUUID(), timeoutMs } = options;
    const addresses = [ip, ip6].filter((address) => address !== undefined);
    return this.#session.attach({ key, network: networkId, addresses, name, aliases }, timeoutMs);
  }

  /** Releasing what is not there succeeds. @throws SwarmError `SWARM_NO_MANAGER`. */
  detach(id: AttachmentId, timeoutMs?: number): Promise<void> {
    return this.#session.detach(id, timeoutMs);
  }

  /**
   * What has become of tasks of this node, the latest of each. It is told until a manager has it, and
   * anew in every session, for as long as the task is assigned.
   */
  reportTasks(reports: readonly TaskReport[]): void {
    this.#session.reportTasks(reports);
  }

  /** The node's description or addresses have changed. */
  refreshRegistration(): void {
    this.#session.refreshRegistration();
  }

  /**
   * Tells the manager that the node goes; the session is over afterwards in any case.
   * @throws SwarmError `SWARM_NO_MANAGER` if none was told.
   */
  leave(timeoutMs: number): Promise<void> {
    return this.#session.leave(timeoutMs);
  }

  async close(): Promise<void> {
    await this.#session.close();
    await this.#renewal.finished();
  }
}

/** The manager of the open session first: it is there. */
function remotesOf(session: Session | undefined): readonly ControlAddress[] {
  const present = session?.connected === true ? session.remote : undefined;
  return [...(present ? [present] : []), ...(session?.managers() ?? [])];
}

function viewOf(tables: AssignmentTables): Assignments {
  return {
    era: tables.era,
    version: tables.version,
    cluster: tables.cluster,
    gossipKeys: tables.gossipKeys.map(({ id, secret }) => ({
      id,
      secret: new Uint8Array(Buffer.from(secret, 'base64')),
    })),
    networks: [...tables.networks.values()],
    nodes: [...tables.nodes.values()],
    services: [...tables.services.values()],
    attachments: [...tables.attachments.values()],
    tasks: [...tables.tasks.values()],
    secrets: blobsOf(tables.secrets),
    configs: blobsOf(tables.configs),
  };
}

const blobs = new WeakMap<AssignedBlob<string>, TaskBlob>();

/** The contents never change, and are decoded once. */
function blobsOf<Id extends string>(
  table: ReadonlyMap<Id, AssignedBlob<Id>>,
): ReadonlyMap<Id, TaskBlob> {
  return new Map([...table].map(([id, entry]) => [id, blobOf(entry)]));
}

function blobOf(entry: AssignedBlob<string>): TaskBlob {
  const known = blobs.get(entry);
  if (known !== undefined) return known;
  const { name, templating, data } = entry;
  const blob: TaskBlob = {
    name,
    ...(templating !== undefined && { templating }),
    data: new Uint8Array(Buffer.from(data, 'base64')),
  };
  blobs.set(entry, blob);
  return blob;
}
