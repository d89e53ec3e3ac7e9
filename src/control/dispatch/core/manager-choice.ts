import type { Prng } from '../../../base/prng.js';
import type { ControlAddress } from '../../wire/model.js';

/** Addresses of managers that are remembered although no list names them any more. */
const FORMER_MAX = 32;

/** Where managers may be found, the most trustworthy sources first. */
export interface KnownManagers {
  /** A manager on this very node. */
  readonly local: ControlAddress | undefined;
  /** As the state of the cluster has them. */
  readonly listed: readonly ControlAddress[];
  /** One of those, which has enough to do. */
  readonly leader: ControlAddress | undefined;
  /** From anywhere else: the join, gossip, the last session. */
  readonly others: readonly ControlAddress[];
}

/**
 * Which manager to try next. In a round each is tried once: the one on this node, then those of the
 * list in random order, so that agents spread, the leader last; then whatever else is known.
 */
export class ManagerChoice {
  readonly #prng: Prng;
  readonly #tried = new Set<string>();
  readonly #former = new Map<string, ControlAddress>();
  #avoided: string | undefined;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  /** All that are known, once each, former ones last. */
  all(known: KnownManagers): readonly ControlAddress[] {
    const { local, listed, others } = known;
    for (const remote of listed) this.#remember(remote);
    const all = new Map<string, ControlAddress>();
    for (const remote of [
      ...(local ? [local] : []),
      ...listed,
      ...others,
      ...this.#former.values(),
    ])
      if (!all.has(keyOf(remote))) all.set(keyOf(remote), remote);
    return [...all.values()];
  }

  /** `undefined`: all were tried. */
  next(known: KnownManagers): ControlAddress | undefined {
    const isListed = new Set(known.listed.map(keyOf));
    const rankOf = (key: string) => {
      if (key === this.#avoided) return 4;
      if (known.local && key === keyOf(known.local)) return 0;
      if (known.leader && key === keyOf(known.leader)) return 2;
      return isListed.has(key) ? 1 : 3;
    };
    const left = this.all(known).filter((remote) => !this.#tried.has(keyOf(remote)));
    const best = Math.min(...left.map((remote) => rankOf(keyOf(remote))));
    const equals = left.filter((remote) => rankOf(keyOf(remote)) === best);
    if (equals.length === 0) return undefined;
    const chosen = equals[this.#prng.nextBelow(equals.length)];
    if (chosen !== undefined) this.#tried.add(keyOf(chosen));
    return chosen;
  }

  /** @param avoided The one whose session was just lost: tried when all others failed. */
  startRound(avoided?: ControlAddress): void {
    this.#tried.clear();
    this.#avoided = avoided && keyOf(avoided);
  }

  /** Not in this round again. */
  skip(remote: ControlAddress): void {
    this.#tried.add(keyOf(remote));
  }

  #remember(remote: ControlAddress): void {
    const key = keyOf(remote);
    this.#former.delete(key);
    this.#former.set(key, remote);
    const [oldest] = this.#former.keys();
    if (this.#former.size > FORMER_MAX && oldest !== undefined) this.#former.delete(oldest);
  }
}

function keyOf({ address, port }: ControlAddress): string {
  return `${address} ${port}`;
}
