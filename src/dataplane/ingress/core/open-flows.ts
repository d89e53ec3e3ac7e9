import type { OpenFlow } from './proxy-driver.js';

/** Open flows of these listeners, at most so many. */
export function someOpenFlows(
  flows: Iterable<{ readonly listener: number; view(): OpenFlow }>,
  listeners: ReadonlySet<number>,
  most: number,
): readonly OpenFlow[] {
  const found: OpenFlow[] = [];
  for (const flow of flows) {
    if (found.length >= most) break;
    if (listeners.has(flow.listener)) found.push(flow.view());
  }
  return found;
}
