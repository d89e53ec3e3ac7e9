import type { Socket as UdpSocket } from 'node:dgram';
import type { Socket } from 'node:net';
import type { ListenFailure, OpenFlow, ProxyDriver, ProxyPolicy } from '../core/proxy-driver.js';
import type { PortProtocol } from '../core/published-ports.js';
import { TcpProxy } from './tcp-proxy.js';
import { UdpProxy } from './udp-proxy.js';

/** Sockets that connect from inside a namespace, for ports in the host mode. */
export interface NamespaceSockets {
  tcp(netns: string, address: string): Socket;
  udp(netns: string, address: string): Promise<UdpSocket>;
  /** A socket that will connect from an address and port that need not be this host's. @throws Error */
  as?(address: string, port: number): Socket;
}

export interface PortableDriverOptions {
  readonly sockets: NamespaceSockets;
  readonly tcpFlowsMax?: number;
  readonly udpFlowsMax?: number;
  readonly udpIdleTimeoutMs?: number;
}

/** The driver that needs nothing but Node: every byte goes through JavaScript. */
export class PortableProxyDriver implements ProxyDriver {
  readonly kind = 'portable';
  readonly #tcp: TcpProxy;
  readonly #udp: UdpProxy;

  constructor(policy: ProxyPolicy, options: PortableDriverOptions) {
    const { sockets, tcpFlowsMax, udpFlowsMax, udpIdleTimeoutMs } = options;
    this.#tcp = new TcpProxy({
      policy,
      openIn: sockets.tcp,
      ...(sockets.as && { openAs: sockets.as }),
      ...(tcpFlowsMax !== undefined && { flowsMax: tcpFlowsMax }),
    });
    this.#udp = new UdpProxy({
      policy,
      openIn: sockets.udp,
      ...(udpFlowsMax !== undefined && { flowsMax: udpFlowsMax }),
      ...(udpIdleTimeoutMs === undefined ? {} : { idleTimeoutMs: udpIdleTimeoutMs }),
    });
  }

  get flowCount(): number {
    return this.#tcp.flowCount + this.#udp.flowCount;
  }

  open(
    listener: number,
    protocol: PortProtocol,
    port: number,
    places: readonly string[],
  ): Promise<readonly ListenFailure[]> {
    const proxy = protocol === 'tcp' ? this.#tcp : this.#udp;
    return proxy.open(listener, port, places);
  }

  close(listener: number): void {
    this.#tcp.close(listener);
    this.#udp.close(listener);
  }

  flows(listeners: ReadonlySet<number>, most: number): readonly OpenFlow[] {
    const tcp = this.#tcp.flows(listeners, most);
    return [...tcp, ...this.#udp.flows(listeners, most - tcp.length)];
  }

  resetGone(): void {
    this.#tcp.resetGone();
    this.#udp.resetGone();
  }

  /** Everything is told as it happens. */
  tell(): void {}

  giveBack(): void {}

  async stop(): Promise<void> {
    this.#tcp.stop();
    this.#udp.stop();
  }
}
