import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Duplex } from 'node:stream';
import Router from 'find-my-way';
import { AssertionFailed } from '../../base/assert.js';
import { AgentError } from '../../base/error.js';
import type { Backend } from '../core/backend.js';
import { splitVersion } from '../core/version.js';
import { ApiError, badRequest, type RefusalContext } from '../wire/errors.js';
import type { Freshness } from '../wire/records.js';
import { API_VERSION } from '../wire/system-json.js';
import { answerRaw, refusalOf, send, unforeseen } from './answer.js';
import { readJson } from './body.js';
import { json, type Route } from './call.js';
import type { ContainerBackend } from './containers.js';
import { EventStreams } from './events.js';
import { Gateway } from './gateway.js';
import type { Logger } from './log.js';
import { LogStreams } from './logs.js';
import { absentRoutes } from './routes/absent.js';
import { blobRoutes } from './routes/blobs.js';
import { classicRoutes } from './routes/classic.js';
import { distributionRoute, hostImageRoute } from './routes/distribution.js';
import { networkRoutes } from './routes/networks.js';
import { nodeRoutes } from './routes/nodes.js';
import { serviceRoutes } from './routes/services.js';
import { SHOAL_PREFIX, shoalRoutes } from './routes/shoal.js';
import { swarmRoutes } from './routes/swarm.js';
import { systemRoutes } from './routes/system.js';
import { taskRoutes } from './routes/tasks.js';
import { listenOnSocket } from './socket.js';
import { openTcp, type TcpAddress, type TcpEntrance } from './tcp.js';

/** Connections at a time; more are dropped at once and counted. */
export const CONNECTIONS_MAX = 1024;
/** Time for a client to send a request's head, and all of it. Answers may take longer. */
export const HEADERS_TIMEOUT_MS = 30_000;
export const REQUEST_TIMEOUT_MS = 60_000;
/** So long that no CLI, which polls each 200 ms, sends just as we close the connection. */
export const KEEP_ALIVE_TIMEOUT_MS = 600_000;
export const CLOSE_GRACE_MS = 2_000;
/** Names of images with their registry are long. */
const PARAM_LENGTH_MAX = 4096;

export interface ApiConfig {
  readonly socketPath: string;
  /** Group that may use the socket, if the host has it; `docker` if absent. */
  readonly group?: string;
  /** Time that running requests get when the server closes. */
  readonly closeGraceMs?: number;
}

export interface ApiDependencies {
  readonly backend: Backend;
  readonly log: Logger;
  /** Absent: there are no containers, neither here nor elsewhere. */
  readonly containers?: ContainerBackend;
}

export interface ApiStats {
  requests: number;
  /** Answered with 400 to 499, and with 500 or more. */
  refused: number;
  failed: number;
  connectionsDropped: number;
  /** What came was not HTTP. */
  malformed: number;
}

/** Docker's Engine API, and Shoal's own verbs, on a unix socket. */
export class ApiServer {
  readonly #server: Server;
  readonly #router = Router({ maxParamLength: PARAM_LENGTH_MAX });
  readonly #routes = new Map<unknown, Route>();
  readonly #log: Logger;
  readonly #backend: Backend;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #events: EventStreams;
  readonly #gateway: Gateway;
  readonly #entrances: TcpEntrance[] = [];
  /** Connections that speak another protocol now: Node's server counts them, but does not close them. */
  readonly #hijacked = new Set<Duplex>();
  readonly #closeGraceMs: number;
  readonly #closing = new AbortController();
  readonly #stats: ApiStats = {
    requests: 0,
    refused: 0,
    failed: 0,
    connectionsDropped: 0,
    malformed: 0,
  };

  private constructor(
    { closeGraceMs = CLOSE_GRACE_MS }: ApiConfig,
    { backend, log, containers }: ApiDependencies,
  ) {
    this.#closeGraceMs = closeGraceMs;
    this.#log = log;
    this.#backend = backend;
    this.#gateway = new Gateway(containers);
    this.#headers = {
      'Api-Version': API_VERSION,
      'Docker-Experimental': 'false',
      Ostype: 'linux',
      Server: `Shoal/${backend.facts().agentVersion} (linux)`,
    };
    this.#events = new EventStreams(backend);
    const events = this.#events;
    const logs = new LogStreams(backend);
    const own = [
      ...systemRoutes(backend, events),
      ...swarmRoutes(backend),
      ...nodeRoutes(backend),
      ...networkRoutes(backend),
      ...blobRoutes(backend),
      ...serviceRoutes(backend, logs),
      ...taskRoutes(backend, logs),
      hostImageRoute,
      ...shoalRoutes(backend),
      ...classicRoutes(backend.classic),
    ].map((route) => this.#gateway.around(route));
    const absent = [distributionRoute, ...absentRoutes()].map((route) =>
      this.#gateway.instead(route),
    );
    for (const route of [...own, ...absent]) {
      const handler = () => undefined;
      this.#routes.set(handler, route);
      this.#router.on(route.method, route.path, handler);
    }
    this.#server = this.#createServer(containers === undefined ? REQUEST_TIMEOUT_MS : 0);
  }

  /** Throws ApiError API_SOCKET_TAKEN or API_SOCKET_REFUSED. */
  static async listen(config: ApiConfig, dependencies: ApiDependencies): Promise<ApiServer> {
    const api = new ApiServer(config, dependencies);
    await listenOnSocket(
      api.#server,
      config.socketPath,
      config.group ?? 'docker',
      dependencies.log,
    );
    return api;
  }

  /** Lets in by TCP too. Throws as `listen`. */
  async openTcp(address: TcpAddress, security: 'tls' | 'none'): Promise<TcpEntrance> {
    const entrance = await openTcp(this.#server, address, security, this.#log);
    this.#entrances.push(entrance);
    return entrance;
  }

  stats(): Readonly<ApiStats> {
    return { ...this.#stats };
  }

  /** Answers a request that came by another way than the socket, as if it had. */
  onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#server.emit('request', request, response);
  }

  /** As `onRequest`, of one that wants to speak another protocol. */
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#server.emit('upgrade', request, socket, head);
  }

  /** Ends the streams, lets running requests and commands finish for a while, removes the socket. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.#closing.abort();
    this.#events.close();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    await Promise.all(this.#entrances.map((entrance) => entrance.close()));
    const timer = setTimeout(() => {
      this.#server.closeAllConnections();
      for (const socket of this.#hijacked) socket.destroy();
    }, this.#closeGraceMs);
    await closed;
    clearTimeout(timer);
  }

  /** @param requestTimeout Builds and loads of an engine take as long as they take. */
  #createServer(requestTimeout: number): Server {
    const server = createServer({
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout,
    });
    server.maxConnections = CONNECTIONS_MAX;
    server.on('request', (request, response) => {
      void this.#serve(request, response);
    });
    server.on('drop', () => {
      this.#stats.connectionsDropped += 1;
    });
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      this.#stats.malformed += 1;
      if (error.code === 'HPE_HEADER_OVERFLOW') {
        answerRaw(
          socket,
          this.#headers,
          '431 Request Header Fields Too Large',
          'the request head is too large',
        );
      } else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
        answerRaw(
          socket,
          this.#headers,
          '408 Request Timeout',
          'the request took too long to arrive',
        );
      } else {
        answerRaw(socket, this.#headers, '400 Bad Request', 'the request is not HTTP');
      }
    });
    server.on('upgrade', (request, socket, head) => {
      this.#stats.requests += 1;
      this.#hijacked.add(socket);
      socket.once('close', () => this.#hijacked.delete(socket));
      this.#gateway.upgrade(request, socket, head).catch((error) => {
        this.#stats.refused += 1;
        const { status, message } = refusalOf(error, undefined) ?? unforeseen(error);
        answerRaw(socket, this.#headers, `${status} ${STATUS_CODES[status] ?? ''}`, message);
      });
    });
    server.on('connect', (_request, socket) => {
      answerRaw(socket, this.#headers, '404 Not Found', 'page not found');
    });
    return server;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#stats.requests += 1;
    // A client that is gone is not our trouble; what it asked for still happens.
    response.on('error', () => response.destroy());
    for (const [name, value] of Object.entries(this.#headers)) response.setHeader(name, value);
    const startedMs = performance.now();
    response.setHeader('Api-Version', this.#gateway.apiVersion);
    let path = request.url ?? '/';
    let route: Route | undefined;
    try {
      const url = request.url ?? '/';
      const split = url.indexOf('?');
      path = split < 0 ? url : url.slice(0, split);
      const found = this.#find(request.method ?? '', path);
      route = found.route;
      if (route.readsSwarm) markStale(response, await this.#backend.freshen());
      const reply = await found.route.handle({
        param: (name) => found.params[name] ?? '',
        query: new URLSearchParams(split < 0 ? '' : url.slice(split + 1)),
        header: (name) => String(request.headers[name] ?? ''),
        version: found.version,
        url,
        nowMs: Date.now(),
        body: () => readJson(request),
      });
      if (reply.kind === 'raw') await reply.serve(request, response);
      else send(response, request.method === 'HEAD', reply, this.#closing.signal);
    } catch (error) {
      this.#refuse(request, response, error, path, route?.refusalContext?.bind(route));
    }
    this.#log.debug(
      {
        method: request.method,
        path,
        status: response.statusCode,
        tookMs: Math.round(performance.now() - startedMs),
      },
      'api request',
    );
  }

  #find(method: string, path: string) {
    const { route: inner, version } = splitVersion(path);
    const found = this.#router.find(method as Router.HTTPMethod, inner);
    const route = found === null ? undefined : this.#routes.get(found.handler);
    if (found === null || route === undefined) {
      if (!isDecodable(inner)) throw badRequest('the path is not percent-encoded UTF-8');
      const unknown = this.#gateway.unknown(inner);
      if (unknown !== undefined) return { route: unknown, version, params: {} };
      throw new ApiError({ code: 'API_NOT_FOUND' }, 'page not found');
    }
    return { route, version, params: found.params };
  }

  #refuse(
    request: IncomingMessage,
    response: ServerResponse,
    error: unknown,
    path: string,
    context: (() => RefusalContext) | undefined,
  ): void {
    // Who hangs up while its body is read gets no answer, and is no trouble of ours.
    const hungUp = error instanceof Error && 'code' in error && error.code === 'ECONNRESET';
    if ((request.destroyed && !request.complete) || hungUp) {
      response.destroy();
      return;
    }
    const refusal = refusalOf(error, context);
    if (refusal === undefined) this.#log.error({ err: error, path }, 'a request failed');
    const { status, message } = refusal ?? unforeseen(error);
    if (status >= 500) this.#stats.failed += 1;
    else this.#stats.refused += 1;
    if (error instanceof ApiError && error.code === 'API_BODY_TOO_LARGE') {
      response.setHeader('Connection', 'close');
    }
    const code = error instanceof AgentError ? error.code : 'INTERNAL';
    const value = path.includes(SHOAL_PREFIX) ? { message, code } : { message };
    send(response, request.method === 'HEAD', json(value, status), this.#closing.signal);
    if (error instanceof AssertionFailed) {
      // Ours to fix, and no state to go on with: the process's last resort has to see it.
      setImmediate(() => {
        throw error;
      });
    }
  }
}

/** Without a quorum the answer is what this manager last knew, and says so (RFC 7234, 5.5.1). */
function markStale(response: ServerResponse, { staleMs }: Freshness): void {
  if (staleMs === undefined) return;
  response.setHeader('Shoal-Stale', String(Math.round(staleMs)));
  response.setHeader('Warning', '110 shoal "Response is Stale"');
}

function isDecodable(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}
