import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { assert } from '../../base/assert.js';
import { AEAD_TAG_BYTES, openAead, sealAead } from '../../base/io/aead.js';

/** A key of the ring, as the control plane hands it out. */
export interface GossipKey {
  /** 0 to 255; says which key sealed a packet. */
  readonly id: number;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

/** The previous, the primary, and the next one. */
export const KEYS_MAX = 3;
export const KEY_BYTES = 32;

/**
 * A sealed packet: AES-256-GCM, the first 14 bytes being authenticated, too.
 *
 *   0        1        2              14                    length - 16
 *  +--------+--------+--------------+---------------------+----------------+
 *  |  0x51  | key id |    nonce     | encrypted packet ...|      tag       |
 *  +--------+--------+--------------+---------------------+----------------+
 *
 * All members share the keys, so nonces must not meet across processes: the first four bytes and
 * the start of the 64-bit counter behind them are random per process. Two processes would have to
 * draw the same prefix and starts closer than the packets they send.
 *
 * Replays are not told apart: every message is harmless when repeated (claims are merged by
 * incarnation, answers are matched to questions by numbers that are not used twice).
 */
const MAGIC = 0x51;
const NONCE_OFFSET = 2;
const NONCE_BYTES = 12;
const HEADER_BYTES = NONCE_OFFSET + NONCE_BYTES;
const SHAPE = { headerBytes: HEADER_BYTES, authenticatedBytes: NONCE_OFFSET };

/** What sealing adds to a packet. */
export const SEAL_BYTES = HEADER_BYTES + AEAD_TAG_BYTES;

/** Why a datagram was not opened. Each value is also the name of its counter. */
export type SealDrop = 'seal_truncated' | 'seal_version' | 'seal_key_unknown' | 'seal_broken';

interface KeyRing {
  readonly primaryId: number;
  readonly primary: KeyObject;
  readonly byId: ReadonlyMap<number, KeyObject>;
}

function ringOf(keys: readonly GossipKey[]): KeyRing {
  const [first] = keys;
  assert(first !== undefined && keys.length <= KEYS_MAX, `one to ${KEYS_MAX} keys`);
  const byId = new Map<number, KeyObject>();
  for (const { id, secret } of keys) {
    assert(Number.isInteger(id) && id >= 0 && id <= 255, 'a key id is one byte');
    assert(secret.length === KEY_BYTES, `a key is ${KEY_BYTES} bytes`);
    byId.set(id, createSecretKey(secret));
  }
  return { primaryId: first.id, primary: byId.get(first.id) as KeyObject, byId };
}

export class Sealer {
  #ring: KeyRing;
  readonly #nonce = randomBytes(NONCE_BYTES);
  #counter = this.#nonce.readBigUInt64BE(NONCE_BYTES - 8);

  /** @param keys The first seals; every one opens. */
  constructor(keys: readonly GossipKey[]) {
    this.#ring = ringOf(keys);
  }

  setKeys(keys: readonly GossipKey[]): void {
    this.#ring = ringOf(keys);
  }

  seal(plain: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafe(plain.length + SEAL_BYTES);
    sealed.writeUInt8(MAGIC, 0);
    sealed.writeUInt8(this.#ring.primaryId, 1);
    this.#counter = BigInt.asUintN(64, this.#counter + 1n);
    this.#nonce.writeBigUInt64BE(this.#counter, NONCE_BYTES - 8);
    sealed.set(this.#nonce, NONCE_OFFSET);
    sealAead(sealed, SHAPE, this.#ring.primary, this.#nonce, plain);
    return sealed;
  }

  /** The cheap part of opening: `undefined` if it is worth going on. */
  precheck(datagram: Buffer): SealDrop | undefined {
    if (datagram.length < SEAL_BYTES) return 'seal_truncated';
    if (datagram.readUInt8(0) !== MAGIC) return 'seal_version';
    return this.#ring.byId.has(datagram.readUInt8(1)) ? undefined : 'seal_key_unknown';
  }

  /** Never throws: these bytes come from the network. */
  open(datagram: Buffer): Buffer | SealDrop {
    const drop = this.precheck(datagram);
    if (drop !== undefined) return drop;
    const key = this.#ring.byId.get(datagram.readUInt8(1)) as KeyObject;
    const nonce = datagram.subarray(NONCE_OFFSET, HEADER_BYTES);
    return openAead(datagram, SHAPE, key, nonce) ?? 'seal_broken';
  }
}
