import t from 'tap';
import { RecordsWorld, type SimNode, type WorldConfig } from './records-world.js';

const FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const TOPICS = ['net-a', 'net-b', 'net-c'];

const lossy = (seed: number): WorldConfig => ({
  seed,
  nodeCount: 8,
  lossRate: 0.2,
  duplicateRate: 0.1,
  latencyMsMax: 20,
  detectMs: 1_500,
});

/** What each owner holds true of itself: the tables must come to this. */
class Truth {
  readonly records = new Map<string, Map<string, string>>();
  /** Records deleted for good: (topic, owner, key, value) that must never be seen again. */
  readonly deleted = new Set<string>();
  #serial = 0;

  of(topic: string, owner: string): Map<string, string> {
    const name = `${topic}/${owner}`;
    const held = this.records.get(name) ?? new Map<string, string>();
    this.records.set(name, held);
    return held;
  }

  value(): string {
    this.#serial += 1;
    return `v${this.#serial}`;
  }

  forget(owner: string): void {
    for (const topic of TOPICS) this.of(topic, owner).clear();
  }
}

function act(world: RecordsWorld, truth: Truth): void {
  const node = world.node(world.prng.nextBelow(world.config.nodeCount));
  const topic = TOPICS[world.prng.nextBelow(TOPICS.length)] ?? '';
  const dice = world.prng.nextFloat();
  if (!node.up) {
    if (dice < 0.4) world.restart(node);
    return;
  }
  if (dice < 0.02) {
    world.crash(node);
    truth.forget(node.id);
  } else if (dice < 0.04) {
    const split = 1 + world.prng.nextBelow(world.config.nodeCount - 1);
    world.partition(({ id }) => (Number(id.slice(5)) < split ? 0 : 1));
  } else if (dice < 0.06) world.heal();
  else if (dice < 0.1 && node.core.table.has(topic)) {
    world.input(node, { kind: 'unsubscribe', topic });
    truth.of(topic, node.id).clear();
  } else publish(world, truth, node, topic);
}

function publish(world: RecordsWorld, truth: Truth, node: SimNode, topic: string): void {
  if (!node.core.table.has(topic)) world.input(node, { kind: 'subscribe', topic });
  const key = `k${world.prng.nextBelow(6)}`;
  const own = truth.of(topic, node.id);
  if (world.prng.chance(0.3)) {
    own.delete(key);
    world.input(node, { kind: 'publish', topic, key, value: undefined });
  } else {
    const value = truth.value();
    own.set(key, value);
    world.input(node, { kind: 'publish', topic, key, value: Buffer.from(value) });
  }
}

/** First thing that differs from the truth at any node, in words. */
function wrong(world: RecordsWorld, truth: Truth): string | undefined {
  for (const topic of TOPICS) {
    const takingPart = world.up().filter(({ core }) => core.table.has(topic));
    const want = takingPart
      .flatMap(({ id }) => [...truth.of(topic, id)].map(([key, value]) => `${id}/${key}=${value}`))
      .sort();
    for (const { id, core } of takingPart) {
      const got = core.table
        .records(topic)
        .filter(({ suspended }) => !suspended)
        .map(({ owner, key, value }) => `${owner}/${key}=${Buffer.from(value).toString()}`)
        .sort();
      const odd =
        got.find((text, i) => text !== want[i]) ?? want.find((text, i) => text !== got[i]);
      if (odd !== undefined) return `${id} ${topic}: ${odd}`;
    }
    if (!world.agree(topic)) return `${topic}: digests differ`;
  }
  return undefined;
}

t.test('whatever happens, all agree with every owner within seconds after healing', async (t) => {
  let slowestMs = 0;
  for (let seed = 1; seed <= 12 * FACTOR; seed++) {
    const world = new RecordsWorld(lossy(seed));
    const truth = new Truth();
    for (let i = 0; i < 300; i++) {
      act(world, truth);
      world.run(world.prng.nextFloat() * 200);
    }
    for (const node of world.nodes.values()) if (!node.up) world.restart(node);
    world.heal();
    world.run(world.config.detectMs + 1);
    const healedMs = world.nowMs;
    const right = world.run(30_000, () => wrong(world, truth) === undefined);
    slowestMs = Math.max(slowestMs, world.nowMs - healedMs);
    if (!right) t.fail(`seed ${seed}: ${wrong(world, truth)}`);
    // And it stays so: nothing deleted comes back once all is quiet.
    world.run(30_000);
    const later = wrong(world, truth);
    if (later !== undefined) t.fail(`seed ${seed}, later: ${later}`);
  }
  t.comment(`slowest convergence ${slowestMs.toFixed(0)} ms`);
  t.ok(
    slowestMs < 13_000,
    'within a round and a half of anti-entropy even with a fifth of gossip lost',
  );
});

t.test('a healed partition converges within 3 s of being noticed', async (t) => {
  for (let seed = 1; seed <= 6 * FACTOR; seed++) {
    const world = new RecordsWorld({ ...lossy(seed), nodeCount: 30, lossRate: 0.05 });
    const truth = new Truth();
    for (const node of world.nodes.values()) publish(world, truth, node, 'net-a');
    world.run(8_000);
    t.equal(wrong(world, truth), undefined, `seed ${seed}: agreed before`);
    world.partition(({ id }) => Number(id.slice(5)) % 2);
    world.run(6_000);
    for (const node of world.nodes.values()) publish(world, truth, node, 'net-a');
    world.run(6_000);
    world.heal();
    world.run(world.config.detectMs + 1);
    const healedMs = world.nowMs;
    world.run(20_000, () => wrong(world, truth) === undefined);
    const tookMs = world.nowMs - healedMs;
    t.ok(tookMs < 3_000, `seed ${seed}: ${tookMs.toFixed(0)} ms`);
  }
});

t.test('a node whose clock was set back before a restart outbids its own past', async (t) => {
  const world = new RecordsWorld({ ...lossy(7), lossRate: 0 });
  const truth = new Truth();
  for (const node of world.nodes.values()) publish(world, truth, node, 'net-a');
  world.run(8_000);
  const node = world.node(3);
  world.crash(node);
  truth.forget(node.id);
  world.run(5_000);
  world.restart(node, 500);
  publish(world, truth, node, 'net-a');
  world.run(10_000, () => wrong(world, truth) === undefined);
  t.equal(wrong(world, truth), undefined);
  t.ok((node.core.counters.get('own_epoch_raised') ?? 0) > 0, 'and it was counted');
});

t.test('at rest nothing is sent but one digest exchange per node and round', async (t) => {
  const world = new RecordsWorld({ ...lossy(3), lossRate: 0 });
  const truth = new Truth();
  for (const node of world.nodes.values()) publish(world, truth, node, 'net-a');
  world.run(20_000);
  const { gossipCount, exchangeCount } = world;
  world.run(100_000);
  t.equal(world.gossipCount, gossipCount);
  const perNode = (world.exchangeCount - exchangeCount) / 8;
  t.ok(perNode > 7 && perNode < 15, `${perNode} exchanges per node in 100 s`);
});
