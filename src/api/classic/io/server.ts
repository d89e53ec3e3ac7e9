import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Duplex } from 'node:stream';
import type { Prng } from '../../../base/prng.js';
import { answerRaw, refusalOf, send, unforeseen } from '../../io/answer.js';
import { readJson } from '../../io/body.js';
import { json } from '../../io/call.js';
import type { Logger } from '../../io/log.js';
import { openTcp, type TcpAddress, type TcpEntrance } from '../../io/tcp.js';
import { splice } from '../../io/upstream.js';
import { badRequest } from '../../wire/errors.js';
import { API_VERSION } from '../../wire/system-json.js';
import type { ClassicStrategy } from '../core/scheduler.js';
import type { ClassicBackend } from './backend.js';
import { ClassicCluster } from './cluster.js';
import { containerRoutes } from './containers.js';
import { imageRoutes } from './images.js';
import { networkRoutes } from './networks.js';
import { ClassicPlacer } from './placer.js';
import { Places } from './places.js';
import { Rescheduler } from './rescheduler.js';
import type { ClassicRoute } from './route.js';
import { systemRoutes } from './system.js';
import { volumeRoutes } from './volumes.js';

/** As on the socket of a node. */
const HEADERS_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_TIMEOUT_MS = 600_000;

const VERSION = /^\/v\d+\.\d+(?=\/)/;
const ATTACH = /^\/containers\/(?<ref>.+)\/(?<verb>attach(?:\/ws)?)$/;
const EXEC_START = /^\/exec\/(?<ref>[^/]+)\/start$/;

/** Docker's API of this node, for what is the swarm's. */
export interface ClassicFallback {
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

export interface ClassicOptions {
  readonly backend: ClassicBackend;
  readonly fallback: ClassicFallback;
  readonly strategy: ClassicStrategy;
  readonly prng: Prng;
  readonly log: Logger;
}

/**
 * The classic Swarm's endpoint: all engines of the swarm's nodes as one, by Docker's API. What it has no
 * word for (services, the swarm itself) is answered as on the node's own socket.
 */
export class ClassicServer {
  readonly #server: Server;
  readonly #fallback: ClassicFallback;
  readonly #log: Logger;
  readonly #cluster: ClassicCluster;
  readonly #places: Places;
  readonly #routes: readonly ClassicRoute[];
  readonly #closing = new AbortController();
  #entrance: TcpEntrance | undefined;

  private constructor({ backend, fallback, strategy, prng, log }: ClassicOptions) {
    this.#fallback = fallback;
    this.#log = log;
    const cluster = new ClassicCluster(backend);
    const places = new Places(cluster);
    const placer = new ClassicPlacer(cluster, strategy, prng);
    this.#cluster = cluster;
    this.#places = places;
    const isFirst = () => backend.isFirst();
    const closing = this.#closing.signal;
    const rescheduler = new Rescheduler(cluster, placer, isFirst, log, closing);
    this.#routes = [
      ...systemRoutes(cluster, backend, strategy),
      ...containerRoutes({ cluster, placer, places, rescheduler }),
      ...imageRoutes(cluster),
      ...volumeRoutes(cluster),
      ...networkRoutes({ cluster, placer, places }),
    ];
    this.#server = createServer({
      headersTimeout: HEADERS_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      // What is copied into a container takes as long as it takes.
      requestTimeout: 0,
    });
    this.#server.on('request', (request, response) => void this.#serve(request, response));
    this.#server.on(
      'upgrade',
      (request, socket, head) => void this.#upgrade(request, socket, head),
    );
    this.#server.on('clientError', (_error, socket) =>
      answerRaw(socket, {}, '400 Bad Request', 'the request is not HTTP'),
    );
  }

  /** @throws ApiError API_SOCKET_TAKEN, API_SOCKET_REFUSED */
  static async open(
    address: TcpAddress,
    security: 'tls' | 'none',
    options: ClassicOptions,
  ): Promise<ClassicServer> {
    const classic = new ClassicServer(options);
    await classic.#listen(address, security);
    return classic;
  }

  async #listen(address: TcpAddress, security: 'tls' | 'none'): Promise<void> {
    this.#entrance = await openTcp(this.#server, address, security, this.#log);
  }

  get port(): number {
    return this.#entrance?.port ?? 0;
  }

  /** As `TcpEntrance.useTls`. */
  useTls(...material: Parameters<TcpEntrance['useTls']>): void {
    this.#entrance?.useTls(...material);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#entrance?.close();
    this.#server.closeAllConnections();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => response.destroy());
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      const { version, path, query } = partsOf(request.url ?? '/');
      for (const route of this.#routes) {
        if (!route.methods.includes(request.method ?? '')) continue;
        const match = route.path.exec(path);
        if (match === null) continue;
        const reply = await route.handle({
          ref: decoded(match.groups?.['ref'] ?? ''),
          verb: match.groups?.['verb'] ?? '',
          version,
          query,
          body: () => readJson(request),
          request,
          gone: gone.signal,
        });
        if (reply === undefined) break;
        response.setHeader('Api-Version', API_VERSION);
        if (reply.kind === 'raw') await reply.serve(request, response);
        else send(response, request.method === 'HEAD', reply, this.#closing.signal);
        return;
      }
      this.#fallback.onRequest(request, response);
    } catch (error) {
      this.#refuse(error, request, response);
    }
  }

  #refuse(error: unknown, request: IncomingMessage, response: ServerResponse): void {
    const refusal = refusalOf(error, undefined);
    if (refusal === undefined)
      this.#log.error({ err: error, url: request.url }, 'a request to the cluster failed');
    const { status, message } = refusal ?? unforeseen(error);
    if (response.headersSent) response.destroy();
    else send(response, request.method === 'HEAD', json({ message }, status), this.#closing.signal);
  }

  /** Attach and exec go to the node of the container; all else to this node's engine. */
  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      const { version, path } = partsOf(request.url ?? '/');
      const search = /\?.*$/s.exec(request.url ?? '')?.[0] ?? '';
      const attach = ATTACH.exec(path)?.groups;
      const exec = EXEC_START.exec(path)?.groups?.['ref'];
      const execNode = exec === undefined ? undefined : this.#places.ofExec(exec);
      if (attach !== undefined) {
        const { nodeId, id } = await this.#places.ofContainer(decoded(attach['ref'] ?? ''));
        request.url = `${version}/containers/${id}/${attach['verb']}${search}`;
        await splice(this.#cluster.upstream(nodeId), request, socket, head);
      } else if (execNode !== undefined) {
        await splice(this.#cluster.upstream(execNode), request, socket, head);
      } else {
        this.#fallback.onUpgrade(request, socket, head);
      }
    } catch (error) {
      const { status, message } = refusalOf(error, undefined) ?? unforeseen(error);
      answerRaw(socket, {}, `${status} ${STATUS_CODES[status] ?? ''}`, message);
    }
  }
}

function partsOf(url: string) {
  const split = url.indexOf('?');
  const whole = split < 0 ? url : url.slice(0, split);
  const version = VERSION.exec(whole)?.[0] ?? '';
  const query = new URLSearchParams(split < 0 ? '' : url.slice(split + 1));
  return { version, path: whole.slice(version.length), query };
}

function decoded(ref: string): string {
  try {
    return decodeURIComponent(ref);
  } catch {
    throw badRequest('the path is not percent-encoded UTF-8');
  }
}
