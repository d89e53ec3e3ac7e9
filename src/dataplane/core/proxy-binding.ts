/** An open native proxy; passed back to every call. */
export type ProxyHandle = { readonly proxy: unique symbol };

/** Bytes of one report, and what is where in it, in 32-bit words (`NUMBERS`: in doubles). */
export const REPORT_WORDS = 16;
export const REPORT_DOUBLES = 8;
export const REPORT = {
  what: 0,
  listener: 1,
  backend: 2,
  flow: 3,
  generation: 4,
  clientPort: 5,
  detail: 6,
  /** 16 bytes. */
  client: 8,
} as const;
export const REPORT_NUMBERS = 4;

/** What a report tells: `Told` in proxy-flow.h. */
export const TOLD = {
  /** With its client; generation 0: there is no room for it. */
  accepted: 1,
  /** A flow waits for `proxyAnswer`; `detail` 1: others have failed it. */
  asks: 2,
  /** The first number: milliseconds. */
  connected: 3,
  /** The first number: milliseconds since the client's first byte; 0: it had sent none. */
  answered: 4,
  /** `detail` 1: the flow does not use the backend any more. */
  failed: 5,
  /** `detail`: index in `FLOW_ENDS`; numbers: bytes up and down. */
  ended: 6,
  /** Half of the choices that were given ahead are taken. */
  low: 7,
  /** It was sent something, and sent nothing for `silenceMillis`. Once for each flow, whose later answer is not told. */
  silent: 8,
  /** The flow does not use the backend any more, and lives on. */
  left: 9,
} as const;

/** Why datagrams were dropped, in the order of `DatagramDrop` in proxy-datagrams.h. */
export const DATAGRAM_DROPS = ['flows', 'waiting', 'full', 'refused', 'no_backend'] as const;

export interface ProxyOptions {
  readonly threads: number;
  /** The kernel's limit of descriptors may allow fewer. */
  readonly flowsMax: number;
  /** Of UDP, with one descriptor each. */
  readonly datagramFlowsMax: number;
  readonly datagramIdleMs: number;
  readonly backendsMax: number;
  readonly backlog: number;
  /** Bytes at a stretch after which a direction is spliced; 0: never. */
  readonly spliceAfterBytes: number;
  readonly busyPollMicros: number;
  /** How long a backend may take for its first byte until that is told. */
  readonly silenceMillis: number;
  /** There is something to take. */
  readonly onWake: () => void;
}

/** Addresses have 16 bytes, IPv4 as `::ffff:a.b.c.d`. */
export interface ProxyBackend {
  readonly address: Uint8Array;
  readonly port: number;
  /** Namespace file; empty: this one. */
  readonly netns: string;
  readonly source: Uint8Array | undefined;
  readonly sourcePort: number;
  readonly asClient: boolean;
  /** Where clients of IPv6 are taken under their own addresses. */
  readonly address6: Uint8Array | undefined;
  readonly mark: number;
  /** 0: none. */
  readonly proxyProtocol: 0 | 1 | 2;
}

/** The functions of `src/dataplane/native/proxy-binding.cc`. */
export interface ProxyBinding {
  /** @throws Error with code `ESYSTEM`. */
  proxyOpen(options: ProxyOptions): ProxyHandle;
  /** Resets all flows; what has happened can still be taken. */
  proxyStop(handle: ProxyHandle): void;
  /**
   * Listens at these addresses (literals; `::` is all, IPv4 too) and no others: a listener moves.
   *
   * @returns For each 0, or a negative errno.
   */
  proxyListen(
    handle: ProxyHandle,
    listener: number,
    port: number,
    places: readonly string[],
  ): Int32Array;
  /** The same for a UDP port, numbered among all. */
  proxyListenDatagrams(
    handle: ProxyHandle,
    listener: number,
    port: number,
    places: readonly string[],
  ): Int32Array;
  /** @returns What was given ahead, and nobody took. */
  proxyUnlisten(handle: ProxyHandle, listener: number): Int32Array;
  /** Choices for the next flows, taken in this order; each has so long to connect. */
  proxyGive(
    handle: ProxyHandle,
    listener: number,
    backends: Int32Array,
    count: number,
    connectMs: number,
  ): void;
  proxyWithdraw(handle: ProxyHandle, listener: number): Int32Array;
  /** @param id From 1 to `backendsMax`; not in use. */
  proxySetBackend(handle: ProxyHandle, id: number, backend: ProxyBackend): void;
  proxyRemoveBackend(handle: ProxyHandle, id: number): void;
  /** @param rows Of flow, generation, backend (0: none is left) and milliseconds to connect in. */
  proxyAnswer(handle: ProxyHandle, rows: Int32Array, count: number): void;
  /** Resets its flows. */
  proxyResetBackend(handle: ProxyHandle, id: number): void;
  /** Its flows of datagrams ask for another with their next one. */
  proxyLeaveBackend(handle: ProxyHandle, id: number): void;
  /** @param counts As many as `DATAGRAM_DROPS`. */
  proxyDatagramDrops(handle: ProxyHandle, counts: Float64Array): void;
  /** @returns How many reports were written. */
  proxyTake(handle: ProxyHandle, reports: Int32Array, most: number): number;
  proxyFlowCount(handle: ProxyHandle): number;
}
