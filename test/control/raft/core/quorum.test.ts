import fc from 'fast-check';
import t from 'tap';
import { quorumOf, reachedByQuorum, verdict } from '../../../../src/control/raft/core/quorum.js';
import { raftId } from '../group.js';
import { runs } from '../wire/arbitrary.js';

const votersOf = (count: number) => Array.from({ length: count }, (_, i) => raftId(i + 1));

t.test('any two quorums share a member', async (t) => {
  for (let voters = 1; voters <= 9; voters++) {
    t.ok(2 * quorumOf(voters) > voters, `${voters} voters`);
    t.ok(
      2 * (quorumOf(voters) - 1) <= voters,
      `${voters} voters: and none is larger than it must be`,
    );
  }
});

t.test('quorums before and after one voter more share a member', async (t) => {
  for (let voters = 1; voters <= 9; voters++)
    t.ok(quorumOf(voters) + quorumOf(voters + 1) > voters + 1, `${voters} and one more`);
});

t.test('a number is reached by a quorum if that many have it or more', async (t) => {
  const cases: readonly (readonly [number[], number])[] = [
    [[], 0],
    [[7], 7],
    [[7, 3], 3],
    [[7, 3, 5], 5],
    [[7, 7, 1], 7],
    [[9, 1, 5, 3], 3],
    [[9, 1, 5, 3, 3], 3],
    [[0, 0, 0, 8, 8], 0],
  ];
  for (const [reached, want] of cases) {
    const voters = votersOf(reached.length);
    t.equal(
      reachedByQuorum(voters, (voter) => reached[voter - 1] as number),
      want,
      reached.join(' '),
    );
  }
});

t.test('it agrees with counting', async () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9), { minLength: 1, maxLength: 7 }), (reached) => {
      const voters = votersOf(reached.length);
      const index = reachedByQuorum(voters, (voter) => reached[voter - 1] as number);
      const have = (least: number) => reached.filter((each) => each >= least).length;
      return have(index) >= quorumOf(reached.length) && have(index + 1) < quorumOf(reached.length);
    }),
    runs(500),
  );
});

t.test('an election is won, lost or open', async (t) => {
  const cases: readonly (readonly [voters: number, votes: string, string])[] = [
    [0, '', 'lost'],
    [1, '', 'open'],
    [1, '+', 'won'],
    [2, '+', 'open'],
    [2, '+-', 'lost'],
    [2, '++', 'won'],
    [3, '+', 'open'],
    [3, '+-', 'open'],
    [3, '--', 'lost'],
    [3, '+-+', 'won'],
    [4, '--', 'lost'],
    [5, '--', 'open'],
    [5, '--+-', 'lost'],
  ];
  for (const [count, text, want] of cases) {
    const votes = new Map([...text].map((vote, i) => [raftId(i + 1), vote === '+']));
    t.equal(verdict(votersOf(count), votes), want, `${count}: ${text}`);
  }
  const strangers = new Map([7, 8, 9].map((id) => [raftId(id), true]));
  t.equal(verdict(votersOf(3), strangers), 'open', 'strangers decide nothing');
});
