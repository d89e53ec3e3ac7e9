import t, { type Test } from 'tap';
import { closedError, RaftError } from '../../../../src/control/raft/io/raft-error.js';
import { Reads } from '../../../../src/control/raft/io/reads.js';
import { until } from './cluster.js';

function reads(t: Test, patienceMs = 200) {
  const asked: number[] = [];
  const subject = new Reads({
    ask: (request) => asked.push(request),
    firstRequest: 7,
    roundMs: 40,
    retryMs: 10,
    patienceMs,
  });
  t.teardown(() => subject.close(closedError()));
  const outcomes: string[] = [];
  const add = (name: string) => {
    void subject.add().then(
      () => outcomes.push(name),
      (error: unknown) => outcomes.push(`${name} ${error instanceof RaftError && error.code}`),
    );
    subject.poll();
  };
  return { subject, asked, outcomes, add };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

t.test('reads that wait share a round; those that come later wait for the next', async (t) => {
  const { subject, asked, outcomes, add } = reads(t);
  add('a');
  add('b');
  add('c');
  t.strictSame(asked, [7], 'b and c are too late for the first');
  subject.onAnswer(7, 5, 5);
  subject.poll();
  t.strictSame(asked, [7, 8]);
  await turn();
  t.strictSame(outcomes, ['a']);
  subject.onAnswer(8, 5, 5);
  await turn();
  t.strictSame(outcomes, ['a', 'b', 'c']);
  t.equal(subject.count, 0);
});

t.test('a read waits until its index is applied', async (t) => {
  const { subject, outcomes, add } = reads(t);
  add('a');
  subject.onAnswer(7, 9, 5);
  subject.onApplied(8);
  await turn();
  t.strictSame(outcomes, []);
  subject.onApplied(9);
  await turn();
  t.strictSame(outcomes, ['a']);
});

t.test('a round without an answer is asked for again, with another number', async (t) => {
  const { subject, asked, outcomes, add } = reads(t);
  add('a');
  await until('another round', () => asked.length === 2);
  subject.onAnswer(7, 1, 5);
  await turn();
  t.strictSame(outcomes, [], 'the old number means nothing any more');
  subject.onAnswer(asked[1] as number, 1, 5);
  await turn();
  t.strictSame(outcomes, ['a']);
});

t.test('without a leader a read is given up when its patience ends', async (t) => {
  const { subject, asked, outcomes, add } = reads(t);
  add('a');
  const refuse = setInterval(() => subject.onAnswer(asked.at(-1) as number, undefined, 5), 5);
  t.teardown(() => clearInterval(refuse));
  await until('it is refused', () => outcomes.length === 1);
  t.strictSame(outcomes, ['a RAFT_NO_LEADER']);
  t.ok(asked.length > 3);
  t.equal(subject.count, 0);
});

t.test('a new leader is asked at once', async (t) => {
  const { subject, asked, add } = reads(t, 10_000);
  add('a');
  subject.onAnswer(7, undefined, 5);
  subject.poll();
  t.strictSame(asked, [7], 'not in the same moment');
  subject.onLeader();
  subject.poll();
  t.strictSame(asked, [7, 8]);
});

t.test('closing refuses all', async (t) => {
  const { subject, outcomes, add } = reads(t);
  add('a');
  subject.onAnswer(7, 9, 5);
  add('b');
  add('c');
  subject.close(closedError());
  await turn();
  t.strictSame(outcomes.sort(), ['a RAFT_CLOSED', 'b RAFT_CLOSED', 'c RAFT_CLOSED']);
});
