import type { LogRecord } from '../../core/runtime.js';

/**
 * A line of a log file, in the form of Kubernetes' container runtimes:
 *
 *   2026-11-27T01:59:00.123456789Z stdout F the line
 *
 * `F` ends a line of the task, `P` is a part of one that was too long, or was not ended at the end.
 */
const HEADER = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr) ([FP]) $/;
/** The header with the longer name of a stream. */
const HEADER_BYTES = '2026-11-27T01:59:00.123456789Z stdout F '.length;
const NEWLINE = 10;

/** The record in `line`, which is without its end; `undefined` if it is none, such as a torn one. */
export function parseLogRecord(line: Uint8Array): LogRecord | undefined {
  if (line.length < HEADER_BYTES) return undefined;
  const header = String.fromCharCode(...line.subarray(0, HEADER_BYTES));
  const match = HEADER.exec(header);
  if (match === null) return undefined;
  const [, second = '', fraction = '', stream, kind] = match;
  const atNs = BigInt(secondsOf(second)) * 1_000_000_000n + BigInt(fraction);
  const text = line.subarray(HEADER_BYTES);
  const data = new Uint8Array(text.length + (kind === 'F' ? 1 : 0));
  data.set(text);
  if (kind === 'F') data[text.length] = NEWLINE;
  return { stream: stream === 'stderr' ? 'stderr' : 'stdout', atNs, data };
}

/** Days since the epoch by the civil calendar: a core has no clock to ask. */
function secondsOf(text: string): number {
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = text
    .split(/[-T:]/)
    .map(Number);
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra =
    yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  const days = era * 146_097 + dayOfEra - 719_468;
  return ((days * 24 + hour) * 60 + minute) * 60 + second;
}
