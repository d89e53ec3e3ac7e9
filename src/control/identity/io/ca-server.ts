import { createHash, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { SwarmError } from '../../../base/swarm-error.js';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import type { Logger } from '../../core/logger.js';
import { Channel } from '../../io/channel.js';
import type { ControlAddress, NodeRegistration } from '../../wire/model.js';
import { refusalOf } from '../../wire/refusal.js';
import { peerIdOf } from '../core/peer-id.js';
import { type CaReply, type CaRequest, parseCaRequest } from '../wire/ca-messages.js';
import { digestOf, readNodeCertificate } from './certificates.js';
import { checkRequest } from './keys.js';

/** A whole conversation; it is two short messages each way. */
const CONVERSATION_MS_MAX = 10_000;
/** A node that was off for long may still renew for so long after its certificate expired. */
const EXPIRED_GRACE_MS = 366 * 86_400_000;

/** What the CA's protocol needs of the manager. */
export interface CaBackend {
  readonly clusterId: ClusterId;
  readonly caPem: string;
  readonly log: Logger;
  readonly nowMs: () => number;
  joinTokens(): { readonly worker: string; readonly manager: string };
  managers(): readonly ControlAddress[];
  /** Admits a node to the swarm; the same peer id gets the same node. */
  admit(
    role: NodeRole,
    peerId: string,
    registration: NodeRegistration,
    remoteAddress: string,
  ): Promise<NodeId>;
  /** Role of a member; `undefined`: it is none (any more). */
  roleOf(node: NodeId): NodeRole | undefined;
  issue(node: NodeId, role: NodeRole, publicKey: Uint8Array): Promise<string>;
}

/** Serves one connection of `shoal-ca/1`, on which nobody needs to be known. */
export function serveCa(socket: TLSSocket, remoteAddress: string, backend: CaBackend): void {
  const timer = setTimeout(() => channel.destroy(), CONVERSATION_MS_MAX);
  let busy = false;
  const channel = new Channel(socket, {
    onMessage: (value) => {
      const request = parseCaRequest(value);
      // One question at a time, so that nobody makes the manager sign in bulk.
      if (request === undefined || busy) return channel.destroy();
      busy = true;
      void reply(request).then((message) => {
        busy = false;
        channel.send(message);
        if (message.kind !== 'ca') channel.end();
      });
    },
    onClose: () => clearTimeout(timer),
  });
  const reply = async (request: CaRequest): Promise<CaReply> => {
    try {
      if (request.kind === 'ca_get') return { kind: 'ca', caPem: backend.caPem };
      if (request.kind === 'join') return await join(request, remoteAddress, backend);
      return await renew(request, socket, backend);
    } catch (error) {
      const refusal = refusalOf(error);
      backend.log.warn({ remoteAddress, err: error }, 'refused a certificate');
      return { kind: 'refused', refusal: refusal ?? NOT_NOW };
    }
  };
}

const NOT_NOW = {
  detail: { code: 'SWARM_NO_MANAGER' },
  message: 'the manager cannot answer now: try again later',
} as const;

async function join(
  { token, request, registration }: Extract<CaRequest, { kind: 'join' }>,
  remoteAddress: string,
  backend: CaBackend,
): Promise<CaReply> {
  const tokens = backend.joinTokens();
  const worker = sameText(token, tokens.worker);
  const manager = sameText(token, tokens.manager);
  if (!worker && !manager)
    throw new SwarmError(
      { code: 'SWARM_TOKEN_REFUSED' },
      'a valid join token is necessary to join this cluster',
    );
  if (manager)
    throw new SwarmError(
      { code: 'SWARM_UNSUPPORTED' },
      'this swarm keeps its state on one manager for now: join as a worker with the worker token',
    );
  const publicKey = checkedKey(request, backend.caPem);
  const nodeId = await backend.admit('worker', peerIdOf(publicKey), registration, remoteAddress);
  return certificate(nodeId, 'worker', publicKey, backend);
}

/** The old certificate speaks for the node, even a while after it expired: the key is the same. */
async function renew(
  { request }: Extract<CaRequest, { kind: 'renew' }>,
  socket: TLSSocket,
  backend: CaBackend,
): Promise<CaReply> {
  const shown = socket.getPeerX509Certificate();
  const certified = shown && readNodeCertificate(shown, backend.caPem);
  const role = certified && backend.roleOf(certified.nodeId);
  const publicKey = checkedKey(request, backend.caPem);
  if (
    certified === undefined ||
    role === undefined ||
    !publicKey.equals(certified.publicKey) ||
    backend.nowMs() > certified.expiresAtMs + EXPIRED_GRACE_MS
  )
    throw new SwarmError(
      { code: 'SWARM_TOKEN_REFUSED' },
      'the certificate shown is not of a member of this swarm: leave it and join again',
    );
  return certificate(certified.nodeId, role, publicKey, backend);
}

function checkedKey(
  request: Extract<CaRequest, { kind: 'join' }>['request'],
  caPem: string,
): Buffer {
  const publicKey = checkRequest(request, digestOf(caPem) ?? '');
  if (publicKey === undefined)
    throw new SwarmError({ code: 'SWARM_INVALID' }, 'the certificate request proves no key');
  return publicKey;
}

async function certificate(
  nodeId: NodeId,
  role: NodeRole,
  publicKey: Buffer,
  backend: CaBackend,
): Promise<CaReply> {
  return {
    kind: 'certificate',
    nodeId,
    clusterId: backend.clusterId,
    role,
    certPem: await backend.issue(nodeId, role, publicKey),
    caPem: backend.caPem,
    managers: backend.managers(),
  };
}

/** In a time that tells nothing. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
