import { createHash, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { SwarmError } from '../../../base/swarm-error.js';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import type { ControlAddress, NodeRegistration } from '../../wire/model.js';
import { refusalOf } from '../../wire/refusal.js';
import { graceRoots, trustBundle } from '../core/ca-state.js';
import { Once } from '../core/once.js';
import { peerIdOf } from '../core/peer-id.js';
import { type CaReply, type CaRequest, parseCaRequest } from '../wire/ca-messages.js';
import type { CaState } from '../wire/ca-state.js';
import { joinPem } from '../wire/pem.js';
import type { IssuedCertificate } from './authority.js';
import { digestsOf } from './certificates.js';
import { judgePeer, type PeerRefusal } from './judge.js';
import { checkRequest } from './keys.js';

/** A whole conversation; it is two short messages each way. */
const CONVERSATION_MS_MAX = 10_000;
/** Conversations at once, in all and with one address: nobody in them need be known. */
const CONVERSATIONS_MAX = 1_024;
const CONVERSATIONS_PER_ADDRESS_MAX = 128;
/** A joining node's words about itself are the longest of what is asked here. */
const REQUEST_BYTES_MAX = 262_144;
/** A node that was off for long may still renew for so long after its certificate expired. */
const EXPIRED_GRACE_MS = 366 * 86_400_000;
/** Refusals of which a log line was written lately. */
const LOGGED_MAX = 1_024;

/** A member as the store knows it. */
export interface CaMember {
  readonly role: NodeRole;
  /** Of the node's key, which no certificate can change. */
  readonly peerId: string;
}

/**
 * What the CA needs of the manager that it runs on. Any manager may be asked: what is awaited here
 * is to be as new as the leader has it, or to reject.
 */
export interface CaServerBackend {
  readonly clusterId: ClusterId;
  readonly log: Logger;
  readonly nowMs: () => number;
  /** As this manager knows it. */
  ca(): CaState;
  joinTokens(): { readonly worker: string; readonly manager: string };
  managers(): readonly ControlAddress[];
  /** Whether the node was removed: its certificates are worth nothing any more. */
  isRemoved(node: NodeId): boolean;
  /**
   * Admits a node to the swarm. The same peer id gets the same node, with the role that it has by
   * then, which the role of the token does not change.
   */
  admit(
    role: NodeRole,
    peerId: string,
    registration: NodeRegistration,
    remoteAddress: string,
  ): Promise<{ readonly nodeId: NodeId; readonly role: NodeRole }>;
  /** `undefined`: no member (any more). */
  member(node: NodeId): Promise<CaMember | undefined>;
  /** See `issueCertificate`. */
  issue(node: NodeId, role: NodeRole, publicKey: Uint8Array): Promise<IssuedCertificate>;
}

/** Why no certificate was given. */
export type CaRefusal =
  | PeerRefusal
  | 'wrong_token'
  /** The asker does not hold the key that it asks for. */
  | 'no_proof'
  /** Asked for another key than the member's. */
  | 'wrong_key'
  | 'not_member'
  /** The manager could not answer: no leader, or its own trouble. */
  | 'not_now'
  /** By the rules of the swarm, as the backend has them. */
  | 'backend';

export interface CaServerStats {
  readonly conversations: number;
  readonly joins: number;
  readonly renewals: number;
  /** Connections closed because there were too many. */
  readonly overflows: number;
  /** Conversations that took too long. */
  readonly timeouts: number;
  /** Conversations ended by what was no request, or was asked before its time. */
  readonly malformed: number;
  /** Conversations that ended without an answer: the asker hung up, or sent a frame too long. */
  readonly abandoned: number;
  readonly refused: Readonly<Record<CaRefusal, number>>;
}

/** A refusal with the reason by which it is counted. */
class Refused extends Error {
  readonly reason: CaRefusal;
  readonly node: NodeId | undefined;
  readonly error: SwarmError;

  constructor(reason: CaRefusal, error: SwarmError, node?: NodeId) {
    super(error.message);
    this.reason = reason;
    this.node = node;
    this.error = error;
  }
}

const NOT_NOW = {
  detail: { code: 'SWARM_NO_MANAGER' },
  message: 'the manager cannot answer now: try again later',
} as const;

/** Serves `shoal-ca/1`: shows the roots, admits those with a token, renews members' certificates. */
export class CaServer {
  readonly #backend: CaServerBackend;
  readonly #conversationMs: number;
  readonly #logged = new Once(LOGGED_MAX);
  readonly #conversations = new Map<string, number>();
  #open = 0;
  #joins = 0;
  #renewals = 0;
  #overflows = 0;
  #timeouts = 0;
  #malformed = 0;
  #abandoned = 0;
  readonly #refused: Record<CaRefusal, number> = {
    no_certificate: 0,
    foreign_ca: 0,
    wrong_cluster: 0,
    removed: 0,
    expired: 0,
    wrong_role: 0,
    wrong_token: 0,
    no_proof: 0,
    wrong_key: 0,
    not_member: 0,
    not_now: 0,
    backend: 0,
  };

  /** @param conversationMs After which a conversation is cut off. */
  constructor(backend: CaServerBackend, conversationMs = CONVERSATION_MS_MAX) {
    this.#backend = backend;
    this.#conversationMs = conversationMs;
  }

  stats(): CaServerStats {
    return {
      conversations: this.#open,
      joins: this.#joins,
      renewals: this.#renewals,
      overflows: this.#overflows,
      timeouts: this.#timeouts,
      malformed: this.#malformed,
      abandoned: this.#abandoned,
      refused: { ...this.#refused },
    };
  }

  /** Takes a connection over, to its end. */
  serve(socket: TLSSocket, remoteAddress: string): void {
    const fromAddress = this.#conversations.get(remoteAddress) ?? 0;
    if (this.#open >= CONVERSATIONS_MAX || fromAddress >= CONVERSATIONS_PER_ADDRESS_MAX) {
      this.#overflows++;
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    this.#open++;
    this.#conversations.set(remoteAddress, fromAddress + 1);
    this.#converse(socket, remoteAddress, () => {
      this.#open--;
      const left = (this.#conversations.get(remoteAddress) ?? 1) - 1;
      if (left === 0) this.#conversations.delete(remoteAddress);
      else this.#conversations.set(remoteAddress, left);
    });
  }

  #converse(socket: TLSSocket, remoteAddress: string, onClose: () => void): void {
    let state: 'open' | 'busy' | 'answered' | 'cut' = 'open';
    const cut = () => {
      state = 'cut';
      channel.destroy();
    };
    const timer = setTimeout(() => {
      this.#timeouts++;
      cut();
    }, this.#conversationMs);
    const channel = new Channel(socket, {
      receiveBytesMax: REQUEST_BYTES_MAX,
      onMessage: (value) => {
        const request = parseCaRequest(value);
        // One question at a time, so that nobody makes the manager sign in bulk.
        if (request === undefined || state === 'busy') {
          this.#malformed++;
          cut();
          return;
        }
        state = 'busy';
        void this.#reply(request, socket, remoteAddress).then((message) => {
          if (state !== 'busy') return;
          state = 'answered';
          channel.send(message);
          if (message.kind !== 'ca') channel.end();
        });
      },
      onClose: () => {
        clearTimeout(timer);
        if (state === 'open' || state === 'busy') this.#abandoned++;
        state = 'cut';
        onClose();
      },
    });
  }

  async #reply(request: CaRequest, socket: TLSSocket, remoteAddress: string): Promise<CaReply> {
    try {
      if (request.kind === 'ca_get') return { kind: 'ca', caPem: trustBundle(this.#backend.ca()) };
      if (request.kind === 'join') return await this.#join(request, remoteAddress);
      return await this.#renew(request, socket);
    } catch (error) {
      return this.#refuse(error, remoteAddress);
    }
  }

  #refuse(thrown: unknown, remoteAddress: string): CaReply {
    const error = thrown instanceof Refused ? thrown.error : thrown;
    const refusal = refusalOf(error);
    const known = thrown instanceof Refused ? thrown : undefined;
    const reason = known?.reason ?? (refusal === undefined ? 'not_now' : 'backend');
    this.#refused[reason]++;
    if (this.#logged.first(`${reason} ${known?.node ?? remoteAddress}`))
      this.#backend.log.warn(
        { reason, node: known?.node, remoteAddress, err: error },
        'refused a certificate',
      );
    return { kind: 'refused', refusal: refusal ?? NOT_NOW };
  }

  async #join(
    { token, request, registration }: Extract<CaRequest, { kind: 'join' }>,
    remoteAddress: string,
  ): Promise<CaReply> {
    const backend = this.#backend;
    const tokens = backend.joinTokens();
    const worker = sameText(token, tokens.worker);
    const manager = sameText(token, tokens.manager);
    if (!worker && !manager)
      throw new Refused(
        'wrong_token',
        new SwarmError(
          { code: 'SWARM_TOKEN_REFUSED' },
          'a valid join token is necessary to join this cluster',
        ),
      );
    const publicKey = checkedKey(request, trustBundle(backend.ca()));
    const { nodeId, role } = await backend.admit(
      manager ? 'manager' : 'worker',
      peerIdOf(publicKey),
      registration,
      remoteAddress,
    );
    const reply = await this.#certificate(nodeId, role, publicKey);
    this.#joins++;
    return reply;
  }

  /**
   * The old certificate speaks for the node, even a while after it expired or its root was retired.
   * What makes that safe is the key: it must be the one that the store has of this node, so that
   * whoever stole a retired root can make certificates, and get nothing for them.
   */
  async #renew(
    { request }: Extract<CaRequest, { kind: 'renew' }>,
    socket: TLSSocket,
  ): Promise<CaReply> {
    const backend = this.#backend;
    const { clusterId } = backend;
    const nowMs = backend.nowMs();
    const state = backend.ca();
    const retired = graceRoots(state, nowMs).map(({ rootPem }) => rootPem);
    const trust = joinPem([trustBundle(state), ...retired]);
    const verdict = judgePeer(socket, {
      trust,
      clusterId,
      isRemoved: (node) => backend.isRemoved(node),
      nowMs: nowMs - EXPIRED_GRACE_MS,
    });
    if (!('ok' in verdict)) throw strange(verdict.refused, verdict.node?.nodeId);
    const { nodeId, publicKey } = verdict.ok;
    if (!publicKey.equals(checkedKey(request, trust))) throw strange('wrong_key', nodeId);
    const member = await backend.member(nodeId);
    if (member === undefined) throw strange('not_member', nodeId);
    if (member.peerId !== peerIdOf(publicKey)) throw strange('wrong_key', nodeId);
    const reply = await this.#certificate(nodeId, member.role, publicKey);
    this.#renewals++;
    return reply;
  }

  async #certificate(nodeId: NodeId, role: NodeRole, publicKey: Buffer): Promise<CaReply> {
    const backend = this.#backend;
    const { certPem, caPem } = await backend.issue(nodeId, role, publicKey);
    const { clusterId } = backend;
    const managers = backend.managers();
    return { kind: 'certificate', nodeId, clusterId, role, certPem, caPem, managers };
  }
}

function strange(reason: CaRefusal, node?: NodeId): Refused {
  const error = new SwarmError(
    { code: 'SWARM_TOKEN_REFUSED' },
    'the certificate shown is not of a member of this swarm: leave it and join again',
  );
  return new Refused(reason, error, node);
}

/** The request is bound to the root that its asker knows, which may be any of these. */
function checkedKey(
  request: Extract<CaRequest, { kind: 'join' }>['request'],
  trust: string,
): Buffer {
  for (const digest of digestsOf(trust)) {
    const publicKey = checkRequest(request, digest);
    if (publicKey !== undefined) return publicKey;
  }
  throw new Refused(
    'no_proof',
    new SwarmError({ code: 'SWARM_INVALID' }, 'the certificate request proves no key'),
  );
}

/** In a time that tells nothing. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
