import { assert } from '../../base/assert.js';

/**
 * Header of a sealed datagram, big-endian, 12 bytes, authenticated with what follows it:
 *
 *   0        1                 4                                 12               length - 16
 *  +--------+-----------------+---------------------------------+----------------+--------+
 *  |  0x53  |     key id      |             counter             | ciphertext ... |  tag   |
 *  +--------+-----------------+---------------------------------+----------------+--------+
 *
 * The plain text is a whole VXLAN datagram, header and all, so that not even the VNI shows. The first
 * byte has VXLAN's I flag clear: kernels, and agents that know nothing of it, drop it (RFC 7348 §5).
 * The nonce is four bytes that belong to the key, and the counter.
 */
export const SEALED_HEADER_BYTES = 12;
export const SEAL_TAG_BYTES = 16;
/** What sealing adds to a datagram. */
export const SEAL_BYTES = SEALED_HEADER_BYTES + SEAL_TAG_BYTES;
export const SEALED_MARKER = 0x53;
/** Key ids have 24 bits. */
export const SEAL_KEY_ID_MAX = 0xff_ffff;

const COUNTER_OFFSET = 4;

export function encodeSealedHeader(
  target: DataView,
  offset: number,
  keyId: number,
  counter: bigint,
): void {
  assert(keyId >= 0 && keyId <= SEAL_KEY_ID_MAX, 'a key id has 24 bits');
  target.setUint32(offset, SEALED_MARKER * 0x100_0000 + keyId);
  target.setBigUint64(offset + COUNTER_OFFSET, counter);
}

/** Of a datagram that is at least `SEAL_BYTES` long. */
export function sealedKeyId(datagram: DataView, offset: number): number {
  return datagram.getUint32(offset) & SEAL_KEY_ID_MAX;
}

export function sealedCounter(datagram: DataView, offset: number): bigint {
  return datagram.getBigUint64(offset + COUNTER_OFFSET);
}
