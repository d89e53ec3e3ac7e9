import t from 'tap';
import type { NodeId, NodeState } from '../../../src/base/swarm-model.js';
import {
  Liveness,
  type LivenessInput,
  type MembershipState,
  type NodeRow,
} from '../../../src/control/dispatch/core/liveness.js';
import { nodeId } from '../support.js';

const ME = nodeId('me');
const OTHER = nodeId('other');
const a = nodeId('a');
const GONE = 'gossip and the session agree that the node is gone';
const ORPHAN = 'heartbeat failure: its manager is gone, and it came to no other';

type Step = readonly [number, ...LivenessInput[]];

/** A core with heartbeats of five seconds; each line is a step and what came of it. */
function play(...steps: readonly Step[]) {
  const core = new Liveness(ME, 5_000);
  const seen: string[] = [];
  for (const [atMs, ...inputs] of steps) {
    for (const input of inputs) {
      core.step(input, atMs);
      const { reports, hangUps, probes } = core.takeReady();
      for (const { state, message, ifSession } of reports)
        seen.push(`${atMs} ${state} #${ifSession} ${message}`.trim());
      for (const { number, reason } of hangUps) seen.push(`${atMs} hang up #${number} ${reason}`);
      for (const _ of probes) seen.push(`${atMs} probe`);
    }
  }
  return { core, seen };
}

const verdict = (state: MembershipState): LivenessInput => ({
  kind: 'membership',
  states: new Map([[a, state]]),
});
const row = (state: NodeState, manager?: NodeId, number = 1): LivenessInput => {
  const node: NodeRow = { id: a, state, ...(manager && { session: { manager, number } }) };
  return { kind: 'nodes', nodes: [node] };
};
const open = (number = 1): LivenessInput => ({ kind: 'session_open', nodeId: a, number });
const close = (number = 1): LivenessInput => ({ kind: 'session_close', nodeId: a, number });
const heard = (number = 1): LivenessInput => ({ kind: 'heard', nodeId: a, number });
const lead = (...reachable: NodeId[]): LivenessInput => ({
  kind: 'managers',
  leading: true,
  reachable: new Set([ME, ...reachable]),
});
const follow: LivenessInput = { kind: 'managers', leading: false, reachable: new Set() };
const timeout: LivenessInput = { kind: 'timeout' };
const mine = row('ready', ME);
const down = row('down', ME);

t.test('silence for three heartbeats is down, and not 1 ms before', async (t) => {
  const { core, seen } = play(
    [0, open(), mine],
    [1_000, heard()],
    [15_999, timeout],
    [16_000, timeout],
    [16_001, timeout, close(), down],
    [90_000, timeout],
  );
  t.strictSame(seen, ['16000 down #1 heartbeat failure', '16000 hang up #1 silent']);
  t.equal(core.nextDeadlineMs(), undefined, 'nothing is left to wait for');
});

t.test('a closed session alone waits for the heartbeats', async (t) => {
  t.strictSame(
    play([0, open(), mine], [1_000, close()], [14_999, timeout], [15_000, timeout]).seen,
    ['15000 down #1 heartbeat failure'],
  );
});

t.test('a closed session and gossip together are enough, in either order', async (t) => {
  t.strictSame(
    play([0, open(), mine], [100, close()], [200, verdict('suspect')], [300, verdict('dead')]).seen,
    [`300 down #1 ${GONE}`],
  );
  t.strictSame(play([0, open(), mine], [100, verdict('dead')], [200, close()]).seen, [
    '100 probe',
    `200 down #1 ${GONE}`,
  ]);
});

t.test(
  'a node that gossip calls dead is asked on its session, once, and has a second',
  async (t) => {
    const asked: Step[] = [
      [0, open(), mine],
      [100, verdict('dead')],
      [200, verdict('dead')],
      [1_099, timeout],
    ];
    t.strictSame(play(...asked, [1_100, timeout]).seen, [
      '100 probe',
      `1100 down #1 ${GONE}`,
      '1100 hang up #1 silent',
    ]);
    t.strictSame(play(...asked, [1_099, heard()], [1_100, timeout]).seen.slice(1), ['1100 probe']);
  },
);

t.test(
  'a suspicion is enough after two seconds without a session, or without an answer on it',
  async (t) => {
    const suspect = verdict('suspect');
    t.strictSame(
      play([0, open(), mine], [100, close()], [500, suspect], [2_499, timeout], [2_500, timeout])
        .seen,
      [`2500 down #1 ${GONE}`],
    );
    t.strictSame(
      play([0, open(), mine], [500, suspect], [600, suspect], [2_499, timeout], [2_500, timeout])
        .seen,
      ['500 probe', `2500 down #1 ${GONE}`, '2500 hang up #1 silent'],
    );
    t.strictSame(
      play([0, open(), mine], [500, suspect], [2_499, heard()], [9_000, suspect, timeout]).seen,
      ['500 probe'],
      'who answers is there, whatever gossip thinks',
    );
    t.strictSame(
      play(
        [0, open(), mine],
        [1, close()],
        [500, suspect],
        [2_400, verdict('alive')],
        [2_500, timeout],
      ).seen,
      [],
      'who refutes it is there',
    );
    t.strictSame(
      play(
        [0, open(), mine],
        [500, suspect],
        [600, heard()],
        [700, verdict('alive')],
        [900, suspect],
        [2_900, timeout],
      ).seen,
      ['500 probe', '900 probe', `2900 down #1 ${GONE}`, '2900 hang up #1 silent'],
      'each suspicion is another question',
    );
  },
);

t.test('who comes back in time is never called down', async (t) => {
  t.strictSame(
    play(
      [0, open(), mine],
      [1, close()],
      [14_000, open(2), row('ready', ME, 2)],
      [16_000, timeout],
      [28_999, timeout],
    ).seen,
    [],
  );
});

t.test('whoever has a later session elsewhere is let go, and not called down', async (t) => {
  t.strictSame(
    play(
      [0, open(), mine],
      [1_000, row('ready', OTHER, 2)],
      [1_001, close(), verdict('dead')],
      [60_000, timeout],
    ).seen,
    ['1000 hang up #1 moved'],
  );
});

t.test('a session that the state does not know yet is one all the same', async (t) => {
  t.strictSame(
    play(
      [0, lead(), row('ready', OTHER, 1)],
      [100, open(2)],
      [14_000, heard(2)],
      [16_000, timeout],
      [29_000, timeout],
    ).seen,
    ['29000 hang up #2 silent'],
    'and when it ends the node has three heartbeats for another',
  );
});

t.test('a node that is here and was called down is called ready until it is', async (t) => {
  t.strictSame(
    play(
      [0, open(), mine],
      [1_000, down],
      [1_500, timeout],
      [3_000, timeout],
      [3_100, mine],
      [9_000, timeout],
    ).seen,
    ['1000 ready #1', '3000 ready #1'],
  );
});

t.test('a report is made again until the state has it', async (t) => {
  const { seen, core } = play(
    [0, mine],
    [15_000, timeout],
    [16_999, timeout],
    [17_000, timeout],
    [19_000, timeout],
    [19_001, down],
    [40_000, timeout],
  );
  t.strictSame(seen, [
    '15000 down #1 heartbeat failure',
    '17000 down #1 heartbeat failure',
    '19000 down #1 heartbeat failure',
  ]);
  t.equal(core.nextDeadlineMs(), undefined);
});

t.test('a manager that starts waits three heartbeats for those that it served', async (t) => {
  t.strictSame(play([0, mine, follow], [14_999, timeout], [15_000, timeout]).seen, [
    '15000 down #1 heartbeat failure',
  ]);
  t.strictSame(
    play([0, mine, follow], [10, open(2), row('ready', ME, 2)], [15_000, timeout]).seen,
    [],
  );
});

t.test(
  'only the leader answers for nodes whose manager is gone, after three heartbeats',
  async (t) => {
    const theirs = row('ready', OTHER);
    t.strictSame(play([0, theirs, follow, verdict('dead')], [60_000, timeout]).seen, []);
    t.strictSame(play([0, theirs, lead(OTHER), verdict('dead')], [60_000, timeout]).seen, []);
    t.strictSame(
      play([0, theirs, lead(OTHER)], [1_000, lead()], [15_999, timeout], [16_000, timeout]).seen,
      [`16000 down #1 ${ORPHAN}`],
    );
    t.strictSame(
      play([0, theirs, lead()], [14_000, lead(OTHER)], [14_500, lead()], [29_499, timeout]).seen,
      [],
      'a manager that comes back answers for its nodes again',
    );
    t.strictSame(
      play([0, theirs, lead()], [14_000, row('ready', nodeId('third'), 2)], [28_999, timeout]).seen,
      [],
      'the node went to another that is gone, too, and has three heartbeats again',
    );
    t.strictSame(
      play([0, theirs, lead()], [5_000, verdict('dead')]).seen,
      [`5000 down #1 ${GONE}`],
      'gossip is the second witness here, too',
    );
    t.strictSame(play([0, theirs, follow], [100_000, lead()], [114_999, timeout]).seen, []);
  },
);

t.test('a node that joined and never came is down after three heartbeats', async (t) => {
  t.strictSame(play([0, lead()], [10, row('unknown')], [15_010, timeout]).seen, [
    `15010 down #0 ${ORPHAN}`,
  ]);
  t.strictSame(
    play([0, lead()], [10, row('unknown')], [100, open(), mine], [15_010, timeout]).seen,
    [],
  );
});

t.test("a removed node is nobody's concern", async (t) => {
  const none: LivenessInput = { kind: 'nodes', nodes: [] };
  const { seen, core } = play([0, open(), mine], [1, none], [2, close()], [20_000, timeout]);
  t.strictSame(seen, []);
  t.equal(core.nextDeadlineMs(), undefined);
});

t.test('words of an earlier session count for nothing', async (t) => {
  t.strictSame(
    play(
      [0, open(2), row('ready', ME, 2)],
      [1, open(1)],
      [10_000, heard(1), close(1)],
      [15_000, timeout],
    ).seen,
    ['15000 down #2 heartbeat failure', '15000 hang up #2 silent'],
  );
});

t.test('a shorter heartbeat counts at once', async (t) => {
  t.strictSame(
    play(
      [0, open(), mine],
      [100, { kind: 'heartbeat_interval', heartbeatMs: 1_000 }],
      [2_999, timeout],
      [3_000, timeout],
    ).seen,
    ['3000 down #1 heartbeat failure', '3000 hang up #1 silent'],
  );
});
