import { badRequest } from '../wire/errors.js';

/** Docker's truth of a query parameter: anything but these words, if it is there at all. */
export function flagOf(query: URLSearchParams, name: string): boolean {
  const value = (query.get(name) ?? '').trim().toLowerCase();
  return !['', '0', 'no', 'false', 'none'].includes(value);
}

/** The `version` parameter of an update: which state of the object the client read. */
export function versionOf(query: URLSearchParams, what: string): number {
  const text = query.get('version') ?? '';
  if (!/^\d{1,15}$/.test(text)) throw badRequest(`invalid ${what} version '${text}'`);
  return Number(text);
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * A moment as the CLI sends it: seconds since the epoch with a fraction, or Go's duration back
 * from now (`1h30m`). `undefined`: neither.
 */
export function momentMs(text: string, nowMs: number): number | undefined {
  if (/^\d{1,12}(\.\d{1,9})?$/.test(text)) return Number(text) * 1000;
  if (!/^(\d{1,12}(\.\d{1,9})?(ns|us|µs|ms|s|m|h)){1,8}$/.test(text)) return undefined;
  let backMs = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)) {
    backMs += Number(amount) * (UNIT_MS[unit ?? ''] ?? 0);
  }
  return nowMs - backMs;
}
