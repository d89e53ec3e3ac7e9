import t from 'tap';
import { everyMs, names, QUIET, SwimWorld, settledWorld } from './swim-world.js';

/** Runs each world with this many seeds; a failure names its seed. */
const SEEDS = Number(process.env['SIM_SEEDS'] ?? 3);
const seeds = Array.from({ length: SEEDS }, (_, i) => i + 1);

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[values.length >> 1] as number;

t.test('a hundred join at the same instant and agree within three seconds', async (t) => {
  for (const seed of seeds) {
    const world = new SwimWorld({ ...QUIET, seed });
    const [first, ...rest] = names(100) as [string, ...string[]];
    world.start(first, []);
    for (const id of rest) world.start(id, [first]);
    t.ok(
      world.run(
        3_000,
        everyMs(world, 20, () => world.isConverged()),
      ),
      `seed ${seed}: after ${Math.round(world.nowMs)} ms`,
    );
    world.run(20_000);
    const accused = world.seen.filter(({ to }) => to !== 'alive');
    t.strictSame(accused, [], `seed ${seed}: nobody is accused`);
    t.strictSame(world.violations, [], `seed ${seed}: packets keep their size`);
  }
});

t.test('a process that is gone is known to all of a hundred within three seconds', async (t) => {
  const times: number[] = [];
  for (const seed of seeds) {
    const world = settledWorld(100, { ...QUIET, seed });
    world.seen.length = 0;
    const startMs = world.nowMs;
    world.kill('n7');
    const isKnown = () => world.up.every(({ id }) => world.view(id, 'n7')?.state === 'dead');
    const inTime = world.run(startMs + 3_000, everyMs(world, 10, isKnown));
    times.push(Math.round(world.nowMs - startMs));
    t.ok(inTime, `seed ${seed}: after ${times.at(-1)} ms`);
    const others = world.seen.filter(({ member }) => member !== 'n7');
    t.strictSame(others, [], `seed ${seed}: nobody else is accused`);
  }
  t.comment(`known to all after ${median(times)} ms (median), ${Math.max(...times)} ms (longest)`);
});

t.test('a dark host is known to all within patience and gossip', async (t) => {
  for (const seed of seeds) {
    const world = settledWorld(30, { ...QUIET, seed });
    const startMs = world.nowMs;
    world.darken('n7');
    const isKnown = () => world.up.every(({ id }) => world.view(id, 'n7')?.state === 'dead');
    const inTime = world.run(startMs + 20_000, everyMs(world, 20, isKnown));
    t.ok(inTime, `seed ${seed}: after ${Math.round(world.nowMs - startMs)} ms`);
  }
});

t.test('members that stall and stall again take no healthy one with them', async (t) => {
  for (const seed of seeds) {
    const world = settledWorld(60, { ...QUIET, seed });
    world.loss = 0.01;
    world.seen.length = 0;
    const startMs = world.nowMs;
    const stalling = ['n3', 'n23', 'n43'];
    for (const id of stalling) {
      for (let atMs = startMs; atMs < startMs + 60_000; ) {
        atMs += 2_000 + world.prng.nextFloat() * 3_000;
        const forMs = 2_000 + world.prng.nextFloat() * 6_000;
        world.at(atMs, () => world.stall(id, forMs));
        atMs += forMs;
      }
    }
    world.run(startMs + 60_000);
    const isStalling = (member: string) => stalling.includes(member);
    const dead = world.seen.filter(({ to }) => to === 'dead');
    t.strictSame(
      dead.filter(({ member }) => !isStalling(member)),
      [],
      `seed ${seed}: no healthy member is declared dead`,
    );
    t.ok(
      world.seen.some(({ member, to }) => isStalling(member) && to === 'suspect'),
      `seed ${seed}: the stalls were noticed`,
    );
    world.loss = 0;
    world.run(world.nowMs + 20_000);
    t.ok(world.isConverged(), `seed ${seed}: and in the end all are there`);
  }
});

t.test('a partition that heals is forgotten within three seconds', async (t) => {
  const times: number[] = [];
  for (const seed of seeds) {
    for (const [cut, forMs] of [
      [1, 60_000],
      [7, 20_000],
      [25, 90_000],
    ] as const) {
      const world = settledWorld(50, { ...QUIET, seed });
      const ids = names(50);
      world.partition([ids.slice(0, cut), ids.slice(cut)]);
      world.run(world.nowMs + forMs);
      const healedMs = world.nowMs;
      world.heal();
      const inTime = world.run(
        healedMs + 3_000,
        everyMs(world, 20, () => world.isConverged()),
      );
      times.push(Math.round(world.nowMs - healedMs));
      t.ok(inTime, `seed ${seed}: ${cut} of 50 back after ${times.at(-1)} ms`);
    }
  }
  t.comment(`all agree after ${median(times)} ms (median), ${Math.max(...times)} ms (longest)`);
});

t.test('at rest a member sends a few packets a second, however many there are', async (t) => {
  for (const count of [10, 100]) {
    const world = settledWorld(count, { ...QUIET, seed: 1 });
    world.run(world.nowMs + 40_000);
    const { packets, bytes } = world;
    world.run(world.nowMs + 60_000);
    const packetsPerSecond = (world.packets - packets) / count / 60;
    const bytesPerSecond = (world.bytes - bytes) / count / 60;
    t.comment(
      `${count}: ${packetsPerSecond.toFixed(1)} packets/s, ${bytesPerSecond.toFixed(0)} B/s`,
    );
    t.ok(packetsPerSecond < 5 && bytesPerSecond < 400, `${count} members`);
  }
});

t.test('in the end everybody agrees, whatever happened', async (t) => {
  for (const seed of Array.from({ length: 4 * SEEDS }, (_, i) => 1_000 + i)) {
    const world = settledWorld(12, { ...QUIET, seed });
    const ids = names(12);
    const { prng } = world;
    const endMs = world.nowMs + 60_000;
    for (let atMs = world.nowMs; atMs < endMs; atMs += prng.nextFloat() * 4_000) {
      const id = ids[prng.nextBelow(12)] as string;
      const seed = ids[prng.nextBelow(12)] as string;
      const dice = prng.nextBelow(7);
      const forMs = prng.nextFloat() * 10_000;
      world.at(atMs, () => {
        if (dice === 0) world.kill(id);
        else if (dice === 1) world.darken(id);
        else if (dice === 2 && world.node(id).state !== 'up') world.start(id, [seed]);
        else if (dice === 3) world.stall(id, forMs);
        else if (dice === 4) world.loss = prng.nextFloat() / 4;
        else if (dice === 5) world.partition([prng.shuffle([...ids]).slice(0, prng.nextBelow(12))]);
        else world.heal();
      });
    }
    world.run(endMs + 10_000);
    world.heal();
    world.loss = 0;
    for (const id of ids) if (world.node(id).state !== 'up') world.start(id, ['n1', 'n2']);
    const inTime = world.run(
      endMs + 60_000,
      everyMs(world, 50, () => world.isConverged()),
    );
    const tookMs = Math.round(world.nowMs - endMs - 10_000);
    t.ok(inTime, `seed ${seed}: agreed after ${tookMs} ms`);
    t.strictSame(world.violations, [], `seed ${seed}`);
  }
});
