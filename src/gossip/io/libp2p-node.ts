import './polyfill.js';
import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import type { Message } from '@libp2p/gossipsub';
import type { Ed25519PrivateKey, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import { SwarmError } from '../../base/swarm-error.js';
import { guardedYamux } from './libp2p-yamux.js';

/** All that Shoal uses of libp2p, loaded once and after the polyfill. */
async function loadModules() {
  const [core, gossipsub, tcp, noise, yamux, identify, keys, peerId, multiaddr] = await Promise.all(
    [
      import('libp2p'),
      import('@libp2p/gossipsub'),
      import('@libp2p/tcp'),
      import('@libp2p/noise'),
      import('@libp2p/yamux'),
      import('@libp2p/identify'),
      import('@libp2p/crypto/keys'),
      import('@libp2p/peer-id'),
      import('@multiformats/multiaddr'),
    ],
  );
  return {
    createLibp2p: core.createLibp2p,
    gossipsub: gossipsub.gossipsub,
    tcp: tcp.tcp,
    noise: noise.noise,
    yamux: yamux.yamux,
    identify: identify.identify,
    generateKeyPairFromSeed: keys.generateKeyPairFromSeed,
    peerIdFromPrivateKey: peerId.peerIdFromPrivateKey,
    multiaddr: multiaddr.multiaddr,
  };
}

type Modules = Awaited<ReturnType<typeof loadModules>>;
let loading: Promise<Modules> | undefined;

function modules(): Promise<Modules> {
  loading ??= loadModules();
  return loading;
}

/** In both directions: rings take about 80 of them at most, the others are for tunnels. */
const CONNECTIONS_MAX = 256;
const MESSAGE_BYTES_MAX = 1 << 20;
const MESSAGE_ID_BYTES = 16;

export interface Libp2pConfig {
  /** 32 bytes of an Ed25519 seed. */
  readonly seed: Uint8Array;
  readonly bindAddress: string;
  readonly port: number;
  /** Whether a peer whose key was proven may talk to us. */
  readonly admits: (peer: PeerId) => boolean;
}

/** The text of the peer id that belongs to an Ed25519 seed of 32 bytes. */
export async function peerIdOf(seed: Uint8Array): Promise<string> {
  const { peerIdFromPrivateKey } = await modules();
  return peerIdFromPrivateKey(await keyOf(seed)).toString();
}

/** `/ip4/192.0.2.1/tcp/7946/p2p/12D3...`; the last part makes noise insist on that peer. */
export async function dialAddress(address: string, port: number, peer: string): Promise<Multiaddr> {
  const { multiaddr } = await modules();
  return multiaddr(`${hostPart(address)}/tcp/${port}/p2p/${peer}`);
}

export type Libp2pNode = Awaited<ReturnType<typeof createNode>>;

/** A node that does not listen yet: `startNode` makes it, after handlers are in place. */
export async function createNode({ seed, bindAddress, port, admits }: Libp2pConfig) {
  const m = await modules();
  const listen = [`${hostPart(bindAddress)}/tcp/${port}`];
  // libp2p binds IPv6 sockets to IPv6 alone.
  if (bindAddress === '::') listen.push(`/ip4/0.0.0.0/tcp/${port}`);
  return m.createLibp2p({
    start: false,
    privateKey: await keyOf(seed),
    addresses: { listen },
    transports: [m.tcp({ backlog: 128 })],
    connectionEncrypters: [m.noise()],
    streamMuxers: [guardedYamux(m.yamux())],
    connectionManager: {
      maxConnections: CONNECTIONS_MAX,
      // Probes of the failure detector come through the same port, and many nodes share a NAT.
      inboundConnectionThreshold: 1_000,
      maxIncomingPendingConnections: 64,
      inboundUpgradeTimeout: 5_000,
    },
    connectionMonitor: { enabled: false },
    connectionGater: {
      denyDialPeer: (peer) => !admits(peer),
      denyInboundEncryptedConnection: (peer) => !admits(peer),
      denyOutboundEncryptedConnection: (peer) => !admits(peer),
    },
    services: { identify: m.identify(), gossip: m.gossipsub(gossipsubSettings()) },
  });
}

/**
 * Starts to listen.
 *
 * @throws SwarmError SWARM_PORT_TAKEN
 */
export async function startNode(node: Libp2pNode, port: number): Promise<void> {
  try {
    await node.start();
  } catch (error) {
    await node.stop();
    // libp2p folds the errors of all its listeners into one text.
    if (!String(error).includes('EADDRINUSE')) throw error;
    throw new SwarmError(
      { code: 'SWARM_PORT_TAKEN', port, protocol: 'tcp', by: '' },
      `tcp port ${port} is taken: free it, or choose another port for gossip`,
      { cause: error },
    );
  }
}

/** The port that is listened on; differs from the one asked for if that was 0. */
export function listenPort(node: Libp2pNode): number {
  for (const address of node.getMultiaddrs()) {
    const tcp = /\/tcp\/(\d+)/.exec(address.toString())?.[1];
    if (tcp !== undefined) return Number(tcp);
  }
  return 0;
}

async function keyOf(seed: Uint8Array): Promise<Ed25519PrivateKey> {
  const { generateKeyPairFromSeed } = await modules();
  return generateKeyPairFromSeed('Ed25519', seed);
}

function hostPart(address: string): string {
  const family = isIP(address);
  return `/${family === 0 ? 'dns' : `ip${family}`}/${address}`;
}

/**
 * Members are authenticated and few, so signatures (three times the CPU) and scores (which punish
 * members behind one address) are off; hops are protected by noise.
 */
function gossipsubSettings() {
  return {
    globalSignaturePolicy: 'StrictNoSign' as const,
    msgIdFn: ({ topic, data }: Message) =>
      createHash('sha256').update(topic).update(data).digest().subarray(0, MESSAGE_ID_BYTES),
    D: 6,
    Dlo: 4,
    Dhi: 12,
    Dlazy: 6,
    Dscore: 4,
    Dout: 2,
    heartbeatInterval: 1_000,
    mcacheLength: 5,
    mcacheGossip: 3,
    seenTTL: 120_000,
    floodPublish: false,
    doPX: false,
    emitSelf: false,
    fallbackToFloodsub: false,
    allowPublishToZeroTopicPeers: true,
    ignoreDuplicatePublishError: true,
    scoreParams: { IPColocationFactorWeight: 0, behaviourPenaltyWeight: 0 },
    idontwantMinDataSize: 4_096,
    maxInboundDataLength: MESSAGE_BYTES_MAX,
    maxOutboundBufferSize: 16 * MESSAGE_BYTES_MAX,
    gossipsubIWantFollowupMs: 12_000,
  };
}
