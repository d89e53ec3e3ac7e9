import type { Prng } from '../../../src/base/prng.js';
import type { RaftId, Term } from '../../../src/control/raft/core/types.js';
import type { StoredSnapshot } from './disk.js';
import type { Network } from './network.js';
import type { SimNode } from './node.js';
import type { Scheduler } from './scheduler.js';
import type { Sight } from './sights.js';

export interface TransferWorld {
  readonly scheduler: Scheduler;
  readonly network: Network;
  node(id: RaftId): SimNode | undefined;
  trace(text: () => string): void;
  see(sight: Sight): void;
}

const CHUNKS_MAX = 6;

/**
 * Snapshots on their way: chunk by chunk beside the messages, cut off by whatever cuts the link or ends
 * one of the two, and gone on with where they were cut off.
 */
export class Transfers {
  readonly #world: TransferWorld;
  readonly #prng: Prng;

  constructor(world: TransferWorld, prng: Prng) {
    this.#world = world;
    this.#prng = prng;
  }

  begin(from: SimNode, to: RaftId): void {
    const [snapshot] = from.disk.snapshots;
    const target = this.#world.node(to);
    const term = from.status()?.term ?? 0;
    if (snapshot === undefined || target === undefined) {
      this.#end(from, from.life, to, false);
      return;
    }
    const { index } = snapshot.meta;
    this.#world.trace(() => `${from.name} sends its snapshot at ${index} to ${target.name}`);
    const held = target.partial;
    const isSame = held?.index === index && held.term === snapshot.meta.term;
    const done = isSame ? held.chunks : 0;
    if (done > 0) this.#world.see('snapshot_resumed');
    this.#chunk(from, from.life, target, target.life, snapshot, term, done);
  }

  #chunk(
    from: SimNode,
    life: number,
    target: SimNode,
    targetLife: number,
    snapshot: StoredSnapshot,
    term: Term,
    done: number,
  ): void {
    const count = 1 + (snapshot.meta.index % CHUNKS_MAX);
    this.#world.scheduler.after(this.#world.network.latencyMs() * 2, () => {
      const isOpen =
        from.life === life &&
        target.life === targetLife &&
        target.core !== undefined &&
        !this.#world.network.isCut(from.id, target.id) &&
        !this.#world.network.isCut(target.id, from.id) &&
        !this.#prng.chance(0.03);
      if (!isOpen) {
        this.#world.see('snapshot_interrupted');
        this.#end(from, life, target.id, false);
        return;
      }
      if (done < count) {
        const { index, term: of } = snapshot.meta;
        target.partial = { index, term: of, chunks: done + 1 };
        return this.#chunk(from, life, target, targetLife, snapshot, term, done + 1);
      }
      target.disk.saveSnapshot(snapshot.meta, snapshot.image, (ok) => {
        target.partial = undefined;
        if (ok && target.life === targetLife) {
          const { meta } = snapshot;
          const message = { kind: 'snapshot', from: from.id, to: target.id, term, meta } as const;
          target.input({ kind: 'message', message });
        }
        const delayMs = this.#world.network.latencyMs();
        this.#world.scheduler.after(delayMs, () => {
          const isHeard = !this.#world.network.isCut(target.id, from.id);
          this.#end(from, life, target.id, ok && isHeard);
        });
      });
    });
  }

  #end(from: SimNode, life: number, to: RaftId, ok: boolean): void {
    if (from.life === life) from.input({ kind: 'snapshot_sent', to, ok });
  }
}
