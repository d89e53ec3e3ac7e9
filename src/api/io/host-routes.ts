import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { availableParallelism } from 'node:os';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { matchesAny, matchesLabels, parseFilters } from '../core/filters.js';
import {
  findHostContainer,
  type HostContainers,
  type HostExecSpec,
  type HostProcess,
} from '../core/host-containers.js';
import { flagOf } from '../core/parameters.js';
import { ApiError, badRequest } from '../wire/errors.js';
import {
  hostContainerJson,
  hostInspectJson,
  hostStatsJson,
  hostTopJson,
} from '../wire/host-container-json.js';
import type { HostContainer, HostStats } from '../wire/host-records.js';
import { encodeLine, linePrefix } from '../wire/log-frames.js';
import { type Call, empty, json, type Reply } from './call.js';
import { readLogQuery } from './logs.js';

/** Commands in containers of this host that are remembered, those that have ended too. */
const EXECS_MAX = 1_024;
const EXEC_BODY_BYTES_MAX = 65_536;
/** As Docker's, where nothing else is said. */
const STOP_GRACE_S = 10;
const STATS_INTERVAL_MS = 1_000;
const FOREVER_MS = 2 ** 31 - 1;

const LIST_FILTERS = [
  ...['ancestor', 'before', 'exited', 'expose', 'health', 'id', 'isolation', 'is-task', 'label'],
  ...['name', 'network', 'publish', 'since', 'status', 'volume'],
];

const execAsked = z.object({
  Cmd: z.array(z.string()).min(1),
  Env: z.array(z.string()).nullish(),
  WorkingDir: z.string().nullish(),
  User: z.string().nullish(),
  Tty: z.boolean().nullish(),
  Privileged: z.boolean().nullish(),
  AttachStdin: z.boolean().nullish(),
});

interface Exec {
  readonly container: HostContainer;
  readonly spec: HostExecSpec;
  readonly hasInput: boolean;
  process: HostProcess | undefined;
  exitCode: number | undefined;
}

/** Docker's containers API for the tasks of the host runtime. */
export class HostRoutes {
  readonly #host: HostContainers;
  /** The oldest first. */
  readonly #execs = new Map<string, Exec>();

  constructor(host: HostContainers) {
    this.#host = host;
  }

  /** All that are asked for, as Docker's list has them. */
  async list(call: Call): Promise<readonly unknown[]> {
    const filters = parseFilters(call.query.get('filters'), LIST_FILTERS);
    const all = flagOf(call.query, 'all') || filters.has('status');
    const containers = await this.#host.list();
    return containers
      .filter(
        ({ id, name, labels, state }) =>
          (all || state === 'running') &&
          matchesAny(filters, 'id', (value) => id.startsWith(value)) &&
          matchesAny(filters, 'name', (value) => name.includes(value.replace(/^\//, ''))) &&
          matchesAny(
            filters,
            'status',
            (value) => value === (state === 'prepared' ? 'created' : state),
          ) &&
          matchesAny(filters, 'is-task', (value) => value !== 'false') &&
          matchesAny(filters, 'ancestor', (value) => value === 'host') &&
          matchesLabels(filters, 'label', labels),
      )
      .map((container) => hostContainerJson(container, call.nowMs));
  }

  /** Of all. */
  async states(): Promise<readonly HostContainer['state'][]> {
    return (await this.#host.list()).map(({ state }) => state);
  }

  async find(ref: string): Promise<HostContainer | undefined> {
    return findHostContainer(await this.#host.list(), ref);
  }

  hasExec(id: string): boolean {
    return this.#execs.has(id);
  }

  /** @param verb What follows the container in the path. */
  async ofContainer(
    method: string,
    verb: string,
    container: HostContainer,
    call: Call,
  ): Promise<Reply> {
    const { taskId } = container;
    switch (`${method} ${verb}`) {
      case 'GET json':
        return json(hostInspectJson(container));
      case 'GET logs':
        return this.#logs(container, call);
      case 'GET top':
        return json(hostTopJson(await this.#host.top(taskId)));
      case 'GET stats':
        return this.#stats(container, call);
      case 'POST stop':
      case 'POST restart': {
        const seconds = Number(call.query.get('t') || STOP_GRACE_S);
        const signal = call.query.get('signal') ?? '';
        const graceMs = seconds < 0 ? FOREVER_MS : seconds * 1000;
        await this.#host.stop(taskId, { ...(signal === '' ? {} : { signal }), graceMs });
        return empty(204);
      }
      case 'POST kill':
        return await this.#kill(container, call);
      case 'POST wait':
        return this.#wait(container);
      case 'POST exec':
        return this.#createExec(container, await call.body());
      case 'DELETE ':
        if (container.state === 'running' && !flagOf(call.query, 'force'))
          throw new ApiError(
            { code: 'API_CONFLICT' },
            `You cannot remove a running container ${container.id}. Stop the container before attempting removal or force remove`,
          );
        await this.#host.remove(taskId);
        return empty(204);
      default:
        throw new ApiError(
          { code: 'API_UNSUPPORTED' },
          `a task of the host runtime has no ${verb === '' ? method : verb}`,
        );
    }
  }

  /** What is asked of a command without speaking to it. */
  async ofExec(method: string, verb: string, id: string, call: Call): Promise<Reply> {
    const exec = this.#mustExec(id);
    if (method === 'GET' && verb === 'json') return json(execJson(id, exec));
    if (method === 'POST' && verb === 'resize') {
      exec.process?.resize(sizeOf(call.query));
      return empty(200);
    }
    if (method === 'POST' && verb === 'start') {
      return {
        kind: 'raw',
        serve: (request, response) => this.#startDetached(exec, request, response),
      };
    }
    throw new ApiError({ code: 'API_NOT_FOUND' }, 'page not found');
  }

  /** `POST /exec/{id}/start`, on a connection that becomes the command's input and output. */
  async start(id: string, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const exec = this.#mustExec(id);
    const size = Number(request.headers['content-length'] ?? 0);
    if (size > EXEC_BODY_BYTES_MAX) throw badRequest('the request body is too large');
    const input = inputOf(socket, head);
    let buffered = Buffer.alloc(0);
    while (buffered.length < size) {
      const { done, value } = await input.next();
      if (done === true) break;
      buffered = Buffer.concat([buffered, value]);
    }
    const rest = buffered.subarray(size);
    const type = exec.spec.tty ? 'raw' : 'multiplexed';
    socket.write(
      `HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.${type}-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
    );
    const gone = new AbortController();
    socket.once('close', () => gone.abort());
    const output = async (stream: 'stdout' | 'stderr', data: Uint8Array) => {
      if (!socket.writable) return;
      if (!socket.write(encodeLine(stream, '', data, !exec.spec.tty)))
        await once(socket, 'drain', { signal: gone.signal }).catch(() => undefined);
    };
    const stdin = exec.hasInput ? { stdin: after(rest, input) } : {};
    try {
      await this.#run(exec, { ...stdin, output }, gone.signal);
    } catch (error) {
      await output('stderr', Buffer.from(`${(error as Error).message}\n`));
      exec.exitCode = 126;
    }
    socket.end();
  }

  async #run(
    exec: Exec,
    streams: Parameters<HostContainers['exec']>[2],
    signal: AbortSignal,
  ): Promise<void> {
    exec.process = await this.#host.exec(exec.container.taskId, exec.spec, streams, signal);
    exec.exitCode = await exec.process.exited;
  }

  async #startDetached(
    exec: Exec,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    request.resume();
    const running = this.#run(exec, { output: () => undefined }, new AbortController().signal);
    running.catch(() => {
      exec.exitCode = 126;
    });
    response.writeHead(200, { 'Content-Length': '0' });
    response.end();
  }

  #createExec(container: HostContainer, body: unknown): Reply {
    if (container.state !== 'running')
      throw new ApiError({ code: 'API_CONFLICT' }, `Container ${container.id} is not running`);
    const parsed = execAsked.safeParse(body);
    if (!parsed.success) throw badRequest('No exec command specified');
    const {
      Cmd: command,
      Env: env,
      WorkingDir: dir,
      User: user,
      Tty: tty,
      Privileged,
      AttachStdin,
    } = parsed.data;
    const id = randomBytes(32).toString('hex');
    const spec: HostExecSpec = {
      command,
      tty: tty ?? false,
      ...(env ? { env } : {}),
      ...(dir ? { dir } : {}),
      ...(user ? { user } : {}),
      ...(Privileged === true ? { privileged: true } : {}),
    };
    this.#execs.set(id, {
      container,
      spec,
      hasInput: AttachStdin ?? false,
      process: undefined,
      exitCode: undefined,
    });
    const [oldest] = this.#execs.keys();
    if (this.#execs.size > EXECS_MAX && oldest !== undefined) this.#execs.delete(oldest);
    return json({ Id: id }, 201);
  }

  #mustExec(id: string): Exec {
    const exec = this.#execs.get(id);
    if (exec !== undefined) return exec;
    throw new ApiError({ code: 'API_NOT_FOUND' }, `No such exec instance: ${id}`);
  }

  /** SIGKILL ends it; what another signal does is the task's own business. */
  async #kill(container: HostContainer, call: Call): Promise<Reply> {
    const signal = call.query.get('signal') || 'SIGKILL';
    const isKill = /^(?:SIG)?KILL$|^9$/i.test(signal);
    if (isKill) await this.#host.stop(container.taskId, { signal: 'SIGKILL', graceMs: 0 });
    else
      void this.#host
        .stop(container.taskId, { signal, graceMs: FOREVER_MS })
        .catch(() => undefined);
    return empty(204);
  }

  #wait(container: HostContainer): Reply {
    return {
      kind: 'raw',
      serve: async (_request, response) => {
        response.writeHead(200, { 'Content-Type': 'application/json' });
        response.flushHeaders();
        let last: HostContainer | undefined = container;
        while (last?.state === 'running' && !response.destroyed) {
          await delay(STATS_INTERVAL_MS / 4);
          last = await this.find(container.id);
        }
        response.end(`${JSON.stringify({ StatusCode: last?.exitCode ?? 0 })}\n`);
      },
    };
  }

  #logs(container: HostContainer, call: Call): Reply {
    const query = readLogQuery(call);
    const shown = { timestamps: flagOf(call.query, 'timestamps'), details: false };
    return {
      kind: 'raw',
      serve: async (_request, response) => {
        const gone = new AbortController();
        response.once('close', () => gone.abort());
        const type = container.tty ? 'raw' : 'multiplexed';
        response.writeHead(200, { 'Content-Type': `application/vnd.docker.${type}-stream` });
        response.flushHeaders();
        const whose = { taskId: container.taskId, nodeId: '', serviceId: '' };
        for await (const line of this.#host.logs(container.taskId, query, gone.signal)) {
          const prefix = linePrefix({ ...whose, ...line }, shown);
          if (!response.write(encodeLine(line.stream, prefix, line.data, !container.tty)))
            await once(response, 'drain', { signal: gone.signal }).catch(() => undefined);
        }
        response.end();
      },
    };
  }

  #stats(container: HostContainer, call: Call): Reply {
    const isStream = call.query.get('stream') === null || flagOf(call.query, 'stream');
    const isOneShot = flagOf(call.query, 'one-shot');
    return {
      kind: 'raw',
      serve: async (_request, response) => {
        let before: HostStats | undefined;
        response.writeHead(200, { 'Content-Type': 'application/json' });
        for (;;) {
          const stats = await this.#host.stats(container.taskId).catch(() => undefined);
          if (stats === undefined) break;
          const isTold = isStream || isOneShot || before !== undefined;
          const value = hostStatsJson(container, stats, before, availableParallelism());
          if (isTold) response.write(`${JSON.stringify(value)}\n`);
          if ((!isStream && isTold) || response.destroyed) break;
          before = stats;
          await delay(STATS_INTERVAL_MS);
        }
        response.end();
      },
    };
  }
}

function execJson(id: string, { container, spec, process, exitCode }: Exec) {
  const [entrypoint = '', ...args] = spec.command;
  return {
    ID: id,
    Running: process !== undefined && exitCode === undefined,
    ExitCode: exitCode ?? null,
    ProcessConfig: {
      tty: spec.tty,
      entrypoint,
      arguments: args,
      privileged: spec.privileged ?? false,
    },
    OpenStdin: false,
    OpenStderr: true,
    OpenStdout: true,
    CanRemove: false,
    ContainerID: container.id,
    DetachKeys: '',
    Pid: process?.pid ?? 0,
  };
}

function sizeOf(query: URLSearchParams): { readonly rows: number; readonly columns: number } {
  return { rows: Number(query.get('h') ?? 0), columns: Number(query.get('w') ?? 0) };
}

async function* inputOf(socket: Duplex, head: Buffer): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) yield chunk as Buffer;
}

async function* after(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first;
  yield* rest;
}
