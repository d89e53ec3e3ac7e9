import { composeError } from './error.js';

const NANOSECONDS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** `1m30s`, `1.5h`, `500ms` in nanoseconds, as Go and Docker write durations. */
export function parseDuration(value: string, where: string): number {
  if (value === '0') return 0;
  let total = 0;
  let rest = value;
  while (rest !== '') {
    const part = /^(?<count>\d+(\.\d*)?|\.\d+)(?<unit>ns|us|µs|ms|s|m|h)/.exec(rest);
    const { count, unit = '' } = part?.groups ?? {};
    if (part === null || count === undefined)
      throw composeError(where, `'${value}' is no duration: write for example 10s or 1m30s`);
    total += Number(count) * (NANOSECONDS[unit] ?? 0);
    rest = rest.slice(part[0].length);
  }
  if (value === '') throw composeError(where, 'an empty duration: write for example 10s');
  return Math.round(total);
}

/** `50M`, `1.5gb`, `1024` in bytes; the units are powers of 1024, as Docker's. */
export function parseBytes(value: string, where: string): number {
  const parts = /^(?<count>\d+(\.\d+)?)\s*(?<unit>[kmgtp]?)i?b?$/i.exec(value.trim())?.groups;
  if (parts === undefined)
    throw composeError(where, `'${value}' is no size: write for example 50M or 1g`);
  const power = 'kmgtp'.indexOf((parts['unit'] ?? '').toLowerCase() || ' ') + 1;
  return Math.round(Number(parts['count']) * 1024 ** power);
}
