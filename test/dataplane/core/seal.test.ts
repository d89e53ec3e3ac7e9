import fc from 'fast-check';
import t from 'tap';
import { REPLAY_WINDOW_MAX, ReplayWindow } from '../../../src/dataplane/core/seal.js';
import { deriveSealKeys } from '../../../src/dataplane/io/seal-keys.js';
import { Sealer } from '../../../src/dataplane/io/sealer.js';
import { fuzzRuns } from '../../support/fuzz.js';

t.test('the window takes each counter once, and none from before it', async (t) => {
  // Steps that matter: one, around a word, around the window, far beyond.
  const step = fc.oneof(
    fc.bigInt(-70n, 70n),
    fc.bigInt(BigInt(-REPLAY_WINDOW_MAX - 40), BigInt(-REPLAY_WINDOW_MAX + 40)),
    fc.bigInt(8_000n, 9_000n),
    fc.bigInt(0n, 1n << 40n),
  );
  fc.assert(
    fc.property(
      fc.bigInt(1n << 20n, 1n << 62n),
      fc.array(step, { maxLength: 60 }),
      (from, steps) => {
        const window = new ReplayWindow();
        const seen = new Set<bigint>();
        let newest: bigint | undefined;
        let at = from;
        for (const one of steps) {
          at = BigInt.asUintN(64, at + one);
          const isOld = newest !== undefined && newest - at >= BigInt(REPLAY_WINDOW_MAX);
          const expected = !isOld && !seen.has(at);
          if (window.isNew(at) !== expected || window.accept(at) !== expected) return false;
          seen.add(at);
          if (newest === undefined || at > newest) newest = at;
        }
        return true;
      },
    ),
    { numRuns: fuzzRuns(300) },
  );
  t.pass('as a set would have it');
});

t.test(
  'two nodes derive the same keys for each direction, and no third one has them',
  async (t) => {
    const ring = [{ secret: Buffer.alloc(32, 1) }, { secret: Buffer.alloc(32, 2) }];
    const a = deriveSealKeys(ring, 'a', 'b');
    const b = deriveSealKeys(ring, 'b', 'a');
    t.strictSame(a?.seals, b?.opens[0]);
    t.strictSame(b?.seals, a?.opens[0]);
    t.notSame(a?.seals, b?.seals, 'directions differ');
    t.notSame(a?.opens[0], a?.opens[1], 'keys of the ring differ');
    t.notSame(deriveSealKeys(ring, 'a', 'c')?.seals, a?.seals, 'receivers differ');
    t.equal(deriveSealKeys([], 'a', 'b'), undefined);
    t.equal(
      Buffer.from(a?.seals.secret ?? []).toString('hex'),
      'aac228b2a464fab5400cbf356a1cfef6945fac09dc191b5a6310f94d9fa9f486',
      'the way that keys are derived does not change by itself',
    );
  },
);

t.test('the bytes of a sealed datagram are what they were', async (t) => {
  const sealer = new Sealer();
  const key = { id: 0x010203, secret: Buffer.alloc(32, 0x42), salt: Buffer.alloc(4, 7) };
  sealer.allow(0x1122_3344_5566_7788n, 10);
  sealer.setKeys(0, { seals: key, opens: [key] });
  const frame = Buffer.from('02420a00000202420a00000188b500', 'hex');
  const sealed = sealer.seal(0, 0xabcdef, frame);
  t.equal(
    sealed?.toString('hex'),
    '5301020311223344556677883b2d784fa817e36d748e4c7e901782534a08403f3144bdfe5b195708396bd8d0cd88b167a5f448',
  );
  const opened = sealer.open(sealed ?? Buffer.alloc(0));
  t.same(opened, {
    sealer: 1,
    plain: Buffer.concat([Buffer.from('08000000abcdef00', 'hex'), frame]),
  });
});

t.test('no bytes make the opener throw', async (t) => {
  const keys = deriveSealKeys([{ secret: Buffer.alloc(32) }], 'a', 'b');
  const sealer = new Sealer();
  sealer.allow(1n, 1);
  sealer.setKeys(3, keys);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, isOurs) => {
      const datagram = Buffer.concat([Buffer.from([0x53]), bytes]);
      if (isOurs && datagram.length > 4) datagram.writeUIntBE(keys?.opens[0]?.id ?? 0, 1, 3);
      return typeof sealer.open(datagram) === 'string';
    }),
    { numRuns: fuzzRuns(300) },
  );
  t.pass('all are refused');
});
