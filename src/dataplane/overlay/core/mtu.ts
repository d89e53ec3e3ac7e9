import { ETHERNET_HEADER_BYTES } from '../../wire/ethernet.js';
import { IPV4_HEADER_BYTES } from '../../wire/ipv4.js';
import { IPV6_HEADER_BYTES, IPV6_MTU_MIN_BYTES } from '../../wire/ipv6.js';
import { SEAL_BYTES } from '../../wire/sealed.js';
import { UDP_HEADER_BYTES } from '../../wire/udp.js';
import { VXLAN_HEADER_BYTES } from '../../wire/vxlan.js';

const OUTER_IP_BYTES = { ipv4: IPV4_HEADER_BYTES, ipv6: IPV6_HEADER_BYTES } as const;

export type AddressFamily = keyof typeof OUTER_IP_BYTES;

/**
 * The largest IP packet that an overlay endpoint may send without the outer datagram exceeding
 * the underlay MTU.
 *
 * Encapsulation costs 50 bytes over IPv4 and 70 over IPv6: inner Ethernet, VXLAN, UDP, outer IP; and 28
 * more where datagrams are sealed.
 * A VTEP must not fragment (RFC 7348 §4.3), so this is a hard ceiling, not a hint.
 *
 * @param underlayMtuBytes IP MTU of the link that carries the tunnel, without Ethernet.
 * @param family Address family of the outer header.
 * @returns Bytes, in [0, underlayMtuBytes). `undefined` if nothing useful would fit, which is an
 *   operator's mistake and therefore not an assertion.
 */
export function overlayMtuBytes(
  underlayMtuBytes: number,
  family: AddressFamily,
  isSealed: boolean,
): number | undefined {
  const sealBytes = isSealed ? SEAL_BYTES : 0;
  const innerBytes = ETHERNET_HEADER_BYTES + VXLAN_HEADER_BYTES + sealBytes;
  const overheadBytes = innerBytes + UDP_HEADER_BYTES + OUTER_IP_BYTES[family];
  const mtuBytes = underlayMtuBytes - overheadBytes;
  return mtuBytes >= IPV6_MTU_MIN_BYTES ? mtuBytes : undefined;
}
