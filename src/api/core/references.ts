import { type ObjectKind, SwarmError } from '../../base/swarm-error.js';

/**
 * Finds what a user means by `ref`, as Docker does: the full id, else the exact name, else a prefix
 * of exactly one id. Throws SWARM_NOT_FOUND or SWARM_AMBIGUOUS.
 */
export function resolve<T extends { readonly id: string }>(
  kind: ObjectKind,
  ref: string,
  objects: readonly T[],
  namesOf: (object: T) => readonly string[],
): T {
  const notFound = () =>
    new SwarmError({ code: 'SWARM_NOT_FOUND', kind, ref }, `no ${kind} is called ${ref}`);
  if (ref === '') throw notFound();
  const byId = objects.find(({ id }) => id === ref);
  if (byId !== undefined) return byId;
  const named = objects.filter((object) => namesOf(object).includes(ref));
  const matches = named.length > 0 ? named : objects.filter(({ id }) => id.startsWith(ref));
  const match = matches[0];
  if (match === undefined) throw notFound();
  if (matches.length > 1) {
    throw new SwarmError(
      { code: 'SWARM_AMBIGUOUS', kind, ref, count: matches.length },
      `${matches.length} objects match ${ref}: give more of the id`,
    );
  }
  return match;
}
