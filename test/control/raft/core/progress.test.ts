import t from 'tap';
import { raftConfig } from '../../../../src/control/raft/core/config.js';
import { Inflights } from '../../../../src/control/raft/core/inflights.js';
import { Progress } from '../../../../src/control/raft/core/progress.js';
import { raftId } from '../group.js';

function progressAt(nextIndex: number, matchIndex = 0): Progress {
  const limits = { inflightMessagesMax: 3, inflightBytesMax: 1_000 };
  const config = raftConfig({ id: raftId(1), seed: 1, ...limits });
  const progress = new Progress(config, nextIndex, 0);
  progress.matchIndex = matchIndex;
  return progress;
}

t.test('a probe is one append at a time', async (t) => {
  const progress = progressAt(10);
  t.notOk(progress.paused);
  progress.sent(12, 100);
  t.ok(progress.paused);
  t.equal(progress.nextIndex, 10, 'it is not taken for delivered');
  progress.heartbeatAnswered(12);
  t.notOk(progress.paused, 'a sign of life allows another');
  progress.sent(12, 100);
  progress.matched(12);
  t.strictSame([progress.paused, progress.matchIndex, progress.nextIndex], [false, 12, 13]);
});

t.test('a refused probe goes back to the candidate, and never below what matches', async (t) => {
  const cases: readonly (readonly [
    match: number,
    refused: number,
    candidate: number,
    next: number,
  ])[] = [
    [0, 9, 5, 6],
    [0, 9, 0, 1],
    [0, 9, 20, 9],
    [7, 9, 3, 8],
  ];
  for (const [match, refused, candidate, next] of cases) {
    const progress = progressAt(10, match);
    progress.sent(10, 1);
    progress.refused(refused, candidate);
    t.equal(progress.nextIndex, next, `${refused} refused, ${candidate} may match`);
    t.notOk(progress.paused);
  }
});

t.test('a refusal that has been overtaken says nothing', async (t) => {
  const probing = progressAt(10);
  probing.sent(10, 1);
  probing.refused(5, 2);
  t.strictSame([probing.nextIndex, probing.paused], [10, true]);

  const replicating = progressAt(10, 9);
  replicating.replicate();
  replicating.refused(9, 2);
  t.equal(replicating.mode, 'replicate');
});

t.test('streamed appends are taken for delivered, until the window is full', async (t) => {
  const progress = progressAt(1);
  progress.matched(4);
  progress.replicate();
  for (const lastIndex of [5, 6]) progress.sent(lastIndex, 10);
  t.strictSame([progress.nextIndex, progress.paused], [7, false]);
  progress.sent(7, 10);
  t.ok(progress.paused, 'by number');
  progress.matched(5);
  t.notOk(progress.paused);
  progress.sent(8, 5_000);
  progress.matched(6);
  t.ok(progress.paused, 'by bytes');
  progress.matched(8);
  t.strictSame([progress.paused, progress.nextIndex], [false, 9]);
});

t.test('an empty append takes no room in the window', async (t) => {
  const progress = progressAt(5, 4);
  progress.replicate();
  for (let i = 0; i < 10; i++) progress.sent(4, 0);
  t.strictSame([progress.paused, progress.nextIndex], [false, 5]);
});

t.test('a refusal ends the stream, and a probe begins after what matches', async (t) => {
  const progress = progressAt(5, 4);
  progress.replicate();
  progress.sent(9, 10);
  progress.refused(9, 4);
  t.strictSame([progress.mode, progress.nextIndex, progress.paused], ['probe', 5, false]);
  t.equal(progress.inflights.count, 0);
});

t.test('a heartbeat’s answer asks for an empty append while something is missing', async (t) => {
  const progress = progressAt(5, 4);
  progress.replicate();
  progress.heartbeatAnswered(4);
  t.notOk(progress.nudge, 'it has all');
  progress.sent(6, 10);
  progress.heartbeatAnswered(6);
  t.ok(progress.nudge);
});

t.test(
  'during a snapshot nothing is sent; after it the next append waits for a sign',
  async (t) => {
    for (const [ok, next] of [
      [true, 21],
      [false, 5],
    ] as const) {
      const progress = progressAt(5, 4);
      progress.snapshot(20);
      progress.heartbeatAnswered(30);
      t.ok(progress.paused);
      progress.snapshotSent(ok);
      t.strictSame([progress.mode, progress.nextIndex, progress.paused], ['probe', next, true]);
      progress.heartbeatAnswered(30);
      t.notOk(progress.paused);
    }
  },
);

t.test('the end of a snapshot that is no longer awaited changes nothing', async (t) => {
  const progress = progressAt(5, 4);
  progress.replicate();
  progress.snapshotSent(true);
  t.equal(progress.mode, 'replicate');
});

t.test('a window frees what an answer covers, however many at once', async (t) => {
  const inflights = new Inflights(4, 1_000);
  for (let round = 0; round < 50; round++) {
    for (let i = 1; i <= 4; i++) inflights.add(round * 4 + i, 10);
    t.ok(inflights.full);
    inflights.freeTo(round * 4 + 2);
    t.strictSame([inflights.count, inflights.bytes], [2, 20]);
    inflights.freeTo(round * 4 + 1);
    t.equal(inflights.count, 2, 'an old answer frees nothing');
    inflights.freeTo(round * 4 + 4);
    t.strictSame([inflights.count, inflights.bytes, inflights.full], [0, 0, false]);
  }
});

t.test(
  'a refused stream goes on with half its window, which grows with what arrives',
  async (t) => {
    const config = raftConfig({ id: raftId(1), seed: 1, inflightMessagesMax: 8 });
    const progress = new Progress(config, 1, 0);
    const fill = () => {
      let count = 0;
      while (!progress.paused) {
        progress.sent(progress.nextIndex, 10);
        count += 1;
      }
      return count;
    };
    progress.replicate();
    t.equal(fill(), 8);
    progress.refused(5, 0);
    progress.sent(1, 10);
    progress.matched(1);
    progress.replicate();
    t.equal(fill(), 5, 'half of eight, and one for what has arrived');
    for (let round = 0; round < 6; round += 1) {
      progress.refused(progress.nextIndex, 0);
      progress.replicate();
    }
    t.equal(fill(), 1, 'never none');
    for (let index = 2; index < 20; index += 1) {
      progress.matched(index);
      fill();
    }
    t.equal(progress.inflights.count, 8, 'and never more than the window');
  },
);
