import type { SwarmEvent } from './records.js';
import { formatTimeNs } from './time.js';

/** One line of `GET /events`. */
export function eventLine(event: SwarmEvent): string {
  const body = JSON.stringify({
    Type: event.kind,
    Action: event.action,
    Actor: { ID: event.id, Attributes: event.attributes },
    scope: 'swarm',
    time: Math.floor(event.atMs / 1000),
  });
  // By hand: nanoseconds of today exceed 2^53, and a JavaScript number would round them.
  return `${body.slice(0, -1)},"timeNano":${formatTimeNs(event.atMs)}}\n`;
}
