// What a statement finds the swarm to be, or not to be.
import { setTimeout as delay } from 'node:timers/promises';

export class Difference extends Error {}

const POLL_MS = 100;

export function must(holds, what) {
  if (!holds) throw new Difference(what);
}

export const oneLine = (text) =>
  text
    .trim()
    .replaceAll(/\s*\n\s*/g, ' | ')
    .slice(0, 300);

export function mustMatch(text, pattern, what = 'output') {
  must(pattern.test(text), `${what} is '${oneLine(text)}', not like ${pattern}`);
}

/** Polls until it holds; the last reason tells why it did not. */
export async function until(what, seconds, look) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    let why = '';
    try {
      const held = await look();
      if (held !== false && held !== undefined) return held;
    } catch (error) {
      if (!(error instanceof Difference)) throw error;
      why = `: ${error.message}`;
    }
    if (Date.now() > end) throw new Difference(`${what}: not within ${seconds} s${why}`);
    await delay(POLL_MS);
  }
}
