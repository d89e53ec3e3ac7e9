import { type BindTo, rangesInclude } from '../../../base/access-labels.js';
import { wordsOf } from './client-words.js';

/** Addresses of this node at which one port listens; those beyond, by their order, are left out. */
export const PLACES_MAX = 64;

/** Where a port listens that is not bound: at all addresses, IPv4 and IPv6. */
export const EVERYWHERE: readonly string[] = ['::'];

/** An address of this node. */
export interface OwnAddress {
  /** A literal; of a link-local one with its zone, as in `fe80::1%eth0`. */
  readonly address: string;
  readonly ifname: string;
}

/** Where a port listens, as literals in order. `own`: addresses that the node has now. */
export function placesOf(
  bind: BindTo | undefined,
  own: readonly OwnAddress[],
): { readonly places: readonly string[]; readonly leftOut: number } {
  if (bind === undefined) return { places: EVERYWHERE, leftOut: 0 };
  const bound = own.filter(
    ({ address, ifname }) =>
      bind.interfaces.has(ifname) || rangesInclude(bind.ranges, wordsOf(address)),
  );
  const all = [...new Set(bound.map(({ address }) => address))].sort();
  const places = all.slice(0, PLACES_MAX);
  return { places, leftOut: all.length - places.length };
}
