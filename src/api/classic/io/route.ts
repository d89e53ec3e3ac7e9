import type { IncomingMessage } from 'node:http';
import type { Reply } from '../../io/call.js';

/** One request to the cluster, as a route sees it. */
export interface ClassicCall {
  readonly request: IncomingMessage;
  /** What the pattern of the route has caught, percent-decoded. */
  readonly ref: string;
  /** The last part of the path, where the pattern catches it. */
  readonly verb: string;
  /** `/v1.45`, or nothing. */
  readonly version: string;
  readonly query: URLSearchParams;
  /** The request's JSON. */
  body(): Promise<unknown>;
  /** Aborts when the client has gone. */
  readonly gone: AbortSignal;
}

export interface ClassicRoute {
  readonly methods: readonly string[];
  /** Of the path without the version; groups `ref` and `verb`. */
  readonly path: RegExp;
  /** `undefined`: it is the swarm's, or this node's alone. */
  handle(call: ClassicCall): Promise<Reply | undefined>;
}

/** With what is asked after the path. */
export function withQuery(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return text === '' ? path : `${path}?${text}`;
}
