/** How the next backend is chosen; the names of the first five are those of the kernel's IPVS. */
export const BALANCE_METHODS = ['rr', 'wrr', 'lc', 'sh', 'maglev', 'p2c', 'latency'] as const;
export type BalanceMethod = (typeof BALANCE_METHODS)[number];

/** Passive health: what becomes of backends that fail where others do not. */
export interface OutlierConfig {
  /** Failures in a row that eject a backend; 0 ejects none. */
  readonly failures: number;
  /** The first ejection; each further one in a row lasts twice as long, up to `EJECTION_MS_MAX`. */
  readonly ejectionMs: number;
  /** At most this share of the ready backends is ejected, from 0 to 1. */
  readonly ceiling: number;
  /** An answer that takes so many times as long as those of most others is a failure (TCP); 0: it is none. */
  readonly slowFactor: number;
}

/** For how long a backend may let a client wait for its first byte (TCP); then its flow is silent. */
export const SILENCE_MS = 1000;

/** A service's choices; every backend set has one. */
export interface BalanceConfig {
  readonly method: BalanceMethod;
  /** By slot number of the task, for those that are not 1. */
  readonly weights: ReadonlyMap<number, number>;
  /** For how long after its last flow a client goes to the backend that it had; 0: not at all. */
  readonly affinityMs: number;
  /** Backends of this node first. */
  readonly preferLocal: boolean;
  /** Flows that a local backend may have before others take the rest; 0: any number. */
  readonly overflowAt: number;
  /** How long a backend that became ready takes to reach its full share; 0: at once. */
  readonly slowStartMs: number;
  readonly outlier: OutlierConfig;
}

/** Longest ejection in a row of them. */
export const EJECTION_MS_MAX = 300_000;

/** As Docker does it: strictly in turn. */
export const DEFAULT_BALANCE: BalanceConfig = {
  method: 'rr',
  weights: new Map(),
  affinityMs: 0,
  preferLocal: false,
  overflowAt: 0,
  slowStartMs: 0,
  outlier: { failures: 5, ejectionMs: 10_000, ceiling: 0.5, slowFactor: 5 },
};

/** Whether two configurations balance alike. */
export function sameBalance(a: BalanceConfig, b: BalanceConfig): boolean {
  return (
    a.method === b.method &&
    a.affinityMs === b.affinityMs &&
    a.preferLocal === b.preferLocal &&
    a.overflowAt === b.overflowAt &&
    a.slowStartMs === b.slowStartMs &&
    a.outlier.failures === b.outlier.failures &&
    a.outlier.ejectionMs === b.outlier.ejectionMs &&
    a.outlier.ceiling === b.outlier.ceiling &&
    a.outlier.slowFactor === b.outlier.slowFactor &&
    a.weights.size === b.weights.size &&
    [...a.weights].every(([slot, weight]) => b.weights.get(slot) === weight)
  );
}
