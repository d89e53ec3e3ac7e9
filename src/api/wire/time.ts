/** What Go's zero `time.Time` looks like in JSON: Docker's word for "never". */
export const TIME_ZERO = '0001-01-01T00:00:00Z';

const DAY_MS = 86_400_000;
const NS_PER_MS = 1_000_000;

const pad = (value: number, width: number) => String(value).padStart(width, '0');

/**
 * Days since the Unix epoch to a date of the Gregorian calendar: eras of 400 years which start on
 * 1 March, so that the leap day is the last of its year.
 */
function civilOf(days: number): { year: number; month: number; day: number } {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  );
  const dayOfYear =
    dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1;
  const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9;
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day };
}

/** RFC 3339 in UTC, fractions as short as Go prints them; 0 is Go's zero time. */
export function formatTimeMs(ms: number): string {
  if (ms === 0 || !Number.isFinite(ms)) return TIME_ZERO;
  const whole = Math.floor(ms);
  const days = Math.floor(whole / DAY_MS);
  const inDay = whole - days * DAY_MS;
  const { year, month, day } = civilOf(days);
  const seconds = Math.floor(inDay / 1000);
  const clock = [seconds / 3600, (seconds / 60) % 60, seconds % 60];
  const millis = inDay % 1000;
  const fraction = millis === 0 ? '' : `.${pad(millis, 3).replace(/0+$/, '')}`;
  const time = clock.map((part) => pad(Math.floor(part), 2)).join(':');
  return `${pad(year, 4)}-${pad(month, 2)}-${pad(day, 2)}T${time}${fraction}Z`;
}

/** Docker's durations are nanoseconds, Shoal's milliseconds. */
export function durationMsOf(nanoseconds: number): number {
  return Math.round(nanoseconds / NS_PER_MS);
}

export function nanosecondsOf(durationMs: number): number {
  return durationMs * NS_PER_MS;
}

/** Nanoseconds since the epoch, as digits: the number does not fit a JavaScript number. */
export function formatTimeNs(ms: number): string {
  return String(BigInt(Math.floor(ms)) * BigInt(NS_PER_MS));
}
