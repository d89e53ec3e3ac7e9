import type { TLSSocket } from 'node:tls';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import { readPeerCertificate } from '../identity/index.js';
import { ALPN_FORWARD, type LeaderHint } from '../wire/forward-messages.js';
import type { ControlAddress } from '../wire/model.js';
import { connectTls } from './connect.js';
import { ForwardClient } from './forward-client.js';

const CONNECT_MS_MAX = 3_000;

export interface Credentials {
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
}

export interface ForwardClientsConfig {
  readonly log: Logger;
  /** As renewed last. */
  readonly credentials: () => Credentials;
  /** Where the manager is now, if that is known better than from the hint that it was asked by. */
  readonly addressOf: (nodeId: NodeId) => ControlAddress | undefined;
}

interface Entry {
  readonly client: ForwardClient;
  address: ControlAddress;
}

/** The clients of this manager for all the others, made when they are first needed. */
export class ForwardClients {
  readonly #config: ForwardClientsConfig;
  readonly #clients = new Map<NodeId, Entry>();

  constructor(config: ForwardClientsConfig) {
    this.#config = config;
  }

  of({ nodeId, address }: LeaderHint): ForwardClient {
    const known = this.#clients.get(nodeId);
    if (known !== undefined) {
      const moved =
        known.address.address !== address.address || known.address.port !== address.port;
      known.address = address;
      if (moved) known.client.redial();
      return known.client;
    }
    const entry: Entry = {
      address,
      client: new ForwardClient({
        log: this.#config.log,
        dial: (signal) =>
          this.#dial(nodeId, this.#config.addressOf(nodeId) ?? entry.address, signal),
      }),
    };
    this.#clients.set(nodeId, entry);
    return entry.client;
  }

  /** Only these are managers; what is asked of others fails. */
  retain(managers: ReadonlySet<NodeId>): void {
    for (const [nodeId, { client }] of this.#clients) {
      if (managers.has(nodeId)) continue;
      client.close();
      this.#clients.delete(nodeId);
    }
  }

  close(): void {
    this.retain(new Set());
  }

  async #dial(nodeId: NodeId, remote: ControlAddress, signal: AbortSignal): Promise<TLSSocket> {
    const credentials = this.#config.credentials();
    const socket = await connectTls({
      remote,
      alpn: ALPN_FORWARD,
      ...credentials,
      timeoutMs: CONNECT_MS_MAX,
      signal,
    });
    if (readPeerCertificate(socket, credentials.caPem)?.nodeId === nodeId) return socket;
    socket.on('error', () => {});
    socket.destroy();
    throw new Error('another node is at the address of the manager');
  }
}
