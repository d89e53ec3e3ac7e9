import fc from 'fast-check';
import t from 'tap';
import { type GossipKey, SEAL_BYTES, Sealer } from '../../../src/gossip/io/seal.js';

const FUZZ = Number(process.env['FUZZ_FACTOR'] ?? 1);
const key = (id: number): GossipKey => ({ id, secret: new Uint8Array(32).fill(id) });
const hello = Buffer.from('hello');

t.test('what one seals the other opens, and nobody else', async (t) => {
  const a = new Sealer([key(1)]);
  const b = new Sealer([key(2), key(1)]);
  const sealed = a.seal(hello);
  t.equal(sealed.length, hello.length + SEAL_BYTES);
  t.notOk(sealed.includes(hello), 'not in clear');
  t.strictSame(b.open(sealed), hello);
  t.equal(a.open(b.seal(hello)), 'seal_key_unknown');
  t.equal(new Sealer([{ id: 1, secret: new Uint8Array(32) }]).open(sealed), 'seal_broken');
  t.notSame(a.seal(hello), a.seal(hello), 'no two packets look alike');
});

t.test('three keys roll over without a gap', async (t) => {
  const a = new Sealer([key(1)]);
  const b = new Sealer([key(1)]);
  const agree = () =>
    [a.open(b.seal(hello)), b.open(a.seal(hello))].every((opened) =>
      hello.equals(opened as Buffer),
    );
  for (const keys of [
    [key(1), key(2)],
    [key(2), key(1)],
    [key(2), key(3)],
    [key(3), key(2)],
    [key(3)],
  ]) {
    a.setKeys(keys);
    t.ok(agree(), 'one is ahead');
    b.setKeys(keys);
    t.ok(agree(), 'both are there');
  }
});

t.test('each changed byte breaks the seal', async (t) => {
  const sealer = new Sealer([key(1)]);
  const sealed = sealer.seal(hello);
  const wanted = ['seal_version', 'seal_key_unknown'];
  for (let i = 0; i < sealed.length; i++) {
    const changed = Buffer.from(sealed);
    changed[i] = (changed[i] as number) ^ 0x10;
    t.equal(sealer.open(changed), wanted[i] ?? 'seal_broken', `byte ${i}`);
  }
  t.equal(sealer.open(sealed.subarray(0, SEAL_BYTES - 1)), 'seal_truncated');
  t.equal(sealer.open(Buffer.alloc(0)), 'seal_truncated');
});

t.test('any bytes are refused without a throw', async (t) => {
  const sealer = new Sealer([key(1)]);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const datagram = Buffer.from([0x51, 1, ...bytes]);
      return typeof sealer.open(datagram) === 'string';
    }),
    { numRuns: 300 * FUZZ },
  );
  t.pass('held');
});
