import { randomInt } from 'node:crypto';
import { closeSync, readFileSync } from 'node:fs';
import { openTcpListenerInNetns, openUdpInNetns } from '../dataplane/io/index.js';
import {
  NAME_SERVER_ADDRESS,
  NameIndex,
  NameServer,
  type NameServerStats,
  type NetworkNames,
  parseUpstreams,
} from '../dataplane/names/index.js';
import type { Attachment } from './attachments.js';
import type { Log } from './log.js';

const DNS_PORT = 53;

/** What all resolvers of a node have done; all only grow, but for `servers`. */
export interface NameTotals {
  /** Open now. */
  readonly servers: number;
  readonly queries: number;
  readonly byTransport: Readonly<Record<'udp' | 'tcp', number>>;
  readonly replies: Readonly<Record<'local' | 'forwarded', number>>;
  /** Queries and conversations that came to nothing, by reason. */
  readonly refusals: Readonly<Record<string, number>>;
}

/** Those of one resolver that are added up. */
function countersOf(stats: NameServerStats): Readonly<Record<string, number>> {
  const { drops, names: _names, connections: _now, forwardsWaiting: _waiting, ...rest } = stats;
  return { ...rest, ...drops };
}

/** Those that the host itself asks, as they are now. */
function hostUpstreams(): readonly string[] {
  try {
    return parseUpstreams(readFileSync('/etc/resolv.conf', 'utf8'));
  } catch {
    return [];
  }
}

/** The TCP listener that goes with `udpFd`, which is closed if there can be none. */
function openTcpOrClose(netns: string | undefined, udpFd: number): number {
  try {
    return openTcpListenerInNetns(netns, NAME_SERVER_ADDRESS, DNS_PORT);
  } catch (error) {
    closeSync(udpFd);
    throw error;
  }
}

/** The names of any networks, derived once for all namespaces that are on the same ones. */
export function sharedIndexes(
  namesOf: (networkId: string) => NetworkNames,
): (networkIds: readonly string[]) => NameIndex {
  const indexes = new Map<string, NameIndex>();
  const networks = new Map<string, NetworkNames>();
  const network = (id: string) => {
    const names = networks.get(id) ?? namesOf(id);
    networks.set(id, names);
    return names;
  };
  return (networkIds) => {
    const key = networkIds.join(' ');
    const index = indexes.get(key) ?? new NameIndex(networkIds.map(network));
    indexes.set(key, index);
    return index;
  };
}

/**
 * One resolver per attached namespace, at 127.0.0.11: opened with the first attachment of the
 * namespace, closed with its last, and given a new table whenever names change.
 */
export class NameServers {
  readonly #log: Log;
  /** By the identity of the namespace. */
  readonly #served = new Map<string, Promise<NameServer | undefined>>();
  /** Of those, the ones that answer. */
  readonly #open = new Map<string, NameServer>();
  /** Counters of those that are closed. */
  readonly #past: Record<string, number> = {};

  constructor(log: Log) {
    this.#log = log;
  }

  /**
   * Follows the attachments and the names of their networks.
   *
   * @param namesOf The names of one network, by its id.
   * @param reachesOutside Whether what is on these networks may ask upstreams, through which it would say what it
   *   likes to whom it likes.
   */
  update(
    attachments: readonly Attachment[],
    namesOf: (networkId: string) => NetworkNames,
    reachesOutside: (networkIds: readonly string[]) => boolean,
  ): void {
    const ofHost = hostUpstreams();
    const byNamespace = new Map<string, Attachment[]>();
    for (const attachment of attachments) {
      const id = attachment.saved.netnsId;
      byNamespace.set(id, [...(byNamespace.get(id) ?? []), attachment]);
    }
    for (const [id, served] of this.#served) {
      if (byNamespace.has(id)) continue;
      this.#served.delete(id);
      this.#open.delete(id);
      void served.then((server) => this.#close(server));
    }
    const indexOf = sharedIndexes(namesOf);
    for (const [id, own] of byNamespace) {
      const names = indexOf(own.map((a) => a.saved.networkId));
      const upstreams = reachesOutside(own.map((a) => a.saved.networkId)) ? ofHost : [];
      const served = this.#served.get(id);
      if (served === undefined)
        this.#served.set(id, this.#serve(id, own[0]?.netns, names, upstreams));
      else
        void served.then((server) => {
          server?.setNames(names);
          server?.setUpstreams(upstreams);
        });
    }
  }

  /** Waits until every namespace that was given to `update` has its resolver, or has failed to. */
  async opened(): Promise<void> {
    await Promise.all(this.#served.values());
  }

  /** Of all resolvers that there were. */
  stats(): NameTotals {
    const totals = { ...this.#past };
    for (const server of this.#open.values()) addUp(totals, countersOf(server.stats()));
    const { queriesUdp = 0, queriesTcp = 0, ...rest } = totals;
    const { repliesLocal = 0, repliesForwarded = 0, ...refusals } = rest;
    return {
      servers: this.#open.size,
      queries: queriesUdp + queriesTcp,
      byTransport: { udp: queriesUdp, tcp: queriesTcp },
      replies: { local: repliesLocal, forwarded: repliesForwarded },
      refusals,
    };
  }

  async close(): Promise<void> {
    const served = [...this.#served.values()];
    this.#served.clear();
    this.#open.clear();
    await Promise.all(served.map(async (server) => this.#close(await server)));
  }

  async #close(server: NameServer | undefined): Promise<void> {
    if (server === undefined) return;
    addUp(this.#past, countersOf(server.stats()));
    await server.close();
  }

  async #serve(
    id: string,
    netns: string | undefined,
    names: NameIndex,
    upstreams: readonly string[],
  ): Promise<NameServer | undefined> {
    try {
      const udpFd = openUdpInNetns(netns, NAME_SERVER_ADDRESS, DNS_PORT);
      const tcpFd = openTcpOrClose(netns, udpFd);
      const seed = randomInt(2 ** 32);
      const server = await NameServer.open({
        udpFd,
        tcpFd,
        names,
        upstreams,
        seed,
        log: this.#log,
      });
      if (this.#served.has(id)) this.#open.set(id, server);
      return server;
    } catch (error) {
      // Names are a service to the namespace, not a condition of its packets.
      const where = netns ?? 'the host';
      this.#log.warn(
        { error: (error as Error).message },
        `no resolver at ${NAME_SERVER_ADDRESS} in ${where}`,
      );
      return undefined;
    }
  }
}

function addUp(totals: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) totals[name] = (totals[name] ?? 0) + count;
}
