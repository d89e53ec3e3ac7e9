import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { SwarmError } from '../base/swarm-error.js';
import {
  type IngressOptions,
  type NamespaceSockets,
  NativeProxyDriver,
  PortableProxyDriver,
} from '../dataplane/ingress/index.js';
import {
  loadNative,
  nativeUnavailableReason,
  openTcpClientInNetns,
  openTcpSocketAs,
  openUdpInNetns,
} from '../dataplane/io/index.js';
import type { AgentConfig } from './config.js';

export type IngressDriverConfig = Pick<AgentConfig, 'ingressDriver' | 'ingressThreads'>;

/** Which driver carries published ports, and why: what `docker info` prints. */
export interface IngressDriverChoice {
  readonly name: string;
  readonly reason: string;
}

const NAMES = {
  native: 'native (threads of the addon)',
  portable: 'portable (node:net and node:dgram)',
} as const;

const sockets: NamespaceSockets = { tcp: tcpSocketIn, udp: udpSocketIn, as: tcpSocketAs };

/** The driver that `openIngressDriver` opens, as far as can be said before. */
export function plannedIngressDriver({ ingressDriver }: IngressDriverConfig): IngressDriverChoice {
  if (ingressDriver === 'portable') return { name: NAMES.portable, reason: 'asked for' };
  if (loadNative() === undefined)
    return { name: NAMES.portable, reason: nativeUnavailableReason() };
  return {
    name: NAMES.native,
    reason: ingressDriver === 'native' ? 'asked for' : 'the addon is there',
  };
}

/**
 * How the ingress opens its driver: natively where that can be had, unless told otherwise.
 *
 * @throws SwarmError SWARM_UNSUPPORTED when `native` was asked for and is not there.
 */
export function openIngressDriver(config: IngressDriverConfig): IngressOptions['driver'] {
  const binding = config.ingressDriver === 'portable' ? undefined : loadNative();
  if (binding === undefined && config.ingressDriver === 'native')
    throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, nativeUnavailableReason());
  const threads = config.ingressThreads;
  return (policy) =>
    binding === undefined
      ? new PortableProxyDriver(policy, { sockets })
      : new NativeProxyDriver(policy, { binding, threads });
}

function tcpSocketIn(netns: string, address: string): Socket {
  const fd = openTcpClientInNetns(netns, address);
  return new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
}

function tcpSocketAs(address: string, port: number): Socket {
  const fd = openTcpSocketAs(address, port);
  return new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
}

async function udpSocketIn(netns: string, address: string): Promise<UdpSocket> {
  const isV6 = address.includes(':');
  const fd = openUdpInNetns(netns, isV6 ? '::' : '0.0.0.0', 0);
  const socket = createSocket({ type: isV6 ? 'udp6' : 'udp4' });
  const listening = once(socket, 'listening');
  socket.bind({ fd });
  await listening;
  return socket;
}
