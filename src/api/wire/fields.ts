import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { SwarmError } from '../../base/swarm-error.js';
import { badRequest } from './errors.js';

/**
 * Pieces of request bodies. Unknown members are ignored, `null` and absence are one, as in Go.
 * Anything else that does not fit is one sentence, status 400.
 */

export const LABELS_MAX = 1024;

export const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
export const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
/** Whole, and not only up to 2^53: durations of years are larger. */
export const whole = z.number().refine(Number.isInteger, 'expected a whole number');
export const count = whole.refine((value) => value >= 0, 'expected no negative number');
export const optionalCount = count.nullish().transform((value) => value ?? undefined);
export const labels = z
  .record(z.string(), z.string())
  .refine((value) => Object.keys(value).length <= LABELS_MAX, `at most ${LABELS_MAX} entries`)
  .nullish()
  .transform((value) => value ?? {});
export const listOf = <T extends z.ZodType>(item: T, max: number) =>
  z
    .array(item)
    .max(max, `at most ${max} entries`)
    .nullish()
    .transform((value) => value ?? []);
export const objectOf = <T extends z.ZodRawShape>(shape: T) => z.object(shape).nullish();

export const isCidr = (value: string) =>
  ipaddr.IPv4.isValidCIDRFourPartDecimal(value) || ipaddr.IPv6.isValidCIDR(value);
export const isAddress = (value: string) =>
  ipaddr.IPv4.isValidFourPartDecimal(value) || ipaddr.IPv6.isValid(value);

/** The member's place and what is wrong with it, as one sentence. */
function sentenceOf(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return 'invalid request body';
  const place = issue.path.map(String).join('.');
  const what = issue.message.replace(/^Invalid input: /, '');
  if (/^(invalid|unrecognized) /.test(what)) return what;
  return place === '' ? `invalid request body: ${what}` : `invalid value of ${place}: ${what}`;
}

export function read<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw badRequest(sentenceOf(result.error));
}

export function refuseUnsupported(wanted: boolean, message: string): void {
  if (wanted) throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, message);
}
