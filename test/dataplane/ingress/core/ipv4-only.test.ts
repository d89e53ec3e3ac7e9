import fc from 'fast-check';
import t from 'tap';
import { Ipv4Only } from '../../../../src/dataplane/ingress/core/ipv4-only.js';

t.test('what was refused is left alone for a while, and then asked by one flow', async (t) => {
  const only = new Ipv4Only();
  t.ok(only.letsTry('a', 0));
  only.refused('a', 0);
  t.notOk(only.letsTry('a', 0));
  t.notOk(only.letsTry('a', 9_999));
  t.ok(only.letsTry('b', 9_999), 'others are not meant');
  t.ok(only.letsTry('a', 10_000), 'the one that finds out');
  t.notOk(only.letsTry('a', 10_000), 'the others do not wait for it');
  t.ok(only.letsTry('a', 11_000), 'another one, when that has not been heard of');
  only.refused('a', 11_000);
  t.notOk(only.letsTry('a', 20_999));
  only.taken('a');
  t.ok(only.letsTry('a', 20_999));
  t.ok(only.letsTry('a', 20_999), 'all of them');
});

t.test('it remembers so many, the last ones, and never for longer than ten seconds', async () => {
  const key = fc.constantFrom('a', 'b', 'c', 'd', 'e');
  const kind = fc.constantFrom('try', 'refused', 'taken');
  const step = fc.record({ key, kind, ms: fc.nat(4000) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const only = new Ipv4Only(3);
      let refused: (readonly [key: string, atMs: number])[] = [];
      let nowMs = 0;
      for (const { key, kind, ms } of steps) {
        nowMs += ms;
        const held = refused.find(([name]) => name === key);
        if (kind === 'try') {
          const tries = only.letsTry(key, nowMs);
          if (held === undefined ? !tries : nowMs - held[1] < 10_000 && tries) return false;
          continue;
        }
        if (kind === 'refused') only.refused(key, nowMs);
        else only.taken(key);
        refused = refused.filter(([name]) => name !== key);
        if (kind === 'refused') refused = [...refused, [key, nowMs] as const].slice(-3);
      }
      return true;
    }),
  );
});
