import { deriveSealKeys, type RingKey, type SealKeys } from '../dataplane/io/index.js';
import type { PublishedTables } from '../dataplane/overlay/index.js';

/** Keys of one VTEP, as the packet thread is told of them. */
export interface SealsSet {
  readonly index: number;
  /** `undefined`: none any more. */
  readonly keys: SealKeys | undefined;
}

/** What the packet thread seals and opens with: a function of the swarm's ring and the tables. */
export class Seals {
  readonly #self: string;
  #ring: readonly RingKey[];
  /** What the packet thread was told: the peer of each VTEP. */
  #told = new Map<number, string>();

  /** @param ring The first seals; every one opens. */
  constructor(self: string, ring: readonly RingKey[]) {
    this.#self = self;
    this.#ring = ring;
  }

  /** @returns What follows of another ring for those that have keys. */
  setRing(ring: readonly RingKey[]): readonly SealsSet[] {
    const isSame =
      ring.length === this.#ring.length &&
      ring.every(({ secret }, i) => Buffer.from(secret).equals(this.#ring[i]?.secret ?? secret));
    this.#ring = ring;
    if (isSame) return [];
    return [...this.#told].map(([index, peer]) => ({ index, keys: this.#keysFor(peer) }));
  }

  /** @returns What follows of other tables. */
  follow({ tables, vtepIndexes }: PublishedTables): readonly SealsSet[] {
    const wanted = new Map<number, string>();
    for (const [key, peer] of tables.sealPeers) {
      const index = vtepIndexes.get(key);
      if (index !== undefined) wanted.set(index, peer);
    }
    const changes: SealsSet[] = [];
    for (const index of this.#told.keys())
      if (!wanted.has(index)) changes.push({ index, keys: undefined });
    for (const [index, peer] of wanted)
      if (this.#told.get(index) !== peer) changes.push({ index, keys: this.#keysFor(peer) });
    this.#told = wanted;
    return changes;
  }

  #keysFor(peer: string): SealKeys | undefined {
    return deriveSealKeys(this.#ring, this.#self, peer);
  }
}
