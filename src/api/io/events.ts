import type { ServerResponse } from 'node:http';
import type { Backend } from '../core/backend.js';
import { type Filters, matchesAny, matchesLabels, parseFilters } from '../core/filters.js';
import { momentMs } from '../core/parameters.js';
import { ApiError, badRequest } from '../wire/errors.js';
import { eventLine } from '../wire/event-json.js';
import type { SwarmEvent } from '../wire/records.js';
import type { Call, Reply } from './call.js';

export const EVENT_STREAMS_MAX = 64;
/** A reader that is further behind is cut off: it would only grow our memory. */
export const EVENT_BACKLOG_BYTES_MAX = 1024 * 1024;

/** Events that are kept for who asks for the past. */
export const EVENTS_KEPT_MAX = 256;

/** Longest delay of a timer. */
const TIMER_MS_MAX = 0x7fff_ffff;

const EVENT_FILTERS = [
  ...['config', 'container', 'daemon', 'event', 'image', 'label', 'network', 'node', 'plugin'],
  ...['scope', 'secret', 'service', 'type', 'volume'],
];

function wants(filters: Filters, event: SwarmEvent): boolean {
  const name = event.attributes['name'] ?? '';
  const kinds = ['config', 'container', 'image', 'network', 'node', 'secret', 'service', 'volume'];
  return (
    matchesAny(filters, 'type', (value) => value === event.kind) &&
    matchesAny(filters, 'event', (value) => value === event.action) &&
    matchesAny(filters, 'scope', (value) => value === 'swarm') &&
    matchesLabels(filters, 'label', event.attributes) &&
    kinds.every((kind) =>
      matchesAny(
        filters,
        kind,
        (value) => kind === event.kind && (value === event.id || value === name),
      ),
    )
  );
}

/** The readers of `GET /events`. Of the past the last events are kept, from the agent's start on. */
export class EventStreams {
  readonly #backend: Backend;
  readonly #open = new Set<ServerResponse>();

  readonly #kept: SwarmEvent[] = [];
  readonly #unsubscribe: (() => void) | undefined;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.#unsubscribe = backend.onEvent?.((event) => {
      this.#kept.push(event);
      if (this.#kept.length > EVENTS_KEPT_MAX) this.#kept.shift();
    });
  }

  get count(): number {
    return this.#open.size;
  }

  close(): void {
    this.#unsubscribe?.();
  }

  reply(call: Call): Reply {
    const filters = parseFilters(call.query.get('filters'), EVENT_FILTERS);
    for (const name of ['since', 'until']) {
      const text = call.query.get(name) ?? '';
      if (text !== '' && momentMs(text, call.nowMs) === undefined) {
        throw badRequest(`invalid ${name}: ${text} is neither a time in seconds nor a duration`);
      }
    }
    const until = call.query.get('until') ?? '';
    const untilMs = until === '' ? undefined : momentMs(until, call.nowMs);
    const since = call.query.get('since') ?? '';
    const sinceMs = since === '' ? undefined : momentMs(since, call.nowMs);
    if (this.#open.size >= EVENT_STREAMS_MAX) {
      throw new ApiError(
        { code: 'API_UNAVAILABLE' },
        `${EVENT_STREAMS_MAX} readers of events are connected already: close one first`,
      );
    }
    return {
      kind: 'stream',
      open: (response, closing) =>
        this.#run(
          response,
          closing,
          filters,
          this.#past(filters, sinceMs, untilMs),
          untilMs === undefined ? undefined : untilMs - call.nowMs,
        ),
    };
  }

  #past(
    filters: Filters,
    sinceMs: number | undefined,
    untilMs = Number.POSITIVE_INFINITY,
  ): SwarmEvent[] {
    if (sinceMs === undefined) return [];
    return this.#kept.filter(
      (event) => event.atMs >= sinceMs && event.atMs <= untilMs && wants(filters, event),
    );
  }

  #run(
    response: ServerResponse,
    closing: AbortSignal,
    filters: Filters,
    past: readonly SwarmEvent[],
    lastsMs: number | undefined,
  ): void {
    this.#open.add(response);
    response.writeHead(200, { 'Content-Type': 'application/json' });
    // The CLI waits for the head before it believes that it is listening.
    response.flushHeaders();
    for (const event of past) response.write(eventLine(event));
    const end = () => response.end();
    const unsubscribe = this.#backend.onEvent?.((event) => {
      if (response.writableEnded || response.destroyed || !wants(filters, event)) return;
      response.write(eventLine(event));
      if (response.writableLength > EVENT_BACKLOG_BYTES_MAX) response.destroy();
    });
    const timer =
      lastsMs === undefined
        ? undefined
        : setTimeout(end, Math.min(Math.max(lastsMs, 0), TIMER_MS_MAX));
    closing.addEventListener('abort', end, { once: true });
    response.once('close', () => {
      this.#open.delete(response);
      unsubscribe?.();
      clearTimeout(timer);
      closing.removeEventListener('abort', end);
    });
    if (closing.aborted) end();
  }
}
