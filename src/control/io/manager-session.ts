import { randomUUID } from 'node:crypto';
import { SwarmError } from '../../base/swarm-error.js';
import type { AttachmentId, AttachmentObject, NetworkObject } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  type Assignments as AssignmentTables,
  type ClusterFacts,
  type NodeEntry,
  Session,
  type SessionEnd,
} from '../dispatch/index.js';
import { type NodeIdentity, renewalAtMs, renewIdentity } from '../identity/index.js';
import type { KeyedAttachment } from '../wire/attachment.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';

/** How often an open session looks whether its certificate is due. */
const RENEWAL_CHECK_MS = 600_000;

/** All that an agent needs for doing its part, also when no manager can be reached. */
export interface Assignments {
  /** Version of the cluster's state. */
  readonly version: number;
  readonly cluster: ClusterFacts;
  /** First seals, all open. */
  readonly gossipKeys: readonly { readonly id: number; readonly secret: Uint8Array }[];
  /** All networks of the swarm. */
  readonly networks: readonly NetworkObject[];
  /** All nodes of the swarm. */
  readonly nodes: readonly NodeEntry[];
  /** This node's own. */
  readonly attachments: readonly KeyedAttachment[];
}

export interface ManagerSessionConfig {
  readonly identity: NodeIdentity;
  /** Where managers were known to be; others are learned, and kept. */
  readonly managers: readonly ControlAddress[];
  readonly registration: () => NodeRegistration;
  readonly dataDir: string;
  readonly log: Logger;
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
    const renewal = new Renewal(config);
    const session = await Session.open({
      dataDir: config.dataDir,
      managers: config.managers,
      log: config.log,
      registration: config.registration,
      credentials: (remote) => renewal.credentials(remote),
    });
    const timer = setInterval(() => {
      const [remote] = session.managers();
      if (remote !== undefined) renewal.credentials(remote).catch(() => {});
    }, RENEWAL_CHECK_MS);
    timer.unref();
    session.onEnd(() => clearInterval(timer));
    return new ManagerSession(session, renewal);
  }

  /** As renewed last. */
  get identity(): NodeIdentity {
    return this.#renewal.identity;
  }

  get connected(): boolean {
    return this.#session.connected;
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

/** A node's certificate, renewed when it is due. */
class Renewal {
  readonly #config: ManagerSessionConfig;
  readonly #fraction = Math.random();
  #identity: NodeIdentity;
  #renewing: Promise<void> | undefined;

  constructor(config: ManagerSessionConfig) {
    this.#config = config;
    this.#identity = config.identity;
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  /** @throws SwarmError the manager's refusal; one that cannot be asked matters only after expiry. */
  async credentials(remote: ControlAddress): Promise<NodeIdentity> {
    if (Date.now() >= renewalAtMs(this.#identity, this.#fraction)) {
      this.#renewing ??= this.#renew(remote).finally(() => {
        this.#renewing = undefined;
      });
      await this.#renewing;
    }
    return this.#identity;
  }

  async finished(): Promise<void> {
    await this.#renewing?.catch(() => {});
  }

  async #renew(remote: ControlAddress): Promise<void> {
    const { log, dataDir } = this.#config;
    try {
      this.#identity = await renewIdentity(this.#identity, remote, dataDir);
      log.info({ expiresAtMs: this.#identity.expiresAtMs }, 'certificate renewed');
    } catch (error) {
      if (error instanceof SwarmError) throw error;
      log.warn({ remote, err: error }, 'certificate not renewed yet');
    }
  }
}

function viewOf(tables: AssignmentTables): Assignments {
  return {
    version: tables.version,
    cluster: tables.cluster,
    gossipKeys: tables.gossipKeys.map(({ id, secret }) => ({
      id,
      secret: new Uint8Array(Buffer.from(secret, 'base64')),
    })),
    networks: [...tables.networks.values()],
    nodes: [...tables.nodes.values()],
    attachments: [...tables.attachments.values()],
  };
}
