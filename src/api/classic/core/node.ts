import type { Labels } from '../../../base/swarm-model.js';
import type { Claims } from '../wire/claims.js';

export interface ClassicContainer extends Claims {
  readonly id: string;
  /** Without slashes in front; of links, `other/alias`. */
  readonly names: readonly string[];
  readonly labels: Labels;
  /** Docker's word: `running`, `exited`, … */
  readonly state: string;
}

export interface ClassicImage {
  readonly id: string;
  /** `busybox:latest`. */
  readonly tags: readonly string[];
}

/** An engine of the cluster, with what is on it. */
export interface ClassicNode {
  readonly id: string;
  readonly name: string;
  /** Where the others reach the node. */
  readonly address: string;
  readonly labels: Labels;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Why it is not healthy; absent: it is. */
  readonly trouble?: string;
  /** It is not drained or paused. */
  readonly isActive: boolean;
  readonly hasEngine: boolean;
  /** Of a node that does not answer, those that it had last. */
  readonly containers: readonly ClassicContainer[];
  readonly images: readonly ClassicImage[];
}

/** Reserved of a node. */
export function reservedOf({ containers }: Pick<ClassicNode, 'containers'>): {
  readonly cpus: number;
  readonly memoryBytes: number;
} {
  let cpus = 0;
  let memoryBytes = 0;
  for (const container of containers) {
    cpus += container.cpus;
    memoryBytes += container.memoryBytes;
  }
  return { cpus, memoryBytes };
}
