import type { LogQuery, LogRecord } from '../../core/runtime.js';

/** Lines of the two streams may stand in a log that far out of the order of their times. */
const DISORDER_NS = 2_000_000_000n;

interface Reached {
  readonly atNs: bigint;
  /** Records with just this time: parts of one long line share it. */
  readonly count: number;
}

/**
 * How far a log was read, so that a second reading goes on from there. Within a stream the times do not
 * decrease; between the two they may, by little.
 */
export class LogPlace {
  readonly #reached = new Map<LogRecord['stream'], Reached>();

  passed({ stream, atNs }: LogRecord): void {
    const before = this.#reached.get(stream);
    const count = before?.atNs === atNs ? before.count + 1 : 1;
    this.#reached.set(stream, { atNs, count });
  }

  /** From when a second reading has to begin; `undefined`: there was no record. */
  get sinceNs(): bigint | undefined {
    if (this.#reached.size === 0) return undefined;
    let newest = DISORDER_NS;
    for (const { atNs } of this.#reached.values()) if (atNs > newest) newest = atNs;
    return newest - DISORDER_NS;
  }

  /** Of a second reading: whether a record is one that was not passed. Records come in their order. */
  unseen(): (record: LogRecord) => boolean {
    const left = new Map([...this.#reached].map(([stream, { count }]) => [stream, count]));
    return ({ stream, atNs }) => {
      const reached = this.#reached.get(stream);
      if (reached === undefined || atNs > reached.atNs) return true;
      const known = left.get(stream) ?? 0;
      if (atNs < reached.atNs || known === 0) return atNs >= reached.atNs;
      left.set(stream, known - 1);
      return false;
    };
  }
}

const NS_PER_S = 1_000_000_000n;

const secondsOf = (ns: bigint) => `${ns / NS_PER_S}.${String(ns % NS_PER_S).padStart(9, '0')}`;
const nsOf = (ms: number) => BigInt(Math.round(ms)) * 1_000_000n;

/** The query of an engine's `logs` route. */
export function logQuery(query: LogQuery): Record<string, string> {
  const { stdout, stderr, follow, tail, sinceMs, untilMs } = query;
  return {
    timestamps: '1',
    stdout: stdout ? '1' : '0',
    stderr: stderr ? '1' : '0',
    follow: follow ? '1' : '0',
    ...(tail === undefined ? {} : { tail: String(tail) }),
    ...(sinceMs === undefined ? {} : { since: secondsOf(nsOf(sinceMs)) }),
    ...(untilMs === undefined ? {} : { until: secondsOf(nsOf(untilMs)) }),
  };
}

/** The query for what a reader that followed from `askedAtMs` on may have missed. */
export function restQuery(
  query: LogQuery,
  place: LogPlace,
  askedAtMs: number,
): Record<string, string> {
  const since = place.sinceNs ?? (query.tail === 0 ? nsOf(askedAtMs) : undefined);
  if (since === undefined) return logQuery({ ...query, follow: false });
  const { tail: _, ...all } = logQuery({ ...query, follow: false });
  return { ...all, since: secondsOf(since) };
}
