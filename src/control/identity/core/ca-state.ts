import { assert } from '../../../base/assert.js';
import type { CaState, RetiredRoot } from '../wire/ca-state.js';
import { joinPem } from '../wire/pem.js';

/**
 * How long after a rotation the old root still vouches for those who were off while it went on: as
 * long as an expired certificate may be renewed.
 */
export const RETIRED_ROOT_MS = 366 * 86_400_000;
/** Roots before the present one that are remembered; the oldest goes first. */
const RETIRED_ROOTS_MAX = 4;

/** The root that signs now: the new one as soon as there is one. */
export function issuingRoot(state: CaState): {
  readonly rootPem: string;
  readonly rootKeyPem: string;
} {
  return state.rotation ?? state;
}

/**
 * What every member trusts. The first is the root of the join tokens, the last the one that signs:
 * a node whose certificate is not of the last one knows that it should ask for another.
 */
export function trustBundle(state: CaState): string {
  return joinPem([state.rootPem, state.rotation?.rootPem ?? '']);
}

/** Roots that still vouch for a returning node's old certificate, newest first. */
export function graceRoots(state: CaState, nowMs: number): readonly RetiredRoot[] {
  return (state.retired ?? []).filter(({ retiredAtMs }) => nowMs <= retiredAtMs + RETIRED_ROOT_MS);
}

/**
 * The intermediates that follow a certificate signed by `issuingRoot`: of the root in rotation, for
 * those who do not trust it yet; and for a manager back to the retired roots, so that a node that
 * slept through rotations recognises the manager that it wakes up to.
 */
export function issuerChain(state: CaState, role: 'worker' | 'manager', nowMs: number): string {
  const rotating = state.rotation?.crossSignedPem ?? '';
  const retired = role === 'manager' ? graceRoots(state, nowMs) : [];
  return joinPem([rotating, ...retired.map(({ crossSignedPem }) => crossSignedPem)]);
}

/** The new root alone is trusted from here on. Join tokens have to be made anew with it. */
export function finishRotation(state: CaState, atMs: number): CaState {
  const { rotation, rootPem, forceRotate } = state;
  assert(rotation !== undefined, 'a rotation goes on');
  const retired: RetiredRoot = {
    rootPem,
    crossSignedPem: rotation.crossSignedPem,
    retiredAtMs: atMs,
  };
  return {
    rootPem: rotation.rootPem,
    rootKeyPem: rotation.rootKeyPem,
    retired: [retired, ...graceRoots(state, atMs)].slice(0, RETIRED_ROOTS_MAX),
    forceRotate,
  };
}

/**
 * Back to the present root. Certificates of the abandoned one stay good until they are renewed: the
 * cross-signed certificate that follows them leads to the present root.
 */
export function cancelRotation(state: CaState): CaState {
  const { rotation: _abandoned, ...rest } = state;
  return rest;
}

export interface RotationProgress {
  readonly done: number;
  readonly total: number;
  /** Nodes that hold a certificate of another root. */
  readonly waiting: readonly string[];
}

/** @param wanted Public key of the root in rotation, in the form of `issuerPublicKey`. */
export function progressOf(
  wanted: string,
  nodes: Iterable<{ readonly nodeId: string; readonly issuerPublicKey: string }>,
): RotationProgress {
  let total = 0;
  const waiting: string[] = [];
  for (const { nodeId, issuerPublicKey } of nodes) {
    total++;
    if (issuerPublicKey !== wanted) waiting.push(nodeId);
  }
  return { done: total - waiting.length, total, waiting };
}

/** Renewals of a rotation that all managers together are asked for in a second. */
const ROTATION_RENEWALS_PER_SECOND = 250;
const ROTATION_SPREAD_MS_MAX = 60_000;

/**
 * How long a node waits before it asks for a certificate of a new root, so that not all ask at once.
 * @param fraction In [0, 1), the node's own.
 */
export function rotationDelayMs(nodes: number, fraction: number): number {
  const spreadMs = (nodes * 1_000) / ROTATION_RENEWALS_PER_SECOND;
  return Math.min(ROTATION_SPREAD_MS_MAX, spreadMs) * fraction;
}
