import { assert } from '../../base/assert.js';
import type { Brand } from '../../base/brand.js';

/**
 * VXLAN header, RFC 7348 §5. Big-endian, 8 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |RRRRIRRR|          reserved        |            VNI           |reserved|
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *
 * Reserved bits are sent as zero and ignored on receipt. Drivers write it, the overlay reads it.
 */
export const VXLAN_HEADER_BYTES = 8;
export const VNI_MAX = 0xff_ffff;

const FLAG_I = 0x08;
const VNI_OFFSET = 4;

/** VXLAN network identifier: an integer in [0, VNI_MAX]. */
export type Vni = Brand<number, 'Vni'>;

/** Why a datagram was not decapsulated. Each value is also the name of its counter. */
export type VxlanDrop = 'vxlan_truncated' | 'vxlan_vni_invalid';

/** @param vni In [0, VNI_MAX]. */
export function encodeVxlanHeader(target: DataView, offset: number, vni: number): void {
  assert(offset >= 0 && offset + VXLAN_HEADER_BYTES <= target.byteLength, 'header fits the target');
  assert(vni >= 0 && vni <= VNI_MAX, 'VNI has 24 bits');
  target.setUint32(offset, FLAG_I * 0x100_0000);
  target.setUint32(offset + VNI_OFFSET, vni * 0x100);
}

/**
 * Reads the VNI of the header at `offset` of a datagram that ends before `end`. Never throws and
 * never allocates: these bytes come from the network and this runs once per datagram.
 */
export function decodeVxlanHeader(
  datagram: DataView,
  offset: number,
  end: number,
): Vni | VxlanDrop {
  if (offset + VXLAN_HEADER_BYTES > end) return 'vxlan_truncated';
  if ((datagram.getUint8(offset) & FLAG_I) === 0) return 'vxlan_vni_invalid';
  return (datagram.getUint32(offset + VNI_OFFSET) >>> 8) as Vni;
}
