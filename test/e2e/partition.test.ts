import t from 'tap';
import { hostOf, shoalArgv, skipUnless, TestLab } from './support/lab.js';
import { lostOf, Netns, sentOf } from './support/netns.js';
import { run, until } from './support/process.js';

/**
 * A wire that is cut while programs talk. What is promised: each side goes on by itself, and within
 * 3 s of healing every pair talks and all tables agree.
 */

const skip = skipUnless();
const HEALED_MS_MAX = 3000;
const NODES = ['node1', 'node2', 'node3'] as const;
type NodeName = (typeof NODES)[number];

interface Place {
  readonly node: NodeName;
  readonly netns: Netns;
  readonly address: string;
}

class World {
  readonly lab: TestLab;
  readonly places: Place[] = [];

  constructor(lab: TestLab) {
    this.lab = lab;
  }

  static async make(): Promise<World> {
    const world = new World(await TestLab.up(t, { nodes: NODES.length }));
    await world.lab.createNetwork('mesh');
    for (const node of NODES) await world.add(node, `on-${node}`);
    await until('all pairs reach each other', 10_000, () => world.allReach());
    return world;
  }

  async add(node: NodeName, name: string): Promise<Place> {
    const netns = await Netns.make(t);
    const made = await this.lab.attach(node, 'mesh', netns, { name });
    const place = { node, netns, address: hostOf(made.addresses[0]) };
    this.places.push(place);
    return place;
  }

  on(node: NodeName): Place {
    const place = this.places.find((candidate) => candidate.node === node);
    if (place === undefined) throw new Error(`nothing is attached on ${node}`);
    return place;
  }

  /** One ping from each to each other, at the same time. */
  async allReach(): Promise<boolean> {
    const pings = this.places.flatMap((from) =>
      this.places
        .filter((to) => to !== from)
        .map((to) => from.netns.ping(to.address, { timeoutMs: 250 })),
    );
    return (await Promise.all(pings)).every((answered) => answered === 1);
  }

  /** `undefined` while two nodes hold different records or tables. */
  async agreement(): Promise<string | undefined> {
    const all = await Promise.all(NODES.map((node) => this.lab.network(node, 'mesh')));
    const digests = new Set(all.map((n) => `${n.recordsDigest} ${n.tablesDigest} ${n.endpoints}`));
    return digests.size === 1 ? [...digests][0] : undefined;
  }

  stateOf(of: NodeName, seenBy: NodeName): Promise<string | undefined> {
    return this.lab.member(seenBy, of).then((member) => member?.state);
  }

  /** Heals, and measures until everything is as it was. */
  async heal(t: Pick<typeof import('tap').t, 'ok' | 'comment' | 'equal'>): Promise<void> {
    await this.lab.lab.heal();
    const beganMs = performance.now();
    const since = () => Math.round(performance.now() - beganMs);
    const reached = until('all pairs reach each other', 15_000, () => this.allReach()).then(since);
    const agreed = until('all tables agree', 15_000, () => this.agreement()).then(since);
    const [pingsMs, tablesMs] = await Promise.all([reached, agreed]);
    t.comment(`after healing: all pairs ping in ${pingsMs} ms, all tables agree in ${tablesMs} ms`);
    t.ok(pingsMs <= HEALED_MS_MAX, `all pairs ping within ${HEALED_MS_MAX} ms: ${pingsMs}`);
    t.ok(tablesMs <= HEALED_MS_MAX, `tables agree within ${HEALED_MS_MAX} ms: ${tablesMs}`);
    const all = await Promise.all(NODES.map((node) => this.lab.network(node, 'mesh')));
    for (const { endpoints } of all) t.equal(endpoints, this.places.length, 'endpoints known');
  }
}

const opened = skip === false ? World.make() : undefined;
const theWorld = () => opened as Promise<World>;

const NOT_CUT_PINGS = 3000;
const NOT_CUT_INTERVAL_MS = 20;

t.test('a short partition', { skip }, async (t) => {
  const world = await theWorld();
  const [one, two, three] = NODES.map((node) => world.on(node)) as [Place, Place, Place];
  const between = one.netns.start(
    t,
    one.netns.pingArgv(two.address, { count: NOT_CUT_PINGS, intervalMs: NOT_CUT_INTERVAL_MS }),
  );
  await world.lab.lab.partition(['node3']);
  await until(
    'node3 is cut off',
    2_000,
    async () => (await one.netns.ping(three.address, { timeoutMs: 100 })) === 0,
  );
  await until(
    'node3 is suspected',
    10_000,
    async () => (await world.stateOf('node3', 'node1')) !== 'alive',
  );
  await world.heal(t);
  const { stdout } = await between.stop('SIGINT');
  t.same(lostOf(stdout), [], `node1 to node2 lost none of ${sentOf(stdout)}`);
});

t.test('a partition long enough for members to be called dead', { skip }, async (t) => {
  const world = await theWorld();
  const { lab } = world;
  const [one, two] = [world.on('node1'), world.on('node2')];
  const between = one.netns.start(
    t,
    one.netns.pingArgv(two.address, { count: NOT_CUT_PINGS, intervalMs: NOT_CUT_INTERVAL_MS }),
  );
  await lab.lab.partition(['node3']);
  const cutMs = performance.now();
  await until(
    'node3 is dead',
    20_000,
    async () => (await world.stateOf('node3', 'node1')) === 'dead',
  );
  t.comment(`dead after ${Math.round(performance.now() - cutMs)} ms`);
  await until(
    'the manager calls it down',
    20_000,
    async () => (await lab.nodeStates()).get('node3') === 'down',
  );
  t.comment(`down after ${Math.round(performance.now() - cutMs)} ms`);
  await until(
    'node3 calls the others dead',
    20_000,
    async () =>
      (await world.stateOf('node1', 'node3')) === 'dead' &&
      (await world.stateOf('node2', 'node3')) === 'dead',
  );
  const alone = await Netns.make(t);
  await t.rejects(
    lab.attach('node3', 'mesh', alone, { name: 'alone' }),
    /swarm does not have a leader/,
    'without a manager no address is given out',
  );

  const late = await world.add('node1', 'late');
  await until(
    'it is reached on this side',
    5_000,
    async () => (await two.netns.ping(late.address)) === 1,
  );
  await until('25 s have passed', 30_000, () => performance.now() - cutMs >= 25_000);
  await world.heal(t);
  t.equal(await world.on('node3').netns.ping(late.address), 1, 'what was attached meanwhile, too');
  const { stdout } = await between.stop('SIGINT');
  t.same(lostOf(stdout), [], `node1 to node2 lost none of ${sentOf(stdout)}`);
  await until('the manager shows all ready', 10_000, async () =>
    [...(await lab.nodeStates()).values()].every((state) => state === 'ready'),
  );
  await until('all are alive everywhere', 10_000, async () => {
    const states = await Promise.all(
      NODES.flatMap((by) => NODES.map((of) => world.stateOf(of, by))),
    );
    return states.every((state) => state === 'alive');
  });
});

t.test('the command cuts and heals as well', { skip }, async (t) => {
  const world = await theWorld();
  const lab = (...args: string[]) => run([...shoalArgv, 'lab', ...args, '--dir', world.lab.dir]);
  t.equal(
    (await lab('partition', 'node1', 'node2')).stdout,
    'partitioned: node1 | node2 | node3\n',
  );
  t.equal(await world.on('node1').netns.ping(world.on('node2').address, { timeoutMs: 200 }), 0);
  t.equal((await lab('heal')).code, 0);
  await until('all pairs reach each other', 5_000, () => world.allReach());
});
