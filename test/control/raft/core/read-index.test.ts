import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import {
  READS_WAITING_MAX,
  ReadQuestions,
  ReadRounds,
} from '../../../../src/control/raft/core/read-index.js';

const own = (request: number) => ({ from: 0, request }) as const;

t.test('a round is of those who waited when it began', async (t) => {
  const rounds = new ReadRounds();
  t.notOk(rounds.begin(5), 'nobody waits');
  rounds.ask(own(1));
  t.ok(rounds.begin(5));
  rounds.ask(own(2));
  t.strictSame(rounds.confirm(1), [{ reader: own(1), index: 5 }]);
  t.strictSame(rounds.confirm(1), [], 'once');
  rounds.begin(8);
  t.strictSame(rounds.confirm(2), [{ reader: own(2), index: 8 }]);
  t.notOk(rounds.isOpen);
});

t.test('who confirms a round confirms all before it', async (t) => {
  const rounds = new ReadRounds();
  for (const request of [1, 2, 3]) {
    rounds.ask(own(request));
    rounds.begin(request * 10);
  }
  t.strictSame(
    rounds.confirm(2).map(({ index }) => index),
    [10, 20],
  );
  t.ok(rounds.isOpen);
});

t.test('at the end everybody is given back, in a round or not', async (t) => {
  const rounds = new ReadRounds();
  rounds.ask(own(1));
  rounds.begin(1);
  rounds.ask(own(2));
  t.strictSame(rounds.abandon(), [own(1), own(2)]);
  t.strictSame(rounds.confirm(9), []);
});

t.test('so many wait and no more, and room comes back', async (t) => {
  const rounds = new ReadRounds();
  for (let request = 1; request <= READS_WAITING_MAX; request++)
    if (!rounds.ask(own(request))) t.fail(`${request}`);
  t.notOk(rounds.ask(own(0)));
  rounds.begin(1);
  t.notOk(rounds.ask(own(0)), 'a round does not make room');
  rounds.confirm(1);
  t.ok(rounds.ask(own(0)), 'its answer does');
});

t.test('one question for all that wait, with a number of its own', async (t) => {
  const questions = new ReadQuestions(500, new Prng(1));
  t.equal(questions.ask(0), undefined);
  questions.add(1);
  questions.add(2);
  const first = questions.ask(0) as number;
  questions.add(3);
  const second = questions.ask(10) as number;
  t.not(first, second);
  t.ok(Number.isSafeInteger(second));
  t.strictSame(questions.answered(second), [3], 'in whatever order');
  t.strictSame(questions.answered(first), [1, 2]);
  t.strictSame(questions.answered(first), [], 'once');
});

t.test('a question without an answer is given up in time, the oldest first', async (t) => {
  const questions = new ReadQuestions(500, new Prng(1));
  t.equal(questions.deadlineMs, undefined);
  questions.add(1);
  questions.ask(0);
  questions.add(2);
  questions.ask(100);
  t.equal(questions.deadlineMs, 500);
  t.strictSame(questions.expired(499), []);
  t.strictSame(questions.expired(500), [1]);
  t.equal(questions.deadlineMs, 600);
  t.strictSame(questions.abandon(), [2]);
  t.equal(questions.deadlineMs, undefined);
});

t.test('a follower’s reads are bounded too', async (t) => {
  const questions = new ReadQuestions(500, new Prng(1));
  for (let request = 1; request <= READS_WAITING_MAX; request++) questions.add(request);
  t.notOk(questions.add(0));
  const question = questions.ask(0) as number;
  t.notOk(questions.add(0));
  questions.answered(question);
  t.ok(questions.add(0));
});
