import { type Duplex, duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ForwardClient } from '../../../src/control/io/forward-client.js';
import {
  type ForwardBackend,
  type ForwardMethod,
  ForwardServer,
  type Propose,
} from '../../../src/control/io/forward-server.js';
import { nodeId, silent } from '../support.js';

export async function until(what: string, holds: () => boolean, timeoutMs = 5_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    if (Date.now() > endMs) throw new Error(`in ${timeoutMs} ms it did not come to pass: ${what}`);
    await sleep(2);
  }
}

export const ME = nodeId('me');
export const OTHER = nodeId('other');

export const echo: Propose = async (dedupe) => ({ kind: 'done', id: dedupe, index: 7 });

/** A server and clients of it, on pipes that may be cut or stopped. */
export class Pair {
  readonly server: ForwardServer;
  readonly client: ForwardClient;
  /** Ends of the connections, the client's first. */
  readonly pipes: [Duplex, Duplex][] = [];
  /** What dialling does instead, if anything. */
  dialTrouble: Error | undefined;
  dials = 0;

  constructor(
    propose: Propose = echo,
    methods: Record<string, ForwardMethod> = {},
    silenceMsMax = 3_000,
  ) {
    const backend: ForwardBackend = { log: silent, propose, methods };
    this.server = new ForwardServer(backend);
    this.client = new ForwardClient({
      log: silent,
      silenceMsMax,
      dial: async () => {
        this.dials++;
        if (this.dialTrouble !== undefined) throw this.dialTrouble;
        const [near, far] = duplexPair() as [Duplex, Duplex];
        // A pipe in memory does not tell its other end that it was destroyed; a socket does.
        near.on('close', () => far.destroy());
        far.on('close', () => near.destroy());
        this.pipes.push([near, far]);
        this.server.accept(far, ME);
        return near;
      },
    });
  }

  cut(): void {
    for (const [near] of this.pipes.splice(0)) near.destroy();
  }

  close(): void {
    this.client.close();
    this.server.close();
  }
}
