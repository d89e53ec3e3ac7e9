import type { IncomingMessage, ServerResponse } from 'node:http';
import type { RefusalContext } from '../wire/errors.js';

/** One request, as a route sees it. */
export interface Call {
  /** A path parameter of the route, percent-decoded. */
  param(name: string): string;
  readonly query: URLSearchParams;
  /** A header of the request; empty if it is not there. */
  header(name: string): string;
  /** Of the API, as the client speaks it: `1.45`. */
  readonly version: string;
  /** Path and query as they came. */
  readonly url: string;
  readonly nowMs: number;
  /** The request's JSON; refuses what is absent, too large or malformed. */
  body(): Promise<unknown>;
}

/** What is sent as it is. */
export type Answer =
  | { readonly kind: 'json'; readonly status: number; readonly value: unknown }
  /** JSON that is text already. */
  | { readonly kind: 'json-text'; readonly text: string }
  | { readonly kind: 'empty'; readonly status: number }
  | {
      readonly kind: 'text';
      readonly type: string;
      readonly text: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** `open` writes the head and goes on until it ends the response or `closing` aborts. */
  | { readonly kind: 'stream'; open(response: ServerResponse, closing: AbortSignal): void };

export type Reply =
  | Answer
  /** Answered by somebody else, from the request itself. Its refusals are answered as those of others. */
  | {
      readonly kind: 'raw';
      serve(request: IncomingMessage, response: ServerResponse): Promise<void>;
    };

export type Method = 'GET' | 'HEAD' | 'POST' | 'DELETE' | 'PUT';

export interface Route {
  readonly method: Method;
  /** In find-my-way's form, without the version. */
  readonly path: string;
  handle(call: Call): Reply | Promise<Reply>;
  /** Answers from the swarm's objects, which are therefore made fresh first. */
  readonly readsSwarm?: boolean;
  /** What the words of this route's refusals need to know. */
  refusalContext?(): RefusalContext;
}

/** Routes that answer from the swarm's objects. */
export const readingSwarm = (routes: readonly Route[]): Route[] =>
  routes.map((route) => ({ ...route, readsSwarm: true }));

export const json = (value: unknown, status = 200): Answer => ({ kind: 'json', status, value });
export const empty = (status = 200): Answer => ({ kind: 'empty', status });
