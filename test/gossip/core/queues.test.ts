import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import { BroadcastQueue, retransmitLimit } from '../../../src/gossip/core/broadcast-queue.js';
import { FLOOD_LIMITS, FloodGuard } from '../../../src/gossip/core/flood-guard.js';
import { ProbeOrder } from '../../../src/gossip/core/probe-order.js';
import type { Claim, Incarnation, MemberId, MemberState } from '../../../src/gossip/wire/claim.js';

function claim(member: string, state: MemberState, incarnation: number, reporter?: string): Claim {
  return {
    member: member as MemberId,
    state,
    incarnation: incarnation as Incarnation,
    endpoint: { address: '10.0.0.1', port: 1 },
    ...(reporter === undefined ? {} : { reporter: reporter as MemberId }),
  };
}

const tenBytes = () => 10;
const brief = (claims: Claim[]) =>
  claims.map((c) => `${c.member}${c.incarnation}${c.reporter ?? ''}`);

t.test('how often a claim is sent', async (t) => {
  const cases = [
    [1, 4],
    [9, 4],
    [10, 8],
    [99, 8],
    [100, 12],
    [1_000, 16],
  ] as const;
  for (const [members, want] of cases) t.equal(retransmitLimit(4, members), want, `${members}`);
});

t.test('the least sent goes first, the newest of those before the others', async (t) => {
  const queue = new BroadcastQueue();
  for (const member of ['a', 'b', 'c']) queue.put(claim(member, 'alive', 1));
  t.strictSame(brief(queue.take(20, tenBytes, 3)), ['c1', 'b1']);
  queue.put(claim('d', 'alive', 1));
  t.strictSame(brief(queue.take(20, tenBytes, 3)), ['d1', 'a1'], 'those never sent');
});

t.test('a claim is done after its retransmissions', async (t) => {
  const queue = new BroadcastQueue();
  queue.put(claim('a', 'alive', 1));
  const rounds = [1, 2, 3, 4].map(() => queue.take(100, tenBytes, 3).length);
  t.strictSame(rounds, [1, 1, 1, 0]);
  t.equal(queue.size, 0);
});

t.test(
  'newer claims replace older ones; witnesses of one suspicion stand side by side',
  async (t) => {
    const queue = new BroadcastQueue();
    queue.put(claim('b', 'suspect', 1, 'x'));
    queue.put(claim('b', 'suspect', 1, 'y'));
    queue.put(claim('b', 'suspect', 1, 'y'));
    t.equal(queue.size, 2);
    queue.put(claim('b', 'alive', 2));
    t.equal(queue.size, 1);
    t.strictSame(brief(queue.take(100, tenBytes, 3)), ['b2']);
  },
);

t.test('what nobody takes does not pile up', async (t) => {
  const queue = new BroadcastQueue();
  for (let i = 0; i < 10_000; i++) queue.put(claim('b', 'alive', i));
  t.equal(queue.size, 1);
  t.strictSame(brief(queue.take(100, tenBytes, 3)), ['b9999']);
});

t.test('every member is probed once per round, whatever joins and goes', async (t) => {
  const order = new ProbeOrder(new Prng(1));
  const members = ['a', 'b', 'c', 'd', 'e'] as MemberId[];
  for (const member of members) order.add(member);
  for (let round = 0; round < 20; round++) {
    const seen = members.map(() => order.next());
    t.strictSame([...seen].sort(), members);
  }
  order.remove('c' as MemberId);
  order.add('f' as MemberId);
  const seen = new Set(Array.from({ length: 10 }, () => order.next()));
  t.notOk(seen.has('c' as MemberId));
  t.ok(seen.has('f' as MemberId));
  t.equal(new ProbeOrder(new Prng(1)).next(), undefined);
});

t.test('in a flood of forgeries the genuine are heard, the forgers are not', async (t) => {
  const guard = new FloodGuard(FLOOD_LIMITS);
  guard.opened('member');
  for (let i = 0; i < FLOOD_LIMITS.failuresFree - 1; i++) guard.failed('forger', 10);
  t.ok(guard.allows('forger', 10), 'a few failures are opened to be counted');
  guard.failed('forger', 10);
  t.notOk(guard.allows('forger', 10));
  t.ok(guard.allows('member', 10));
  t.ok(guard.allows('newcomer', 10));
  t.notOk(guard.allows('forger', 999));
  t.ok(guard.allows('forger', 1_000), 'each second a few more are tried');
  for (let i = 0; i < FLOOD_LIMITS.failuresPerSourceMax; i++) guard.failed('forger', 1_000);
  t.notOk(guard.allows('forger', 1_000), 'for the flood before is not forgotten at once');
  t.ok(guard.allows('forger', 9_000));
});

t.test('forgers with very many addresses share what is left', async (t) => {
  const guard = new FloodGuard(FLOOD_LIMITS);
  guard.opened('member');
  for (let i = 0; i < 100_000; i++) guard.failed(`forger ${i}`, 10);
  t.notOk(guard.allows('forger 100001', 10));
  t.ok(guard.allows('member', 10));
});
