import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { SealCounter } from '../../src/agent/seal-counter.js';
import { Seals } from '../../src/agent/seals.js';
import { NO_TABLES } from '../../src/dataplane/overlay/core/tables.js';

t.test('no two processes share a counter, wherever the clock goes', async (t) => {
  const dir = t.testdir();
  let end = 0n;
  for (const nowMs of [1.8e12, 1.8e12 + 5, 1.8e12 - 1e9, 0, -5, 1.9e12, 1.9e12]) {
    const counter = new SealCounter(dir, nowMs);
    t.ok(counter.first >= end, `at ${nowMs}`);
    t.ok(counter.first >= BigInt(Math.max(0, nowMs)) << 20n, 'and not behind the clock');
    end = counter.first + BigInt(counter.allowed);
    t.ok(BigInt(readFileSync(join(dir, 'seal-counter'), 'utf8').trim()) >= end, 'marked ahead');
  }
});

t.test('more is reserved before it is used', async (t) => {
  const dir = t.testdir();
  const counter = new SealCounter(dir, 1.8e12);
  const { allowed, first } = counter;
  t.notOk(counter.extend(allowed / 2 - 1));
  t.ok(counter.extend(allowed / 2));
  t.ok(counter.allowed > allowed);
  t.equal(counter.first, first);
  const next = new SealCounter(dir, 1.8e12);
  t.ok(next.first >= first + BigInt(counter.allowed), 'of which the next process knows');
});

t.test('a mark that cannot be read is no reason to begin anew', async (t) => {
  const dir = t.testdir({ 'seal-counter': 'oops' });
  t.throws(() => new SealCounter(dir, 1), /does not hold a number/);
  writeFileSync(join(dir, 'seal-counter'), `${2n ** 62n}\n`);
  t.equal(new SealCounter(dir, 1).first, 2n ** 62n);
  rmSync(dir, { recursive: true });
  t.throws(() => new SealCounter(dir, 1), 'nor is one that cannot be written');
});

t.test('keys follow the tables and the ring', async (t) => {
  const ring = (...numbers: number[]) => numbers.map((n) => ({ secret: Buffer.alloc(32, n) }));
  const seals = new Seals('self', ring(1, 2));
  const published = (peers: Readonly<Record<string, string>>) => ({
    tables: { ...NO_TABLES, sealPeers: new Map(Object.entries(peers)) },
    vtepIndexes: new Map([
      ['v0', 0],
      ['v1', 1],
    ]),
    portIndexes: new Map(),
  });
  const told = (changes: ReturnType<Seals['follow']>) =>
    changes.map(({ index, keys }) => [index, keys?.opens.length]);
  const [first] = seals.follow(published({ v0: 'b' }));
  t.equal(first?.keys?.opens.length, 2);
  t.strictSame(seals.follow(published({ v0: 'b' })), [], 'nothing changed');
  const [other] = seals.follow(published({ v0: 'c' }));
  t.not(other?.keys?.seals.id, first?.keys?.seals.id, 'another node at the same place');
  t.strictSame(told(seals.follow(published({ v1: 'c' }))), [
    [0, undefined],
    [1, 2],
  ]);
  t.strictSame(seals.setRing(ring(1, 2)), [], 'the same ring');
  const [rotated] = seals.setRing(ring(2, 1, 3));
  t.equal(rotated?.index, 1);
  t.strictSame(rotated?.keys?.opens[1], other?.keys?.opens[0], 'the old key still opens');
  t.notSame(rotated?.keys?.seals, other?.keys?.seals);
});
