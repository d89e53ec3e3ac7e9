import t from 'tap';
import { AgentError } from '../../../src/base/error.js';
import { SwarmError } from '../../../src/base/swarm-error.js';
import type { NodeId } from '../../../src/base/swarm-model.js';
import { ForwardClient } from '../../../src/control/io/forward-client.js';
import { LeaderClient, type LeaderPlace } from '../../../src/control/io/leader-client.js';
import { outcomeOf } from '../../../src/control/io/propose-outcome.js';
import type { ProposeOutcome } from '../../../src/control/wire/forward-messages.js';
import { nodeId, silent } from '../support.js';
import { Pair, until } from './forward-support.js';

const A = nodeId('a');
const B = nodeId('b');
const ADDRESS = { address: '10.0.0.1', port: 2377 };
const at = (id: NodeId): LeaderPlace => ({ local: false, nodeId: id, address: ADDRESS });
const COMMAND = { kind: 'network_remove', ref: 'x', atMs: 1 };
const refused: ProposeOutcome = {
  kind: 'refused',
  refusal: { detail: { code: 'SWARM_OUT_OF_SEQUENCE' }, message: 'update out of sequence' },
};

type Answer = ProposeOutcome | 'never';

/** A manager `me` and two others, each with a script of answers; commands that hold are counted by id. */
class World {
  readonly client: LeaderClient;
  readonly held = new Map<string, number>();
  /** Who was asked, in order. */
  readonly asked: string[] = [];
  readonly scripts: Record<string, Answer[]> = { me: [], a: [], b: [] };
  readonly #pairs: Record<string, Pair>;
  readonly #listeners = new Set<() => void>();
  #leader: LeaderPlace | undefined;
  appliedIndex = 0;

  constructor(leader: LeaderPlace | undefined, more: object = {}) {
    this.#leader = leader;
    const methods = (name: string) => ({
      whoami: async () => {
        this.asked.push(`${name} call`);
        return name;
      },
    });
    this.#pairs = {
      a: new Pair((dedupe) => this.#take('a', dedupe), methods('a')),
      b: new Pair((dedupe) => this.#take('b', dedupe), methods('b')),
    };
    this.client = new LeaderClient({
      self: nodeId('me'),
      log: silent,
      leader: () => this.#leader,
      onLeaderChange: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      propose: (dedupe) => this.#take('me', dedupe),
      methods: methods('me'),
      clientOf: (place) => this.#pair(place.nodeId).client,
      waitApplied: async (index) => {
        await until(`${index} is applied`, () => this.appliedIndex >= index);
      },
      noLeaderMsMax: 150,
      proposeMsMax: 1_000,
      attemptMsMax: 300,
      ...more,
    });
  }

  elect(leader: LeaderPlace | undefined): void {
    this.#leader = leader;
    for (const listener of this.#listeners) listener();
  }

  pair(name: 'a' | 'b'): Pair {
    return this.#pairs[name] as Pair;
  }

  close(): void {
    this.client.close();
    for (const pair of Object.values(this.#pairs)) pair.close();
  }

  #pair(id: NodeId): Pair {
    return this.pair(id === A ? 'a' : 'b');
  }

  /** As the store does it: what is `done` holds, and the same id again holds no second time. */
  #take(name: string, dedupe: string): Promise<ProposeOutcome> {
    this.asked.push(name);
    const answer = this.scripts[name]?.shift() ?? { kind: 'done', id: 'x', index: 1 };
    if (answer === 'never') {
      this.held.set(dedupe, 1);
      return new Promise(() => {});
    }
    if (answer.kind === 'done' || answer.kind === 'unknown') this.held.set(dedupe, 1);
    if (answer.kind === 'done') this.appliedIndex = Math.max(this.appliedIndex, answer.index);
    return Promise.resolve(answer);
  }
}

const play = async (world: World) => {
  const result = await world.client.propose(COMMAND).then(
    (done) => done,
    (error: unknown) => (error instanceof SwarmError ? error.code : error),
  );
  world.close();
  return result;
};

t.test('a command goes to whoever leads, here or there', async (t) => {
  const local = new World({ local: true });
  t.strictSame(await play(local), { id: 'x', index: 1 });
  t.strictSame(local.asked, ['me']);
  const remote = new World(at(A));
  t.strictSame(await play(remote), { id: 'x', index: 1 });
  t.strictSame(remote.asked, ['a']);
});

t.test("the store's refusal is thrown as the leader threw it, and ends it", async (t) => {
  const world = new World(at(A));
  world.scripts['a'] = [refused];
  await t.rejects(world.client.propose(COMMAND), {
    code: 'SWARM_OUT_OF_SEQUENCE',
    message: 'update out of sequence',
  });
  t.strictSame(world.asked, ['a']);
  world.close();
});

t.test('an unknown outcome is asked again with the same id until it is known', async (t) => {
  const world = new World(at(A));
  world.scripts['a'] = [{ kind: 'unknown' }, { kind: 'busy', reason: 'r' }, { kind: 'unknown' }];
  t.strictSame(await play(world), { id: 'x', index: 1 });
  t.strictSame(world.asked, ['a', 'a', 'a', 'a']);
  t.equal(world.held.size, 1, 'one id, so it was done once');
});

t.test('a leader that does not answer loses the question to the next leader', async (t) => {
  for (const first of [at(A), { local: true } as const]) {
    const world = new World(first);
    world.scripts['a'] = ['never'];
    world.scripts['me'] = ['never'];
    const done = world.client.propose(COMMAND);
    await until('it was asked', () => world.asked.length === 1);
    world.elect(undefined);
    world.elect(at(B));
    t.match(await done, { index: 1 });
    t.equal(world.asked.at(-1), 'b');
    t.equal(world.held.size, 1);
    t.equal(world.pair('a').client.stats().outstanding, 0, 'nobody waits for the first');
    world.close();
  }
});

t.test('a hint leads on, once', async (t) => {
  const world = new World(at(A));
  world.scripts['a'] = [{ kind: 'not_leader', leader: { nodeId: B, address: ADDRESS } }];
  t.match(await play(world), { index: 1 });
  t.strictSame(world.asked, ['a', 'b']);
  const here = new World(at(A));
  here.scripts['a'] = [{ kind: 'not_leader', leader: { nodeId: nodeId('me'), address: ADDRESS } }];
  t.match(await play(here), { index: 1 });
  t.strictSame(here.asked, ['a', 'me']);
  const circle = new World(at(A));
  circle.scripts['a'] = Array(50).fill({
    kind: 'not_leader',
    leader: { nodeId: B, address: ADDRESS },
  });
  circle.scripts['b'] = Array(50).fill({
    kind: 'not_leader',
    leader: { nodeId: A, address: ADDRESS },
  });
  t.equal(await play(circle), 'SWARM_NO_QUORUM', 'two that name each other get a pause in between');
  t.ok(circle.asked.length < 30, `${circle.asked.length} questions in a second`);
});

t.test('without a leader it waits a while, then says what is known of the outcome', async (t) => {
  const none = new World(undefined);
  const startMs = performance.now();
  t.equal(await play(none), 'SWARM_NO_QUORUM');
  const tookMs = performance.now() - startMs;
  t.ok(tookMs >= 149 && tookMs < 900, `${tookMs} ms`);
  t.equal(none.held.size, 0);

  const late = new World(undefined);
  setTimeout(() => late.elect(at(A)), 50);
  t.match(await play(late), { index: 1 });

  const lost = new World(at(A));
  lost.scripts['a'] = ['never'];
  const done = lost.client.propose(COMMAND);
  await until('it was asked', () => lost.asked.length === 1);
  lost.pair('a').dialTrouble = new Error('gone');
  lost.pair('a').cut();
  lost.elect(undefined);
  await t.rejects(done, { code: 'SWARM_OUTCOME_UNKNOWN' });
  lost.close();

  const unreachable = new World(at(A));
  unreachable.pair('a').dialTrouble = new Error('gone');
  t.equal(await play(unreachable), 'SWARM_NO_QUORUM', 'what was never sent is certainly not done');
});

t.test('the answer comes when the own state has it', async (t) => {
  const world = new World(at(A), {
    waitApplied: () => until('it is applied', () => world.appliedIndex >= 99),
  });
  let answered = false;
  const done = world.client.propose(COMMAND).then(() => {
    answered = true;
  });
  await until('it holds', () => world.held.size === 1);
  await new Promise((resolve) => setTimeout(resolve, 30));
  t.notOk(answered);
  world.appliedIndex = 99;
  await done;
  world.close();
});

t.test('a method that may not be done twice is not tried again after a lost answer', async (t) => {
  const world = new World(at(A));
  t.equal(await world.client.callLeader('whoami', null), 'a');
  world.elect({ local: true });
  t.equal(await world.client.callLeader('whoami', null), 'me');
  world.elect(at(B));
  t.equal(await world.client.callLeader('whoami', null), 'b');
  await t.rejects(world.client.callLeader('absent', null), { code: 'SWARM_UNSUPPORTED' });
  world.elect(at(A));
  for (const [near] of world.pair('a').pipes) near.pause();
  const once = world.client.callLeader('whoami', null, { timeoutMs: 100 });
  await t.rejects(once, { code: 'SWARM_OUTCOME_UNKNOWN' });
  const again = world.client.callLeader('whoami', null, { timeoutMs: 2_000, repeatable: true });
  await until('it is asked', () => world.pair('a').client.stats().outstanding === 1);
  world.pair('a').cut();
  t.equal(await again, 'a');
  world.close();
});

t.test('closing ends what waits', async (t) => {
  const world = new World(undefined, { noLeaderMsMax: 60_000, proposeMsMax: 60_000 });
  const waits = world.client.propose(COMMAND);
  world.close();
  await t.rejects(waits, { code: 'SWARM_NO_QUORUM' });
  await t.rejects(world.client.propose(COMMAND), { code: 'SWARM_NO_QUORUM' });
});

t.test("what raft's node answers becomes words that travel", async (t) => {
  class Trouble extends AgentError<{ readonly code: string }> {}
  const fail = (error: unknown) =>
    outcomeOf(Promise.reject(error), () => ({ nodeId: A, address: ADDRESS }));
  const code = (name: string) => new Trouble({ code: name }, 'because');
  t.strictSame(await outcomeOf(Promise.resolve({ id: 'x', index: 3 }), () => undefined), {
    kind: 'done',
    id: 'x',
    index: 3,
  });
  const table: [unknown, object][] = [
    [new SwarmError({ code: 'SWARM_OUT_OF_SEQUENCE' }, 'no'), { kind: 'refused' }],
    [code('RAFT_NOT_LEADER'), { kind: 'not_leader', leader: { nodeId: A } }],
    [code('RAFT_OUTCOME_UNKNOWN'), { kind: 'unknown' }],
    [code('RAFT_OVERLOADED'), { kind: 'busy', reason: 'because' }],
    [code('RAFT_READ_ONLY'), { kind: 'busy' }],
    [code('RAFT_CLOSED'), { kind: 'busy' }],
    [code('RAFT_TOO_LARGE'), { kind: 'refused', refusal: { detail: { code: 'SWARM_INVALID' } } }],
    [new Error('anything'), { kind: 'unknown' }],
  ];
  for (const [error, outcome] of table) t.match(await fail(error), outcome);
});

t.test('a client is closed without harm while it dials', async (t) => {
  let cancelled = false;
  const client = new ForwardClient({
    log: silent,
    dial: (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          cancelled = true;
          reject(new Error('cancelled'));
        });
      }),
  });
  const answer = client.propose('d', COMMAND, { timeoutMs: 5_000 });
  client.close();
  t.match(await answer, { kind: 'unanswered', sent: false });
  t.ok(cancelled);
});
