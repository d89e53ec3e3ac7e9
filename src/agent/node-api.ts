import { once } from 'node:events';
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { HOP_HEADER } from '../api/index.js';
import type { TaskId } from '../base/swarm-model.js';
import { ASKED_FACTS_MAX, type Gossip } from '../gossip/index.js';
import type { LogQuery, LogRecord } from '../runtime/index.js';
import { ItemQueue } from './item-queue.js';
import type { Log } from './log.js';
import { encodeLogFrame, LogFrameReader } from './log-frames.js';

/** Tasks of one question for logs. */
export const LOG_TASKS_MAX = 1_000;
/** Of those, read at the same time while none is followed. */
const LOGS_AT_ONCE_MAX = 16;
const BODY_BYTES_MAX = 256 * 1024;
/** So often a node that has nothing to tell says that it is there. */
const BEAT_MS = 10_000;
const SILENCE_MS_MAX = 35_000;
/** For the head of an answer. */
const ANSWER_MS_MAX = 15_000;

/** What a node can say of the tasks that it runs. */
export interface NodeTasks {
  logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord>;
}

/** Docker's API of this node, of which other nodes see what belongs to containers. */
export interface NodeDocker {
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

/** What this node knows to be so; see `NodeAcknowledgements`. */
export interface NodeFactsAsked {
  answer(asker: string, facts: readonly string[], signal: AbortSignal): Promise<readonly string[]>;
}

export interface NodeApiOptions {
  readonly gossip: Pick<Gossip, 'openTunnel' | 'onTunnel'>;
  readonly self: string;
  /** As the managers said last. */
  isManager(nodeId: string): boolean;
  readonly tasks: NodeTasks;
  readonly docker?: NodeDocker;
  readonly facts?: NodeFactsAsked;
  readonly log: Log;
}

export type NodeLogItem =
  | { readonly taskId: string; readonly record: LogRecord }
  /** The log of this task ends here, and why. */
  | { readonly taskId: string; readonly failed: string };

const FACTS_PATH = '/facts';
export const DOCKER_PREFIX = '/docker';
/** Of Docker's API only what asks about one container, or does something in it. */
const DOCKER_PATHS =
  /^(?:\/v\d+\.\d+)?\/(?:containers\/[^/]+\/(?:json|logs|top|stats|exec|attach|resize|changes|archive)|exec\/[^/]+\/(?:start|resize|json))$/;

const FACT_CHARS_MAX = 256;
const factsAsked = z.object({
  facts: z.array(z.string().max(FACT_CHARS_MAX)).max(ASKED_FACTS_MAX),
});

/** Of one node's engine all that a classic Swarm needs of it. */
export const ENGINE_PREFIX = '/engine';
const ENGINE_PATHS =
  /^(?:\/v\d+\.\d+)?\/(?:info|version|events|commit|system\/df|(?:containers|exec|images|volumes|networks)(?:\/.*)?)$/;

const logsAsked = z.object({
  tasks: z.array(z.string().max(64)).max(LOG_TASKS_MAX),
  stdout: z.boolean(),
  stderr: z.boolean(),
  follow: z.boolean(),
  tail: z.number().int().nonnegative().optional(),
  sinceMs: z.number().optional(),
  untilMs: z.number().optional(),
});

/**
 * What nodes ask of each other, by HTTP in tunnels: a manager asks the node that runs a task for its
 * log, or for a command in its container. Nobody but a manager is answered; only what a node has
 * made of another's records it tells every member.
 */
export class NodeApi {
  readonly #options: NodeApiOptions;
  readonly #server: Server;
  /** Who has opened the tunnel that a request came by. */
  readonly #askers = new WeakMap<Duplex, string>();
  readonly #closing = new AbortController();
  readonly #refuseTunnels: () => void;

  constructor(options: NodeApiOptions) {
    this.#options = options;
    this.#server = createServer({ headersTimeout: ANSWER_MS_MAX, requestTimeout: 0 });
    this.#server.on('request', (request, response) => void this.#serve(request, response));
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#refuseTunnels = options.gossip.onTunnel((tunnel, from) => {
      this.#askers.set(tunnel, from);
      this.#server.emit('connection', tunnel);
    });
  }

  close(): void {
    this.#refuseTunnels();
    this.#closing.abort();
  }

  /** Lines of tasks that run on `nodeId`, this node included. @throws SwarmError `SWARM_UNREACHABLE` */
  async *logs(
    nodeId: string,
    tasks: readonly string[],
    query: LogQuery,
    signal: AbortSignal,
  ): AsyncIterable<NodeLogItem> {
    const ending = AbortSignal.any([signal, this.#closing.signal]);
    if (nodeId === this.#options.self) yield* this.#ownLogs(tasks, query, ending);
    else yield* this.#logsOf(nodeId, tasks, query, ending);
  }

  /** A request to another node, not sent yet. @throws SwarmError `SWARM_UNREACHABLE` */
  async ask(
    nodeId: string,
    how: {
      readonly method: string;
      readonly path: string;
      readonly headers?: Readonly<Record<string, string | readonly string[]>>;
    },
    signal: AbortSignal,
  ): Promise<ClientRequest> {
    const tunnel = await this.#options.gossip.openTunnel(nodeId, signal);
    const { headers = {}, ...where } = how;
    const asked = request({
      ...where,
      headers: { ...headers, host: 'node' },
      createConnection: () => tunnel,
    });
    // Who waits for the answer is told; afterwards nobody may listen.
    asked.on('error', () => undefined);
    return asked;
  }

  /** Of these facts, those that are so on another node. @throws Error if it does not say so. */
  async askFacts(
    nodeId: string,
    facts: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const asked = await this.ask(nodeId, { method: 'POST', path: FACTS_PATH }, signal);
    const abort = () => asked.destroy(new Error('not wanted any more'));
    signal.addEventListener('abort', abort);
    try {
      asked.end(JSON.stringify({ facts }));
      const [answer] = (await once(asked, 'response')) as [IncomingMessage];
      if (answer.statusCode !== 200) throw new Error(`it refuses: ${answer.statusCode}`);
      return factsAsked.parse(JSON.parse(await textOf(answer))).facts;
    } finally {
      signal.removeEventListener('abort', abort);
      asked.destroy();
    }
  }

  async *#logsOf(
    nodeId: string,
    tasks: readonly string[],
    query: LogQuery,
    signal: AbortSignal,
  ): AsyncIterable<NodeLogItem> {
    const asked = await this.ask(nodeId, { method: 'POST', path: '/logs' }, signal);
    const abort = () => asked.destroy(new Error('not wanted any more'));
    // Whoever is silent for longer than between two beats is gone.
    const silence = setTimeout(
      () => asked.destroy(new Error(`node ${nodeId} is silent`)),
      SILENCE_MS_MAX,
    );
    signal.addEventListener('abort', abort);
    try {
      asked.end(JSON.stringify({ ...query, tasks }));
      const [answer] = (await once(asked, 'response')) as [IncomingMessage];
      if (answer.statusCode !== 200) {
        throw new Error(`node ${nodeId} refuses to show logs: ${answer.statusCode}`);
      }
      const reader = new LogFrameReader();
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        silence.refresh();
        const frames = reader.push(chunk);
        if (frames === undefined) throw new Error(`node ${nodeId} answers with nonsense`);
        for (const frame of frames) {
          if (frame.kind === 'beat') continue;
          const taskId = tasks[frame.task] ?? '';
          if (frame.kind === 'record') yield { taskId, record: frame.record };
          else yield { taskId, failed: frame.reason };
        }
      }
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', abort);
      asked.destroy();
    }
  }

  async *#ownLogs(
    tasks: readonly string[],
    query: LogQuery,
    signal: AbortSignal,
  ): AsyncIterable<NodeLogItem> {
    const queue = new ItemQueue<NodeLogItem>();
    const ending = new AbortController();
    const all = AbortSignal.any([signal, ending.signal]);
    const drop = () => queue.drop();
    all.addEventListener('abort', drop);
    const reading = this.#readAll(tasks, query, queue, all).finally(() => queue.end());
    try {
      yield* queue.read();
    } finally {
      ending.abort();
      all.removeEventListener('abort', drop);
      await reading;
    }
  }

  /** Reads the logs of tasks of this node; never fails. */
  async #readAll(
    tasks: readonly string[],
    query: LogQuery,
    items: ItemQueue<NodeLogItem>,
    signal: AbortSignal,
  ): Promise<void> {
    const read = async (taskId: string) => {
      try {
        const records = this.#options.tasks.logs(taskId as TaskId, query, signal);
        for await (const record of records) {
          if (signal.aborted) return;
          await items.put({ taskId, record });
        }
      } catch (error) {
        if (!signal.aborted) await items.put({ taskId, failed: (error as Error).message });
      }
    };
    const queue = [...tasks];
    const worker = async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) await read(next);
    };
    const count = query.follow ? queue.length : Math.min(queue.length, LOGS_AT_ONCE_MAX);
    await Promise.all(Array.from({ length: count }, worker));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => response.destroy());
    try {
      if (request.method === 'POST' && request.url === FACTS_PATH) {
        await this.#serveFacts(request, response);
      } else if (!this.#isAnswered(request)) {
        refuse(response, 403, 'only managers are answered');
      } else if (request.method === 'POST' && request.url === '/logs') {
        await this.#serveLogs(request, response);
      } else if (this.#options.docker !== undefined && isDocker(request)) {
        this.#options.docker.onRequest(localOf(request), response);
      } else {
        refuse(response, 404, 'nothing is known of that here');
      }
    } catch (error) {
      this.#options.log.debug({ error: (error as Error).message }, 'a node was not answered');
      if (response.headersSent) response.destroy();
      else refuse(response, 400, (error as Error).message);
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (this.#options.docker !== undefined && this.#isAnswered(request) && isDocker(request)) {
      this.#options.docker.onUpgrade(localOf(request), socket, head);
      return;
    }
    socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  }

  /** Asked again for each request: whoever was a manager may be none now. */
  #isAnswered({ socket }: IncomingMessage): boolean {
    const asker = this.#askers.get(socket);
    return asker !== undefined && this.#options.isManager(asker);
  }

  async #serveFacts(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asker = this.#askers.get(request.socket);
    const { facts: known } = this.#options;
    if (asker === undefined || known === undefined) {
      refuse(response, 404, 'nothing is known of that here');
      return;
    }
    const { facts } = factsAsked.parse(JSON.parse(await textOf(request)));
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
    const found = await known.answer(asker, facts, signal);
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ facts: found }));
  }

  async #serveLogs(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = logsAsked.parse(JSON.parse(await textOf(request)));
    const { tasks, tail, sinceMs, untilMs, ...rest } = asked;
    const query: LogQuery = {
      ...rest,
      ...(tail === undefined ? {} : { tail }),
      ...(sinceMs === undefined ? {} : { sinceMs }),
      ...(untilMs === undefined ? {} : { untilMs }),
    };
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
    response.writeHead(200, { 'Content-Type': 'application/octet-stream' });
    response.flushHeaders();
    const beat = setInterval(() => response.write(encodeLogFrame({ kind: 'beat' })), BEAT_MS);
    const places = new Map(tasks.map((id, place) => [id, place]));
    try {
      for await (const item of this.#ownLogs(tasks, query, signal)) {
        const task = places.get(item.taskId) ?? 0;
        const frame =
          'record' in item
            ? encodeLogFrame({ kind: 'record', task, record: item.record })
            : encodeLogFrame({ kind: 'failed', task, reason: item.failed });
        if (!response.write(frame)) await drained(response, signal);
      }
    } finally {
      clearInterval(beat);
    }
    response.end();
  }
}

const DOCKER_DOORS = [
  { prefix: DOCKER_PREFIX, paths: DOCKER_PATHS },
  { prefix: ENGINE_PREFIX, paths: ENGINE_PATHS },
] as const;

const doorOf = ({ url = '' }: IncomingMessage) =>
  DOCKER_DOORS.find(
    ({ prefix, paths }) =>
      url.startsWith(`${prefix}/`) && paths.test(url.slice(prefix.length).replace(/\?.*$/s, '')),
  );

const isDocker = (request: IncomingMessage): boolean => doorOf(request) !== undefined;

/** As this node's own clients would have asked it, and for itself alone. */
function localOf(request: IncomingMessage): IncomingMessage {
  const { prefix } = doorOf(request) ?? { prefix: '' };
  request.url = request.url?.slice(prefix.length) ?? '/';
  request.headers[HOP_HEADER] = '1';
  return request;
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(`${JSON.stringify({ message })}\n`);
}

/** Returns when there is room again, or nobody wants it any more. */
async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  await once(response, 'drain', { signal }).catch(() => undefined);
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Error('the question is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
