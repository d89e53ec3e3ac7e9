import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { compareVersions } from '../core/version.js';
import {
  countedInfo,
  hidesSandboxes,
  isOverlayRequest,
  mergedInfo,
  mergedPrune,
  mergedVersion,
  SANDBOX_LABEL,
  sandboxFree,
} from '../wire/engine-json.js';
import { ApiError } from '../wire/errors.js';
import { API_VERSION } from '../wire/system-json.js';
import { type Call, json, type Reply, type Route } from './call.js';
import type { ContainerBackend } from './containers.js';
import { HostRoutes } from './host-routes.js';
import { OverlayContainers } from './overlay-containers.js';
import { askUpstream, forward, pathFor, splice, type Upstream } from './upstream.js';

/** Commands in containers of other nodes whose ids are kept, so that what follows finds its way. */
const EXECS_MAX = 4_096;

const CONTAINER = /^(?:\/v[\d.]+)?\/containers\/([^/?]+)\//;
const CONTAINER_VERB = /^(?:\/v[\d.]+)?\/containers\/([^/?]+)(?:\/([a-z]+))?(?:\?|$)/;
const EXEC_VERB = /^(?:\/v[\d.]+)?\/exec\/([^/?]+)\/([a-z]+)(?:\?|$)/;
const EXEC = /^(?:\/v[\d.]+)?\/exec\/([^/?]+)\//;
/** Never the engine's, whose own swarm, if it has one, is not this one. */
const SWARMS = /^\/(?:swarm|nodes|services|tasks|secrets|configs|shoal)(?:\/|$)/;
const NOT_REFERENCES = new Set(['create', 'json', 'prune']);

/** On requests that another node has sent here already. */
export const HOP_HEADER = 'shoal-hop';

type Merge = (route: Route, call: Call, engine: Upstream) => Reply | Promise<Reply>;

/**
 * Where a request goes that is not the swarm's: to this host's engine, as it is, or to the node that
 * runs the container. What both the swarm and the engine have (networks, facts, events) is merged.
 */
export class Gateway {
  readonly #containers: ContainerBackend | undefined;
  readonly #host: HostRoutes | undefined;
  readonly #overlays: OverlayContainers | undefined;
  /** Node of a command, by its id, the oldest first. */
  readonly #execs = new Map<string, string>();
  /** Ends those who wait for the output of a container, by what they call it. */
  readonly #attached = new Map<string, Set<() => void>>();

  constructor(containers: ContainerBackend | undefined) {
    this.#containers = containers;
    this.#host = containers?.host && new HostRoutes(containers.host);
    this.#overlays = containers?.networks && new OverlayContainers(containers.networks);
  }

  /** What clients may speak here: not more than the engine does. */
  get apiVersion(): string {
    const version = this.#engine?.apiVersion ?? API_VERSION;
    return compareVersions(version, API_VERSION) < 0 ? version : API_VERSION;
  }

  get #engine(): Upstream | undefined {
    return this.#containers?.engine();
  }

  /** A route that does what it does alone where there is no engine. */
  around(route: Route): Route {
    const name = `${route.method} ${route.path}`;
    if (name === 'GET /info') return this.#counting(route);
    const merge = this.#merges[name];
    if (merge === undefined) return route;
    return {
      ...route,
      handle: (call) => {
        const engine = this.#engine;
        return engine === undefined ? route.handle(call) : merge(route, call, engine);
      },
    };
  }

  /** `docker info`, with tasks of this host among the containers, and without sandboxes. */
  #counting(route: Route): Route {
    return {
      ...route,
      handle: async (call) => {
        const engine = this.#engine;
        const own = await route.handle(call);
        if (own.kind !== 'json') return own;
        const tasks = await this.#host?.states();
        if (engine === undefined) return json(countedInfo(own.value, tasks ?? [], []));
        const both = merged(own, await askUpstream(engine, { path: '/info' }), mergedInfo);
        const filters = encodeURIComponent(JSON.stringify({ label: [SANDBOX_LABEL] }));
        const path = `/containers/json?all=1&filters=${filters}`;
        const { json: sandboxes } = await askUpstream(engine, { path });
        return both.kind === 'json' ? json(countedInfo(both.value, tasks ?? [], sandboxes)) : both;
      },
    };
  }

  /** A route that stands for what this host does not have without an engine. */
  instead(route: Route): Route {
    if (SWARMS.test(route.path)) return route;
    return {
      ...route,
      handle: async (call) =>
        (await this.#ofHost(route, call)) ??
        (this.#isElsewhere(call) ? this.pass() : this.#engineElse(route, call)),
    };
  }

  /** What is about a task of the host runtime, of which no engine knows. */
  async #ofHost(route: Route, call: Call): Promise<Reply | undefined> {
    const host = this.#host;
    if (host === undefined) return undefined;
    const [, exec, execVerb] = EXEC_VERB.exec(call.url) ?? [];
    if (exec !== undefined && execVerb !== undefined && host.hasExec(exec))
      return host.ofExec(route.method, execVerb, exec, call);
    const [, ref = '', verb = ''] = CONTAINER_VERB.exec(call.url) ?? [];
    if (ref === '' || NOT_REFERENCES.has(ref)) return undefined;
    const container = await host.find(decodeURIComponent(ref));
    return container && host.ofContainer(route.method, verb, container, call);
  }

  /** For a path without a route; `undefined`: nobody else would know it. */
  unknown(path: string): Route | undefined {
    if (this.#engine === undefined || SWARMS.test(path)) return undefined;
    return { method: 'GET', path: '*', handle: () => this.pass() };
  }

  /** The request goes on as it is; `body` takes the place of one that was read. */
  pass(body?: unknown): Reply {
    return { kind: 'raw', serve: (request, response) => this.#serve(request, response, body) };
  }

  /** A client that wants to speak another protocol: attach, exec, build sessions. */
  async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const exec = EXEC.exec(request.url ?? '')?.[1] ?? '';
    if (this.#host?.hasExec(exec) === true) {
      await this.#host.start(exec, request, socket, head);
      return;
    }
    const upstream = (await this.#nodeOf(request)) ?? this.#engine;
    if (upstream === undefined) {
      throw new ApiError({ code: 'API_UNSUPPORTED' }, 'there is no container engine here');
    }
    const end = await splice(upstream, request, socket, head);
    const [, ref = '', verb] = CONTAINER_VERB.exec(request.url ?? '') ?? [];
    if (verb === 'attach') this.#keepAttached(ref, socket, end);
  }

  #keepAttached(ref: string, socket: Duplex, end: () => void): void {
    const ends = this.#attached.get(ref) ?? new Set();
    this.#attached.set(ref, ends.add(end));
    socket.once('close', () => {
      ends.delete(end);
      if (ends.size === 0 && this.#attached.get(ref) === ends) this.#attached.delete(ref);
    });
  }

  /** What is not started here has no output, of which its engine does not know: nobody waits for it. */
  #notStarted({ url }: Call): void {
    const [, ref = '', verb] = CONTAINER_VERB.exec(url) ?? [];
    if (verb === 'start') for (const end of this.#attached.get(ref) ?? []) end();
  }

  async #engineElse(route: Route, call: Call): Promise<Reply> {
    const engine = this.#engine;
    if (route.path === '/containers/json') return this.#list(route, call, engine);
    if (engine === undefined) return route.handle(call);
    const served = await this.#overlays?.serve(route.method, call, engine).catch((error) => {
      this.#notStarted(call);
      throw error;
    });
    if (served === undefined) return this.pass();
    return served.kind === 'pass' ? this.pass(served.body) : served;
  }

  #isElsewhere(call: Call): boolean {
    if (call.header(HOP_HEADER) !== '') return false;
    const ref = CONTAINER.exec(call.url)?.[1] ?? '';
    const exec = EXEC.exec(call.url)?.[1] ?? '';
    return this.#execs.has(exec) || this.#elsewhere(ref) !== undefined;
  }

  #elsewhere(ref: string) {
    if (ref === '' || NOT_REFERENCES.has(ref)) return undefined;
    return this.#containers?.elsewhere(decodeURIComponent(ref));
  }

  async #serve(request: IncomingMessage, response: ServerResponse, body: unknown): Promise<void> {
    const node = await this.#nodeOf(request);
    const upstream = node ?? this.#engine;
    if (upstream === undefined) throw new ApiError({ code: 'API_NOT_FOUND' }, 'page not found');
    const isExec =
      node !== undefined && request.method === 'POST' && /\/exec$/.test(request.url ?? '');
    if (isExec) await this.#createExec(node, request, response);
    else await forward(upstream, request, response, body);
  }

  /** The other node that a request is for; its container is then called by its full id. */
  async #nodeOf(request: IncomingMessage): Promise<Upstream | undefined> {
    const containers = this.#containers;
    const url = request.url ?? '/';
    if (request.headers[HOP_HEADER] !== undefined) return undefined;
    const execNode = this.#execs.get(EXEC.exec(url)?.[1] ?? '');
    if (execNode !== undefined) return containers?.node(execNode);
    const ref = CONTAINER.exec(url)?.[1] ?? '';
    const place = this.#elsewhere(ref);
    if (place === undefined || (await this.#isHere(ref))) return undefined;
    request.url = url.replace(`/containers/${ref}/`, `/containers/${place.containerId}/`);
    return containers?.node(place.nodeId);
  }

  /** A container of this host has the right of way. */
  async #isHere(ref: string): Promise<boolean> {
    const engine = this.#engine;
    if ((await this.#host?.find(ref)) !== undefined) return true;
    if (engine === undefined) return false;
    const { status } = await askUpstream(engine, { path: `/containers/${ref}/json` });
    return status === 200;
  }

  /** Remembers where the command is, since its id alone does not say so. */
  async #createExec(
    node: Upstream,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    const path = request.url ?? '/';
    const { status, json: answer } = await askUpstream(node, { method: 'POST', path, json: body });
    const id = (answer as { readonly Id?: unknown } | undefined)?.Id;
    if (typeof id === 'string' && node.nodeId !== undefined) {
      this.#execs.set(id, node.nodeId);
      const [oldest] = this.#execs.keys();
      if (this.#execs.size > EXECS_MAX && oldest !== undefined) this.#execs.delete(oldest);
    }
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(`${JSON.stringify(answer ?? { message: 'the node gives no answer' })}\n`);
  }

  async #list(route: Route, call: Call, engine: Upstream | undefined): Promise<Reply> {
    const ours = (await this.#host?.list(call)) ?? [];
    if (engine === undefined) return ours.length === 0 ? route.handle(call) : json(ours);
    const { status, json: theirs } =
      (await this.#overlays?.list(call, engine)) ?? (await askUpstream(engine, { path: call.url }));
    return json(status === 200 ? [...ours, ...sandboxFree(theirs)] : theirs, status);
  }

  readonly #merges: Readonly<Record<string, Merge>> = {
    'GET /version': async (route, call, engine) =>
      merged(
        await route.handle(call),
        await askUpstream(engine, { path: '/version' }),
        (ours, theirs) => mergedVersion(ours, theirs, this.apiVersion),
      ),
    'GET /events': (route, call, engine) => this.#events(route, call, engine),
    'GET /networks': async (route, call, engine) =>
      merged(await route.handle(call), await askUpstream(engine, { path: call.url }), concatenated),
    'GET /networks/:id': (route, call) => this.#network(route, call),
    'DELETE /networks/:id': (route, call) => this.#network(route, call),
    'POST /networks/create': async (route, call) => {
      const body = await call.body();
      return isOverlayRequest(body)
        ? route.handle({ ...call, body: async () => body })
        : this.pass(body);
    },
    'POST /networks/prune': async (route, call, engine) =>
      merged(
        await route.handle(call),
        await askUpstream(engine, { method: 'POST', path: call.url }),
        mergedPrune,
      ),
  };

  /** The swarm's networks first; what it does not know may be the engine's. */
  async #network(route: Route, call: Call): Promise<Reply> {
    if (call.query.get('scope') === 'local') return this.pass();
    try {
      return await route.handle(call);
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'SWARM_NOT_FOUND')
        return this.pass();
      throw error;
    }
  }

  /** Both streams in one, line by line. */
  async #events(route: Route, call: Call, engine: Upstream): Promise<Reply> {
    const own = await route.handle(call);
    if (own.kind !== 'stream') return own;
    return {
      kind: 'stream',
      open: (response, closing) => {
        own.open(response, closing);
        const gone = new AbortController();
        response.once('close', () => gone.abort());
        void followEvents(engine, call.url, response, gone.signal);
      },
    };
  }
}

function merged(
  own: Reply,
  { status, json: theirs }: { readonly status: number; readonly json: unknown },
  merge: (own: unknown, theirs: unknown) => unknown,
): Reply {
  // An engine that does not answer well takes nothing away from the swarm.
  if (own.kind !== 'json' || status !== 200 || theirs === undefined) return own;
  return json(merge(own.value, theirs), own.status);
}

const concatenated = (own: unknown, theirs: unknown) => [
  ...(Array.isArray(own) ? own : []),
  ...(Array.isArray(theirs) ? theirs : []),
];

async function followEvents(
  engine: Upstream,
  url: string,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  try {
    const connection = await engine.connect(signal);
    signal.addEventListener('abort', () => connection.destroy());
    connection.write(`GET ${pathFor(engine, url)} HTTP/1.0\r\nHost: docker\r\n\r\n`);
    let rest = '';
    let isBody = false;
    for await (const chunk of connection as AsyncIterable<Buffer>) {
      rest += chunk.toString();
      const head = isBody ? -1 : rest.indexOf('\r\n\r\n');
      if (head >= 0) {
        if (!/^HTTP\/1\.\d 200/.test(rest)) return;
        rest = rest.slice(head + 4);
        isBody = true;
      }
      if (!isBody) continue;
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line.trim() !== '' && !hidesSandboxes(line) && response.writable)
          response.write(`${line}\n`);
      }
    }
  } catch {
    // The engine is away: the swarm's own events go on.
  }
}
