import type {
  ServiceMode,
  ServiceObject,
  ServiceSpec,
  UpdateConfig,
} from '../../../src/base/service-model.js';
import type { NodeId, ServiceId } from '../../../src/base/swarm-model.js';
import { nodeOf } from '../../control/orchestrate/objects.js';
import type { ClusterWorld } from './world.js';

/** Somebody who wants something else all the time, and things that happen to nodes and leaders. */
export class Nemesis {
  readonly #world: ClusterWorld;
  #services = 0;
  #nodes = 0;
  readonly counts = new Map<string, number>();

  constructor(world: ClusterWorld) {
    this.#world = world;
  }

  addNode(): void {
    const { prng } = this.#world;
    const id = `n${this.#nodes++}`;
    const node = nodeOf(id, { labels: { zone: prng.chance(0.5) ? 'a' : 'b' } });
    this.#world.addNode(node);
  }

  createService(): void {
    const name = `s${this.#services++}`;
    const spec = this.#spec(name);
    const id = `${name}x`.padEnd(25, '0') as ServiceId;
    this.#world.trace(`user creates ${name}: ${JSON.stringify(spec.mode)}`);
    this.#world.commit(() => [{ kind: 'service_create', id, spec }]);
  }

  /** One thing that happens. */
  strike(): void {
    const { prng } = this.#world;
    const acts: readonly (readonly [number, string, () => void])[] = [
      [3, 'update', () => this.#update()],
      [2, 'scale', () => this.#scale()],
      [1, 'rollback', () => this.#rollback()],
      [1, 'create', () => this.createService()],
      [1, 'remove', () => this.#remove()],
      [3, 'crash', () => this.#crash()],
      [3, 'cut', () => this.#cut()],
      [3, 'leader', () => this.#world.changeLeader()],
      [2, 'availability', () => this.#availability()],
      [1, 'label', () => this.#label()],
      [1, 'join', () => this.#nodes < 8 && this.addNode()],
      [1, 'node rm', () => this.#removeNode()],
    ];
    let pick = prng.nextFloat() * acts.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, name, act] of acts) {
      pick -= weight;
      if (pick > 0) continue;
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
      this.#world.trace(`- ${name}`);
      act();
      return;
    }
  }

  /** Nothing is wrong any more, neither with nodes nor with what the services are to run. */
  heal(): void {
    const { store, nodes } = this.#world;
    for (const node of nodes.values()) {
      if (!node.isReachable) {
        node.isUp = true;
        node.isCut = false;
        node.cutAtMs = this.#world.time.nowMs;
      }
      this.#world.notice(node.id);
    }
    for (const row of store.nodes()) this.#setNode(row.id, { availability: 'active' });
    for (const { id, pendingDelete } of store.services())
      if (!pendingDelete)
        this.#change(id, (spec) => ({ ...spec, task: { ...spec.task, ...healthy(spec) } }));
    if (!this.#world.hasLeader) this.#world.changeLeader(100);
  }

  #spec(name: string): ServiceSpec {
    const { prng } = this.#world;
    const mode = this.#mode();
    const isJob = mode.kind.endsWith('job');
    const attempts = prng.chance(0.2) ? { maxAttempts: 1 + prng.nextBelow(3) } : {};
    return {
      name,
      labels: prng.chance(0.2) ? { 'shoal.strategy': prng.chance(0.5) ? 'binpack' : 'random' } : {},
      mode,
      task: {
        container: {
          image: isJob
            ? this.#pick(['job:1', 'flaky:1'])
            : this.#pick(['good:1', 'good:1', 'crash:1', 'flaky:1']),
        },
        restart: {
          condition: this.#pick(['any', 'any', 'on-failure', 'none'] as const),
          delayMs: prng.nextBelow(6_000),
          ...attempts,
        },
        ...(prng.chance(0.3) && { placement: this.#placement() }),
      },
      ...(!isJob && { update: this.#updateConfig(), rollback: this.#updateConfig() }),
    };
  }

  #mode(): ServiceMode {
    const { prng } = this.#world;
    const kind = this.#pick([
      'replicated',
      'replicated',
      'replicated',
      'global',
      'replicated-job',
      'global-job',
    ] as const);
    if (kind === 'replicated') return { kind, replicas: prng.nextBelow(7) };
    if (kind !== 'replicated-job') return { kind };
    const totalCompletions = 1 + prng.nextBelow(6);
    return { kind, totalCompletions, maxConcurrent: 1 + prng.nextBelow(totalCompletions) };
  }

  #placement() {
    const { prng } = this.#world;
    return prng.chance(0.5)
      ? { constraints: [`node.labels.zone==${prng.chance(0.3) ? '~' : ''}a`] }
      : { spreadOver: ['node.labels.zone'], ...(prng.chance(0.3) && { maxReplicas: 3 }) };
  }

  #updateConfig(): UpdateConfig {
    const { prng } = this.#world;
    return {
      parallelism: prng.nextBelow(4),
      delayMs: prng.chance(0.5) ? 0 : prng.nextBelow(3_000),
      monitorMs: prng.nextBelow(6_000),
      failureAction: this.#pick(['pause', 'continue', 'rollback'] as const),
      maxFailureRatio: prng.chance(0.5) ? 0 : prng.nextFloat(),
      order: prng.chance(0.7) ? 'stop-first' : 'start-first',
    };
  }

  #update(): void {
    const { prng } = this.#world;
    const service = this.#anyService();
    if (service === undefined) return;
    const image = `${this.#pick(['good', 'good', 'crash', 'bad', 'flaky'])}:${prng.nextBelow(1_000)}`;
    const isJob = service.spec.mode.kind.endsWith('job');
    this.#change(service.id, (spec) => ({
      ...spec,
      ...(!isJob &&
        prng.chance(0.2) && {
          update: { ...this.#updateConfig(), order: spec.update?.order ?? 'stop-first' },
        }),
      task: { ...spec.task, container: { image: isJob ? `job:${prng.nextBelow(1_000)}` : image } },
    }));
  }

  #scale(): void {
    const { prng } = this.#world;
    const service = this.#anyService();
    const replicas = prng.nextBelow(8);
    if (service?.spec.mode.kind !== 'replicated') return;
    this.#change(service.id, (spec) => ({ ...spec, mode: { kind: 'replicated', replicas } }));
  }

  #rollback(): void {
    const service = this.#anyService();
    if (service?.previousSpec !== undefined && service.job === undefined)
      this.#updateAs(service.id, () => ({}));
  }

  #remove(): void {
    const service = this.#anyService();
    if (service !== undefined)
      this.#world.commit(() => [{ kind: 'service_remove', id: service.id }]);
  }

  #change(id: ServiceId, edit: (spec: ServiceSpec) => ServiceSpec): void {
    this.#updateAs(id, (spec) => ({ spec: edit(spec) }));
  }

  #updateAs(id: ServiceId, make: (spec: ServiceSpec) => { readonly spec?: ServiceSpec }): void {
    this.#world.commit(() => {
      const service = this.#world.store.service(id);
      if (service === undefined || service.pendingDelete === true) return [];
      const { version, spec } = service;
      return [{ kind: 'service_update', id, version, authFrom: 'spec', ...make(spec) }];
    });
  }

  #crash(): void {
    const { prng, time, nodes } = this.#world;
    const node = this.#pick([...nodes.values()]);
    if (node === undefined || !node.isUp) return;
    node.crash();
    this.#world.notice(node.id);
    time.after(500 + prng.nextBelow(20_000), () => {
      node.isUp = true;
      node.cutAtMs = time.nowMs;
      this.#world.notice(node.id);
    });
  }

  #cut(): void {
    const { prng, time, nodes } = this.#world;
    const node = this.#pick([...nodes.values()]);
    if (node === undefined || node.isCut) return;
    node.isCut = true;
    this.#world.notice(node.id);
    time.after(500 + prng.nextBelow(30_000), () => {
      node.isCut = false;
      node.cutAtMs = time.nowMs;
      this.#world.notice(node.id);
    });
  }

  #availability(): void {
    const row = this.#pick([...this.#world.store.nodes()]);
    if (row !== undefined)
      this.#setNode(row.id, { availability: this.#pick(['active', 'pause', 'drain'] as const) });
  }

  #label(): void {
    const row = this.#pick([...this.#world.store.nodes()]);
    if (row !== undefined)
      this.#setNode(row.id, { labels: { zone: this.#world.prng.chance(0.5) ? 'a' : 'b' } });
  }

  /** `docker node rm` of a node that is down. */
  #removeNode(): void {
    const row = this.#pick([...this.#world.store.nodes()].filter(({ state }) => state === 'down'));
    if (row === undefined || [...this.#world.store.nodes()].length < 3) return;
    this.#world.commit(() => [{ kind: 'node_remove', nodeId: row.id, force: true }]);
  }

  #setNode(id: NodeId, wish: object): void {
    this.#world.commit(() => {
      const row = this.#world.store.node(id);
      if (row === undefined) return [];
      const spec = { ...row.spec, ...wish };
      return [{ kind: 'node_update', nodeId: id, version: row.version, spec }];
    });
  }

  #anyService(): ServiceObject | undefined {
    const services = [...this.#world.store.services()].filter((one) => !one.pendingDelete);
    return this.#pick(services);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#world.prng.nextBelow(Math.max(1, items.length))] as T;
  }
}

function healthy({ mode }: ServiceSpec): Partial<ServiceSpec['task']> {
  const isJob = mode.kind.endsWith('job');
  return {
    container: { image: isJob ? 'job:healed' : 'good:healed' },
    restart: { condition: 'any', delayMs: 1_000 },
    placement: {},
  };
}
