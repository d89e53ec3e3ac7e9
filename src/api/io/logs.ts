import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Backend } from '../core/backend.js';
import { flagOf, momentMs } from '../core/parameters.js';
import type { TaskLogQuery } from '../core/service-backend.js';
import { compareVersions } from '../core/version.js';
import { ApiError, badRequest } from '../wire/errors.js';
import { encodeLine, linePrefix } from '../wire/log-frames.js';
import type { Call, Reply } from './call.js';

export const LOG_STREAMS_MAX = 256;

const RAW = 'application/vnd.docker.raw-stream';
const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';

interface Shown {
  readonly timestamps: boolean;
  readonly details: boolean;
  /** Lines are in frames, which tell the streams apart; a terminal has only one. */
  readonly framed: boolean;
}

/** The readers of `GET /services/{id}/logs` and `GET /tasks/{id}/logs`. */
export class LogStreams {
  readonly #backend: Backend;
  #open = 0;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  reply(call: Call, which: Pick<TaskLogQuery, 'serviceId' | 'taskId'>, isTty: boolean): Reply {
    const query = { ...which, ...readLogQuery(call) };
    if (this.#open >= LOG_STREAMS_MAX) {
      throw new ApiError(
        { code: 'API_UNAVAILABLE' },
        `${LOG_STREAMS_MAX} readers of logs are connected already: close one first`,
      );
    }
    const shown = {
      timestamps: flagOf(call.query, 'timestamps'),
      details: flagOf(call.query, 'details'),
      framed: !isTty,
    };
    const isMarked = shown.framed && compareVersions(call.version, '1.42') >= 0;
    return {
      kind: 'stream',
      open: (response, closing) => {
        response.writeHead(200, { 'Content-Type': isMarked ? MULTIPLEXED : RAW });
        // A follower of silent tasks waits for the head.
        response.flushHeaders();
        void this.#run(response, closing, query, shown);
      },
    };
  }

  async #run(
    response: ServerResponse,
    closing: AbortSignal,
    query: TaskLogQuery,
    shown: Shown,
  ): Promise<void> {
    this.#open += 1;
    const gone = new AbortController();
    const end = () => gone.abort();
    response.once('close', end);
    closing.addEventListener('abort', end, { once: true });
    if (closing.aborted) end();
    try {
      for await (const line of this.#backend.logs(query, gone.signal)) {
        if (gone.signal.aborted) break;
        const bytes = encodeLine(line.stream, linePrefix(line, shown), line.data, shown.framed);
        if (!response.write(bytes)) await once(response, 'drain', { signal: gone.signal });
      }
    } catch (error) {
      if (!gone.signal.aborted) {
        const words = `Error grabbing logs: ${(error as Error).message}\n`;
        response.write(encodeLine('failure', words, new Uint8Array(), shown.framed));
      }
    } finally {
      this.#open -= 1;
      closing.removeEventListener('abort', end);
      response.end();
    }
  }
}

/** What a reader of logs wants of them; in Docker's words where it wants what is not. */
export function readLogQuery(call: Call): Omit<TaskLogQuery, 'serviceId' | 'taskId'> {
  const stdout = flagOf(call.query, 'stdout');
  const stderr = flagOf(call.query, 'stderr');
  if (!stdout && !stderr) throw badRequest("must specify at least one of 'stdout' or 'stderr'");
  const sinceText = call.query.get('since') ?? '';
  const sinceMs = sinceText === '' ? 0 : momentMs(sinceText, call.nowMs);
  if (sinceMs === undefined)
    throw badRequest(
      `invalid value for "since": ${sinceText} is neither a time in seconds nor a duration`,
    );
  const tail = call.query.get('tail') ?? '';
  if (/^-\d+$/.test(tail)) throw badRequest('negative tail values not supported');
  if (!/^(all|\d{0,15})$/.test(tail))
    throw badRequest('tail value must be a positive integer or "all"');
  return {
    stdout,
    stderr,
    follow: flagOf(call.query, 'follow'),
    ...(tail !== '' && tail !== 'all' && { tail: Number(tail) }),
    ...(sinceMs !== 0 && { sinceMs }),
  };
}
