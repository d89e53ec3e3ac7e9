import { nanosecondsOf } from './time.js';

/**
 * How Go's `omitempty` looks: an empty value is `undefined`, which `JSON.stringify` leaves out. A struct
 * behind a pointer is shown when it is there, however empty.
 */

export const text = (value: string | undefined) => (value === '' ? undefined : value);
export const number = (value: number | undefined) => (value === 0 ? undefined : value);
export const truth = (value: boolean | undefined) => (value === true ? true : undefined);
export const list = <T>(value: readonly T[] | undefined) =>
  value === undefined || value.length === 0 ? undefined : value;

/** With its keys in order, as Go prints maps. */
export function map(value: Readonly<Record<string, string>> | undefined) {
  if (value === undefined) return undefined;
  const entries = Object.entries(value);
  return entries.length === 0 ? undefined : sorted(value);
}

/** As `map`, but an empty one is shown. */
export const sorted = (value: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));

/** A duration behind a pointer: zero is shown. */
export const nanoseconds = (ms: number | undefined) =>
  ms === undefined ? undefined : Math.round(nanosecondsOf(ms));
