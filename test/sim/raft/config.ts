import { Prng } from '../../../src/base/prng.js';
import type { RaftConfig } from '../../../src/control/raft/core/types.js';
import type { ClientConfig } from './clients.js';
import type { DiskConfig } from './disk.js';
import { FAULT_KINDS, type NemesisConfig } from './nemesis.js';
import type { NetworkConfig } from './network.js';
import type { ShellConfig } from './node.js';

/** Everything about one run; all of it follows from the seed. */
export interface RunConfig {
  readonly seed: number;
  readonly nodeCount: number;
  readonly durationMs: number;
  readonly raft: Omit<RaftConfig, 'id' | 'seed'>;
  readonly network: NetworkConfig;
  readonly disk: DiskConfig;
  readonly shell: ShellConfig;
  readonly clients: ClientConfig;
  readonly nemesis: NemesisConfig;
}

/**
 * Each run has faults of some kinds only, and limits of some size, so that over many seeds all mixtures
 * come up: what a mild world hides, one with a single fault in abundance may show.
 */
export function configOf(seed: number, nodeCount: number): RunConfig {
  const prng = new Prng(seed * 8 + nodeCount);
  const pick = <T>(...choices: readonly T[]): T => choices[prng.nextBelow(choices.length)] as T;
  const electionTimeoutMs = pick(200, 500, 500, 1_000);
  const isFar = prng.chance(0.25);
  const isOrdered = prng.chance(0.5);
  return {
    seed,
    nodeCount,
    durationMs: electionTimeoutMs * pick(10, 20, 50),
    raft: {
      electionTimeoutMs,
      heartbeatMs: electionTimeoutMs / pick(4, 5, 10),
      appendBytesMax: pick(64, 256, 65_536),
      inflightMessagesMax: pick(1, 2, 8, 256),
      inflightBytesMax: pick(512, 65_536),
      uncommittedBytesMax: pick(512, 4_096, 1_048_576),
      learnerLagMax: pick(1, 10, 100),
    },
    network: {
      latencyMs: isFar ? [1, electionTimeoutMs / 8] : [0.1, pick(1, 5)],
      straggler: pick(0, 0, 0.02, 0.1),
      stragglerMs: electionTimeoutMs * pick(0.2, 1, 4),
      loss: isOrdered ? pick(0, 0.002, 0.01) : pick(0, 0.01, 0.05, 0.2),
      duplicate: pick(0, 0.02, 0.2),
      isOrdered,
    },
    disk: { flushMs: pick([0.05, 0.3], [0.5, 3], [1, 30]), lie: undefined },
    shell: {
      turnMsMax: pick(0.05, 0.5, 3),
      applyMsMax: pick(0, 0, 1, 30),
      snapshotEntries: pick(4, 15, 60, 100_000),
      keepEntries: pick(0, 3, 20),
      readyEarly: pick(0, 0.3, 1),
    },
    clients: {
      count: 2 + prng.nextBelow(5),
      keys: 2 + prng.nextBelow(4),
      thinkMs: electionTimeoutMs * pick(0.02, 0.1, 0.3),
      timeoutMs: electionTimeoutMs * pick(0.5, 2, 6),
      reads: pick(0.2, 0.5),
      dedupes: pick(0, 0.5, 1),
    },
    nemesis: {
      kinds: FAULT_KINDS.filter(() => prng.chance(0.5)),
      favourite: pick(undefined, 'members', pick(...FAULT_KINDS)),
      everyMs: electionTimeoutMs * pick(0.15, 0.4, 1, 2.5),
    },
  };
}
