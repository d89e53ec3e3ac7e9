import t from 'tap';
import { raftConfig } from '../../../../src/control/raft/core/config.js';
import type { RaftConfig } from '../../../../src/control/raft/core/types.js';
import { raftId } from '../group.js';

t.test('the defaults hold together, and each may be another', async (t) => {
  const config = raftConfig({ id: raftId(1), seed: 1 });
  t.match(config, { electionTimeoutMs: 500, heartbeatMs: 100 });
  t.equal(raftConfig({ id: raftId(1), seed: 1, heartbeatMs: 50 }).heartbeatMs, 50);
});

t.test('what makes no sense is our mistake', async (t) => {
  const wrong: readonly Partial<RaftConfig>[] = [
    { id: raftId(0) },
    { id: raftId(2 ** 48) },
    { heartbeatMs: 0 },
    { electionTimeoutMs: 150 },
    { appendBytesMax: 0 },
    { inflightMessagesMax: 0 },
    { inflightBytesMax: 0 },
    { uncommittedBytesMax: 0 },
    { learnerLagMax: -1 },
  ];
  for (const part of wrong)
    t.throws(
      () => raftConfig({ id: raftId(1), seed: 1, ...part }),
      { name: 'AssertionFailed' },
      JSON.stringify(part),
    );
});
