import { randomBytes } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { lookup as resolveName } from 'node:dns';
import { once } from 'node:events';
import { isIP } from 'node:net';
import { CoreDriver, nowMs } from '../../base/io/driver.js';
import { Prng } from '../../base/prng.js';
import { lanConfig, localConfig, type SwimConfig, wanConfig } from '../core/config.js';
import { FLOOD_LIMITS, FloodGuard } from '../core/flood-guard.js';
import {
  type Change,
  Membership,
  type SwimInput,
  type SwimReady,
  type SwimStats,
} from '../core/membership.js';
import type { Connect, Send } from '../core/outbox.js';
import type { RoundTrip } from '../core/probe.js';
import type { MemberId } from '../wire/claim.js';
import { canonicalAddress, type Endpoint } from '../wire/endpoint.js';
import { decodePacket, encodePacket, type PacketDrop } from '../wire/packet.js';
import { type GossipKey, SEAL_BYTES, type SealDrop, Sealer } from './seal.js';
import { probeStream } from './stream-probe.js';

export type SwimProfile = 'lan' | 'wan' | 'local';

/** Everything a shell needs to start; plain data, because it may travel to a worker. */
export interface SwimShellConfig {
  readonly self: MemberId;
  readonly bindAddress: string;
  readonly port: number;
  /** Canonical. */
  readonly advertise: Endpoint;
  readonly profile: SwimProfile;
  readonly keys: readonly GossipKey[];
}

export interface SwimEvents {
  onChanges(changes: readonly Change[]): void;
  onRoundTrips(roundTrips: readonly RoundTrip[]): void;
}

export type DropReason =
  | PacketDrop
  | SealDrop
  /** Longer than any member sends. */
  | 'packet_oversized'
  /** From a source of forgeries, in a flood of them. */
  | 'source_throttled';

/** A snapshot; all but `awareness` and `broadcastsQueued` are counts since the start. */
export interface ShellStats {
  readonly packetsReceived: number;
  readonly bytesReceived: number;
  readonly packetsSent: number;
  readonly bytesSent: number;
  readonly sendErrors: number;
  /** Messages of a newer version that were skipped. */
  readonly messagesUnknown: number;
  readonly drops: Readonly<Record<DropReason, number>>;
  /** Own-health score, 0 is healthy. */
  readonly awareness: number;
  readonly broadcastsQueued: number;
  readonly swim: SwimStats;
}

const DATAGRAM_BYTES_MAX = 1_500;
/** Room for what a burst of everybody's gossip, or of garbage, brings between two wake-ups. */
const RECEIVE_BUFFER_BYTES = 1 << 20;
const STREAM_PROBES_MAX = 128;

const PROFILES: Readonly<Record<SwimProfile, () => SwimConfig>> = {
  lan: lanConfig,
  wan: wanConfig,
  local: localConfig,
};

/**
 * Runs the membership core on a UDP socket. libuv reads at most 32 datagrams per wake-up of the
 * loop, so timers run and answers go out in a flood, too; whatever is dropped before its seal is
 * opened costs about as much as reading it.
 */
export class SwimShell {
  readonly #config: SwimShellConfig;
  readonly #events: SwimEvents;
  readonly #socket: Socket;
  readonly #sealer: Sealer;
  readonly #guard = new FloodGuard(FLOOD_LIMITS);
  readonly #core: Membership;
  readonly #driver: CoreDriver<SwimInput, SwimReady>;
  #streamProbes = 0;
  #hasLeft: (() => void) | undefined;
  #isClosed = false;
  readonly #drops: Record<DropReason, number> = {
    packet_truncated: 0,
    packet_version: 0,
    packet_malformed: 0,
    packet_oversized: 0,
    seal_truncated: 0,
    seal_version: 0,
    seal_key_unknown: 0,
    seal_broken: 0,
    source_throttled: 0,
  };
  readonly #counts = {
    packetsReceived: 0,
    bytesReceived: 0,
    packetsSent: 0,
    bytesSent: 0,
    sendErrors: 0,
    messagesUnknown: 0,
  };

  /** @throws The socket's error: EADDRINUSE, EADDRNOTAVAIL, EACCES. */
  static async open(config: SwimShellConfig, events: SwimEvents): Promise<SwimShell> {
    const socket = createSocket({
      type: isIP(config.bindAddress) === 6 ? 'udp6' : 'udp4',
      lookup: lookupLiteral,
    });
    try {
      // Subscribed first: with a literal address the socket may be bound before `bind` returns.
      const listening = once(socket, 'listening');
      socket.bind({ address: config.bindAddress, port: config.port, exclusive: true });
      await listening;
    } catch (error) {
      socket.close();
      throw error;
    }
    try {
      socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
    } catch {
      // The system's default serves, too.
    }
    return new SwimShell(config, events, socket);
  }

  private constructor(config: SwimShellConfig, events: SwimEvents, socket: Socket) {
    this.#config = config;
    this.#events = events;
    this.#socket = socket;
    this.#sealer = new Sealer(config.keys);
    const swim = PROFILES[config.profile]();
    const identity = { id: config.self, endpoint: config.advertise };
    const prng = new Prng(randomBytes(6).readUIntBE(0, 6));
    this.#core = new Membership(swim, identity, swim.packetBytesMax - SEAL_BYTES, prng);
    this.#driver = new CoreDriver(this.#core, (ready) => this.#perform(ready));
    socket.on('message', (datagram, remote) => this.#onDatagram(datagram, remote));
    // Errors of single sends arrive at their callbacks; this is the rest, which changes nothing.
    socket.on('error', () => {
      this.#counts.sendErrors += 1;
    });
    this.#driver.start();
  }

  join(seeds: readonly Endpoint[]): void {
    this.#driver.input({ kind: 'join', seeds });
  }

  check(member: MemberId): void {
    this.#driver.input({ kind: 'check', member });
  }

  setKeys(keys: readonly GossipKey[]): void {
    this.#sealer.setKeys(keys);
  }

  stats(): ShellStats {
    return {
      ...this.#counts,
      drops: { ...this.#drops },
      awareness: this.#core.awarenessScore,
      broadcastsQueued: this.#core.broadcastsQueued,
      swim: this.#core.stats(),
    };
  }

  /** Resolves once the others were told, which takes a tenth of a second. */
  leave(): Promise<void> {
    return new Promise((resolve) => {
      this.#hasLeft = resolve;
      this.#driver.input({ kind: 'leave' });
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#driver.stop();
    const closed = once(this.#socket, 'close');
    this.#socket.close();
    await closed;
  }

  #onDatagram(datagram: Buffer, remote: RemoteInfo): void {
    if (this.#isClosed) return;
    this.#counts.packetsReceived += 1;
    this.#counts.bytesReceived += datagram.length;
    if (datagram.length > DATAGRAM_BYTES_MAX) {
      this.#drop('packet_oversized');
      return;
    }
    const malformed = this.#sealer.precheck(datagram);
    if (malformed !== undefined) {
      this.#drop(malformed);
      return;
    }
    const arrivedMs = nowMs();
    const sender = `${remote.address} ${remote.port}`;
    if (!this.#guard.allows(sender, arrivedMs)) {
      this.#drop('source_throttled');
      return;
    }

    const opened = this.#sealer.open(datagram);
    if (typeof opened === 'string') {
      this.#guard.failed(sender, arrivedMs);
      this.#drop(opened);
      return;
    }
    this.#guard.opened(sender);
    const decoded = decodePacket(opened);
    if (typeof decoded === 'string') {
      this.#drop(decoded);
      return;
    }
    this.#counts.messagesUnknown += decoded.messagesUnknown;
    const address = canonicalAddress(remote.address) ?? remote.address;
    const source = { address, port: remote.port };
    this.#driver.input({ kind: 'packet', source, packet: decoded.packet });
  }

  #drop(reason: DropReason): void {
    this.#drops[reason] += 1;
  }

  #perform(ready: SwimReady): void {
    if (ready.changes.length > 0) this.#events.onChanges(ready.changes);
    for (const send of ready.sends) this.#send(send);
    for (const connect of ready.connects) this.#connect(connect);
    if (ready.roundTrips.length > 0) this.#events.onRoundTrips(ready.roundTrips);
    if (!ready.hasLeft) return;
    this.#hasLeft?.();
    this.#hasLeft = undefined;
  }

  #send({ to, packet }: Send): void {
    const sealed = this.#sealer.seal(encodePacket(packet));
    this.#counts.packetsSent += 1;
    this.#counts.bytesSent += sealed.length;
    const isMapped = this.#socket.address().family === 'IPv6' && isIP(to.address) === 4;
    this.#socket.send(sealed, to.port, isMapped ? `::ffff:${to.address}` : to.address, (error) => {
      if (error !== null) this.#counts.sendErrors += 1;
    });
  }

  #connect({ id, endpoint, timeoutMs }: Connect): void {
    if (this.#streamProbes >= STREAM_PROBES_MAX) {
      this.#driver.input({ kind: 'connect', id, result: 'timeout' });
      return;
    }
    this.#streamProbes += 1;
    const { bindAddress } = this.#config;
    const localAddress = isWildcard(bindAddress) ? undefined : bindAddress;
    probeStream(endpoint, timeoutMs, localAddress, (result) => {
      this.#streamProbes -= 1;
      this.#driver.input({ kind: 'connect', id, result });
    });
  }
}

function isWildcard(address: string): boolean {
  return address === '0.0.0.0' || address === '::';
}

/** Names (of seeds) are resolved; literals, that is nearly everything, go straight through. */
const lookupLiteral = ((
  host: string,
  // dgram passes the family where dns.lookup takes options, which allows that, too.
  family: 4 | 6,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void => {
  if (isIP(host) === 0) resolveName(host, family, callback);
  else process.nextTick(callback, null, host, family);
}) as unknown as typeof resolveName;
