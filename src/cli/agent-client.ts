import { type IncomingMessage, request } from 'node:http';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { CliError, usage } from './error.js';

export const SOCKET_DEFAULT = '/run/shoal/docker.sock';
const RESPONSE_BYTES_MAX = 64 << 20;

/** Which socket the agent is asked on: the flag, `SHOAL_SOCKET`, `DOCKER_HOST`, the default. */
export function socketPathOf(flag: string | undefined, env: NodeJS.ProcessEnv): string {
  const chosen = flag ?? env['SHOAL_SOCKET'];
  if (chosen !== undefined && chosen !== '') return chosen.replace(/^unix:\/\//, '');
  const host = env['DOCKER_HOST'] ?? '';
  if (host === '') return SOCKET_DEFAULT;
  const path = /^unix:\/\/(?<path>\/.+)$/.exec(host)?.groups?.['path'];
  if (path !== undefined) return path;
  throw usage(`DOCKER_HOST is ${host}, but shoal's own verbs need a unix socket: give --socket`);
}

/** Whether what was asked for is not there. */
export function notFound(error: unknown): boolean {
  return (
    error instanceof CliError && error.detail.code === 'CLI_REFUSED' && error.detail.status === 404
  );
}

/** The agent's HTTP API on its unix socket. */
export class AgentClient {
  readonly #socketPath: string;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;

  /**
   * @param timeoutMs Patience with one request: attaching waits for the manager.
   * @param signal Breaks off requests.
   */
  constructor(socketPath: string, timeoutMs = 60_000, signal?: AbortSignal) {
    this.#socketPath = socketPath;
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
  }

  get socketPath(): string {
    return this.#socketPath;
  }

  /**
   * @returns The decoded JSON, or the text if it is none; `undefined` for an empty body.
   * @throws CliError CLI_UNREACHABLE, CLI_REFUSED.
   */
  async call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
    const { status, text } = await this.#exchange(method, path, body);
    const value = parseBody(text);
    if (status < 400) return value;
    throw this.#refused(status, value, path);
  }

  #refused(status: number, value: unknown, path: string): CliError {
    const { message, code } = (typeof value === 'object' && value !== null ? value : {}) as {
      message?: unknown;
      code?: unknown;
    };
    const refusal = typeof code === 'string' ? code : undefined;
    // An engine that is not Shoal knows none of Shoal's paths.
    if (status === 404 && refusal === undefined && path.startsWith('/shoal/')) {
      const text = `what answers on ${this.#socketPath} is not a shoal agent: give --socket`;
      return new CliError({ code: 'CLI_REFUSED', status, refusal }, text);
    }
    const text = typeof message === 'string' && message !== '' ? message : `HTTP status ${status}`;
    return new CliError({ code: 'CLI_REFUSED', status, refusal }, text);
  }

  /**
   * Writes the body of an answer to `sink`, at its pace.
   *
   * @param onBytes Is told how many bytes have come so far.
   * @throws CliError CLI_UNREACHABLE, also if the answer is cut short; CLI_REFUSED.
   */
  download(path: string, sink: Writable, onBytes: (bytes: number) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.#socketPath,
          path,
          headers: { host: 'shoal', connection: 'close' },
          timeout: this.#timeoutMs,
          ...(this.#signal === undefined ? {} : { signal: this.#signal }),
        },
        (response) => {
          const { statusCode: status = 500 } = response;
          if (status >= 400) {
            textOf(response).then(
              (text) => reject(this.#refused(status, parseBody(text), path)),
              (error) => reject(this.#unreachable(error)),
            );
            return;
          }
          let bytes = 0;
          response.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            onBytes(bytes);
          });
          pipeline(response, sink).then(resolve, (error: NodeJS.ErrnoException) =>
            // What is wrong with the sink says so itself.
            reject(error.syscall === 'write' ? error : this.#unreachable(error)),
          );
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(this.#late()));
      outgoing.on('error', (error) => reject(this.#unreachable(error)));
      outgoing.end();
    });
  }

  #late(): Error {
    return new Error(`no answer in ${this.#timeoutMs / 1000} s`);
  }

  #exchange(
    method: string,
    path: string,
    body: unknown,
  ): Promise<{ readonly status: number; readonly text: string }> {
    return new Promise((resolve, reject) => {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      const outgoing = request(
        {
          socketPath: this.#socketPath,
          method,
          path,
          headers: {
            host: 'shoal',
            connection: 'close',
            ...(payload === undefined
              ? {}
              : {
                  'content-type': 'application/json',
                  'content-length': Buffer.byteLength(payload),
                }),
          },
          timeout: this.#timeoutMs,
          ...(this.#signal === undefined ? {} : { signal: this.#signal }),
        },
        (response) => {
          textOf(response).then(
            (text) => resolve({ status: response.statusCode ?? 500, text }),
            (error) => reject(this.#unreachable(error)),
          );
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(this.#late()));
      outgoing.on('error', (error) => reject(this.#unreachable(error)));
      outgoing.end(payload);
    });
  }

  #unreachable(error: NodeJS.ErrnoException): CliError {
    const socket = this.#socketPath;
    const why: Readonly<Record<string, string>> = {
      ENOENT: `there is no agent socket at ${socket}: start 'shoal agent', or give --socket`,
      ECONNREFUSED: `no agent listens on ${socket}: start 'shoal agent', or give --socket`,
      EACCES: `no permission to use ${socket}: run as root`,
    };
    const message = why[error.code ?? ''] ?? `the agent on ${socket} broke off: ${error.message}`;
    return new CliError({ code: 'CLI_UNREACHABLE', socket }, message, { cause: error });
  }
}

function textOf(response: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > RESPONSE_BYTES_MAX) response.destroy(new Error('answer too large'));
    });
    response.on('end', () => resolve(text));
    response.on('error', reject);
  });
}

function parseBody(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
