export { parseAddress } from '../wire/address.js';
export { formatMac, parseMac } from '../wire/ethernet.js';
export { VNI_MAX, type Vni } from '../wire/vxlan.js';
export {
  newOverlayCounters,
  OVERLAY_DROPS,
  OVERLAY_REPLIES,
  OVERLAY_TOTALS,
  type OverlayDrop,
  type OverlayReply,
  type OverlayStats,
  type OverlayTotal,
  readOverlayStats,
  type SegmentStats,
} from './core/counters.js';
export {
  collectEndpoints,
  type DerivedTables,
  type DeriveStats,
  deriveTables,
  type LocalPort,
  type OverlayInputs,
  type OverlayNetwork,
  type OverlayService,
  type StaticVtep,
  segmentMtuBytes,
} from './core/derive.js';
export {
  diffTables,
  fullUpdate,
  NOTHING_PUBLISHED,
  type PublishedTables,
  programVteps,
  type TablesUpdate,
} from './core/diff.js';
export { ingressAddress6, ingressSubnets } from './core/ingress-places.js';
export { type AddressFamily, overlayMtuBytes } from './core/mtu.js';
export type { SegmentLimits } from './core/segments.js';
export {
  NO_TABLES,
  type Segment,
  type Tables,
  tablesDigest,
  type VtepPlace,
} from './core/tables.js';
export { VIP_MAC_TEXT } from './core/vip-mac.js';
export type { VipOutliers } from './core/vips.js';
export {
  DEFAULT_SEGMENT_LIMITS,
  Vtep,
  type VtepConfig,
  type VtepDependencies,
} from './core/vtep.js';
export {
  decodeEndpointRecord,
  ENDPOINT_RECORD_BYTES_MAX,
  type EndpointRecord,
  encodeEndpointRecord,
} from './wire/endpoint-record.js';
