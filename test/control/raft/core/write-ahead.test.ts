import t from 'tap';
import { RaftLog } from '../../../../src/control/raft/core/log.js';
import type {
  HardState,
  LogEntry,
  RaftMessage,
  RaftPersist,
} from '../../../../src/control/raft/core/types.js';
import { WriteAhead } from '../../../../src/control/raft/core/write-ahead.js';
import { membersOf, raftId } from '../group.js';

const START: HardState = { term: 1, vote: 0, commitIndex: 0 };
const reply: RaftMessage = {
  kind: 'vote_reply',
  from: raftId(1),
  to: raftId(2),
  term: 2,
  granted: true,
};
const entry = (index: number, term: number): LogEntry => ({
  index,
  term,
  kind: 'command',
  data: Buffer.of(index, term),
});
const place = ({ index, term }: LogEntry) => `${index}@${term}`;

function fixture(...entries: readonly LogEntry[]) {
  const log = new RaftLog({ index: 0, term: 0 }, entries);
  const writes = new WriteAhead(START, log.lastIndex);
  const take = (state = START): RaftPersist => {
    const write = writes.take(log, state);
    if ('atOnce' in write) throw new Error('nothing is to be written');
    return write;
  };
  const replaceFrom = (index: number, ...fresh: readonly LogEntry[]) => {
    log.cutFrom(index);
    writes.cutFrom(index);
    for (const each of fresh) log.append(each);
  };
  return { log, writes, take, replaceFrom };
}

t.test('each entry is handed over once, and is stable when its write is done', async (t) => {
  const { log, writes, take } = fixture(entry(1, 1));
  t.equal(writes.stableIndex, 1, 'what was found on disk is stable');
  log.append(entry(2, 1));
  const first = take();
  log.append(entry(3, 1));
  const second = take();
  t.strictSame(first.entries.map(place), ['2@1']);
  t.strictSame(second.entries.map(place), ['3@1']);
  t.strictSame(writes.take(log, START), { atOnce: [] });
  writes.persisted(first.persistId);
  t.equal(writes.stableIndex, 2);
  writes.persisted(second.persistId);
  t.equal(writes.stableIndex, 3);
});

t.test('one report stands for all writes before it', async (t) => {
  const { log, writes, take } = fixture();
  log.append(entry(1, 1));
  take();
  log.append(entry(2, 1));
  writes.persisted(take().persistId);
  t.equal(writes.stableIndex, 2);
});

t.test('a write under way makes nothing stable that was cut off meanwhile', async (t) => {
  const { log, writes, take, replaceFrom } = fixture(entry(1, 1));
  log.append(entry(2, 1));
  const first = take();
  replaceFrom(2, entry(2, 3));
  const second = take();
  // The very entry of the first write comes back, by a third leader.
  replaceFrom(2, entry(2, 1));
  const third = take();

  writes.persisted(first.persistId);
  t.equal(writes.stableIndex, 1, 'the second write is about to undo the first');
  writes.persisted(second.persistId);
  t.equal(writes.stableIndex, 1);
  writes.persisted(third.persistId);
  t.equal(writes.stableIndex, 2);
});

t.test('what was stable and is cut off is not stable any more, and is written anew', async (t) => {
  const { writes, take, replaceFrom } = fixture(entry(1, 1), entry(2, 1), entry(3, 1));
  replaceFrom(2, entry(2, 2));
  t.equal(writes.stableIndex, 1);
  t.strictSame(take().entries.map(place), ['2@2']);
});

t.test('a message waits only if there is something to wait for', async (t) => {
  const { log, writes, take } = fixture();
  writes.sendAfter(reply);
  t.strictSame(writes.take(log, START), { atOnce: [reply] }, 'the disk has it all');

  log.append(entry(1, 1));
  const write = take();
  writes.sendAfter(reply);
  const behind = take();
  t.strictSame([behind.entries, behind.hardState, behind.messages], [[], undefined, [reply]]);
  writes.persisted(write.persistId);
  t.equal(writes.stableIndex, 1);
});

t.test('a message never joins a write that was handed over before it', async (t) => {
  const { log, writes, take } = fixture();
  log.append(entry(1, 1));
  const earlier = take();
  writes.sendAfter(reply);
  const later = take({ term: 2, vote: raftId(2), commitIndex: 0 });
  t.strictSame(earlier.messages, [], 'else a vote could leave before it is on disk');
  t.strictSame(later.messages, [reply]);
});

t.test('a new commit index goes along with a write, and is not worth one', async (t) => {
  const { log, writes, take } = fixture(entry(1, 1));
  const committed = { ...START, commitIndex: 1 };
  t.strictSame(writes.take(log, committed), { atOnce: [] });
  log.append(entry(2, 1));
  t.strictSame(take(committed).hardState, committed);
  log.append(entry(3, 1));
  t.equal(take(committed).hardState, undefined, 'nothing new');
});

t.test('a vote in a term that is on disk already is written too', async (t) => {
  const { writes, take } = fixture();
  const voted = { ...START, vote: raftId(3) };
  const write = take(voted);
  t.strictSame(write.hardState, voted);
  writes.persisted(write.persistId);
  t.strictSame(writes.durable, voted);
});

t.test('term and vote are written at once, and durable when that is done', async (t) => {
  const { writes, take } = fixture();
  const voted = { term: 2, vote: raftId(3), commitIndex: 0 };
  const write = take(voted);
  t.strictSame(write.hardState, voted);
  t.strictSame(writes.durable, START);
  writes.persisted(write.persistId);
  t.strictSame(writes.durable, voted);
});

t.test('after a snapshot the log begins anew, and earlier writes count for nothing', async (t) => {
  const { log, writes, take } = fixture(entry(1, 1));
  log.append(entry(2, 1));
  log.append(entry(3, 1));
  const before = take();
  const meta = { index: 2, term: 2, members: membersOf([1]) };
  log.reset(meta);
  writes.reset(meta);
  t.equal(writes.stableIndex, 2, 'the snapshot is on disk already');
  log.append(entry(3, 2));
  const after = take();
  t.strictSame([after.reset, after.entries.map(place)], [meta, ['3@2']]);
  writes.persisted(before.persistId);
  t.equal(writes.stableIndex, 2);
  writes.persisted(after.persistId);
  t.equal(writes.stableIndex, 3);
});
