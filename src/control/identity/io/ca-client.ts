import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../../base/prng.js';
import { SwarmError } from '../../../base/swarm-error.js';
import { Backoff } from '../../core/backoff.js';
import type { Logger } from '../../core/logger.js';
import { ask, connectTls } from '../../io/connect.js';
import type { ControlAddress, NodeRegistration } from '../../wire/model.js';
import { ALPN_CA } from '../../wire/protocol.js';
import { errorOf } from '../../wire/refusal.js';
import { type CaReply, type CaRequest, parseCaReply } from '../wire/ca-messages.js';
import { pemBlocks } from '../wire/pem.js';
import { type JoinToken, parseJoinToken } from '../wire/token.js';
import { digestOf } from './certificates.js';
import { makeIdentity, type NodeIdentity, type SaveOptions, saveIdentity } from './identity.js';
import { makeRequest } from './keys.js';

const CONNECT_MS_MAX = 5_000;
const ANSWER_MS_MAX = 10_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;

export interface JoinOptions extends SaveOptions {
  readonly token: string;
  readonly remotes: readonly ControlAddress[];
  readonly node: NodeRegistration;
  readonly dataDir: string;
  readonly log: Logger;
  /** The node's key, 32 bytes; made up if absent. Whoever comes with the same key is the same node. */
  readonly seed?: Uint8Array;
  /** Ends the attempt, also the part of it that goes on in the background. */
  readonly signal?: AbortSignal;
}

export interface Joined {
  readonly identity: NodeIdentity;
  /** All managers that the swarm named. */
  readonly managers: readonly ControlAddress[];
}

/**
 * An attempt to join, which goes on until a manager answers: unreachable ones are asked again and
 * again, in turn, and only an answer (or `signal`) ends it. The identity is on disk when `done` is.
 */
export class JoinAttempt {
  /** Rejects with a SwarmError: a refusal, or `SWARM_NO_MANAGER` when cancelled. */
  readonly done: Promise<Joined>;

  private constructor(done: Promise<Joined>) {
    this.done = done;
    // Whoever stops waiting at a time-out need not look at the end.
    done.catch(() => {});
  }

  /** @throws SwarmError `SWARM_TOKEN_MALFORMED`, at once. */
  static start(options: JoinOptions): JoinAttempt {
    const token = parseJoinToken(options.token);
    if (token === undefined)
      throw new SwarmError({ code: 'SWARM_TOKEN_MALFORMED' }, 'invalid join token');
    if (options.remotes.length === 0)
      throw new SwarmError({ code: 'SWARM_INVALID' }, 'name at least one manager to join');
    return new JoinAttempt(joinUntilAnswered(options, token));
  }

  /** @throws SwarmError `SWARM_JOIN_TIMEOUT` after `timeoutMs`, with which the attempt does not end. */
  async within(timeoutMs: number): Promise<Joined> {
    const enough = new AbortController();
    const late = sleep(timeoutMs, undefined, { signal: enough.signal }).then(() => {
      throw new SwarmError(
        { code: 'SWARM_JOIN_TIMEOUT' },
        'timeout was reached before node joined: the attempt to join the swarm will continue in the background',
      );
    });
    late.catch(() => {});
    try {
      return await Promise.race([this.done, late]);
    } finally {
      enough.abort();
    }
  }
}

async function joinUntilAnswered(options: JoinOptions, token: JoinToken): Promise<Joined> {
  // One key for all tries: a manager whose answer was lost recognises the node by it.
  const seed = options.seed ?? randomBytes(32);
  const backoff = new Backoff(
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    new Prng(randomBytes(4).readUInt32LE()),
  );
  for (let turn = 0; ; turn++) {
    const remote = options.remotes[turn % options.remotes.length] as ControlAddress;
    try {
      const joined = await joinAt(remote, options, token, seed);
      await saveIdentity(options.dataDir, joined.identity, options);
      return joined;
    } catch (error) {
      throwIfCancelled(options.signal);
      if (error instanceof SwarmError && error.code !== 'SWARM_NO_MANAGER') throw error;
      options.log.warn({ remote, err: error }, 'could not join yet');
    }
    await sleep(backoff.take(), undefined, { signal: options.signal }).catch(() => {});
    throwIfCancelled(options.signal);
  }
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true)
    throw new SwarmError({ code: 'SWARM_NO_MANAGER' }, 'the attempt to join was cancelled');
}

/** The secret is sent only after the CA was seen to be the token's, and verified by that CA. */
async function joinAt(
  remote: ControlAddress,
  options: JoinOptions,
  token: JoinToken,
  seed: Uint8Array,
): Promise<Joined> {
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const common = { remote, alpn: ALPN_CA, timeoutMs: CONNECT_MS_MAX, ...signal };
  const first = await exchange(await connectTls(common), { kind: 'ca_get' }, options.signal);
  const offered = first.kind === 'ca' ? pemBlocks(first.caPem) : [];
  // While the root changes there are two of them, and the token names one: only that is believed.
  const caPem = offered.find((pem) => digestOf(pem) === token.caDigest);
  if (caPem === undefined)
    throw new SwarmError(
      { code: 'SWARM_CA_MISMATCH', expected: token.caDigest },
      `remote CA does not match fingerprint. Expected: ${token.caDigest}`,
    );
  const request: CaRequest = {
    kind: 'join',
    token: options.token.trim(),
    request: makeRequest(seed, token.caDigest),
    registration: options.node,
  };
  const reply = await exchange(await connectTls({ ...common, caPem }), request, options.signal);
  return accept(reply, seed);
}

export interface RenewOptions extends SaveOptions {
  /** Ends the attempt. */
  readonly signal?: AbortSignal;
}

/**
 * Exchanges a certificate for a fresh one of the same key, and saves it: with the role that the node
 * has now, and with all roots that are to be trusted now.
 * @throws SwarmError a refusal; any other error when no manager could be asked.
 */
export async function renewIdentity(
  identity: NodeIdentity,
  remote: ControlAddress,
  dataDir: string,
  options: RenewOptions = {},
): Promise<NodeIdentity> {
  const { caPem, keyPem, certPem, seed } = identity;
  const socket = await connectTls({
    remote,
    alpn: ALPN_CA,
    caPem,
    keyPem,
    certPem,
    timeoutMs: CONNECT_MS_MAX,
    ...(options.signal !== undefined && { signal: options.signal }),
  });
  const request = makeRequest(seed, digestOf(caPem) ?? '');
  const reply = await exchange(socket, { kind: 'renew', request }, options.signal);
  const renewed = accept(reply, seed).identity;
  if (renewed.nodeId !== identity.nodeId || renewed.clusterId !== identity.clusterId)
    throw new Error('the manager gave a certificate of another node');
  await saveIdentity(dataDir, renewed, options);
  return renewed;
}

async function exchange(
  socket: Awaited<ReturnType<typeof connectTls>>,
  request: CaRequest,
  signal?: AbortSignal,
): Promise<CaReply> {
  const reply = parseCaReply(await ask(socket, request, ANSWER_MS_MAX, signal));
  if (reply === undefined) throw new Error('the manager answered nonsense');
  if (reply.kind === 'refused') throw errorOf(reply.refusal);
  return reply;
}

/**
 * The roots are taken from the reply, since the connection was verified to be with a manager under a
 * root that was trusted before; and managers hold the key of the CA, so that their word is its word.
 */
function accept(reply: CaReply, seed: Uint8Array): Joined {
  const identity =
    reply.kind === 'certificate' ? makeIdentity(seed, reply.certPem, reply.caPem) : undefined;
  if (reply.kind !== 'certificate' || identity === undefined)
    throw new Error('the manager gave no certificate of this swarm');
  return { identity, managers: reply.managers };
}
