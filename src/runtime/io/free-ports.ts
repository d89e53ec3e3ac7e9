import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { PortConfig } from '../../base/service-model.js';

/** Where a node chooses a port that has no number: as Docker does, among those that are nobody's. */
const PORT_FIRST = 32_768;
const PORT_LAST = 60_999;
/** Ports that are tried for one wish; with more than half of them taken it is still found. */
const TRIES_MAX = 64;
/** Ports that were given last, and may not be open yet. */
const RECENT_MAX = 256;

/** Free ports of this network namespace. */
export class FreePorts {
  readonly #recent = new Set<string>();

  /**
   * @param taken `tcp/80`: not to be given, though they may not be open.
   * @throws Error that says that there is none.
   */
  async take(
    protocol: PortConfig['protocol'],
    taken: ReadonlySet<string>,
    first = PORT_FIRST,
    last = PORT_LAST,
  ): Promise<number> {
    const count = last - first + 1;
    const start = randomInt(count);
    for (let tries = 0; tries < Math.min(TRIES_MAX, count); tries += 1) {
      const port = first + ((start + tries) % count);
      const key = `${protocol}/${port}`;
      if (taken.has(key) || this.#recent.has(key)) continue;
      // Before it is looked at: another wish may come meanwhile.
      this.#recent.add(key);
      if (await isFree(protocol, port)) {
        const [oldest] = this.#recent;
        if (this.#recent.size > RECENT_MAX && oldest !== undefined) this.#recent.delete(oldest);
        return port;
      }
      this.#recent.delete(key);
    }
    throw new Error(`no free ${protocol} port from ${first} to ${last} was found on this node`);
  }
}

/** On all addresses, of both families where there are both. */
async function isFree(protocol: PortConfig['protocol'], port: number): Promise<boolean> {
  const open = protocol === 'udp' ? openDatagrams : openListener;
  try {
    await open('::', port);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') return false;
  }
  return open('0.0.0.0', port).then(
    () => true,
    () => false,
  );
}

async function openListener(host: string, port: number): Promise<void> {
  const server = createServer();
  server.listen({ host, port, ipv6Only: false });
  await once(server, 'listening');
  server.close();
  await once(server, 'close');
}

async function openDatagrams(host: string, port: number): Promise<void> {
  const socket = createSocket(host === '::' ? 'udp6' : 'udp4');
  try {
    socket.bind(port, host);
    await once(socket, 'listening');
  } finally {
    socket.close();
  }
}
