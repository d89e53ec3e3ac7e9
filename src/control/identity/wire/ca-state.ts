import { z } from 'zod';

/** A root that is being brought in beside the present one. */
export interface RootRotation {
  readonly rootPem: string;
  /** PKCS #8. */
  readonly rootKeyPem: string;
  /** Subject and key of the new root, signed by the present one. */
  readonly crossSignedPem: string;
  readonly startedAtMs: number;
}

/** A root that signs no more, and is trusted by nobody who was there when it went. */
export interface RetiredRoot {
  readonly rootPem: string;
  /** The root that came after it, signed by it. */
  readonly crossSignedPem: string;
  readonly retiredAtMs: number;
}

/**
 * All that the swarm's CA is: plain data, kept in the replicated store among the secrets. Whoever
 * keeps it replaces it as a whole, and only if it still is what the new one was computed from.
 */
export interface CaState {
  /** What join tokens name and `docker swarm ca` prints; during a rotation still the old one. */
  readonly rootPem: string;
  /** PKCS #8. */
  readonly rootKeyPem: string;
  /** Present while a rotation goes on. */
  readonly rotation?: RootRotation;
  /** Newest first. */
  readonly retired?: readonly RetiredRoot[];
  /** `CAConfig.ForceRotate` that was acted upon last: another number asks for another root. */
  readonly forceRotate: number;
}

const caStateSchema: z.ZodType<CaState> = z.object({
  rootPem: z.string(),
  rootKeyPem: z.string(),
  rotation: z
    .object({
      rootPem: z.string(),
      rootKeyPem: z.string(),
      crossSignedPem: z.string(),
      startedAtMs: z.number(),
    })
    .exactOptional(),
  retired: z
    .array(z.object({ rootPem: z.string(), crossSignedPem: z.string(), retiredAtMs: z.number() }))
    .exactOptional(),
  forceRotate: z.int(),
});

/** What a store gave back; `undefined`: it is not the state of a CA. */
export function parseCaState(value: unknown): CaState | undefined {
  return caStateSchema.safeParse(value).data;
}
