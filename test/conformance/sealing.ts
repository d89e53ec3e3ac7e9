import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { Test } from 'tap';
import type { SealKey, SealKeys } from '../../src/dataplane/core/seal.js';
import type { PacketIoBed, TestDriver, TestPeer, TestPort } from './packet-io-bed.js';
import { testFrame, vxlan } from './packet-io-bed.js';

/** What the suite's own far side knows of the wire, apart from the drivers. */
const HEADER = 12;
const TAG = 16;

function testKey(n: number, id = 0xabc000 + n): SealKey {
  return { id, secret: Buffer.alloc(32, n), salt: Buffer.alloc(4, n + 1) };
}

function sealWith({ id, secret, salt }: SealKey, counter: bigint, plain: Buffer): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32BE(0x5300_0000 + id);
  header.writeBigUInt64BE(counter, 4);
  const nonce = Buffer.concat([salt, header.subarray(4)]);
  const cipher = createCipheriv('aes-256-gcm', secret, nonce);
  cipher.setAAD(header);
  const text = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([header, text, cipher.getAuthTag()]);
}

/** Throws for what is not sealed with this key. */
function openWith({ secret, salt }: SealKey, sealed: Buffer): Buffer {
  const nonce = Buffer.concat([salt, sealed.subarray(4, HEADER)]);
  const decipher = createDecipheriv('aes-256-gcm', secret, nonce);
  decipher.setAAD(sealed.subarray(0, HEADER));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG));
  const text = decipher.update(sealed.subarray(HEADER, sealed.length - TAG));
  return Buffer.concat([text, decipher.final()]);
}

const FIRST = (1n << 60n) + 5n;
const VNI = 0x1234;

interface Sealed {
  readonly driver: TestDriver;
  readonly peer: TestPeer;
  readonly port: TestPort;
}

/** The part of the contract of `PacketIo` that is about sealing. */
export function sealingConformance(
  t: Test,
  bed: PacketIoBed,
  until: (what: string, t: Test, holds: () => boolean | Promise<boolean>) => Promise<void>,
): void {
  const ours = testKey(1);
  const theirs = testKey(2);
  const keys: SealKeys = { seals: ours, opens: [theirs] };

  const open = async (t: Test, count = 1_000_000): Promise<Sealed> => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(0);
    await driver.setVtep(7, peer);
    if (count > 0) {
      await driver.allowSeals(FIRST, count);
      await driver.setSeals(7, keys);
    }
    await driver.wire({
      ports: { 0: [{ to: 'vtep', index: 7, vni: VNI, isSealed: true }] },
      vnis: { [VNI]: [{ to: 'port', index: 0 }] },
    });
    return { driver, peer, port };
  };
  const holds = (port: TestPort, frame: Buffer) => port.received().some((got) => got.equals(frame));
  const has = (peer: TestPeer, key: SealKey, frame: Buffer) =>
    peer.received().some(({ payload }) => {
      if (payload.readUInt32BE(0) !== 0x5300_0000 + key.id) return false;
      return openWith(key, payload).equals(vxlan(VNI, frame));
    });
  const counterOf = (payload: Buffer) => payload.readBigUInt64BE(4);

  t.test('sealed, a frame goes out and a datagram comes in', async (t) => {
    const { driver, peer, port } = await open(t);
    for (const [i, length] of [60, 61, 590, 1436].entries()) {
      const out = testFrame(`secret out ${length}`, length);
      port.send(out);
      await until(`${length} bytes out`, t, () => has(peer, ours, out));
      const back = testFrame(`secret in ${length}`, length);
      peer.send(sealWith(theirs, BigInt(i), vxlan(VNI, back)));
      await until(`${length} bytes in`, t, () => holds(port, back));
      t.equal((await driver.report()).lastSealer, 7, 'who sealed it is told');
    }
    const payloads = peer.received().map(({ payload }) => payload);
    t.notOk(payloads.some((payload) => payload.includes('secret')));
    // A kernel's own frames may be among them.
    const counters = payloads.map(counterOf);
    t.strictSame(
      counters,
      counters.map((_, i) => FIRST + BigInt(i)),
      'each has a counter of its own, from the first allowed one',
    );
    peer.send(vxlan(VNI, testFrame('plain')));
    await until('what is not sealed comes in, too', t, () => holds(port, testFrame('plain')));
    t.equal((await driver.report()).lastSealer, -1, 'and is told apart');
  });

  t.test('what was changed, repeated or sealed by a stranger is counted and dropped', async (t) => {
    const { driver, peer, port } = await open(t);
    const good = sealWith(theirs, 1n, vxlan(VNI, testFrame('good', 100)));
    peer.send(good);
    await until('the good one', t, () => holds(port, testFrame('good', 100)));
    const changed = [1, 2, 3, 4, 11, 12, 30, good.length - 17, good.length - 1].map((at) => {
      const copy = sealWith(theirs, BigInt(100 + at), vxlan(VNI, testFrame('bad', 100)));
      copy[at] = (copy[at] ?? 0) ^ 1;
      return copy;
    });
    const longer = sealWith(theirs, 2n, vxlan(VNI, testFrame('longer', 100)));
    const cases = [
      ['openReplayedDrops', [good, good]],
      ['openUnknownKeyDrops', [sealWith(testKey(3), 2n, good), ...changed.slice(0, 3)]],
      [
        'openBadTagDrops',
        [...changed.slice(3), longer.subarray(0, 90), Buffer.concat([longer, longer])],
      ],
      ['openTruncatedDrops', [1, 11, 12, 28, 35].map((length) => longer.subarray(0, length))],
    ] as const;
    const { rows } = await driver.report();
    for (const [name, datagrams] of cases) {
      const before = (await driver.stats())[name];
      for (const datagram of datagrams) peer.send(datagram);
      await until(`${name} grows`, t, async () => {
        const { [name]: after } = await driver.stats();
        return after === before + datagrams.length;
      });
    }
    t.equal((await driver.report()).rows, rows, 'nothing of it reached the handler');
    t.notOk(holds(port, testFrame('bad', 100)));
    peer.send(longer);
    await until('the next good one arrives', t, () => holds(port, testFrame('longer', 100)));
    t.equal((await driver.report()).faults, 0);
  });

  t.test('datagrams may overtake each other within the window', async (t) => {
    const { driver, peer, port } = await open(t);
    const frame = (n: bigint) => testFrame(`number ${n}.`);
    const send = (n: bigint) => peer.send(sealWith(theirs, n, vxlan(VNI, frame(n))));
    const newest = (1n << 62n) + 63n;
    for (const n of [10n, 9n, 11n, newest, newest - 1n, newest - 64n, newest - 8127n]) {
      send(n);
      await until(`${n} arrives`, t, () => holds(port, frame(n)));
    }
    const { openReplayedDrops } = await driver.stats();
    for (const n of [newest - 8128n, newest - 64n, 12n]) send(n);
    await until(
      'too old ones, and one that comes again, do not',
      t,
      async () => (await driver.stats()).openReplayedDrops === openReplayedDrops + 3,
    );
    t.notOk(holds(port, frame(newest - 8128n)));
    send((1n << 64n) - 1n);
    await until('the last counter there is', t, () => holds(port, frame((1n << 64n) - 1n)));
  });

  t.test('keys change under traffic, and what is on its way still opens', async (t) => {
    const { driver, peer, port } = await open(t);
    const send = (key: SealKey, n: bigint, label: string) =>
      peer.send(sealWith(key, n, vxlan(VNI, testFrame(label))));
    send(theirs, 5n, 'old');
    await until('by the old key', t, () => holds(port, testFrame('old')));
    const next: SealKeys = { seals: testKey(11), opens: [testKey(12), theirs, testKey(13)] };
    await driver.setSeals(7, next);
    port.send(testFrame('out'));
    await until('sealed by the new key', t, () => has(peer, next.seals, testFrame('out')));
    send(theirs, 4n, 'late');
    send(testKey(12), 1n, 'new');
    send(testKey(13), 1n, 'early');
    for (const label of ['late', 'new', 'early'])
      await until(`${label} arrives`, t, () => holds(port, testFrame(label)));
    const { openReplayedDrops, openUnknownKeyDrops } = await driver.stats();
    send(theirs, 5n, 'again');
    await until(
      'the old key has not forgotten what it saw',
      t,
      async () => (await driver.stats()).openReplayedDrops === openReplayedDrops + 1,
    );
    await driver.setSeals(7, { seals: testKey(11), opens: [testKey(12)] });
    send(theirs, 6n, 'too late');
    await until(
      'the old key is gone',
      t,
      async () => (await driver.stats()).openUnknownKeyDrops === openUnknownKeyDrops + 1,
    );
  });

  t.test('a counter is never used twice, and none that is not allowed', async (t) => {
    const { driver, peer, port } = await open(t, 0);
    const drops = async () => (await driver.stats()).sealDrops;
    const before = await drops();
    port.send(testFrame('no keys'));
    await until('without keys it is counted', t, async () => (await drops()) > before);
    await driver.allowSeals(FIRST, 2);
    await driver.setSeals(7, keys);
    port.send(testFrame('one'));
    await until('one', t, () => has(peer, ours, testFrame('one')));
    await driver.setSeals(7, undefined);
    await driver.setSeals(7, keys);
    port.send(testFrame('two'));
    await until('two, by a key that came back', t, () => has(peer, ours, testFrame('two')));
    const used = await drops();
    port.send(testFrame('three'));
    await until('a third is not allowed', t, async () => (await drops()) > used);
    await driver.allowSeals(FIRST, 1000);
    port.send(testFrame('four'));
    await until('until it is', t, () => has(peer, ours, testFrame('four')));
    const counters = peer.received().map(({ payload }) => counterOf(payload));
    t.equal(new Set(counters).size, counters.length, 'all differ');
    t.notOk(has(peer, ours, testFrame('three')));
    await driver.removeVtep(7);
    await driver.setVtep(7, peer);
    const last = await drops();
    port.send(testFrame('five'));
    await until('a VTEP that was removed has no keys', t, async () => (await drops()) > last);
    t.notOk(
      peer.received().some(({ payload }) => payload[0] !== 0x53),
      'nothing went out plain',
    );
  });

  t.test('two keys with one id are told apart', async (t) => {
    const { driver, peer, port } = await open(t);
    const other = testKey(4, theirs.id);
    await driver.setSeals(8, { seals: testKey(5), opens: [other] });
    for (const [key, sealer] of [
      [theirs, 7],
      [other, 8],
      [theirs, 7],
    ] as const) {
      const counter = BigInt(port.received().length + 1);
      const label = `by ${sealer} at ${counter}`;
      peer.send(sealWith(key, counter, vxlan(VNI, testFrame(label))));
      await until(label, t, () => holds(port, testFrame(label)));
      t.equal((await driver.report()).lastSealer, sealer);
    }
    await driver.removeVtep(8);
    peer.send(sealWith(theirs, 99n, vxlan(VNI, testFrame('the other stays'))));
    await until('the other stays', t, () => holds(port, testFrame('the other stays')));
  });

  t.test('a sealed burst arrives whole and in order', async (t) => {
    const { peer, port } = await open(t);
    const burst = Array.from({ length: 200 }, (_, i) =>
      testFrame(`burst ${i}.`, i % 8 === 7 ? 300 : 1400),
    );
    for (const frame of burst) port.send(frame);
    await until('all go out', t, () => peer.received().length >= burst.length);
    const got = peer.received().map(({ payload }) => openWith(ours, payload).subarray(8));
    const sent = got.filter((frame) => frame.toString('hex', 12, 14) === '88b5');
    t.ok(sent.every((frame, i) => frame.equals(burst[i] as Buffer)));
    for (const [i, frame] of burst.entries())
      peer.send(sealWith(theirs, BigInt(i), vxlan(VNI, frame)));
    const came = () => port.received().filter((frame) => frame.toString('hex', 12, 14) === '88b5');
    await until('all come in', t, () => came().length >= burst.length);
    t.ok(came().every((frame, i) => frame.equals(burst[i] as Buffer)));
  });

  t.test('bytes that only begin like a sealed datagram harm nobody', async (t) => {
    const { driver, peer, port } = await open(t);
    let seed = 7;
    for (let i = 0; i < 100; i++) {
      const bytes = Buffer.alloc(1 + ((i * 37) % 200));
      for (let at = 1; at < bytes.length; at++) {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
        bytes[at] = seed >>> 16;
      }
      bytes[0] = 0x53;
      if (i % 2 === 0 && bytes.length > 4) bytes.writeUIntBE(theirs.id, 1, 3);
      peer.send(bytes);
    }
    peer.send(sealWith(theirs, 3n, vxlan(VNI, testFrame('after them'))));
    await until('the next one arrives', t, () => holds(port, testFrame('after them')));
    t.equal((await driver.report()).faults, 0);
  });
}
