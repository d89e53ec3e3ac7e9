import type { Manager } from '../control/index.js';
import type { ActiveSwarm } from './active-swarm.js';
import type { LocalManager } from './local-manager.js';
import type { Log } from './log.js';
import type { SavedSwarm, StateFile } from './state-file.js';

/** How long a node that is to be a manager tries, before it begins again. */
const PROMOTE_MS_MAX = 60_000;
const PROMOTE_RETRY_MS = 2_000;
/** How often it is looked whether the manager here still belongs to the swarm. */
const LOOK_INTERVAL_MS = 2_000;

export interface ManagerRoleOptions {
  readonly log: Log;
  readonly state: StateFile;
  readonly local: LocalManager;
  /** Does one thing after the other with the node's place in the swarm. */
  readonly queue: (work: () => Promise<void>) => Promise<void>;
  readonly isActive: (swarm: ActiveSwarm) => boolean;
}

/** Makes this node a manager when it is to be one, and a worker again when it is not. */
export class ManagerRole {
  readonly #options: ManagerRoleOptions;
  #promoting = false;

  constructor(options: ManagerRoleOptions) {
    this.#options = options;
  }

  /** As long as the node is in this swarm. */
  follow(swarm: ActiveSwarm, saved: SavedSwarm): void {
    const { local, isActive } = this.#options;
    swarm.session.onIdentity((identity) => {
      local.manager?.useIdentity(identity);
      this.#promoteSoon(swarm, saved);
    });
    this.#promoteSoon(swarm, saved);
    this.#followManager(swarm, saved);
    const end = swarm.session.onAssignments(() => this.#look(swarm, saved));
    const timer = setInterval(() => {
      if (isActive(swarm)) return this.#look(swarm, saved);
      clearInterval(timer);
      end();
    }, LOOK_INTERVAL_MS);
    timer.unref();
  }

  /**
   * A manager that is out of the group, and was not told, hears it from the others' assignments; and
   * so does one whose group was given up when the swarm was made anew of another manager's copy.
   */
  #look(swarm: ActiveSwarm, saved: SavedSwarm): void {
    const { local, queue } = this.#options;
    const { manager } = local;
    if (manager === undefined) {
      // Promoted again before its manager's certificate was exchanged, it would never be told of another.
      if (roleOf(swarm) === 'manager') this.#promoteSoon(swarm, saved);
      return;
    }
    const demoted = roleOf(swarm) === 'worker' && manager.isCutOff;
    const givenUp = (swarm.session.assignments()?.era ?? 0) > manager.group.member.era;
    if (demoted || givenUp) void queue(() => this.#demote(swarm, saved, manager));
  }

  #followManager(swarm: ActiveSwarm, saved: SavedSwarm): void {
    const { local, queue } = this.#options;
    const { manager } = local;
    manager?.onEnd(() => void queue(() => this.#demote(swarm, saved, manager)));
  }

  #promoteSoon(swarm: ActiveSwarm, saved: SavedSwarm): void {
    if (swarm.identity.role !== 'manager' || this.#options.local.manager !== undefined) return;
    if (this.#promoting) return;
    this.#promoting = true;
    void this.#options
      .queue(() => this.#promote(swarm, saved))
      .finally(() => {
        this.#promoting = false;
      });
  }

  async #promote(swarm: ActiveSwarm, saved: SavedSwarm): Promise<void> {
    const { log, state, local, isActive } = this.#options;
    if (!isActive(swarm) || local.manager !== undefined) return;
    if (swarm.identity.role !== 'manager') return;
    log.info('this node becomes a manager');
    try {
      const limit = AbortSignal.timeout(PROMOTE_MS_MAX);
      await local.join(saved, swarm.identity, swarm.session.managers(), limit);
    } catch (error) {
      log.error({ err: error }, 'this node could not become a manager: trying again');
      this.#promoteLater(swarm, saved);
      return;
    }
    state.setSwarm({ ...saved, manager: true });
    this.#followManager(swarm, saved);
  }

  #promoteLater(swarm: ActiveSwarm, saved: SavedSwarm): void {
    setTimeout(() => this.#promoteSoon(swarm, saved), PROMOTE_RETRY_MS).unref();
  }

  /** @param manager The one that is to end; by now another may have taken its place. */
  async #demote(swarm: ActiveSwarm, saved: SavedSwarm, manager: Manager): Promise<void> {
    const { log, state, local, isActive } = this.#options;
    if (!isActive(swarm) || local.manager !== manager) return;
    log.info('this node is a manager no more');
    const managers = [...swarm.session.managers()];
    await local.end(swarm.identity);
    state.setSwarm({ ...saved, managers, manager: false });
    // Its session was with itself: another manager gives it a worker's certificate.
    swarm.session.reopen();
    // Promoted again meanwhile, it keeps the certificate that it has, which tells it nothing.
    if (roleOf(swarm) === 'manager') this.#promoteLater(swarm, saved);
  }
}

/** As the managers have told last. */
function roleOf(swarm: ActiveSwarm): 'manager' | 'worker' | undefined {
  const { session, identity } = swarm;
  return session.assignments()?.nodes.find(({ id }) => id === identity.nodeId)?.role;
}
