import { createSecretKey, type KeyObject } from 'node:crypto';
import { assert } from '../../base/assert.js';
import { openAead, sealAead } from '../../base/io/aead.js';
import {
  ReplayWindow,
  SEAL_KEYS_MAX,
  SEAL_SALT_BYTES,
  SEAL_SECRET_BYTES,
  type SealKey,
  type SealKeys,
} from '../core/seal.js';
import {
  encodeSealedHeader,
  SEAL_BYTES,
  SEALED_HEADER_BYTES,
  sealedCounter,
  sealedKeyId,
} from '../wire/sealed.js';
import { encodeVxlanHeader, VXLAN_HEADER_BYTES } from '../wire/vxlan.js';
import type { StatsCounter } from './stats-counter.js';

/** Why a datagram was not opened; each is also the counter of a driver. */
export type OpenDrop =
  | 'openTruncatedDrops'
  | 'openUnknownKeyDrops'
  | 'openBadTagDrops'
  | 'openReplayedDrops';

export interface Opened {
  /** One more than the index of the VTEP that sealed it: `rowSealer` of a batch. */
  readonly sealer: number;
  /** The VXLAN datagram. */
  readonly plain: Buffer;
}

const SHAPE = { headerBytes: SEALED_HEADER_BYTES, authenticatedBytes: SEALED_HEADER_BYTES };
const NONCE_BYTES = 12;
const COUNTER_OFFSET = 4;

interface SealingKey {
  readonly key: SealKey;
  readonly secret: KeyObject;
  counter: bigint;
}

interface OpeningKey {
  readonly key: SealKey;
  readonly secret: KeyObject;
  readonly vtep: number;
  readonly window: ReplayWindow;
}

interface Peer {
  readonly seals: SealingKey;
  readonly opens: readonly OpeningKey[];
}

/**
 * Seals and opens datagrams for the drivers written in TypeScript; `native/seal.cc` does the same.
 *
 * A counter is never used twice with a key: each key counts for itself, from the first counter of this
 * process plus all that were used by then, which is beyond whatever the key had before it was
 * taken away and came back.
 */
export class Sealer {
  readonly #peers = new Map<number, Peer>();
  readonly #opens = new Map<number, readonly OpeningKey[]>();
  #first: bigint | undefined;
  #allowed = 0;
  #used = 0;

  /** See `PacketIo.allowSeals`. */
  allow(first: bigint, count: number): void {
    assert(this.#first === undefined || this.#first === first, 'counters go on where they began');
    this.#first = first;
    this.#allowed = count;
  }

  /** See `PacketIo.setSeals`. */
  setKeys(vtep: number, keys: SealKeys | undefined): void {
    const held = this.#peers.get(vtep);
    for (const { key } of held?.opens ?? []) this.#forgetOpening(key.id, vtep);
    this.#peers.delete(vtep);
    if (keys === undefined) return;
    assert(keys.opens.length <= SEAL_KEYS_MAX, 'a ring has few keys');
    assert(this.#first !== undefined, 'counters were given before keys');
    const seals =
      held !== undefined && isSame(held.seals.key, keys.seals)
        ? held.seals
        : { ...secretOf(keys.seals), counter: this.#first + BigInt(this.#used) };
    // One that stays keeps what it has seen.
    const opens = keys.opens.map(
      (key) =>
        held?.opens.find((one) => isSame(one.key, key)) ?? {
          ...secretOf(key),
          vtep,
          window: new ReplayWindow(),
        },
    );
    this.#peers.set(vtep, { seals, opens });
    for (const open of opens)
      this.#opens.set(open.key.id, [...(this.#opens.get(open.key.id) ?? []), open]);
  }

  #forgetOpening(id: number, vtep: number): void {
    const rest = (this.#opens.get(id) ?? []).filter((open) => open.vtep !== vtep);
    if (rest.length > 0) this.#opens.set(id, rest);
    else this.#opens.delete(id);
  }

  /** Seals, and counts that it did or could not. */
  sealCounted(
    vtep: number,
    vni: number,
    frame: Uint8Array,
    stats: StatsCounter,
  ): Buffer | undefined {
    const sealed = this.seal(vtep, vni, frame);
    stats.add(sealed === undefined ? 'sealDrops' : 'datagramsSealed', 1);
    return sealed;
  }

  /** Opens, and counts that it did, or why not. */
  openCounted(datagram: Buffer, stats: StatsCounter): Opened | undefined {
    const opened = this.open(datagram);
    if (typeof opened === 'string') {
      stats.add(opened, 1);
      return undefined;
    }
    stats.add('datagramsOpened', 1);
    return opened;
  }

  /** @returns `undefined` without a key for the VTEP, or when the counters are used up. */
  seal(vtep: number, vni: number, frame: Uint8Array): Buffer | undefined {
    const peer = this.#peers.get(vtep);
    if (peer === undefined || this.#used >= this.#allowed) return undefined;
    const { seals } = peer;
    const { counter } = seals;
    seals.counter += 1n;
    this.#used += 1;
    const plain = Buffer.allocUnsafe(VXLAN_HEADER_BYTES + frame.length);
    encodeVxlanHeader(new DataView(plain.buffer, plain.byteOffset, plain.length), 0, vni);
    plain.set(frame, VXLAN_HEADER_BYTES);
    const sealed = Buffer.allocUnsafe(plain.length + SEAL_BYTES);
    const view = new DataView(sealed.buffer, sealed.byteOffset, sealed.length);
    encodeSealedHeader(view, 0, seals.key.id, counter);
    sealAead(sealed, SHAPE, seals.secret, nonceOf(seals.key, sealed), plain);
    return sealed;
  }

  /** Never throws: these bytes come from the network. */
  open(datagram: Buffer): Opened | OpenDrop {
    if (datagram.length < SEAL_BYTES + VXLAN_HEADER_BYTES) return 'openTruncatedDrops';
    const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
    const candidates = this.#opens.get(sealedKeyId(view, 0));
    if (candidates === undefined) return 'openUnknownKeyDrops';
    const counter = sealedCounter(view, 0);
    let drop: OpenDrop = 'openReplayedDrops';
    for (const { key, secret, vtep, window } of candidates) {
      if (!window.isNew(counter)) continue;
      drop = 'openBadTagDrops';
      const plain = openAead(datagram, SHAPE, secret, nonceOf(key, datagram));
      if (plain === undefined) continue;
      window.accept(counter);
      return { sealer: vtep + 1, plain };
    }
    return drop;
  }
}

function nonceOf({ salt }: SealKey, datagram: Buffer): Buffer {
  const nonce = Buffer.allocUnsafe(NONCE_BYTES);
  nonce.set(salt, 0);
  nonce.set(datagram.subarray(COUNTER_OFFSET, SEALED_HEADER_BYTES), SEAL_SALT_BYTES);
  return nonce;
}

function secretOf(key: SealKey): { readonly key: SealKey; readonly secret: KeyObject } {
  assert(key.secret.length === SEAL_SECRET_BYTES, 'a key has 32 bytes');
  assert(key.salt.length === SEAL_SALT_BYTES, 'the beginning of a nonce has four bytes');
  return { key, secret: createSecretKey(key.secret) };
}

function isSame(a: SealKey, b: SealKey): boolean {
  return a.id === b.id && Buffer.from(a.secret).equals(b.secret);
}
