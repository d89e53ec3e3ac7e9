import { z } from 'zod';
import { labels as labelMap, whole } from './fields.js';

/**
 * Pieces of a service's spec. What Go leaves out of its JSON because it is empty is absent here too, so
 * that a spec which was read, shown and read again is the same.
 */

/** Items of any one list of a spec. */
export const SPEC_ITEMS_MAX = 4096;

type Optional<T> = {
  readonly [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};
type Required<T> = { readonly [K in keyof T as undefined extends T[K] ? never : K]: T[K] };

/** Leaves out the members that are `undefined`. */
export function present<T extends object>(members: T): Required<T> & Optional<T> {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined),
  ) as Required<T> & Optional<T>;
}

export const words = z
  .string()
  .nullish()
  .transform((value) => (value == null || value === '' ? undefined : value));
export const yes = z
  .boolean()
  .nullish()
  .transform((value) => (value === true ? true : undefined));
/** A pointer in Go: `false` is not the same as absence. */
export const choice = z
  .boolean()
  .nullish()
  .transform((value) => value ?? undefined);
/** As `choice`, of a number. */
export const figure = whole.nullish().transform((value) => value ?? undefined);
export const amount = figure.transform((value) => (value === 0 ? undefined : value));
const NS_PER_MS = 1_000_000;
const toMs = (ns: number | undefined) => (ns === undefined ? undefined : ns / NS_PER_MS);
/** Nanoseconds in Docker's JSON; milliseconds, which may have a fraction. */
export const duration = amount.transform(toMs);
export const durationOrZero = figure.transform(toMs);

export const items = <T extends z.ZodType>(item: T) =>
  z
    .array(item)
    .max(SPEC_ITEMS_MAX, `at most ${SPEC_ITEMS_MAX} entries`)
    .nullish()
    .transform((value) => (value == null || value.length === 0 ? undefined : value));
export const texts = items(z.string());
export const map = labelMap.transform((value) =>
  Object.keys(value).length === 0 ? undefined : value,
);

/** One of Docker's words; `undefined` if none is given. `refusal` is the whole sentence. */
export const oneOf = <const W extends readonly string[]>(
  allowed: W,
  refusal: (given: string) => string,
) =>
  z
    .string()
    .nullish()
    .transform((given, context): W[number] | undefined => {
      if (given == null || given === '') return undefined;
      if (allowed.includes(given)) return given;
      context.addIssue({ code: 'custom', message: refusal(given) });
      return z.NEVER;
    });
