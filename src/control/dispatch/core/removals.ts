import type {
  AttachmentId,
  NetworkId,
  NodeId,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';

/** Removed rows that are remembered; an agent that was away for longer is told everything anew. */
const REMOVALS_MAX = 16_384;

export type Removal =
  | { readonly table: 'network'; readonly id: NetworkId }
  | { readonly table: 'node'; readonly id: NodeId }
  | { readonly table: 'service'; readonly id: ServiceId }
  | { readonly table: 'attachment'; readonly id: AttachmentId; readonly nodeId: NodeId }
  | { readonly table: 'task'; readonly id: TaskId; readonly nodeId: NodeId };

/**
 * What was removed lately, and at which version. Rows that are there have their version on them, so
 * that this is all that is needed to tell an agent what is different since the version it has.
 */
export class Removals {
  readonly #removals: (Removal & { readonly version: number })[] = [];
  #floorVersion: number;

  /** @param version Of the state now: what was removed before is not known. */
  constructor(version: number) {
    this.#floorVersion = version;
  }

  add(removal: Removal, version: number): void {
    this.#removals.push({ ...removal, version });
    if (this.#removals.length <= REMOVALS_MAX) return;
    const forgotten = this.#removals.splice(0, REMOVALS_MAX / 4).at(-1);
    this.#floorVersion = Math.max(this.#floorVersion, forgotten?.version ?? 0);
  }

  /** The state was replaced, or changed in ways that are not known. */
  reset(version: number): void {
    this.#removals.length = 0;
    this.#floorVersion = version;
  }

  /** `undefined`: that is too long ago. */
  since(version: number): readonly Removal[] | undefined {
    if (version < this.#floorVersion) return undefined;
    return this.#removals.filter((removal) => removal.version > version);
  }
}
