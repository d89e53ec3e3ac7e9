import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import type { Logger } from '../../core/logger.js';
import { Once } from '../core/once.js';
import {
  type CertifiedNode,
  certificatesOf,
  readNodeCertificate,
  type ShowsCertificate,
  shownBy,
} from './certificates.js';
import type { NodeIdentity } from './identity.js';

/** Refused peers of which a log line was written lately. */
const LOGGED_MAX = 1_024;

export type PeerRefusal =
  | 'no_certificate'
  /** Signed by none of the roots, or not a node's. */
  | 'foreign_ca'
  | 'wrong_cluster'
  /** Of a node that was removed from the swarm. */
  | 'removed'
  | 'expired'
  /** A worker, or one that is no manager any more, where only managers may ask. */
  | 'wrong_role';

export interface PeerRule {
  /** PEM of all roots. */
  readonly trust: string;
  readonly clusterId: ClusterId;
  readonly isRemoved: (nodeId: NodeId) => boolean;
  /** Refuses a manager's certificate if the store says that its node is a worker by now. */
  readonly roleOf?: ((nodeId: NodeId) => NodeRole | undefined) | undefined;
  readonly needRole?: 'manager' | undefined;
  readonly nowMs: number;
}

export type PeerVerdict =
  | { readonly ok: CertifiedNode }
  | { readonly refused: PeerRefusal; readonly node?: CertifiedNode };

/**
 * Who is at the other end, and whether that one may speak here. TLS has proven the key; whose key it
 * is, is judged here, by the rules as they are now and not as they were when the listener was set up.
 *
 * A certificate that is not valid yet is accepted: it tells that this host's clock is late, since
 * nothing but the swarm's CA could have signed it.
 */
export function judgePeer(socket: ShowsCertificate, rule: PeerRule): PeerVerdict {
  const shown = shownBy(socket);
  if (shown === undefined) return { refused: 'no_certificate' };
  const node = readNodeCertificate(shown.leaf, rule.trust, shown.intermediates);
  if (node === undefined) return { refused: 'foreign_ca' };
  const refused = reasonAgainst(node, rule);
  return refused === undefined ? { ok: node } : { refused, node };
}

function reasonAgainst(node: CertifiedNode, rule: PeerRule): PeerRefusal | undefined {
  if (node.clusterId !== rule.clusterId) return 'wrong_cluster';
  if (rule.isRemoved(node.nodeId)) return 'removed';
  if (rule.nowMs > node.expiresAtMs) return 'expired';
  if (rule.needRole === undefined) return undefined;
  // A follower that lags may not know a new manager yet: only a clear word counts against it.
  const isManager = node.role === 'manager' && rule.roleOf?.(node.nodeId) !== 'worker';
  return isManager ? undefined : 'wrong_role';
}

export interface PeerJudgeConfig {
  readonly clusterId: ClusterId;
  readonly log: Logger;
  readonly nowMs: () => number;
  /** PEM of all roots, now: `trustBundle`. */
  readonly trust: () => string;
  readonly isRemoved: (nodeId: NodeId) => boolean;
  readonly roleOf?: (nodeId: NodeId) => NodeRole | undefined;
}

export type PeerJudgeStats = { readonly accepted: number } & Readonly<Record<PeerRefusal, number>>;

/** Judges the connections of one port: each refusal is counted, and logged once for each node. */
export class PeerJudge {
  readonly #config: PeerJudgeConfig;
  readonly #logged = new Once(LOGGED_MAX);
  readonly #stats = {
    accepted: 0,
    no_certificate: 0,
    foreign_ca: 0,
    wrong_cluster: 0,
    removed: 0,
    expired: 0,
    wrong_role: 0,
  };

  constructor(config: PeerJudgeConfig) {
    this.#config = config;
  }

  /** `undefined`: refused; the socket is left to the caller. */
  judge(
    socket: ShowsCertificate,
    remoteAddress: string,
    needRole?: 'manager',
  ): CertifiedNode | undefined {
    const { clusterId, isRemoved, roleOf, log } = this.#config;
    const trust = this.#config.trust();
    const nowMs = this.#config.nowMs();
    const verdict = judgePeer(socket, { trust, clusterId, isRemoved, roleOf, needRole, nowMs });
    if ('ok' in verdict) {
      this.#stats.accepted++;
      return verdict.ok;
    }
    const { refused, node } = verdict;
    this.#stats[refused]++;
    if (this.#logged.first(`${refused} ${node?.nodeId ?? remoteAddress}`))
      log.warn({ reason: refused, node: node?.nodeId, remoteAddress }, 'a peer was refused');
    return undefined;
  }

  stats(): PeerJudgeStats {
    return { ...this.#stats };
  }
}

/**
 * Whether the manager at the other end shows a certificate by a root that the node does not trust by
 * itself, only through a cross-signed one: the swarm has changed its root, so renew before anything
 * else, also when the manager closes the connection without a word.
 */
export function showsNewRoot(identity: NodeIdentity, socket: ShowsCertificate): boolean {
  const shown = shownBy(socket);
  if (shown === undefined) return false;
  const { leaf, intermediates } = shown;
  if (readNodeCertificate(leaf, identity.caPem, intermediates) === undefined) return false;
  return !(certificatesOf(identity.caPem) ?? []).some((root) => leaf.checkIssued(root));
}
