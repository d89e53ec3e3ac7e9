import type { Labels } from '../../base/swarm-model.js';
import { badRequest } from '../wire/errors.js';

/** Values by key. Several values of a key mean any of them, several keys mean all of them. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/** A query string cannot hold many more. */
export const FILTER_VALUES_MAX = 1000;

const invalid = (what: string) =>
  badRequest(what === '' ? 'invalid filter' : `invalid filter ${what}`);

/**
 * The `filters` parameter: `{"label":{"k=v":true}}`, or `{"label":["k=v"]}` from old clients.
 * `known` are the keys which the list understands; others are refused, as Docker does.
 */
export function parseFilters(parameter: string | null, known: readonly string[]): Filters {
  const filters = new Map<string, readonly string[]>();
  if (parameter === null || parameter === '') return filters;
  let parsed: unknown;
  try {
    parsed = JSON.parse(parameter);
  } catch {
    throw invalid('');
  }
  if (parsed === null) return filters;
  if (typeof parsed !== 'object' || Array.isArray(parsed)) throw invalid('');
  let count = 0;
  for (const [key, raw] of Object.entries(parsed)) {
    if (!known.includes(key)) throw invalid(`'${key}'`);
    if (raw === null || typeof raw !== 'object') throw invalid(`'${key}'`);
    const values: unknown[] = Array.isArray(raw) ? raw : Object.keys(raw);
    count += values.length;
    if (count > FILTER_VALUES_MAX || !values.every((value) => typeof value === 'string')) {
      throw invalid(`'${key}'`);
    }
    if (values.length > 0) filters.set(key, values as string[]);
  }
  return filters;
}

/** True where the key is absent or one of its values passes `test`. */
export function matchesAny(
  filters: Filters,
  key: string,
  test: (value: string) => boolean,
): boolean {
  return filters.get(key)?.some(test) ?? true;
}

/** `k` or `k=v`; all given labels must be there. */
export function matchesLabels(filters: Filters, key: string, labels: Labels): boolean {
  return (
    filters.get(key)?.every((wanted) => {
      const split = wanted.indexOf('=');
      if (split < 0) return Object.hasOwn(labels, wanted);
      const name = wanted.slice(0, split);
      return Object.hasOwn(labels, name) && labels[name] === wanted.slice(split + 1);
    }) ?? true
  );
}

/** A filter whose values come from a fixed list. */
export function requireValues(filters: Filters, key: string, allowed: readonly string[]): void {
  for (const value of filters.get(key) ?? []) {
    if (!allowed.includes(value)) throw invalid(`'${key}=[${value}]'`);
  }
}

/** A filter with a truth value, `undefined` if absent; several that differ are refused. */
export function truthOf(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined) return undefined;
  requireValues(filters, key, ['true', '1', 'false', '0']);
  const truths = new Set(values.map((value) => value === 'true' || value === '1'));
  if (truths.size > 1) throw invalid(`'${key}=[${values.join(' ')}]'`);
  return truths.has(true);
}
