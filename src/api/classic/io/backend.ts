import type { Labels } from '../../../base/swarm-model.js';
import type { Upstream } from '../../io/upstream.js';
import type { ClusterFacts } from '../core/info.js';

/** A node of the swarm, as its managers know it. */
export interface ClassicMember {
  readonly id: string;
  readonly name: string;
  /** Without a port. */
  readonly ip: string;
  /** `ip:port` by which it is shown. */
  readonly address: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Of the swarm and of its engine. */
  readonly labels: Labels;
  /** Why nothing can be asked of it; absent: it can. */
  readonly trouble?: string;
  /** It is not drained or paused. */
  readonly isActive: boolean;
}

/** What the classic endpoint needs of the agent. */
export interface ClassicBackend {
  /** This node, where the swarm's own objects are asked for. */
  readonly self: string;
  /** All nodes. @throws SwarmError SWARM_INACTIVE, SWARM_NOT_MANAGER */
  members(): readonly ClassicMember[];
  /** Docker's API of one node alone, this one included. */
  upstream(id: string): Upstream;
  /** Of several endpoints of the swarm it acts first: the others wait whether it did. */
  isFirst(): boolean;
  facts(): Omit<ClusterFacts, 'time'> & { readonly role: 'primary' | 'replica' };
}
