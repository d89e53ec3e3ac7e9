import { setTimeout as delay } from 'node:timers/promises';
import { eventJson } from '../wire/inspect-json.js';
import { LineReader } from '../wire/raw-stream.js';
import type { EngineClient } from './engine-client.js';

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 5_000;

/** Something happened to a container. */
export interface EngineEvent {
  readonly id: string;
  readonly action: string;
  /** Its labels, and what belongs to the action. */
  readonly attributes: Readonly<Record<string, string>>;
}

export interface EventListener {
  /** Events come from now on; what came before is not known. */
  onConnected(): void;
  onEvent(event: EngineEvent): void;
  /** Once for each time that the engine goes away. */
  onLost(reason: string): void;
}

/** The engine's events, asked for again whenever they end: an engine may restart. */
export class EngineEvents {
  readonly #client: EngineClient;
  readonly #listener: EventListener;
  readonly #closing = new AbortController();

  constructor(client: EngineClient, listener: EventListener) {
    this.#client = client;
    this.#listener = listener;
  }

  start(labels: Readonly<Record<string, string>>): void {
    void this.#run(Object.entries(labels).map(([name, value]) => `${name}=${value}`));
  }

  close(): void {
    this.#closing.abort();
  }

  async #run(label: readonly string[]): Promise<void> {
    const { signal } = this.#closing;
    let waitMs = RETRY_MS_MIN;
    let isKnownLost = false;
    while (!signal.aborted) {
      try {
        const filters = { type: ['container'], label };
        const query = { filters: JSON.stringify(filters) };
        const answer = await this.#client.stream({ path: '/events', query, signal });
        waitMs = RETRY_MS_MIN;
        isKnownLost = false;
        this.#listener.onConnected();
        await this.#read(answer as AsyncIterable<Buffer>);
        throw new Error('events have ended');
      } catch (error) {
        if (signal.aborted) return;
        if (!isKnownLost) this.#listener.onLost((error as Error).message);
        isKnownLost = true;
      }
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
      waitMs = Math.min(2 * waitMs, RETRY_MS_MAX);
    }
  }

  async #read(answer: AsyncIterable<Buffer>): Promise<void> {
    const lines = new LineReader();
    for await (const chunk of answer) for (const line of lines.push(chunk)) this.#onLine(line);
  }

  #onLine(line: Buffer): void {
    let json: unknown;
    try {
      json = JSON.parse(line.toString());
    } catch {
      return;
    }
    const parsed = eventJson.safeParse(json);
    if (!parsed.success) return;
    const { Action: action, Actor: actor } = parsed.data;
    this.#listener.onEvent({ id: actor.ID, action, attributes: actor.Attributes });
  }
}
