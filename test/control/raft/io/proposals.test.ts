import t from 'tap';
import type { LogEntry } from '../../../../src/control/raft/core/types.js';
import { Proposals } from '../../../../src/control/raft/io/proposals.js';
import { closedError, RaftError } from '../../../../src/control/raft/io/raft-error.js';

const entry = (index: number, term: number): LogEntry => ({
  index,
  term,
  kind: 'command',
  data: new Uint8Array(0),
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

function proposals() {
  const subject = new Proposals();
  const outcomes: Record<string, unknown> = {};
  /** Gives it a place, unless `index` is 0. */
  const add = (name: string, index: number, term: number) => {
    void subject
      .add(10, (token) => {
        // The core answers later, in a turn of its own.
        queueMicrotask(() => index > 0 && subject.onOutcome({ token, index, term }, 0));
      })
      .then(
        (result) => {
          outcomes[name] = result;
        },
        (error: unknown) => {
          outcomes[name] = error instanceof RaftError ? error.code : error;
        },
      );
  };
  return { subject, outcomes, add };
}

t.test('the result goes to who proposed that entry', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('a', 4, 1);
  add('b', 5, 1);
  await turn();
  subject.onApplied(entry(5, 1), 'for b');
  subject.onApplied(entry(4, 1), 'for a');
  subject.onApplied(entry(6, 1), 'for nobody');
  await turn();
  t.strictSame(outcomes, { a: 'for a', b: 'for b' });
  t.equal(subject.count, 0);
});

t.test('a later term in its place, or before it, means that it is lost', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('kept', 4, 1);
  add('replaced', 5, 1);
  add('after', 9, 1);
  await turn();
  subject.onApplied(entry(4, 1), 'result');
  subject.onApplied(entry(5, 2), 'of another');
  await turn();
  t.strictSame(outcomes, { kept: 'result', replaced: 'RAFT_LOST', after: 'RAFT_LOST' });
});

t.test('what a snapshot jumps over is unknown, and what cannot follow it is lost', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('inside', 4, 1);
  add('behind', 9, 1);
  add('later', 10, 3);
  await turn();
  subject.onRestored({ index: 6, term: 3, members: [] });
  await turn();
  t.strictSame(outcomes, { inside: 'RAFT_OUTCOME_UNKNOWN', behind: 'RAFT_LOST' });
  subject.onApplied(entry(10, 3), 'result');
  await turn();
  t.equal(outcomes['later'], 'result');
});

t.test('a place that is proposed for again says nothing about who had it before', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('old', 4, 1);
  await turn();
  add('new', 4, 3);
  await turn();
  t.strictSame(outcomes, { old: 'RAFT_OUTCOME_UNKNOWN' });
  subject.onApplied(entry(4, 3), 'result');
  await turn();
  t.equal(outcomes['new'], 'result');
});

t.test('waiting for an earlier leadership ends; for the present one it goes on', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('old', 4, 1);
  add('new', 5, 3);
  await turn();
  subject.forgetBefore(3);
  await turn();
  t.strictSame(outcomes, { old: 'RAFT_OUTCOME_UNKNOWN' });
});

t.test('refusals say what to do', async (t) => {
  const { subject } = proposals();
  const cases = [
    ['not_leader', { code: 'RAFT_NOT_LEADER', leader: 7 }],
    ['transferring', { code: 'RAFT_NOT_LEADER', leader: 0 }],
    ['overloaded', { code: 'RAFT_OVERLOADED' }],
    ['read_only', { code: 'RAFT_READ_ONLY' }],
    ['members_busy', { code: 'RAFT_MEMBERS', reason: 'members_busy' }],
    ['members_invalid', { code: 'RAFT_MEMBERS', reason: 'members_invalid' }],
    ['learner_behind', { code: 'RAFT_MEMBERS', reason: 'learner_behind' }],
  ] as const;
  for (const [refused, detail] of cases) {
    const proposal = subject.add(1, (token) =>
      queueMicrotask(() => subject.onOutcome({ token, refused }, 7 as never)),
    );
    t.strictSame(await proposal.catch((error: RaftError) => error.detail), detail);
  }
  t.equal(subject.count, 0);
});

t.test('at the end only what was taken up has an unknown outcome', async (t) => {
  const { subject, outcomes, add } = proposals();
  add('taken up', 4, 1);
  add('not yet', 0, 0);
  await turn();
  subject.close(closedError());
  await turn();
  t.strictSame(outcomes, { 'taken up': 'RAFT_OUTCOME_UNKNOWN', 'not yet': 'RAFT_CLOSED' });
});
