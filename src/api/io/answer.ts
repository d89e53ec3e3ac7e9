import type { ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { SwarmError } from '../../base/swarm-error.js';
import {
  ApiError,
  apiRefusal,
  type Refusal,
  type RefusalContext,
  swarmRefusal,
} from '../wire/errors.js';
import type { Answer } from './call.js';

export type Headers = Readonly<Record<string, string>>;

/** Status and words of a refusal; `undefined`: this was none, but a failure. */
export function refusalOf(
  error: unknown,
  context: (() => RefusalContext) | undefined,
): Refusal | undefined {
  if (error instanceof SwarmError) return swarmRefusal(error.detail, error.message, context?.());
  if (error instanceof ApiError) return apiRefusal(error.detail, error.message);
  return undefined;
}

export function unforeseen(error: unknown): Refusal {
  return { status: 500, message: error instanceof Error ? error.message : 'internal error' };
}

export function send(
  response: ServerResponse,
  isHead: boolean,
  reply: Answer,
  closing: AbortSignal,
): void {
  if (response.destroyed || response.headersSent) return;
  if (closing.aborted) response.setHeader('Connection', 'close');
  switch (reply.kind) {
    case 'stream':
      reply.open(response, closing);
      return;
    case 'empty':
      if (reply.status !== 204) response.setHeader('Content-Length', '0');
      response.writeHead(reply.status);
      response.end();
      return;
    case 'json':
      // Exactly this type: with a charset behind it, the CLI shows errors as raw JSON.
      response.setHeader('Content-Type', 'application/json');
      sendBody(response, isHead, reply.status, `${JSON.stringify(reply.value ?? null)}\n`);
      return;
    case 'json-text':
      response.setHeader('Content-Type', 'application/json');
      sendBody(response, isHead, 200, `${reply.text}\n`);
      return;
    case 'text':
      for (const [name, value] of Object.entries(reply.headers ?? {})) {
        response.setHeader(name, value);
      }
      response.setHeader('Content-Type', reply.type);
      sendBody(response, isHead, 200, reply.text);
      return;
  }
}

function sendBody(response: ServerResponse, isHead: boolean, status: number, body: string): void {
  // A ping by HEAD says zero, as the real engine does.
  response.setHeader('Content-Length', isHead ? 0 : Buffer.byteLength(body));
  response.writeHead(status);
  response.end(isHead ? undefined : body);
}

/** Answers where there is no response object, and closes. `status` is code and reason. */
export function answerRaw(socket: Duplex, headers: Headers, status: string, message: string): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const body = `${JSON.stringify({ message })}\n`;
  const lines = Object.entries({
    ...headers,
    'Content-Type': 'application/json',
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\n${lines.join('')}\r\n${body}`);
}
