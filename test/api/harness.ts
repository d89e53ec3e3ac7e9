import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiServer, type Logger } from '../../src/api/index.js';
import { FakeBackend } from './fake-backend.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly bytes: Buffer;
  /** The parsed body, `undefined` where there is none. */
  readonly body: unknown;
}

export const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

type Teardown = { teardown(hook: () => unknown): void };

export function temporaryFolder(t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-api-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A server over a fake backend on a socket of its own, closed with the test. */
export async function serve(t: Teardown, backend = FakeBackend.manager(), log = silent) {
  const socketPath = join(temporaryFolder(t), 'api.sock');
  const api = await ApiServer.listen({ socketPath }, { backend, log });
  t.teardown(() => api.close());
  return {
    api,
    backend,
    socketPath,
    call: (method: string, path: string, body?: unknown) => call(socketPath, method, path, body),
  };
}

/** One request; `body` goes as JSON unless it is text already. */
export function call(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const outgoing = request(
      {
        socketPath,
        method,
        path,
        agent: false,
        headers: {
          ...(payload === undefined
            ? {}
            : {
                'Content-Type': 'application/json',
                'Content-Length': String(Buffer.byteLength(payload)),
              }),
          ...headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          const text = bytes.toString();
          // Events are one JSON a line.
          const isJson =
            response.headers['content-type'] === 'application/json' && !path.includes('/events?');
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            bytes,
            body: isJson && text !== '' ? JSON.parse(text) : undefined,
          });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(payload);
  });
}
