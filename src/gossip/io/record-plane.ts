import { createHash, randomInt } from 'node:crypto';
import type { Message, PublishResult, TopicValidatorResult } from '@libp2p/gossipsub';
import type { Connection, PeerId, Stream } from '@libp2p/interface';
import { CoreDriver } from '../../base/io/driver.js';
import { SwarmError } from '../../base/swarm-error.js';
import {
  RecordCore,
  type RecordInput,
  type RecordMember,
  type RecordReady,
} from '../core/record-core.js';
import type { DialTarget } from '../core/record-dialer.js';
import type { GossipRecord } from '../core/record-table.js';
import { utf8Bytes } from '../wire/record-bytes.js';
import {
  type Delta,
  type DeltaDrop,
  decodeGossip,
  encodeGossip,
  KEY_BYTES_MAX,
  TOPIC_BYTES_MAX,
  VALUE_BYTES_MAX,
} from '../wire/record-delta.js';
import type { ExchangeDrop } from '../wire/record-exchange.js';
import {
  createNode,
  dialAddress,
  type Libp2pNode,
  listenPort,
  peerIdOf,
  startNode,
} from './libp2p-node.js';
import { ExchangeStream } from './records-stream.js';
import { TUNNEL_PROTOCOL, TUNNELS_PER_MEMBER_MAX, Tunnels, unreachableMember } from './tunnel.js';

export type { RecordMember } from '../core/record-core.js';
export type { GossipRecord } from '../core/record-table.js';
export { peerIdOf };

const EXCHANGE_PROTOCOL = '/shoal/ae/1';
const TOPIC_PREFIX = '/shoal/n/';
/** Streams of one peer at a time, in each direction: one runs, others are on their way out. */
const EXCHANGE_STREAMS_MAX = 8;
const DIAL_MS_MAX = 5_000;
const OPEN_MS_MAX = 5_000;
/** Up to so many receivers a write of ours goes to all of them and not by the mesh. */
const FLOOD_PEERS_MAX = 8;

/** What the plane logs to: pino's signature. */
export interface RecordLogger {
  debug(detail: object, message: string): void;
  info(detail: object, message: string): void;
  warn(detail: object, message: string): void;
  error(detail: object, message: string): void;
}

export interface RecordPlaneConfig {
  /** Member id. */
  readonly self: string;
  /** 32 bytes of the Ed25519 seed of the node's key: the peer id is made of it. */
  readonly seed: Uint8Array;
  /** A literal address; `::` stands for both families. */
  readonly bindAddress: string;
  /** TCP; 0 takes a free one. */
  readonly port: number;
  readonly log: RecordLogger;
}

/** How far an owner's writes go: epochs are lives of its agent, and higher in each. */
export interface RecordVersion {
  readonly epoch: number;
  readonly seq: number;
}

/** Small records, one writer each, replicated to all members that subscribe to their topic. */
export interface Records {
  subscribe(topic: string): void;
  /** Forgets the topic; our own records of it are void everywhere. */
  unsubscribe(topic: string): void;
  /**
   * Writes, or with `undefined` deletes, a record of ours; subscribes to the topic if need be.
   *
   * @throws SwarmError SWARM_INVALID if a name or value is too large, SWARM_EXHAUSTED if we have
   *   too many records or topics.
   */
  publish(topic: string, key: string, value: Uint8Array | undefined): void;
  /** All records of the topic; the list and its values are shared: do not change them. */
  entries(topic: string): readonly GossipRecord[];
  /** Calls back once per change of a topic's records, or of who is suspended. @returns Stops it. */
  onChange(listener: (topic: string) => void): () => void;
  /** Hex; equal on two nodes if and only if they hold the same records, suspended or not. */
  digest(topic: string): string;
  /** Up to where an owner's writes, our own among them, are known here; `undefined`: not at all. */
  version(topic: string, owner: string): RecordVersion | undefined;
  isSubscribed(topic: string): boolean;
  /** A member says that it wrote what is not here: its tables are compared, if gossip does not bring it. */
  behind(owner: string): void;
}

export interface RecordPlaneStats {
  /** What happened how often, by name: outcomes of merges and exchanges, refusals, drop reasons. */
  readonly counters: Readonly<Record<string, number>>;
  readonly connections: number;
  readonly topics: number;
  readonly records: number;
  readonly tombstones: number;
  readonly tunnels: number;
}

type ShellCounter =
  | DeltaDrop
  | ExchangeDrop
  | 'gossip_topic_mismatch'
  | 'stranger_refused'
  | 'dials'
  | 'dial_failed'
  | 'publish_failed';

/**
 * The shell of {@link RecordCore}: libp2p on TCP, gossipsub for the fast path, streams of
 * `/shoal/ae/1` for anti-entropy. Only admitted peers get further than the noise handshake.
 */
export class RecordPlane {
  readonly peerId: string;
  readonly #self: string;
  readonly #log: RecordLogger;
  readonly #core: RecordCore;
  readonly #driver: CoreDriver<RecordInput, RecordReady>;
  readonly #node: Libp2pNode;
  readonly #streams = new Map<number, ExchangeStream>();
  readonly #listeners = new Set<(topic: string) => void>();
  readonly #counters = new Map<ShellCounter, number>();
  readonly #closing = new AbortController();
  /** Members by peer, of the admitted. */
  readonly #admitted: Admitted;
  /** As the core was told, for a peer may be renamed while it is connected. */
  readonly #connected = new Map<string, string>();
  readonly #dialing = new Map<string, AbortController>();
  /** Dials under way, by member. */
  readonly #dials = new Map<string, Promise<void>>();
  #targets: ReadonlyMap<string, DialTarget> = new Map();
  readonly tunnels = new Tunnels({
    connect: (member, signal) => this.#connect(member, signal),
    hold: (member, isHeld) => this.#driver.input({ kind: 'held', member, isHeld }),
  });
  #inboundCount = 0;
  #port = 0;

  readonly records: Records = {
    subscribe: (topic) => this.#subscribe(topic),
    unsubscribe: (topic) => this.#driver.input({ kind: 'unsubscribe', topic }),
    publish: (topic, key, value) => this.#publish(topic, key, value),
    entries: (topic) => this.#core.table.records(topic),
    onChange: (listener) => {
      this.#listeners.add(listener);
      return () => this.#listeners.delete(listener);
    },
    digest: (topic) => this.#core.table.recordsDigest(topic),
    version: (topic, owner) => this.#core.table.versionOf(topic, owner),
    isSubscribed: (topic) => this.#core.table.has(topic),
    behind: (member) => this.#driver.input({ kind: 'behind', member }),
  };

  private constructor(config: RecordPlaneConfig, node: Libp2pNode, admitted: Admitted) {
    this.#self = config.self;
    this.#log = config.log;
    this.#node = node;
    this.#admitted = admitted;
    this.peerId = node.peerId.toString();
    this.#core = new RecordCore({
      self: config.self,
      epoch: Date.now(),
      seed: randomInt(2 ** 47),
      hash: (bytes) => createHash('sha256').update(bytes).digest(),
    });
    this.#driver = new CoreDriver(this.#core, (ready) => this.#perform(ready));
  }

  /** @throws SwarmError SWARM_PORT_TAKEN */
  static async open(config: RecordPlaneConfig): Promise<RecordPlane> {
    const admitted = new Admitted();
    const { seed, bindAddress, port } = config;
    const admits = (peer: PeerId) => admitted.admits(peer.toString());
    const node = await createNode({ seed, bindAddress, port, admits });
    const plane = new RecordPlane(config, node, admitted);
    await plane.#start(port);
    return plane;
  }

  /** The TCP port that is listened on. */
  get port(): number {
    return this.#port;
  }

  /**
   * Whom the swarm knows: member id to peer id. Others are refused, and connections of those who
   * are not in it any more are closed; what such owners wrote is forgotten.
   */
  setAdmitted(members: ReadonlyMap<string, string>): void {
    this.#admitted.set(members);
    this.#driver.input({ kind: 'admitted', ids: new Set([...members.keys(), this.#self]) });
    for (const connection of this.#node.getConnections()) {
      const peer = connection.remotePeer.toString();
      const renamed = this.#connected.get(peer) !== this.#admitted.memberOf(peer);
      if (renamed) connection.abort(new Error('no member any more'));
    }
  }

  /** Whom to stay connected to, and whose records are suspended (the dead and the left). */
  setMembers(members: readonly RecordMember[]): void {
    const canBeDialled = ({ id, state }: RecordMember) =>
      id !== this.#self && (state === 'alive' || state === 'suspect');
    this.#targets = new Map(members.filter(canBeDialled).map((member) => [member.id, member]));
    this.#driver.input({ kind: 'members', members });
  }

  stats(): RecordPlaneStats {
    const counters: Record<string, number> = {};
    for (const [name, count] of this.#core.counters) counters[name] = count;
    for (const [name, count] of this.#counters) counters[name] = count;
    counters['stranger_refused'] = this.#admitted.refusedCount;
    const { size: connections } = this.#connected;
    const { count: tunnels } = this.tunnels;
    return { counters, connections, tunnels, ...this.#core.table.counts() };
  }

  async close(): Promise<void> {
    this.#driver.stop();
    this.#closing.abort();
    this.tunnels.close();
    for (const stream of this.#streams.values()) stream.abort();
    this.#streams.clear();
    this.#listeners.clear();
    // At once: a polite close would wait half a second for each peer that is out of reach.
    for (const connection of this.#node.getConnections()) connection.abort(new Error('closing'));
    await this.#node.stop();
  }

  async #start(port: number): Promise<void> {
    const node = this.#node;
    node.addEventListener('peer:connect', ({ detail }) => this.#onPeerConnected(detail));
    node.addEventListener('peer:disconnect', ({ detail }) => this.#onPeerDisconnected(detail));
    await node.handle(
      EXCHANGE_PROTOCOL,
      (stream, connection) => this.#onInbound(stream, connection),
      { maxInboundStreams: EXCHANGE_STREAMS_MAX, maxOutboundStreams: EXCHANGE_STREAMS_MAX },
    );
    await node.handle(
      TUNNEL_PROTOCOL,
      (stream, { remotePeer }) =>
        this.tunnels.accept(stream, this.#admitted.memberOf(remotePeer.toString())),
      { maxInboundStreams: TUNNELS_PER_MEMBER_MAX, maxOutboundStreams: TUNNELS_PER_MEMBER_MAX },
    );
    await startNode(node, port);
    this.#port = listenPort(node);
    this.#driver.start();
  }

  #subscribe(topic: string): void {
    if (topic === '' || utf8Bytes(topic) > TOPIC_BYTES_MAX) throw invalid('topic', TOPIC_BYTES_MAX);
    this.#exhausting('topics_over_limit', 'gossip topics of this node', () => {
      this.#driver.input({ kind: 'subscribe', topic });
    });
  }

  #publish(topic: string, key: string, value: Uint8Array | undefined): void {
    if (key === '' || utf8Bytes(key) > KEY_BYTES_MAX) throw invalid('key', KEY_BYTES_MAX);
    if (value !== undefined && value.length > VALUE_BYTES_MAX) {
      throw invalid('value', VALUE_BYTES_MAX);
    }
    if (!this.#core.table.has(topic)) this.#subscribe(topic);
    this.#exhausting('own_keys_over_limit', 'records of this node on one network', () => {
      this.#driver.input({ kind: 'publish', topic, key, value });
    });
  }

  #exhausting(
    counter: 'topics_over_limit' | 'own_keys_over_limit',
    what: string,
    act: () => void,
  ): void {
    const before = this.#core.counters.get(counter);
    act();
    if (this.#core.counters.get(counter) === before) return;
    throw new SwarmError({ code: 'SWARM_EXHAUSTED', what }, `too many ${what}: remove some first`);
  }

  /** In the order that `RecordReady` states. */
  #perform(ready: RecordReady): void {
    for (const topic of ready.enter) this.#enter(topic);
    for (const topic of ready.leave) this.#leave(topic);
    for (const member of ready.hangUps) this.#hangUp(member);
    for (const target of ready.dials) void this.#startDial(target);
    for (const delta of ready.gossip) this.#background(this.#gossip(delta));
    for (const { exchange, member } of ready.opens) this.#background(this.#open(exchange, member));
    for (const { exchange, message } of ready.messages) this.#streams.get(exchange)?.send(message);
    for (const { exchange, outcome } of ready.ends) {
      const stream = this.#streams.get(exchange);
      this.#streams.delete(exchange);
      if (outcome === 'complete') stream?.close();
      else stream?.abort();
    }
    for (const topic of ready.changed) for (const listener of this.#listeners) listener(topic);
  }

  /** Of promises that handle what can go wrong: what is left is a bug, and must not pass quietly. */
  #background(work: Promise<void>): void {
    work.catch((error) => this.#log.error({ error }, 'unexpected failure of the record plane'));
  }

  #enter(topic: string): void {
    const { gossip } = this.#node.services;
    const name = TOPIC_PREFIX + topic;
    gossip.topicValidators.set(name, (_peer, message) => this.#onGossip(topic, message));
    gossip.subscribe(name);
  }

  #leave(topic: string): void {
    const { gossip } = this.#node.services;
    gossip.unsubscribe(TOPIC_PREFIX + topic);
    gossip.topicValidators.delete(TOPIC_PREFIX + topic);
  }

  /**
   * Called once for each message that was not seen before. Merges here, and forwards whatever has
   * the form of a delta: others may admit an owner sooner than we do.
   */
  #onGossip(topic: string, { data }: Message): TopicValidatorResult {
    const delta = decodeGossip(data);
    if (typeof delta === 'string') {
      this.#count(delta);
      return 'reject' as TopicValidatorResult;
    }
    if (delta.topic !== topic) {
      this.#count('gossip_topic_mismatch');
      return 'reject' as TopicValidatorResult;
    }
    this.#driver.input({ kind: 'gossip', delta });
    return 'accept' as TopicValidatorResult;
  }

  async #gossip(delta: Delta): Promise<void> {
    // The last argument is not in the interface, but it is how one message can differ.
    const gossip: Flooding = this.#node.services.gossip;
    const name = TOPIC_PREFIX + delta.topic;
    const floodPublish = gossip.getSubscribers(name).length < FLOOD_PEERS_MAX;
    try {
      const { recipients } = await gossip.publish(name, encodeGossip(delta), { floodPublish });
      if (recipients.length > 0) return;
    } catch (error) {
      this.#count('publish_failed');
      this.#log.debug({ error, topic: delta.topic }, 'gossip failed');
    }
    this.#driver.input({ kind: 'unheard', topic: delta.topic });
  }

  #startDial(target: DialTarget): Promise<void> {
    const dial = this.#dial(target).finally(() => {
      if (this.#dials.get(target.id) === dial) this.#dials.delete(target.id);
    });
    this.#dials.set(target.id, dial);
    this.#background(dial);
    return dial;
  }

  /** For a tunnel: whoever can be dialled may be, whether or not a ring has a place for it. */
  async #connect(member: string, signal: AbortSignal): Promise<Connection> {
    const peer = this.#admitted.peerOf(member) ?? '';
    const target = this.#targets.get(member);
    if (target !== undefined && this.#connectionsOf(peer).length === 0) {
      await raced(this.#dials.get(member) ?? this.#startDial(target), signal);
    }
    const connection = this.#connectionsOf(peer)[0];
    if (connection === undefined) throw unreachableMember(member);
    return connection;
  }

  async #dial({ id, address, port }: DialTarget): Promise<void> {
    const peer = this.#admitted.peerOf(id);
    const abort = new AbortController();
    this.#dialing.set(id, abort);
    try {
      if (peer === undefined) return;
      this.#count('dials');
      const signal = AbortSignal.any([
        this.#closing.signal,
        abort.signal,
        AbortSignal.timeout(DIAL_MS_MAX),
      ]);
      const connection = await this.#node.dial(await dialAddress(address, port, peer), { signal });
      if (connection.status === 'open') this.#onPeerConnected(connection.remotePeer);
    } catch (error) {
      this.#count('dial_failed');
      this.#log.debug({ error, member: id, address, port }, 'member could not be dialled');
    } finally {
      this.#dialing.delete(id);
      // Told even if nothing changed: the core waits for the end of its dial.
      if (peer === undefined || !this.#connected.has(peer)) {
        this.#driver.input({ kind: 'disconnected', member: id });
      }
    }
  }

  #hangUp(member: string): void {
    this.#dialing.get(member)?.abort();
    for (const [peer, id] of this.#connected) {
      if (id !== member) continue;
      for (const connection of this.#connectionsOf(peer)) {
        connection.abort(new Error('connection of no use'));
      }
    }
  }

  #onPeerConnected(peerId: PeerId): void {
    const peer = peerId.toString();
    const member = this.#admitted.memberOf(peer);
    const connections = this.#connectionsOf(peer);
    if (member === undefined) {
      for (const connection of connections) connection.abort(new Error('no member any more'));
      return;
    }
    if (this.#connected.has(peer)) return;
    this.#connected.set(peer, member);
    const ours = connections.some(({ direction }) => direction === 'outbound');
    this.#driver.input({ kind: 'connected', member, ours });
  }

  #onPeerDisconnected(peerId: PeerId): void {
    const peer = peerId.toString();
    const member = this.#connected.get(peer);
    if (member === undefined) return;
    this.#connected.delete(peer);
    this.#driver.input({ kind: 'disconnected', member });
  }

  #connectionsOf(peer: string): Connection[] {
    return this.#node
      .getConnections()
      .filter(({ remotePeer, status }) => remotePeer.toString() === peer && status === 'open');
  }

  async #open(exchange: number, member: string): Promise<void> {
    const stream = this.#newStream(exchange);
    try {
      const peer = this.#admitted.peerOf(member) ?? '';
      const connection = this.#connectionsOf(peer)[0];
      if (connection === undefined) throw new Error('not connected');
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(OPEN_MS_MAX)]);
      const options = { signal, maxOutboundStreams: EXCHANGE_STREAMS_MAX };
      stream.attach(await connection.newStream(EXCHANGE_PROTOCOL, options));
    } catch (error) {
      this.#log.debug({ error, member }, 'tables could not be compared');
      this.#driver.input({ kind: 'exchange_closed', exchange });
    }
  }

  #onInbound(stream: Stream, connection: Connection): void {
    const member = this.#admitted.memberOf(connection.remotePeer.toString());
    if (member === undefined || this.#closing.signal.aborted) {
      stream.abort(new Error('no member any more'));
      return;
    }
    this.#inboundCount += 1;
    const exchange = -this.#inboundCount;
    const wrapped = this.#newStream(exchange);
    this.#driver.input({ kind: 'exchange_opened', exchange, member });
    wrapped.attach(stream);
  }

  #newStream(exchange: number): ExchangeStream {
    const stream = new ExchangeStream({
      onMessage: (message) => this.#driver.input({ kind: 'exchange_message', exchange, message }),
      onDrop: (reason) => this.#count(reason),
      onClosed: () => this.#driver.input({ kind: 'exchange_closed', exchange }),
    });
    this.#streams.set(exchange, stream);
    return stream;
  }

  #count(counter: ShellCounter): void {
    this.#counters.set(counter, (this.#counters.get(counter) ?? 0) + 1);
  }
}

/** @throws What `signal` was aborted with, if that comes first; the work goes on then. */
async function raced(work: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
  });
  signal.addEventListener('abort', abort);
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

interface Flooding {
  getSubscribers(topic: string): readonly PeerId[];
  publish(
    topic: string,
    data: Uint8Array,
    options?: { readonly floodPublish: boolean },
  ): Promise<PublishResult>;
}

/** Who is a member, both ways. */
class Admitted {
  refusedCount = 0;
  #peers: ReadonlyMap<string, string> = new Map();
  #members: ReadonlyMap<string, string> = new Map();

  set(members: ReadonlyMap<string, string>): void {
    this.#peers = new Map(members);
    this.#members = new Map([...members].map(([member, peer]) => [peer, member]));
  }

  memberOf(peer: string): string | undefined {
    return this.#members.get(peer);
  }

  peerOf(member: string): string | undefined {
    return this.#peers.get(member);
  }

  admits(peer: string): boolean {
    if (this.#members.has(peer)) return true;
    this.refusedCount += 1;
    return false;
  }
}

function invalid(what: string, bytesMax: number): SwarmError {
  return new SwarmError(
    { code: 'SWARM_INVALID' },
    `the ${what} of a gossip record must have 1 to ${bytesMax} bytes`,
  );
}
