import fc from 'fast-check';
import t from 'tap';
import { FlowTable, TCP_OPEN } from '../../../../src/dataplane/overlay/core/flow-table.js';
import { fuzzRuns } from '../../../support/fuzz.js';

const CAPACITY = 8;

type Step = readonly ['insert' | 'remove' | 'ask' | 'settle' | 'wait', pick: number];

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom('insert', 'insert', 'remove', 'ask', 'ask', 'ask', 'settle', 'wait'),
  fc.nat(CAPACITY - 1),
);

t.test('flows wait for answers in the order in which they were asked', async (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100, size: 'max' }), (steps) => {
      const table = new FlowTable(7, CAPACITY);
      let nowMs = 0;
      let made = 0;
      const flows: number[] = [];
      const settled = new Set<number>();
      let waiting: { readonly flow: number; readonly atMs: number }[] = [];
      for (const [what, pick] of steps) {
        const flow = flows[pick % Math.max(1, flows.length)];
        if (what === 'wait') nowMs += pick;
        else if (what === 'insert') {
          made += 1;
          const key = Int32Array.of(0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, made, 6);
          const place = table.insert(key, TCP_OPEN, nowMs);
          if (place === -1) continue;
          flows.push(place);
          settled.delete(place);
        } else if (flow === undefined) continue;
        else if (what === 'ask') {
          table.ask(flow, nowMs);
          const isNew = !settled.has(flow) && !waiting.some((one) => one.flow === flow);
          if (isNew) waiting.push({ flow, atMs: nowMs });
        } else {
          if (what === 'settle') table.settle(flow);
          else {
            table.remove(flow);
            flows.splice(flows.indexOf(flow), 1);
          }
          settled.add(flow);
          waiting = waiting.filter((one) => one.flow !== flow);
        }
        for (const held of flows) {
          const atMs = waiting.find((one) => one.flow === held)?.atMs ?? Number.NaN;
          if (!Object.is(table.askedMs(held), atMs)) return false;
          if (table.isUnsettled(held) === settled.has(held)) return false;
        }
        const first = waiting[0];
        if (table.askedBy(nowMs) !== (first?.flow ?? -1)) return false;
        if (first !== undefined && table.askedBy(first.atMs - 1) !== -1) return false;
      }
      // All of them, one after the other.
      for (const { flow } of waiting) {
        if (table.askedBy(nowMs) !== flow) return false;
        table.settle(flow);
      }
      return table.askedBy(nowMs) === -1;
    }),
    { numRuns: fuzzRuns(500) },
  );
  t.equal(new FlowTable(7).askedBy(0), -1, 'before the first flow');
});
