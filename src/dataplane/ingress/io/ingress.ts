import { networkInterfaces } from 'node:os';
import { performance } from 'node:perf_hooks';
import { type OwnAddress, PLACES_MAX, placesOf } from '../core/bind.js';
import { IngressCore, type PortStats } from '../core/ingress-core.js';
import type { ListenFailure, ProxyDriver, ProxyPolicy } from '../core/proxy-driver.js';
import {
  derivePublishedPorts,
  type IngressInputs,
  type PublishedPort,
} from '../core/published-ports.js';

/** The part of pino's interface that is used. */
export interface IngressLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface IngressOptions {
  /** This node's own, hard to guess. */
  readonly seed: number;
  readonly log: IngressLog;
  readonly driver: (policy: ProxyPolicy) => ProxyDriver;
  /** Who has a port, as a clause: `nginx (pid 12)`. */
  readonly holderOf: (protocol: 'tcp' | 'udp', port: number) => string;
  /** Of this host, now. */
  readonly ownAddresses?: () => readonly OwnAddress[];
  readonly retryMs?: number;
  readonly goneGraceMs?: number;
}

/** How often a port that was taken is tried again, and addresses are looked at that ports are bound to. */
const RETRY_MS = 2000;
/** What a task that is gone had sent may still be on its way; then its flows are reset. */
const GONE_GRACE_MS = 3000;

/** A published port that this node does not serve. */
export interface PortProblem {
  readonly key: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly mode: 'ingress' | 'host';
  /** Of a port in the host mode. */
  readonly taskId: string | undefined;
  readonly message: string;
}

/** A published port that shall be open. */
interface Wanted {
  port: PublishedPort;
  /** Addresses where it was to be when it was opened last; and where it is. */
  places: readonly string[];
  openAt: readonly string[];
  leftOut: number;
  problem: string | undefined;
  isOpening: boolean;
  /** It shall be open elsewhere since it was begun to be opened. */
  isStale: boolean;
}

/** An open flow of a published port of this node. */
export interface FlowItem {
  readonly client: string;
  readonly clientPort: number;
  /** `tcp/80`. */
  readonly port: string;
  readonly serviceId: string;
  readonly serviceName: string;
  /** Absent while no task has taken it, or when that is gone. */
  readonly taskId?: string;
  /** Of the task, with its port. */
  readonly backend?: string;
  readonly ageMs: number;
  /** Absent where they are known at the end only. */
  readonly bytesUp?: number;
  readonly bytesDown?: number;
}

/**
 * The ingress of one node: opens what is published, gives each flow to a backend, and goes on with what
 * it was told last, whoever else is alive.
 */
export class Ingress {
  readonly #core: IngressCore;
  readonly #driver: ProxyDriver;
  readonly #log: IngressLog;
  readonly #options: IngressOptions;
  /** By listener. */
  readonly #wanted = new Map<number, Wanted>();
  #own: readonly OwnAddress[] = [];
  readonly #told = new Set<string>();
  readonly #retry: NodeJS.Timeout;
  #goneTimer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: IngressOptions) {
    this.#options = options;
    this.#log = options.log;
    const core = new IngressCore(options.seed);
    this.#core = core;
    const now = () => performance.now();
    this.#driver = options.driver({
      accepted: (listener) => core.accepted(listener),
      choose: (listener, address, port, tried) =>
        core.choose(listener, address, port, tried, now()),
      foresees: (listener) => core.foresees(listener, now()),
      withdrawn: (listener, ticket) => core.withdrawn(listener, ticket),
      isLive: (listener, ticket) => core.isLive(listener, ticket),
      connected: (listener, ticket, latencyMs) => core.connected(listener, ticket, latencyMs),
      answered: (listener, ticket, waitedMs) => core.answered(listener, ticket, now(), waitedMs),
      silent: (listener, ticket) => core.silent(listener, ticket, now()),
      failed: (listener, ticket) => core.failed(listener, ticket, now()),
      released: (listener, ticket) => core.released(listener, ticket),
      ended: (listener, end, up, down) => core.ended(listener, end, up, down),
    });
    this.#retry = setInterval(() => this.#follow(true), options.retryMs ?? RETRY_MS);
    this.#retry.unref();
  }

  /** Follows services and endpoints; the next flow sees them. */
  update(inputs: IngressInputs): void {
    if (this.#isClosed) return;
    const { ports, problems } = derivePublishedPorts(inputs);
    this.#tell(problems);
    this.#driver.giveBack();
    this.#core.setIngressSubnets(inputs.ingressSubnets);
    const { closed, opened, kept } = this.#core.apply(ports, performance.now());
    this.#driver.moveGone?.();
    for (const listener of closed) this.#close(listener);
    for (const { listener, port } of kept) {
      const wanted = this.#wanted.get(listener);
      if (wanted !== undefined) wanted.port = port;
    }
    for (const { listener, port } of opened)
      this.#wanted.set(listener, {
        port,
        places: [],
        openAt: [],
        leftOut: 0,
        problem: undefined,
        isOpening: false,
        isStale: false,
      });
    this.#follow(false);
    this.#goneTimer ??= setTimeout(() => {
      this.#goneTimer = undefined;
      this.#driver.resetGone();
    }, this.#options.goneGraceMs ?? GONE_GRACE_MS).unref();
  }

  /** Connections that go to a task through this node. */
  flowsTo(taskId: string): number {
    this.#driver.tell();
    this.#driver.tell();
    return this.#core.flowsTo(taskId);
  }

  /** Open flows of one service, by id or name, or of all; at most so many are named. */
  flows(service: string | undefined, most: number): { total: number; flows: FlowItem[] } {
    this.#driver.tell();
    const listeners = this.#core.listeners(service);
    const flows = this.#driver.flows(listeners, most).flatMap((flow) => {
      const { listener, ticket, clientAddress, clientPort, startedMs, ...bytes } = flow;
      const found = this.#core.describe(listener, ticket);
      if (found === undefined) return [];
      const { port, taskId, address } = found;
      const host = address?.includes(':') ? `[${address}]` : address;
      const item: FlowItem = {
        client: clientAddress.replace(/^::ffff:/, ''),
        clientPort,
        port: port.key,
        serviceId: port.serviceId,
        serviceName: port.serviceName,
        ...(taskId !== undefined && { taskId }),
        ...(host !== undefined && { backend: `${host}:${port.targetPort}` }),
        ageMs: Math.round(performance.now() - startedMs),
        ...bytes,
      };
      return [item];
    });
    return { total: this.#core.activeOf(listeners), flows };
  }

  /** Ports that are not served now, and why. */
  problems(): readonly PortProblem[] {
    return [...this.#wanted.values()].flatMap(({ port, problem: message }) => {
      if (message === undefined) return [];
      const { key, serviceId, serviceName, mode } = port;
      const taskId = mode === 'host' ? port.backends[0]?.key : undefined;
      return [{ key, serviceId, serviceName, mode, taskId, message }];
    });
  }

  stats(): {
    readonly driver: string;
    readonly flows: number;
    readonly datagramDrops: Readonly<Record<string, number>>;
    readonly ports: readonly (PortStats & {
      readonly open: boolean;
      /** Addresses; `::` for all. */
      readonly openAt: readonly string[];
    })[];
  } {
    this.#driver.tell();
    const byKey = new Map([...this.#wanted.values()].map((wanted) => [wanted.port.key, wanted]));
    return {
      driver: this.#driver.kind,
      flows: this.#driver.flowCount,
      datagramDrops: this.#driver.datagramDrops?.() ?? {},
      ports: this.#core.stats().map((port) => {
        const { openAt = [], problem } = byKey.get(port.key) ?? {};
        return { ...port, open: problem === undefined, openAt };
      }),
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#retry);
    clearTimeout(this.#goneTimer);
    this.#wanted.clear();
    await this.#driver.stop();
  }

  /** Opens what shall be open elsewhere now; `isRetry`: and what could not be opened before. */
  #follow(isRetry: boolean): void {
    const isBound = [...this.#wanted.values()].some(({ port }) => port.bind !== undefined);
    if (isBound) this.#own = (this.#options.ownAddresses ?? ownAddresses)();
    for (const [listener, wanted] of this.#wanted) {
      const { places, leftOut } = placesOf(wanted.port.bind, this.#own);
      if (leftOut !== wanted.leftOut && leftOut > 0)
        this.#log.warn(
          { port: wanted.port.key, service: wanted.port.serviceName },
          `port is open at ${PLACES_MAX} addresses only: ${leftOut} of those that it is bound to are left out`,
        );
      wanted.leftOut = leftOut;
      const before = isRetry ? wanted.openAt : wanted.places;
      if (places.join() !== before.join()) void this.#open(listener, wanted);
    }
  }

  async #open(listener: number, wanted: Wanted): Promise<void> {
    wanted.isStale = wanted.isOpening;
    if (wanted.isOpening) return;
    wanted.isOpening = true;
    do {
      wanted.isStale = false;
      const { protocol, port, bind } = wanted.port;
      const { places } = placesOf(bind, this.#own);
      wanted.places = places;
      const failures = await this.#driver.open(listener, protocol, port, places);
      // It may have been closed meanwhile.
      if (this.#wanted.get(listener) !== wanted) {
        this.#driver.close(listener);
        return;
      }
      wanted.openAt = places.filter(
        (place) => !failures.some((failure) => failure.place === place),
      );
      this.#judge(wanted, failures);
    } while (wanted.isStale);
    wanted.isOpening = false;
  }

  #judge(wanted: Wanted, failures: readonly ListenFailure[]): void {
    const { port } = wanted;
    // An address that is gone again, or not to be used yet, is seen when addresses are looked at next.
    const failed = failures.find(
      ({ errno }) => errno !== 'EADDRNOTAVAIL' || port.bind === undefined,
    );
    const problem = failed && this.#reasonOf(port, failed);
    if (problem === wanted.problem) return;
    wanted.problem = problem;
    const fields = { port: port.key, service: port.serviceName };
    if (problem === undefined) this.#log.info(fields, 'published port is open now');
    else this.#log.warn(fields, problem);
  }

  #reasonOf({ protocol, port, bind }: PublishedPort, { place, errno }: ListenFailure): string {
    const at = bind === undefined ? '' : ` at ${place}`;
    if (errno !== 'EADDRINUSE') return `port ${port}/${protocol} cannot be opened${at}: ${errno}`;
    const holder = this.#options.holderOf(protocol, port);
    return `port ${port}/${protocol} is taken on this node${at} by ${holder}: free it, or publish another`;
  }

  #close(listener: number): void {
    this.#wanted.delete(listener);
    this.#driver.close(listener);
  }

  /** Each problem once, as long as it lasts. */
  #tell(problems: readonly string[]): void {
    const now = new Set(problems);
    for (const problem of now) if (!this.#told.has(problem)) this.#log.warn({}, problem);
    this.#told.clear();
    for (const problem of now) this.#told.add(problem);
  }
}

function ownAddresses(): readonly OwnAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.map(({ address, family, scopeid }) => {
      // An address may have a name of its own, as in `eth0:1`.
      const ifname = name.replace(/:.*$/, '');
      const isZoned = family === 'IPv6' && scopeid !== 0;
      return { address: isZoned ? `${address}%${ifname}` : address, ifname };
    }),
  );
}
