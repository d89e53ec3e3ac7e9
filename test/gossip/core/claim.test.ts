import fc from 'fast-check';
import t from 'tap';
import { bucketOf, claimHash, supersedes } from '../../../src/gossip/core/claim.js';
import type { Claim, Incarnation, MemberId, MemberState } from '../../../src/gossip/wire/claim.js';
import { DIGEST_BUCKETS } from '../../../src/gossip/wire/packet.js';

const FUZZ = Number(process.env['FUZZ_FACTOR'] ?? 1);

function claim(state: MemberState, incarnation: number, address = '10.0.0.1', port = 1): Claim {
  const member = 'b' as MemberId;
  return { member, state, incarnation: incarnation as Incarnation, endpoint: { address, port } };
}

/** What a member holds after it heard `a` and then `b`. */
const merge = (a: Claim, b: Claim): Claim => (supersedes(b, a) ? b : a);

const anyClaim = fc
  .tuple(
    fc.constantFrom<MemberState>('alive', 'suspect', 'dead', 'left'),
    fc.nat({ max: 3 }),
    fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'),
    fc.constantFrom(1, 2),
  )
  .map((parts) => claim(...parts));

const same = (a: Claim, b: Claim) => JSON.stringify(a) === JSON.stringify(b);

t.test('merging claims is associative, commutative and idempotent', async (t) => {
  const numRuns = 500 * FUZZ;
  fc.assert(
    fc.property(anyClaim, anyClaim, anyClaim, (a, b, c) =>
      same(merge(merge(a, b), c), merge(a, merge(b, c))),
    ),
    { numRuns },
  );
  fc.assert(
    fc.property(anyClaim, anyClaim, (a, b) => same(merge(a, b), merge(b, a))),
    { numRuns },
  );
  fc.assert(
    fc.property(anyClaim, (a) => same(merge(a, a), a) && !supersedes(a, a)),
    { numRuns },
  );
  t.pass('held');
});

t.test('equal hashes mean equal claims', async (t) => {
  fc.assert(
    fc.property(anyClaim, anyClaim, (a, b) => same(a, b) === (claimHash(a) === claimHash(b))),
    { numRuns: 1_000 * FUZZ },
  );
  t.pass('held');
});

t.test('who outbids whom', async (t) => {
  const cases = [
    {
      name: 'suspect at equal incarnation',
      a: claim('suspect', 7),
      b: claim('alive', 7),
      want: true,
    },
    {
      name: 'alive at equal incarnation',
      a: claim('alive', 7),
      b: claim('suspect', 7),
      want: false,
    },
    { name: 'alive at a newer one revives', a: claim('alive', 8), b: claim('dead', 7), want: true },
    { name: 'old accusations are void', a: claim('dead', 6), b: claim('alive', 7), want: false },
    { name: 'who left did not die', a: claim('left', 7), b: claim('dead', 7), want: true },
    {
      name: 'a new address needs a new incarnation or luck',
      a: claim('alive', 7, '10.0.0.2'),
      b: claim('alive', 7, '10.0.0.1'),
      want: true,
    },
  ];
  for (const { name, a, b, want } of cases) t.equal(supersedes(a, b), want, name);
});

t.test('similar ids spread over the buckets', async (t) => {
  const counts = new Array(DIGEST_BUCKETS).fill(0);
  for (let i = 0; i < 64 * DIGEST_BUCKETS; i++) counts[bucketOf(`node-${i}`)] += 1;
  t.ok(Math.min(...counts) > 30, `emptiest ${Math.min(...counts)}`);
  t.ok(Math.max(...counts) < 110, `fullest ${Math.max(...counts)}`);
});
