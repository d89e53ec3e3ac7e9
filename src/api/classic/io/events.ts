import type { ServerResponse } from 'node:http';
import { EVENT_BACKLOG_BYTES_MAX } from '../../io/events.js';
import { openUpstream } from '../../io/upstream.js';
import { clusterEvent, type Origin } from '../wire/lists.js';
import type { ClassicCluster } from './cluster.js';
import { linesOf } from './lines.js';

/** Nodes that have joined, or come back, are listened to after that. */
const LOOK_MS = 2_000;

/**
 * `GET /events` of the cluster: what each node tells, in one stream, with the node's name. A node that is
 * lost is listened to again when it is back.
 *
 * @param path With the client's filters.
 */
export function followCluster(
  cluster: ClassicCluster,
  path: string,
  response: ServerResponse,
  closing: AbortSignal,
): void {
  const gone = new AbortController();
  const signal = AbortSignal.any([gone.signal, closing]);
  const isBounded = /[?&]until=[^&]/.test(path);
  const listened = new Map<string, Promise<void>>();
  response.writeHead(200, { 'Content-Type': 'application/json' });
  // The CLI waits for the head before it believes that it is listening.
  response.flushHeaders();
  const write = (line: string) => {
    if (response.writable) response.write(`${line}\n`);
    if (response.writableLength > EVENT_BACKLOG_BYTES_MAX) response.destroy();
  };
  const listen = () => {
    for (const { trouble, labels: _, ...member } of membersOf(cluster)) {
      if (trouble !== undefined || listened.has(member.id)) continue;
      const origin: Origin = { ...member, labels: {} };
      const isSelf = member.id === cluster.self;
      const done = follow(cluster, origin, isSelf, path, write, signal).finally(() => {
        // Of the past each is asked once.
        if (!isBounded) listened.delete(member.id);
      });
      listened.set(member.id, done);
    }
  };
  listen();
  const timer = isBounded ? undefined : setInterval(listen, LOOK_MS);
  const end = () => response.end();
  signal.addEventListener('abort', end, { once: true });
  response.once('close', () => {
    clearInterval(timer);
    gone.abort();
  });
  if (isBounded) void Promise.all(listened.values()).then(end);
}

function membersOf(cluster: ClassicCluster) {
  try {
    return cluster.members();
  } catch {
    // No manager any more: what is listened to goes on.
    return [];
  }
}

/** Never rejects. */
async function follow(
  cluster: ClassicCluster,
  origin: Origin,
  isSelf: boolean,
  path: string,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  try {
    const answer = await openUpstream(cluster.upstream(origin.id), { path }, signal);
    if (answer.statusCode !== 200) {
      answer.destroy();
      return;
    }
    for await (const line of linesOf(answer)) {
      const event = clusterEvent(line, origin);
      if (event !== undefined) write(event);
      else if (isSelf) write(line);
    }
  } catch {
    // The node is away, or nobody listens any more.
  }
}
