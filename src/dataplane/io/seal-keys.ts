import { hkdfSync } from 'node:crypto';
import { SEAL_SALT_BYTES, SEAL_SECRET_BYTES, type SealKey, type SealKeys } from '../core/seal.js';

/** A key that all members of the swarm hold. */
export interface RingKey {
  readonly secret: Uint8Array;
}

const LABEL = 'shoal sealed vxlan 1';
const ID_BYTES = 3;

/**
 * The keys between this node and another: one for each direction and each key of the ring.
 *
 * They are bound to the ids of both nodes, and an id is never given to a second node: whoever comes to
 * have the address of one that is gone does not go on with its keys.
 *
 * @param ring The first seals; every one opens.
 */
export function deriveSealKeys(
  ring: readonly RingKey[],
  self: string,
  peer: string,
): SealKeys | undefined {
  const [first] = ring;
  if (first === undefined) return undefined;
  return {
    seals: derive(first, self, peer),
    opens: ring.map((key) => derive(key, peer, self)),
  };
}

function derive({ secret }: RingKey, from: string, to: string): SealKey {
  const bytes = SEAL_SECRET_BYTES + SEAL_SALT_BYTES + ID_BYTES;
  const derived = Buffer.from(
    hkdfSync('sha256', secret, new Uint8Array(0), `${LABEL}\0${from}\0${to}`, bytes),
  );
  return {
    secret: derived.subarray(0, SEAL_SECRET_BYTES),
    salt: derived.subarray(SEAL_SECRET_BYTES, SEAL_SECRET_BYTES + SEAL_SALT_BYTES),
    id: derived.readUIntBE(SEAL_SECRET_BYTES + SEAL_SALT_BYTES, ID_BYTES),
  };
}
