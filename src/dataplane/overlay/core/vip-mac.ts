import { formatMac, macOf } from '../../wire/ethernet.js';

/** The MAC of every VIP: a locally administered one, and none that an endpoint is given. */
export const VIP_MAC = macOf(0x0253, 0x484f_414c);

/** Of the link-layer neighbour that stands for all addresses outside, too. */
export const VIP_MAC_TEXT = formatMac(VIP_MAC);
