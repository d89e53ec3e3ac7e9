import type { PacketBatch } from './batch.js';
import type { SealKeys } from './seal.js';

/** Decides what happens to each packet of a batch. Never throws on packet data, never allocates per packet. */
export interface PacketHandler {
  /** Rows are frames that local ports sent. */
  egress(batch: PacketBatch): void;
  /** Rows are datagrams that arrived on the underlay. */
  ingress(batch: PacketBatch): void;
}

export type PacketIoKind = 'native' | 'portable' | 'memory';

/** Counters of a driver; all only grow. Names are also those of the metrics. */
export interface PacketIoStats {
  readonly portFramesRead: number;
  readonly portBytesRead: number;
  readonly portFramesWritten: number;
  readonly portBytesWritten: number;
  /** A port's queue was full, or the port was gone. */
  readonly portWriteDrops: number;
  readonly datagramsReceived: number;
  readonly datagramBytesReceived: number;
  readonly datagramsSent: number;
  readonly datagramBytesSent: number;
  /** The underlay refused a datagram: no route, buffer full, address unknown. */
  readonly datagramSendDrops: number;
  /** The receive buffer of the socket overflowed, as far as the system tells. */
  readonly datagramReceiveDrops: number;
  readonly datagramsSealed: number;
  readonly datagramsOpened: number;
  /** Was to be sealed, and there is no key for that VTEP. */
  readonly sealDrops: number;
  /** Of those that say they are sealed: too short to be. */
  readonly openTruncatedDrops: number;
  /** By a key that is none of ours: of a ring from before or after, or of a stranger. */
  readonly openUnknownKeyDrops: number;
  /** Changed on the way, or sealed by somebody else. */
  readonly openBadTagDrops: number;
  /** Seen before, or older than the window. */
  readonly openReplayedDrops: number;
}

/**
 * Moves packets between local ports (TAP devices), the underlay (UDP) and a packet core.
 *
 * All methods are called on the thread that owns the driver. `test/conformance/packet-io.ts` is
 * the contract as a suite, which every implementation passes.
 */
export interface PacketIo {
  readonly kind: PacketIoKind;
  /** Starts reading and writing the TAP `fd` as port `index`; the driver owns the descriptor from now on. */
  addPort(index: number, fd: number): void;
  /** Forgets the port and closes its descriptor; unknown indexes are ignored. */
  removePort(index: number): void;
  /** Sets where outputs to VTEP `index` go. */
  setVtep(index: number, address: string, udpPort: number): void;
  /** Forgets its keys, too. */
  removeVtep(index: number): void;
  /** Whether outputs can be sealed here; if not, they are dropped and counted, and nothing is opened. */
  readonly canSeal: boolean;
  /** What seals to VTEP `index`, and opens from it; `undefined` forgets. After `allowSeals`. */
  setSeals(index: number, keys: SealKeys | undefined): void;
  /**
   * Which counters are this process's own: `count` from `first`, used by no process before. More may
   * be allowed later, with the same `first`; without counters nothing is sealed.
   */
  allowSeals(first: bigint, count: number): void;
  /** Begins to move packets; `handler` is called on this thread. */
  start(handler: PacketHandler): void;
  /** Stops and closes everything. No handler call happens after it resolves. */
  stop(): Promise<void>;
  stats(): PacketIoStats;
}

/** What every driver is opened with. */
export interface PacketIoConfig {
  /** UDP port to receive VXLAN on, at every local address, IPv4 and IPv6. */
  readonly udpPort: number;
  /** Kernel receive buffer of the VXLAN socket, bytes. */
  readonly receiveBufferBytes: number;
  /** Polling after the last packet before the thread sleeps, microseconds; 0 never polls. */
  readonly busyPollMicros: number;
  /** How many source ports outgoing flows are spread over, from 1. */
  readonly sourcePorts: number;
}
