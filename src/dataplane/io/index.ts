export type {
  PacketHandler,
  PacketIo,
  PacketIoConfig,
  PacketIoKind,
  PacketIoStats,
} from '../core/packet-io.js';

export type { SealKeys } from '../core/seal.js';

export { answerDatagrams } from './datagram-answers.js';

export {
  answerOutside,
  configureLink,
  deleteLink,
  deliverForeign,
  type LinkConfig,
  linkCommands,
  raiseLoopback,
  runIpBatch,
  undeliverForeign,
} from './link.js';
export {
  type MemoryDatagram,
  type MemoryFaults,
  MemoryNetwork,
  MemoryPacketIo,
  type MemoryPort,
  type MemorySocket,
} from './memory.js';
export { type NativeDependencies, NativePacketIo, readStats, STATS_FIELDS } from './native.js';
export { loadNative, type NativeBinding, nativeUnavailableReason } from './native-binding.js';
export {
  freeLinkName,
  inNetns,
  inNetnsOrHere,
  linkNames,
  listeningPorts,
  NETNS_FOLDER,
  netnsIdentity,
  netnsPathOf,
  netnsPathOfPid,
  openTcpClientInNetns,
  openTcpListenerInNetns,
  openUdpInNetns,
} from './netns.js';
export { type OpenedPacketIo, openPacketIo, type PacketIoDependencies } from './open.js';
export { OUTSIDE_BRIDGE, Outside } from './outside.js';
export { PortablePacketIo } from './portable.js';
export { deriveSealKeys, type RingKey } from './seal-keys.js';
export {
  openEventfd,
  openTcpListener,
  openTcpSocketAs,
  openUdpSocket,
  SysError,
  type SysErrorDetail,
  signalEventfd,
} from './sys.js';
export { openTap, setTapPersistence, type TapOptions, VNET_HEADER_BYTES } from './tap.js';
