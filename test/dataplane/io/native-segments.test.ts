import fc from 'fast-check';
import t from 'tap';
import { loadNative, nativeUnavailableReason } from '../../../src/dataplane/io/native-binding.js';

const native = loadNative();
const skip = native === undefined ? nativeUnavailableReason() : false;
const runs = 150 * Number(process.env['FUZZ_FACTOR'] ?? 1);

const VNET_BYTES = 10;
const VXLAN_BYTES = 8;
const TCP = 6;
const UDP = 17;
const [FIN, PSH, ACK, CWR] = [0x01, 0x08, 0x10, 0x80];

/** RFC 1071 as it is written: 16-bit words, end-around carry. Slow, and obviously right. */
function naiveSum(bytes: Uint8Array, seed = 0): number {
  let sum = seed;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return sum;
}

interface Frame {
  readonly ipv6: boolean;
  readonly tagged: boolean;
  readonly protocol: typeof TCP | typeof UDP;
  readonly options: number;
  readonly flags: number;
  readonly id: number;
  readonly sequence: number;
  readonly gsoSize: number;
  readonly payload: Uint8Array;
}

const frames = fc.record({
  ipv6: fc.boolean(),
  tagged: fc.boolean(),
  protocol: fc.constantFrom<typeof TCP | typeof UDP>(TCP, UDP),
  options: fc.constantFrom(0, 12, 40),
  flags: fc.constantFrom(ACK, ACK | PSH, ACK | PSH | FIN, ACK | CWR),
  id: fc.nat(0xffff),
  sequence: fc.nat(0xffff_ffff),
  gsoSize: fc.integer({ min: 8, max: 1460 }),
  payload: fc.integer({ min: 1, max: 20_000 }).chain((length) =>
    fc.nat(0xffff_ffff).map((seed) => {
      let state = seed | 1;
      return Uint8Array.from({ length }, () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state >>> 24;
      });
    }),
  ),
});

const l3Of = (frame: { readonly tagged: boolean }) => (frame.tagged ? 18 : 14);

function pseudoSum(packet: Buffer, ipv6: boolean, protocol: number, length: number): number {
  const addresses = ipv6 ? packet.subarray(8, 40) : packet.subarray(12, 20);
  return naiveSum(Buffer.from([0, protocol, length >> 8, length & 0xff]), naiveSum(addresses));
}

/** The super-frame as a kernel writes it to a TAP, behind its virtio-net header. */
function superFrame(frame: Frame): Buffer {
  const l4Header = frame.protocol === TCP ? 20 + frame.options : 8;
  const ethernet = Buffer.alloc(l3Of(frame));
  ethernet.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
  if (frame.tagged) ethernet.writeUInt32BE(0x8100_0007, 12);
  ethernet.writeUInt16BE(frame.ipv6 ? 0x86dd : 0x0800, ethernet.length - 2);

  const l4Bytes = l4Header + frame.payload.length;
  const ip = Buffer.alloc(frame.ipv6 ? 40 : 20);
  if (frame.ipv6) {
    ip.writeUInt32BE(0x6001_2345, 0);
    ip.writeUInt16BE(l4Bytes, 4);
    ip.set([frame.protocol, 64], 6);
    for (let i = 8; i < 40; i += 1) ip[i] = i * 7;
  } else {
    ip.set([0x45, 0], 0);
    ip.writeUInt16BE(20 + l4Bytes, 2);
    ip.writeUInt16BE(frame.id, 4);
    ip.writeUInt16BE(0x4000, 6);
    ip.set([64, frame.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 8);
    ip.writeUInt16BE(~naiveSum(ip) & 0xffff, 10);
  }

  const l4 = Buffer.alloc(l4Header);
  l4.writeUInt16BE(40_000, 0);
  l4.writeUInt16BE(5201, 2);
  const pseudo = pseudoSum(ip, frame.ipv6, frame.protocol, l4Bytes);
  if (frame.protocol === TCP) {
    l4.writeUInt32BE(frame.sequence, 4);
    l4.writeUInt32BE(0xdead_beef, 8);
    l4[12] = (l4Header / 4) << 4;
    l4[13] = frame.flags;
    l4.writeUInt16BE(500, 14);
    for (let i = 20; i < l4Header; i += 1) l4[i] = i;
    l4.writeUInt16BE(pseudo, 16);
  } else {
    l4.writeUInt16BE(l4Bytes, 4);
    l4.writeUInt16BE(pseudo, 6);
  }

  const vnet = Buffer.alloc(VNET_BYTES);
  vnet[0] = 1;
  const isSuper = frame.payload.length > frame.gsoSize;
  if (isSuper) vnet[1] = frame.protocol === UDP ? 5 : frame.ipv6 ? 4 : 1;
  vnet.writeUInt16LE(ethernet.length + ip.length + l4Header, 2);
  vnet.writeUInt16LE(isSuper ? frame.gsoSize : 0, 4);
  vnet.writeUInt16LE(ethernet.length + ip.length, 6);
  vnet.writeUInt16LE(frame.protocol === TCP ? 16 : 6, 8);
  return Buffer.concat([vnet, ethernet, ip, l4, frame.payload]);
}

interface Parsed {
  readonly ip: Buffer;
  readonly l4: Buffer;
  readonly payload: Buffer;
}

function parse(bytes: Uint8Array, frame: Frame): Parsed {
  const inner = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).subarray(l3Of(frame));
  const l4 = inner.subarray(frame.ipv6 ? 40 : 20);
  const header = frame.protocol === TCP ? (l4[12]! >> 4) * 4 : 8;
  return { ip: inner, l4, payload: l4.subarray(header) };
}

const fixedFlags = frames.filter((f) => f.protocol === TCP || f.payload.length / f.gsoSize < 64);

t.test('the checksum is that of RFC 1071, at every length and alignment', { skip }, async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 700 }), fc.nat(7), (bytes, shift) => {
      const moved = Buffer.alloc(bytes.length + shift);
      moved.set(bytes, shift);
      const memoryOrder = native!.checksum(moved.subarray(shift));
      const sum = ((memoryOrder & 0xff) << 8) | (memoryOrder >> 8);
      return sum % 0xffff === naiveSum(bytes) % 0xffff;
    }),
    { numRuns: runs * 4 },
  );
  const ones = native!.checksum(new Uint8Array(65_535).fill(0xff));
  t.equal(ones, 0x00ff, 'carries of the largest frame are not lost');
});

t.test('every segment of a super-frame is right on its own', { skip }, async (t) => {
  fc.assert(
    fc.property(fixedFlags, (frame) => {
      const datagrams = native!.segment(superFrame(frame), 0x12_3456);
      const expected = Math.max(1, Math.ceil(frame.payload.length / frame.gsoSize));
      if (datagrams.length !== expected) return false;
      return datagrams.every((datagram, i) => {
        if (Buffer.from(datagram.subarray(0, 8)).toString('hex') !== '0800000012345600')
          return false;
        const { ip, l4, payload } = parse(datagram.subarray(VXLAN_BYTES), frame);
        const last = i === datagrams.length - 1;
        const offset = i * frame.gsoSize;
        if (!payload.equals(frame.payload.subarray(offset, offset + frame.gsoSize))) return false;
        if (pseudoSum(ip, frame.ipv6, frame.protocol, l4.length) === 0) return false;
        const pseudo = pseudoSum(ip, frame.ipv6, frame.protocol, l4.length);
        if (naiveSum(l4, pseudo) !== 0xffff) return false;
        if (frame.ipv6) {
          if (ip.readUInt16BE(4) !== l4.length) return false;
        } else {
          if (naiveSum(ip.subarray(0, 20)) !== 0xffff) return false;
          if (ip.readUInt16BE(2) !== ip.length) return false;
          if (ip.readUInt16BE(4) !== ((frame.id + i) & 0xffff)) return false;
        }
        if (frame.protocol === UDP) return l4.readUInt16BE(4) === l4.length;
        const wanted = frame.flags & (last ? 0xff : ~(PSH | FIN)) & (i === 0 ? 0xff : ~CWR);
        return l4.readUInt32BE(4) === (frame.sequence + offset) >>> 0 && l4[13] === wanted;
      });
    }),
    { numRuns: runs },
  );
  t.pass('checked');
});

t.test('what was cut is joined again, whole and in order', { skip }, async (t) => {
  fc.assert(
    fc.property(fixedFlags, fc.boolean(), (frame, takesUdpSegments) => {
      const datagrams = native!.segment(superFrame(frame), 42);
      const writes = native!.coalesce(datagrams, takesUdpSegments);
      let at = 0;
      for (const written of writes) {
        const vnet = Buffer.from(written.subarray(0, VNET_BYTES));
        const { ip, l4, payload } = parse(written.subarray(VNET_BYTES), frame);
        if (!payload.equals(frame.payload.subarray(at, at + payload.length))) return false;
        if (frame.protocol === TCP && l4.readUInt32BE(4) !== (frame.sequence + at) >>> 0)
          return false;
        if (!frame.ipv6 && naiveSum(ip.subarray(0, 20)) !== 0xffff) return false;
        const pseudo = pseudoSum(ip, frame.ipv6, frame.protocol, l4.length);
        const field = l4.readUInt16BE(vnet.readUInt16LE(8));
        if ((vnet[0]! & 1) !== 0 && field !== pseudo) return false;
        if ((vnet[0]! & 1) === 0 && naiveSum(l4, pseudo) !== 0xffff) return false;
        if (vnet[1] !== 0 && payload.length <= vnet.readUInt16LE(4)) return false;
        at += payload.length;
      }
      if (at !== frame.payload.length) return false;
      // Flags that a super-frame cannot carry, and ports that take none, make single frames.
      const joinable =
        frame.protocol === UDP ? takesUdpSegments : (frame.flags & (FIN | CWR)) === 0;
      // One right checksum in 65,536 looks like a partial one, and then stays by itself.
      const ambiguous = datagrams.some((datagram) => {
        const { ip, l4 } = parse(datagram.subarray(VXLAN_BYTES), frame);
        const pseudo = pseudoSum(ip, frame.ipv6, frame.protocol, l4.length);
        return l4.readUInt16BE(frame.protocol === TCP ? 16 : 6) === pseudo;
      });
      if (ambiguous) return true;
      const segments = Math.ceil(frame.payload.length / frame.gsoSize);
      return (
        !joinable || writes.length === Math.ceil(segments / (frame.protocol === TCP ? 128 : 64))
      );
    }),
    { numRuns: runs },
  );
  t.pass('checked');
});

const base: Frame = {
  ipv6: false,
  tagged: false,
  protocol: TCP,
  options: 12,
  flags: ACK,
  id: 1,
  sequence: 1000,
  gsoSize: 1000,
  payload: new Uint8Array(5000).map((_, i) => i & 0xff),
};

t.test('interleaved flows are joined each on their own', { skip }, async (t) => {
  const flows = [1, 2, 3, 4].map((n) => {
    const frame = superFrame({ ...base, sequence: n * 100_000 });
    // Another source port; the partial checksum covers the pseudo-header only.
    frame.writeUInt16BE(30_000 + n, VNET_BYTES + 34);
    return native!.segment(frame, 42);
  });
  const mixed = [0, 1, 2, 3, 4].flatMap((i) => flows.map((flow) => flow[i]!));
  const writes = native!.coalesce(mixed);
  t.equal(writes.length, 4);
  t.ok(writes.every((w) => w[1] === 1 && w.length === VNET_BYTES + 14 + 20 + 32 + 5000));
});

t.test(
  'a segment with a wrong checksum is passed singly, for the kernel to refuse',
  { skip },
  async (t) => {
    const datagrams = native!.segment(superFrame(base), 42);
    const broken = Buffer.from(datagrams[2]!);
    broken[broken.length - 1]! ^= 1;
    datagrams[2] = broken;
    const writes = native!.coalesce(datagrams).map((w) => Buffer.from(w));
    const singles = writes.filter((w) => w[1] === 0);
    t.ok(
      singles.some(
        (w) => w[0] === 0 && w.subarray(VNET_BYTES).equals(broken.subarray(VXLAN_BYTES)),
      ),
    );
    t.equal(
      writes.reduce((sum, w) => sum + w.length - VNET_BYTES - 66, 0),
      5000,
      'nothing is lost',
    );
  },
);

t.test(
  'a gap, a repetition and a pure acknowledgement break a super-frame',
  { skip },
  async (t) => {
    const [a, b, c, d, e] = native!.segment(superFrame(base), 42) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    const lengths = (datagrams: Uint8Array[]) =>
      native!.coalesce(datagrams).map((w) => w.length - VNET_BYTES - 66);
    t.strictSame(lengths([a, b, d, e]), [2000, 2000]);
    t.strictSame(lengths([a, b, b, c]), [2000, 2000]);
    const ack = native!.segment(superFrame({ ...base, payload: new Uint8Array(1) }), 42)[0]!;
    t.strictSame(lengths([a, b, c, ack]), [3000, 1]);
  },
);

t.test(
  'frames that are neither TCP nor UDP, and broken ones, pass as they are',
  { skip },
  async (t) => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 9, maxLength: 200 }), { maxLength: 8 }),
        (many) => {
          const writes = native!.coalesce(many.map((bytes) => Buffer.from(bytes)));
          return writes.length === many.length;
        },
      ),
      { numRuns: runs },
    );
    t.pass('checked');
  },
);

t.test('nonsense in front of a frame yields nothing, and no crash', { skip }, async (t) => {
  fc.assert(
    fc.property(
      frames,
      fc.uint8Array({ minLength: 10, maxLength: 10 }),
      fc.nat(200),
      (frame, vnet, cut) => {
        const bytes = superFrame({ ...frame, payload: frame.payload.subarray(0, 3000) });
        bytes.set(vnet, 0);
        native!.segment(bytes.subarray(0, Math.max(VNET_BYTES, bytes.length - cut * 20)), 1);
        return true;
      },
    ),
    { numRuns: runs * 4 },
  );
  t.pass('checked');
});
