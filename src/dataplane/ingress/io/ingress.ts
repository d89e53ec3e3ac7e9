import { performance } from 'node:perf_hooks';
import { IngressCore, type PortStats } from '../core/ingress-core.js';
import { ListenFailed, type ProxyDriver, type ProxyPolicy } from '../core/proxy-driver.js';
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
  readonly retryMs?: number;
  readonly goneGraceMs?: number;
}

/** How often a port that was taken is tried again. */
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
  /** Listeners that shall be open. */
  readonly #wanted = new Map<number, PublishedPort>();
  readonly #failed = new Map<number, string>();
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
      answered: (listener, ticket) => core.answered(listener, ticket, now()),
      silent: (listener, ticket) => core.silent(listener, ticket, now()),
      failed: (listener, ticket) => core.failed(listener, ticket, now()),
      released: (listener, ticket) => core.released(listener, ticket),
      ended: (listener, end, up, down) => core.ended(listener, end, up, down),
    });
    this.#retry = setInterval(() => this.#retryFailed(), options.retryMs ?? RETRY_MS);
    this.#retry.unref();
  }

  /** Follows services and endpoints; the next flow sees them. */
  update(inputs: IngressInputs): void {
    if (this.#isClosed) return;
    const { ports, problems } = derivePublishedPorts(inputs);
    this.#tell(problems);
    this.#driver.giveBack();
    this.#core.setIngressSubnets(inputs.ingressSubnets);
    const { closed, opened } = this.#core.apply(ports, performance.now());
    this.#driver.moveGone?.();
    for (const listener of closed) this.#close(listener);
    for (const { listener, port } of opened) {
      this.#wanted.set(listener, port);
      void this.#open(listener, port);
    }
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
    return [...this.#failed].flatMap(([listener, message]) => {
      const port = this.#wanted.get(listener);
      if (port === undefined) return [];
      const { key, serviceId, serviceName, mode } = port;
      const taskId = mode === 'host' ? port.backends[0]?.key : undefined;
      return [{ key, serviceId, serviceName, mode, taskId, message }];
    });
  }

  stats(): {
    readonly driver: string;
    readonly flows: number;
    readonly datagramDrops: Readonly<Record<string, number>>;
    readonly ports: readonly (PortStats & { readonly open: boolean })[];
  } {
    this.#driver.tell();
    const failed = new Set([...this.#failed.keys()].map((n) => this.#wanted.get(n)?.key));
    return {
      driver: this.#driver.kind,
      flows: this.#driver.flowCount,
      datagramDrops: this.#driver.datagramDrops?.() ?? {},
      ports: this.#core.stats().map((port) => ({ ...port, open: !failed.has(port.key) })),
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#retry);
    clearTimeout(this.#goneTimer);
    this.#wanted.clear();
    await this.#driver.stop();
  }

  async #open(listener: number, port: PublishedPort): Promise<void> {
    try {
      await this.#driver.open(listener, port.protocol, port.port);
    } catch (error) {
      if (this.#wanted.has(listener)) this.#onFailed(listener, port, error);
      return;
    }
    // It may have been closed meanwhile.
    if (!this.#wanted.has(listener)) {
      this.#driver.close(listener);
      return;
    }
    if (this.#failed.delete(listener))
      this.#log.info({ port: port.key, service: port.serviceName }, 'published port is open now');
  }

  #onFailed(listener: number, port: PublishedPort, error: unknown): void {
    const message = this.#reasonOf(port, error);
    if (this.#failed.get(listener) === message) return;
    this.#failed.set(listener, message);
    this.#log.warn({ port: port.key, service: port.serviceName }, message);
  }

  #reasonOf({ protocol, port }: PublishedPort, error: unknown): string {
    const errno = error instanceof ListenFailed ? error.errno : String(error);
    if (errno !== 'EADDRINUSE') return `port ${port}/${protocol} cannot be opened: ${errno}`;
    const holder = this.#options.holderOf(protocol, port);
    return `port ${port}/${protocol} is taken on this node by ${holder}: free it, or publish another`;
  }

  #close(listener: number): void {
    this.#wanted.delete(listener);
    this.#failed.delete(listener);
    this.#driver.close(listener);
  }

  #retryFailed(): void {
    for (const listener of [...this.#failed.keys()]) {
      const port = this.#wanted.get(listener);
      if (port !== undefined) void this.#open(listener, port);
    }
  }

  /** Each problem once, as long as it lasts. */
  #tell(problems: readonly string[]): void {
    const now = new Set(problems);
    for (const problem of now) if (!this.#told.has(problem)) this.#log.warn({}, problem);
    this.#told.clear();
    for (const problem of now) this.#told.add(problem);
  }
}
