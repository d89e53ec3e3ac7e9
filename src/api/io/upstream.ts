import {
  request as ask,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { compareVersions } from '../core/version.js';
import { ApiError } from '../wire/errors.js';

/** Another server of Docker's API: this host's engine, or the agent of another node. */
export interface Upstream {
  /** What it is called in refusals. */
  readonly name: string;
  /** Of another node. */
  readonly nodeId?: string;
  /** Of its paths. */
  readonly prefix: string;
  /** What every request to it says besides. */
  readonly headers: Readonly<Record<string, string>>;
  /** The newest that it speaks. */
  readonly apiVersion: string;
  /** @throws An error that says why it cannot be reached. */
  connect(signal: AbortSignal): Promise<Duplex>;
}

/** For the answer to a question of our own. */
const ASK_MS_MAX = 30_000;
const ANSWER_BYTES_MAX = 64 << 20;

/** RFC 9110, 7.6.1: of one connection only. */
const HOP_BY_HOP = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding'],
  ...['upgrade', 'host'],
]);

/** The path as `upstream` understands it: no newer a version than it speaks. */
export function pathFor({ prefix, apiVersion }: Upstream, url: string): string {
  const version = /^\/v(\d+\.\d+)\//.exec(url)?.[1];
  const isTooNew = version !== undefined && compareVersions(version, apiVersion) > 0;
  return prefix + (isTooNew ? url.replace(`/v${version}/`, `/v${apiVersion}/`) : url);
}

export function unreachableUpstream({ name }: Upstream, error: unknown): ApiError {
  return new ApiError(
    { code: 'API_UNAVAILABLE' },
    `${name} cannot be reached: ${(error as Error).message}`,
    { cause: error },
  );
}

/**
 * Hands a request on as it is, and the answer back as it comes, both at the pace of their readers. A
 * client that hangs up ends it there too.
 *
 * @param json In place of a body that was read already.
 * @throws ApiError API_UNAVAILABLE
 */
export async function forward(
  upstream: Upstream,
  request: IncomingMessage,
  response: ServerResponse,
  json?: unknown,
): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const body = json === undefined ? undefined : JSON.stringify(json);
  let asked: ClientRequest;
  let answer: IncomingMessage;
  try {
    const connection = await upstream.connect(gone.signal);
    asked = ask({
      method: request.method,
      path: pathFor(upstream, request.url ?? '/'),
      headers: { ...headersFor(request.headers, body), ...upstream.headers },
      createConnection: () => connection,
    });
    gone.signal.addEventListener('abort', () => asked.destroy());
    if (body === undefined) request.pipe(asked);
    else asked.end(body);
    answer = await answerOf(asked);
  } catch (error) {
    if (gone.signal.aborted) return;
    throw unreachableUpstream(upstream, error);
  }
  writeHead(response, answer);
  answer.on('error', () => response.destroy());
  answer.on('aborted', () => response.destroy());
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    answer.pipe(response);
  });
}

/** A question of our own. @throws ApiError API_UNAVAILABLE */
export async function askUpstream(
  upstream: Upstream,
  how: UpstreamQuestion & { readonly timeoutMs?: number },
): Promise<{ readonly status: number; readonly json: unknown }> {
  const limit = AbortSignal.timeout(how.timeoutMs ?? ASK_MS_MAX);
  try {
    const answer = await openUpstream(upstream, how, limit);
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > ANSWER_BYTES_MAX) throw new Error('its answer is too large');
      chunks.push(chunk);
    }
    return { status: answer.statusCode ?? 0, json: parseJson(Buffer.concat(chunks).toString()) };
  } catch (error) {
    throw unreachableUpstream(upstream, error);
  }
}

export interface UpstreamQuestion {
  readonly method?: string;
  readonly path: string;
  readonly headers?: IncomingHttpHeaders;
  readonly json?: unknown;
}

/** A question of our own, whose answer is read as it comes. */
export async function openUpstream(
  upstream: Upstream,
  { method = 'GET', path, headers = {}, json }: UpstreamQuestion,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const body = json === undefined ? undefined : JSON.stringify(json);
  const connection = await upstream.connect(signal);
  const asked = ask({
    method,
    path: pathFor(upstream, path),
    headers: {
      ...headersFor(
        body === undefined ? headers : { ...headers, 'content-type': 'application/json' },
        body,
      ),
      ...upstream.headers,
    },
    createConnection: () => connection,
    signal,
  });
  asked.end(body);
  return answerOf(asked);
}

/**
 * Joins a client that wants to speak another protocol with the upstream, byte by byte.
 *
 * @returns Ends both, whatever they wait for.
 */
export async function splice(
  upstream: Upstream,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<() => void> {
  const gone = new AbortController();
  const hangUp = () => gone.abort();
  socket.once('close', hangUp);
  socket.on('error', () => socket.destroy());
  const other = await upstream.connect(gone.signal);
  socket.off('close', hangUp);
  const lines = [`${request.method} ${pathFor(upstream, request.url ?? '/')} HTTP/1.1`];
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2)
    lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
  for (const [name, value] of Object.entries(upstream.headers)) lines.push(`${name}: ${value}`);
  other.write(`${lines.join('\r\n')}\r\n\r\n`);
  if (head.length > 0) other.write(head);
  join(socket, other);
  return () => other.destroy();
}

/** Each direction ends by itself: who has no more input still waits for output. */
function join(a: Duplex, b: Duplex): void {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.on('error', () => one.destroy());
    one.once('close', () => {
      if (!one.readableEnded) other.destroy();
    });
    one.pipe(other);
  }
}

function answerOf(asked: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    asked.on('error', reject);
    asked.once('response', resolve);
  });
}

function headersFor(headers: IncomingHttpHeaders, body: string | undefined) {
  const kept = Object.entries(headers).filter(
    ([name]) => !HOP_BY_HOP.has(name) && !(body !== undefined && name === 'content-length'),
  );
  return {
    ...Object.fromEntries(kept),
    host: 'docker',
    ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
  };
}

function writeHead(response: ServerResponse, answer: IncomingMessage): void {
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined && !HOP_BY_HOP.has(name) && !OURS.has(name))
      response.setHeader(name, value);
  }
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage);
  // Whoever waits for a container's end waits for this head first.
  response.flushHeaders();
}

/** Who answers is told by us, in all answers alike. */
const OURS = new Set(['api-version', 'server']);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
