import t from 'tap';
import {
  Liveness,
  type LivenessInput,
  type MembershipState,
} from '../../../src/control/dispatch/core/liveness.js';
import { nodeId } from '../support.js';

const a = nodeId('a');
const GONE = 'gossip and the session agree that the node is gone';

/** A core with heartbeats of five seconds; each line is a step and what came of it. */
function play(...steps: readonly (readonly [number, LivenessInput])[]) {
  const core = new Liveness(5_000);
  const seen: string[] = [];
  for (const [atMs, input] of steps) {
    core.step(input, atMs);
    const { changes, probes } = core.takeReady();
    for (const { state, message } of changes) seen.push(`${atMs} ${state} ${message}`.trim());
    for (const _ of probes) seen.push(`${atMs} probe`);
  }
  return { core, seen };
}
const verdict = (state: MembershipState): LivenessInput => ({
  kind: 'membership',
  states: new Map([[a, state]]),
});
const open: LivenessInput = { kind: 'session_open', nodeId: a };
const close: LivenessInput = { kind: 'session_close', nodeId: a };
const heard: LivenessInput = { kind: 'heard', nodeId: a };
const timeout: LivenessInput = { kind: 'timeout' };

t.test('silence for three heartbeats is down, and not 1 ms before', async (t) => {
  const { core, seen } = play(
    [0, open],
    [1_000, heard],
    [15_999, timeout],
    [16_000, timeout],
    [16_001, timeout],
  );
  t.strictSame(seen, ['0 ready', '16000 down heartbeat failure']);
  t.equal(core.nextDeadlineMs(), undefined, 'nothing is left to wait for');
});

t.test('a closed session alone waits for the heartbeats', async (t) => {
  t.strictSame(play([0, open], [1_000, close], [14_999, timeout], [15_000, timeout]).seen, [
    '0 ready',
    '15000 down heartbeat failure',
  ]);
});

t.test('a closed session and gossip together are enough, in either order', async (t) => {
  t.strictSame(
    play([0, open], [100, close], [200, verdict('suspect')], [300, verdict('dead')]).seen,
    ['0 ready', `300 down ${GONE}`],
  );
  t.strictSame(play([0, open], [100, verdict('dead')], [200, close]).seen, [
    '0 ready',
    '100 probe',
    `200 down ${GONE}`,
  ]);
});

t.test(
  'a node that gossip calls dead is asked on its session, once, and has a second',
  async (t) => {
    t.strictSame(
      play(
        [0, open],
        [100, verdict('dead')],
        [200, verdict('dead')],
        [1_099, timeout],
        [1_100, timeout],
      ).seen,
      ['0 ready', '100 probe', `1100 down ${GONE}`],
    );
    t.strictSame(play([0, open], [100, verdict('dead')], [900, heard], [1_100, timeout]).seen, [
      '0 ready',
      '100 probe',
    ]);
  },
);

t.test('who comes back is ready at once', async (t) => {
  t.strictSame(play([0, open], [1, close], [2, verdict('dead')], [3, open], [4, heard]).seen, [
    '0 ready',
    `2 down ${GONE}`,
    '3 ready',
  ]);
});

t.test('an expected node that never comes is down after three heartbeats', async (t) => {
  const expect: LivenessInput = { kind: 'expect', nodeId: a, ready: false };
  t.strictSame(play([0, expect], [15_000, timeout]).seen, ['15000 down heartbeat failure']);
  t.strictSame(play([0, expect], [10, open], [15_000, timeout]).seen, ['10 ready']);
});

t.test("a forgotten node is nobody's concern", async (t) => {
  t.strictSame(
    play([0, open], [1, { kind: 'forget', nodeId: a }], [2, close], [3, heard], [20_000, timeout])
      .seen,
    ['0 ready'],
  );
});

t.test('a shorter heartbeat counts at once', async (t) => {
  t.strictSame(
    play([0, open], [100, { kind: 'heartbeat_interval', heartbeatMs: 1_000 }], [3_000, timeout])
      .seen,
    ['0 ready', '3000 down heartbeat failure'],
  );
});
