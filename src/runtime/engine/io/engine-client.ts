import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import type { z } from 'zod';

/** For whatever an engine does at once. */
const CALL_MS_MAX = 30_000;
/** For creating, starting and removing, which wait for disks. */
export const WORK_MS_MAX = 120_000;
const ANSWER_BYTES_MAX = 16 << 20;
/** Newer than what is used here; an engine that knows less says so. */
const NEWEST_VERSION = '1.45';

/** The engine refused, or is not there. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  /** HTTP; 0: there was no answer. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface EngineCall {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly bytes?: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** For the whole answer; of a stream, for its head. */
  readonly msMax?: number;
  readonly signal?: AbortSignal;
}

/**
 * A Docker Engine API socket. Every call has a time limit, so that an engine that hangs is an error
 * and not a wait.
 */
export class EngineClient {
  readonly socketPath: string;
  readonly #agent: Agent;
  #version: Promise<string> | undefined;

  constructor(socketPath: string) {
    this.socketPath = socketPath;
    this.#agent = new Agent({ keepAlive: true, maxFreeSockets: 8 });
  }

  close(): void {
    this.#agent.destroy();
  }

  /** @throws EngineError */
  async call<Schema extends z.ZodType>(schema: Schema, call: EngineCall): Promise<z.infer<Schema>> {
    const { msMax = CALL_MS_MAX } = call;
    const limit = AbortSignal.timeout(msMax);
    const signal = call.signal === undefined ? limit : AbortSignal.any([limit, call.signal]);
    const answer = await this.#send(call, signal);
    const text = await textOf(answer, signal, msMax);
    const parsed = schema.safeParse(text === '' ? undefined : parseJson(text));
    if (parsed.success) return parsed.data;
    throw new EngineError(0, `the engine's answer to ${call.path} is not understood`);
  }

  /** A call whose answer is not looked at. @throws EngineError */
  async act(call: EngineCall): Promise<void> {
    const { msMax = CALL_MS_MAX } = call;
    const limit = AbortSignal.timeout(msMax);
    const signal = call.signal === undefined ? limit : AbortSignal.any([limit, call.signal]);
    await textOf(await this.#send(call, signal), signal, msMax);
  }

  /** An answer that goes on; it ends with `signal`. @throws EngineError */
  async stream(call: EngineCall & { readonly signal: AbortSignal }): Promise<IncomingMessage> {
    const head = new AbortController();
    const { msMax = CALL_MS_MAX } = call;
    const timer = setTimeout(() => head.abort(), msMax);
    try {
      return await this.#send(call, AbortSignal.any([head.signal, call.signal]));
    } finally {
      clearTimeout(timer);
    }
  }

  /** `/v1.41`: the newest that both sides know. Asked once, and again after a failure. */
  async #prefix(signal: AbortSignal): Promise<string> {
    this.#version ??= this.#askVersion(signal);
    try {
      return await this.#version;
    } catch (error) {
      this.#version = undefined;
      throw error;
    }
  }

  async #askVersion(signal: AbortSignal): Promise<string> {
    const answer = await this.#request('/_ping', { path: '/_ping' }, signal);
    await textOf(answer, signal, CALL_MS_MAX);
    const offered = String(answer.headers['api-version'] ?? '1.41');
    return `/v${minorOf(offered) < minorOf(NEWEST_VERSION) ? offered : NEWEST_VERSION}`;
  }

  async #send(call: EngineCall, signal: AbortSignal): Promise<IncomingMessage> {
    const query = new URLSearchParams(call.query ?? {}).toString();
    const path = `${await this.#prefix(signal)}${call.path}${query === '' ? '' : `?${query}`}`;
    const answer = await this.#request(path, call, signal);
    const status = answer.statusCode ?? 0;
    if (status < 400) return answer;
    const text = await textOf(answer, signal, CALL_MS_MAX);
    const { message = text } = (parseJson(text) ?? {}) as { readonly message?: string };
    throw new EngineError(status, message.trim() || `the engine answers ${status}`);
  }

  async #request(path: string, call: EngineCall, signal: AbortSignal): Promise<IncomingMessage> {
    const body = call.json === undefined ? call.bytes : JSON.stringify(call.json);
    const sent = request({
      socketPath: this.socketPath,
      agent: this.#agent,
      method: call.method ?? 'GET',
      path,
      signal,
      headers: {
        host: 'engine',
        ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
        ...(call.json === undefined ? {} : { 'content-type': 'application/json' }),
        ...call.headers,
      },
    });
    // Whoever waits for the answer is told; afterwards its own errors say the same.
    sent.on('error', () => undefined);
    sent.end(body);
    try {
      const [answer] = (await once(sent, 'response')) as [IncomingMessage];
      answer.on('error', () => undefined);
      return answer;
    } catch (error) {
      throw unanswered(error as Error, call.signal);
    }
  }
}

const minorOf = (version: string) => Number(version.split('.')[1] ?? 0);

function unanswered(error: Error, asked: AbortSignal | undefined): Error {
  if (asked?.aborted === true) return error;
  if (error.name === 'AbortError') return new EngineError(0, 'the engine does not answer in time');
  return new EngineError(0, `the engine cannot be reached: ${error.message}`);
}

async function textOf(
  answer: IncomingMessage,
  signal: AbortSignal,
  msMax: number,
): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > ANSWER_BYTES_MAX) throw new EngineError(0, "the engine's answer is too large");
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof EngineError) throw error;
    const why = signal.aborted ? `within ${msMax} ms` : 'to the end';
    throw new EngineError(0, `the engine does not answer ${why}`);
  }
  return Buffer.concat(chunks).toString();
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
