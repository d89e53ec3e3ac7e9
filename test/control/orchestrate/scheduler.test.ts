import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import type { Placement, TaskObject } from '../../../src/base/service-model.js';
import type { GenericResource, NetworkId, NodeObject } from '../../../src/base/swarm-model.js';
import { FAILURES_TOLERATED, NodeLoads } from '../../../src/control/orchestrate/core/node-load.js';
import { Placer } from '../../../src/control/orchestrate/core/scheduler.js';
import { nodeOf, taskOf } from './objects.js';

/** With state of its own, as the store's view has. */
class StageView {
  readonly strategy = undefined;
  readonly #foreign = 'weave';

  networkDriver(id: NetworkId): string {
    return id.startsWith(this.#foreign) ? this.#foreign : 'overlay';
  }
}

/** Places tasks that are like `task`, one after the other, and tells where: `a b a`. */
class Stage {
  readonly loads = new NodeLoads();
  nowMs = 0;
  #count = 0;

  constructor(nodes: readonly NodeObject[]) {
    for (const node of nodes) this.loads.setNode(node.id, node);
  }

  put(nodeId: string, wish: Parameters<typeof taskOf>[1] = {}): TaskObject {
    const task = placed(taskOf(`t${this.#count++}`, wish), nodeId);
    this.loads.change(undefined, task, this.nowMs);
    return task;
  }

  fail(nodeId: string, wish: Parameters<typeof taskOf>[1] = {}): void {
    const task = this.put(nodeId, wish);
    const status = { ...task.status, state: 'failed' as const };
    this.loads.change(task, { ...task, status }, this.nowMs);
  }

  place(count: number, wish: Parameters<typeof taskOf>[1] = {}): string {
    const placer = this.placer(wish);
    const places: string[] = [];
    for (let i = 0; i < count; i++) {
      const place = placer.next();
      places.push(place?.nodeId ?? '-');
      if (place === undefined) continue;
      const task = placed(taskOf(`t${this.#count++}`, wish), place.nodeId);
      const { assignedResources } = place;
      this.loads.change(undefined, { ...task, assignedResources }, this.nowMs);
    }
    return places.join(' ');
  }

  placer(wish: Parameters<typeof taskOf>[1] = {}): Placer {
    return new Placer(taskOf('one', wish), {
      loads: this.loads,
      view: new StageView(),
      prng: new Prng(7),
      nowMs: this.nowMs,
    });
  }
}

function placed(task: TaskObject, nodeId: string): TaskObject {
  const status = { ...task.status, state: 'assigned' as const };
  return { ...task, nodeId: nodeId as NodeObject['id'], status };
}

const placement = (wish: Placement) => ({ taskSpec: { placement: wish } });
const reserve = (wish: object) => ({ taskSpec: { resources: { reservations: wish } } });
const strategy = (name: string) => ({ serviceLabels: { 'shoal.strategy': name } });

t.test('spread: the fewest of the service, then the fewest of all', async (t) => {
  const stage = new Stage([nodeOf('a'), nodeOf('b'), nodeOf('c')]);
  t.equal(stage.place(4), 'a b c a');
  stage.put('a', { serviceId: 'db' as TaskObject['serviceId'] });
  stage.put('b', { serviceId: 'db' as TaskObject['serviceId'] });
  stage.put('b', { serviceId: 'db' as TaskObject['serviceId'] });
  t.equal(stage.place(2), 'c b', 'of the service counts before all else');
});

t.test('binpack: the fullest that still has room', async (t) => {
  const stage = new Stage([nodeOf('a'), nodeOf('b', { memoryBytes: 3e9 }), nodeOf('c')]);
  stage.put('b', reserve({ memoryBytes: 1e9 }));
  t.equal(
    stage.place(5, { ...reserve({ memoryBytes: 1e9 }), ...strategy('binpack') }),
    'b b a a a',
  );
});

t.test('random: anywhere, and the same for the same seed', async (t) => {
  const places = () =>
    new Stage([nodeOf('a'), nodeOf('b'), nodeOf('c')]).place(60, strategy('random'));
  t.equal(places(), places());
  for (const id of 'abc') t.ok(places().split(id).length > 10, id);
});

t.test('preferences make a tree that is filled evenly, whatever the nodes in it', async (t) => {
  const nodes = [
    nodeOf('a1', { labels: { zone: 'a', rack: '1' } }),
    nodeOf('a2', { labels: { zone: 'a', rack: '2' } }),
    nodeOf('a3', { labels: { zone: 'a', rack: '2' } }),
    nodeOf('b1', { labels: { zone: 'b', rack: '1' } }),
  ];
  const spreadOver = ['node.labels.zone', 'node.labels.rack'];
  t.equal(new Stage(nodes).place(8, placement({ spreadOver })), 'a1 b1 a2 b1 a1 b1 a3 b1');
  const full = { spreadOver, maxReplicas: 1 };
  t.equal(new Stage(nodes).place(5, placement(full)), 'a1 b1 a2 a3 -', 'a full branch is left');
  const unlabelled = [...nodes, nodeOf('x')];
  t.equal(new Stage(unlabelled).place(3, placement({ spreadOver })), 'a1 b1 x');
});

t.test('each filter, and what it says', async (t) => {
  const ports = [
    { protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'host' },
  ] as const;
  const named = (value: string): GenericResource => ({ kind: 'named', name: 'gpu', value });
  const nodes = [
    nodeOf('a', { labels: { zone: 'a' }, genericResources: [named('g1'), named('g2')] }),
    nodeOf('b', { architecture: 'aarch64', availability: 'pause' }),
    nodeOf('c', { state: 'down' }),
  ];
  const cases: readonly (readonly [string, Parameters<typeof taskOf>[1], string])[] = [
    ['cpu', reserve({ nanoCpus: 5e9 }), 'insufficient resources on 1 node'],
    ['memory', reserve({ memoryBytes: 9e9 }), 'insufficient resources on 1 node'],
    [
      'generic',
      reserve({ generic: [{ kind: 'discrete', name: 'gpu', value: 3 }] }),
      'insufficient resources on 1 node',
    ],
    [
      'constraint',
      placement({ constraints: ['node.labels.zone==b'] }),
      'scheduling constraints not satisfied on 1 node',
    ],
    [
      'platform',
      placement({ platforms: [{ os: 'linux', architecture: 'arm64' }] }),
      'unsupported platform on 1 node',
    ],
    [
      'network plugin',
      { taskSpec: { networks: [{ target: 'weave1' as NetworkId }] } },
      'missing plugin on 1 node',
    ],
    [
      'volume plugin',
      {
        taskSpec: {
          container: {
            image: 'web',
            mounts: [{ type: 'volume', target: '/d', volume: { driver: { name: 'nfs' } } }],
          },
        },
      },
      'missing plugin on 1 node',
    ],
  ];
  for (const [name, wish, why] of cases) {
    const stage = new Stage(nodes);
    t.equal(stage.place(1, wish), '-', name);
    t.equal(stage.placer(wish).explain(), `2 nodes not available for new tasks; ${why}`, name);
  }
  const stage = new Stage(nodes);
  t.equal(stage.place(2, { ports }), 'a -');
  t.equal(
    stage.placer({ ports }).explain(),
    '2 nodes not available for new tasks; host-mode port already in use on 1 node',
  );
  const runtimes = new Stage([nodeOf('h', { plugins: [{ type: 'Runtime', name: 'host' }] })]);
  t.equal(runtimes.place(1), '-');
  t.equal(runtimes.placer().explain(), 'no container engine on 1 node');
  const command = { taskSpec: { container: { image: 'host:latest' } } };
  t.equal(runtimes.place(1, command), 'h');
  const one = placement({ maxReplicas: 1 });
  const limited = new Stage([nodes[0] as NodeObject]);
  t.equal(limited.place(2, one), 'a -');
  t.equal(limited.placer(one).explain(), 'max replicas per node limit exceed');
});

t.test('named resources are given out one by one, numbers by the number', async (t) => {
  const generic: readonly GenericResource[] = [{ kind: 'discrete', name: 'gpu', value: 2 }];
  const named = ['g1', 'g2', 'g3'].map((value) => ({ kind: 'named', name: 'gpu', value }) as const);
  const counted = [{ kind: 'discrete', name: 'gpu', value: 5 }] as const;
  t.equal(
    new Stage([nodeOf('a', { genericResources: named })]).place(2, reserve({ generic })),
    'a -',
  );
  t.equal(
    new Stage([nodeOf('a', { genericResources: counted })]).place(3, reserve({ generic })),
    'a a -',
  );
  const stage = new Stage([nodeOf('a', { genericResources: named })]);
  t.strictSame(stage.placer(reserve({ generic })).next()?.assignedResources, named.slice(0, 2));
});

t.test('a soft constraint is followed as long as it can be', async (t) => {
  const nodes = [
    nodeOf('a', { labels: { disk: 'ssd' }, memoryBytes: 2e9 }),
    nodeOf('b'),
    nodeOf('c'),
  ];
  const wish = {
    taskSpec: {
      placement: { constraints: ['node.labels.disk==~ssd', 'node.hostname!=c'] },
      resources: { reservations: { memoryBytes: 1e9 } },
    },
  };
  t.equal(new Stage(nodes).place(4, wish), 'a a b b');
});

t.test('a node where the service keeps failing comes last, for a while', async (t) => {
  const stage = new Stage([nodeOf('a'), nodeOf('b')]);
  stage.put('b');
  stage.put('b');
  for (let i = 1; i < FAILURES_TOLERATED; i++) stage.fail('a');
  t.equal(stage.place(1), 'a', 'a few failures say nothing');
  stage.fail('a');
  t.equal(stage.place(2), 'b b');
  t.equal(stage.place(1, { specVersion: 2 }), 'a', 'another spec has a new chance');
  stage.nowMs = 5 * 60_000 + 1;
  t.equal(stage.place(1), 'a', 'and after five minutes this one has');
});
