const STAMP =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/;
/** `2026-11-27T02:18:57.123456789+01:00` and the blank behind it. */
const STAMP_BYTES_MAX = 36;
const DAY_S = 86_400;

/** Days from the Unix epoch to a date of the Gregorian calendar; years begin in March here. */
function daysOf(year: number, month: number, day: number): number {
  const shifted = month > 2 ? year : year - 1;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  const leaps = Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100);
  return era * 146_097 + yearOfEra * 365 + leaps + dayOfYear - 719_468;
}

/** Nanoseconds since the epoch of RFC 3339 text; `undefined`: it is none. */
export function parseNanos(text: string): bigint | undefined {
  const match = STAMP.exec(text);
  if (match === null) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match
    .slice(1, 7)
    .map(Number);
  const zone = (Number(match[9] ?? 0) * 60 + Number(match[10] ?? 0)) * 60;
  const seconds = daysOf(year, month, day) * DAY_S + (hour * 60 + minute) * 60 + second;
  const utc = seconds - (match[8] === '-' ? -zone : zone);
  return BigInt(utc) * 1_000_000_000n + BigInt((match[7] ?? '').padEnd(9, '0'));
}

/** A message that begins with its time, as those of logs with `timestamps=1` do. */
export function splitStamp(message: Buffer): { readonly atNs: bigint; readonly data: Buffer } {
  const space = message.subarray(0, STAMP_BYTES_MAX).indexOf(0x20);
  const atNs = space < 0 ? undefined : parseNanos(message.toString('latin1', 0, space));
  return atNs === undefined
    ? { atNs: 0n, data: message }
    : { atNs, data: message.subarray(space + 1) };
}
