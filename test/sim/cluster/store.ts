import { SwarmError } from '../../../src/base/swarm-error.js';
import { StoreView, viewChanges } from '../../../src/control/io/orchestrate-store.js';
import type { ViewChange } from '../../../src/control/orchestrate/core/view.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { apply } from '../../../src/control/store/core/decide.js';
import { State } from '../../../src/control/store/core/state.js';
import { clusterCreate } from '../../control/support.js';

/** The managers' store, of which here is only one. */
export class ClusterStore extends StoreView {
  readonly #state: State;

  constructor() {
    const state = new State();
    super(state);
    this.#state = state;
    this.apply([clusterCreate()], 0);
  }

  get version(): number {
    return this.#state.version;
  }

  /** All or none; the reason if none. */
  apply(commands: readonly CommandBody[], atMs: number): readonly ViewChange[] | string {
    try {
      const applied = apply(this.#state, { kind: 'transaction', commands, atMs });
      return viewChanges(applied.flatMap(({ changes }) => changes));
    } catch (error) {
      if (error instanceof SwarmError) return error.message;
      throw error;
    }
  }
}
