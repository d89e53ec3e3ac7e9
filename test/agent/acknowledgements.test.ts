import fc from 'fast-check';
import t, { type Test } from 'tap';
import {
  type AcknowledgementDependencies,
  decodeFact,
  encodeFact,
  type Fact,
  NodeAcknowledgements,
} from '../../src/agent/acknowledgements.js';
import { openLog } from '../../src/agent/log.js';

const log = openLog({ logLevel: 'silent' } as never);
const never = new AbortController().signal;

/** A node `a` with records and flows that are set by hand. */
class Node {
  readonly versions = new Map<string, { epoch: number; seq: number }>();
  readonly topics = new Set(['net']);
  readonly behind: string[] = [];
  flows = 0;
  isDerived = true;
  pass: () => void = () => {};
  readonly acknowledgements: NodeAcknowledgements;

  constructor(t: Test, ask: AcknowledgementDependencies['ask'] = async () => []) {
    this.acknowledgements = new NodeAcknowledgements({
      self: 'a',
      records: {
        version: (topic, owner) => this.versions.get(`${topic} ${owner}`),
        isSubscribed: (topic) => this.topics.has(topic),
        behind: (owner) => this.behind.push(owner),
      },
      isDerived: () => this.isDerived,
      settled: async () => this.pass(),
      flowsTo: () => this.flows,
      ask,
      log,
    });
    t.teardown(() => this.acknowledgements.close());
  }

  set(owner: string, seq: number, epoch = 1): void {
    this.versions.set(`net ${owner}`, { epoch, seq });
  }
}

t.test('facts are read as they were written, and nonsense is none', async () => {
  const fact: fc.Arbitrary<Fact> = fc.oneof(
    fc.record({
      kind: fc.constant('has' as const),
      topic: fc.stringMatching(/^[a-z0-9]{1,25}$/),
      epoch: fc.nat(2 ** 47),
      seq: fc.nat(2 ** 47),
    }),
    fc.record({
      kind: fc.constant('free' as const),
      taskId: fc.stringMatching(/^[a-z0-9]{1,25}$/),
    }),
  );
  fc.assert(
    fc.property(fact, (one) => {
      const read = decodeFact(encodeFact(one));
      return read !== undefined && encodeFact(read) === encodeFact(one);
    }),
  );
  fc.assert(fc.property(fc.string(), (text) => decodeFact(text) !== null));
});

t.test('a node says that it has what its packets are decided by, and not sooner', async (t) => {
  const node = new Node(t);
  const order: string[] = [];
  node.pass = () => order.push('settled');
  const answer = node.acknowledgements.answer('b', ['has net 1 5', 'has other 1 5'], never);
  t.strictSame(await answer, ['has other 1 5'], 'a topic that is not followed decides nothing');
  t.strictSame(node.behind, ['b'], 'what is not here is asked for');

  const waiting = node.acknowledgements.answer('b', ['has net 1 5'], never);
  void waiting.then(() => order.push('answered'));
  node.set('b', 5);
  node.isDerived = false;
  node.acknowledgements.derived();
  await new Promise((resolve) => setImmediate(resolve));
  order.length = 0;
  node.isDerived = true;
  node.acknowledgements.derived();
  t.strictSame(await waiting, ['has net 1 5']);
  t.strictSame(order, ['settled', 'answered']);
  node.set('b', 1, 2);
  t.strictSame(
    await node.acknowledgements.answer('b', ['has net 1 5'], never),
    ['has net 1 5'],
    'a later life of its owner has all of the one before',
  );
});

t.test('an owner goes on when all others and itself have said so', async (t) => {
  const asked: string[] = [];
  const node = new Node(t, async (member, facts) => {
    asked.push(`${member}: ${facts.join()}`);
    return facts;
  });
  node.acknowledgements.setMembers(['b']);
  node.set('a', 3);
  t.equal(await node.acknowledgements.published(['net'], 1000), true);
  t.strictSame(asked, ['b: has net 1 3']);
  t.match(node.acknowledgements.stats(), { acknowledged: 1, expired: 0 });
});

t.test('who does not say so holds it up for its time, which is counted', async (t) => {
  const node = new Node(t, async () => {
    throw new Error('away');
  });
  node.acknowledgements.setMembers(['b']);
  node.set('a', 3);
  t.equal(await node.acknowledgements.published(['net'], 30), false);
  t.match(node.acknowledgements.stats(), { acknowledged: 0, expired: 1, waits: 0 });

  const dying = node.acknowledgements.published(['net'], 10_000);
  node.acknowledgements.setMembers([]);
  t.equal(await dying, true, 'the dead are not waited for');
});

t.test('connections are waited for, and their staying is no fault', async (t) => {
  const node = new Node(t);
  node.flows = 1;
  t.equal(await node.acknowledgements.freed('t1', 30), false);
  t.match(node.acknowledgements.stats(), { expired: 0 });
  const freed = node.acknowledgements.freed('t1', 10_000);
  node.flows = 0;
  t.equal(await freed, true);
});

t.test('nobody waits for a node that stops', async (t) => {
  const node = new Node(t);
  node.flows = 1;
  const freed = node.acknowledgements.freed('t1', 10_000);
  node.acknowledgements.close();
  t.equal(await freed, true);
  t.equal(await node.acknowledgements.freed('t1', 10_000), true);
});
