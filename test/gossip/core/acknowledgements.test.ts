import fc from 'fast-check';
import t from 'tap';
import {
  ACKNOWLEDGEMENT_WAITS_MAX,
  type AcknowledgementInput,
  Acknowledgements,
  ASKED_FACTS_MAX,
} from '../../../src/gossip/core/acknowledgements.js';
import { fuzzRuns } from '../../support/fuzz.js';

/** A core whose doings are told in short words. */
class Driven {
  readonly core = new Acknowledgements();
  atMs = 0;

  constructor(...members: readonly string[]) {
    this.step({ kind: 'members', ids: members });
  }

  step(input: AcknowledgementInput): string[] {
    this.core.step(input, this.atMs);
    const { asks, settled } = this.core.takeReady();
    return [
      ...asks.map(({ ask, member, facts }) => `${ask}: ${member}? ${facts.join()}`),
      ...settled.map(({ id, missing }) => `${id} is over${missing.map((m) => ` -${m}`).join('')}`),
    ];
  }

  wait(id: number, ...facts: readonly string[]): string[] {
    return this.step({ kind: 'wait', id, facts, forMs: 5000 });
  }

  answer(ask: number, ...facts: readonly string[]): string[] {
    return this.step({ kind: 'answer', ask, facts });
  }

  /** Lets time pass, to the next deadline and no further. */
  pass(): string[] {
    this.atMs = this.core.nextDeadlineMs() ?? this.atMs;
    return this.step({ kind: 'timeout' });
  }
}

t.test('a wait is over when every member has said so', async (t) => {
  const driven = new Driven('a', 'b');
  t.strictSame(driven.wait(1, 'x', 'y'), ['1: a? x,y', '2: b? x,y']);
  t.strictSame(driven.answer(1, 'x', 'y'), []);
  t.strictSame(driven.answer(2, 'x'), ['3: b? y'], 'what it has not said is asked for again');
  t.strictSame(driven.answer(3, 'y'), ['1 is over']);
  t.equal(driven.core.nextDeadlineMs(), undefined);
  t.strictSame(
    driven.wait(2, 'x'),
    ['4: a? x', '5: b? x'],
    'nothing is kept that nobody waits for',
  );
});

t.test('nobody to ask is nobody to wait for', async (t) => {
  t.strictSame(new Driven().wait(1, 'x'), ['1 is over']);
});

t.test('two waits for one fact ask once', async (t) => {
  const driven = new Driven('a');
  driven.wait(1, 'x');
  t.strictSame(driven.wait(2, 'x'), []);
  t.strictSame(driven.answer(1, 'x'), ['1 is over', '2 is over']);
});

t.test('who dies is not waited for, and who joins is asked', async (t) => {
  const driven = new Driven('a', 'b');
  driven.wait(1, 'x');
  t.strictSame(driven.step({ kind: 'members', ids: ['a', 'c'] }), ['3: c? x']);
  driven.answer(1, 'x');
  t.strictSame(driven.answer(2, 'x'), [], 'the dead say nothing any more');
  t.strictSame(driven.step({ kind: 'members', ids: ['a'] }), ['1 is over']);
});

t.test('who cannot be asked is asked again, less and less often', async (t) => {
  const driven = new Driven('a');
  driven.wait(1, 'x');
  const pauses: number[] = [];
  for (let ask = 1; ask <= 6; ask++) {
    const failedMs = driven.atMs;
    t.strictSame(driven.step({ kind: 'failed', ask }), []);
    t.strictSame(driven.pass(), [`${ask + 1}: a? x`]);
    pauses.push(driven.atMs - failedMs);
  }
  t.strictSame(pauses, [50, 100, 200, 400, 800, 1000]);
  t.strictSame(driven.answer(7, 'x'), ['1 is over']);
});

t.test('who says nothing is told by name when the time is up', async (t) => {
  const driven = new Driven('a', 'b');
  driven.wait(1, 'x');
  driven.answer(1, 'x');
  t.strictSame(driven.pass(), [], 'its question is given up after four seconds');
  t.strictSame(driven.pass(), ['3: b? x']);
  t.strictSame(driven.pass(), ['1 is over -b']);
  t.equal(driven.atMs, 5000);
});

t.test('a question that is held does not hold up others, four of them', async (t) => {
  const driven = new Driven('a');
  for (let id = 1; id <= 4; id++) t.strictSame(driven.wait(id, `x${id}`), [`${id}: a? x${id}`]);
  t.strictSame([driven.wait(5, 'x5'), driven.wait(6, 'x6')], [[], []]);
  t.strictSame(driven.answer(2, 'x2'), ['5: a? x5,x6', '2 is over'], 'the next one asks for all');
});

t.test('who does not wait any more is not told', async (t) => {
  const driven = new Driven('a');
  driven.wait(1, 'x');
  driven.step({ kind: 'cancel', id: 1 });
  t.strictSame(driven.answer(1, 'x'), []);
  t.equal(driven.core.waitCount, 0);
});

t.test('there are bounds to what is asked and waited for', async (t) => {
  const driven = new Driven('a');
  const many = Array.from({ length: ASKED_FACTS_MAX + 1 }, (_, i) => `f${i}`);
  const asks = driven.wait(0, ...many).map((ask) => ask.split(',').length);
  t.strictSame(asks, [ASKED_FACTS_MAX, 1]);
  for (let id = 1; id < ACKNOWLEDGEMENT_WAITS_MAX; id++) driven.wait(id, 'f0');
  t.strictSame(driven.wait(-1, 'f0'), ['-1 is over -a']);
});

t.test('every wait is over in its time, whatever comes in between', async () => {
  const name = fc.constantFrom('a', 'b', 'c');
  const input: fc.Arbitrary<AcknowledgementInput> = fc.oneof(
    fc.record({ kind: fc.constant('members' as const), ids: fc.array(name) }),
    fc.record({
      kind: fc.constant('answer' as const),
      ask: fc.nat(20),
      facts: fc.array(fc.constantFrom('x', 'y', 'z')),
    }),
    fc.record({ kind: fc.constant('failed' as const), ask: fc.nat(20) }),
    fc.record({ kind: fc.constant('cancel' as const), id: fc.nat(20) }),
    fc.constant({ kind: 'timeout' as const }),
    fc.record({
      kind: fc.constant('wait' as const),
      id: fc.constant(0),
      facts: fc.array(fc.constantFrom('x', 'y', 'z')),
      forMs: fc.nat(3000),
    }),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(input, fc.nat(800)), { maxLength: 60 }), (inputs) => {
      const core = new Acknowledgements();
      const open = new Map<number, number>();
      let nowMs = 0;
      let ids = 0;
      const step = (wish: AcknowledgementInput) => {
        core.step(wish, nowMs);
        for (const { id } of core.takeReady().settled)
          if (!open.delete(id)) throw new Error(`${id} is over twice`);
        for (const [id, untilMs] of open) if (untilMs < nowMs) throw new Error(`${id} is late`);
        if (core.waitCount !== open.size) throw new Error('waits are lost');
        const nextMs = core.nextDeadlineMs();
        if (nextMs !== undefined && nextMs <= nowMs) throw new Error('it would spin');
      };
      const passTo = (endMs: number) => {
        for (;;) {
          const nextMs = core.nextDeadlineMs();
          if (nextMs === undefined || nextMs > endMs) break;
          nowMs = nextMs;
          step({ kind: 'timeout' });
        }
        nowMs = endMs;
      };
      for (const [wish, pauseMs] of inputs) {
        passTo(nowMs + pauseMs);
        if (wish.kind === 'cancel') open.delete(wish.id);
        if (wish.kind === 'wait') {
          ids += 1;
          open.set(ids, nowMs + wish.forMs);
          step({ ...wish, id: ids });
        } else step(wish);
      }
      passTo(nowMs + 3000);
      if (open.size > 0) throw new Error('somebody waits for ever');
    }),
    { numRuns: fuzzRuns(300) },
  );
});
