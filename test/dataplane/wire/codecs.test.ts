import fc from 'fast-check';
import t from 'tap';
import { formatAddress, isIpv4Mapped, parseAddress } from '../../../src/dataplane/wire/address.js';
import { ARP_REPLY, decodeArp, encodeArp } from '../../../src/dataplane/wire/arp.js';
import { addBytes, finishChecksum } from '../../../src/dataplane/wire/checksum.js';
import {
  encodeEthernetHeader,
  formatMac,
  macHigh,
  macLow,
  macOf,
  parseMac,
} from '../../../src/dataplane/wire/ethernet.js';
import { encodeFragmentationNeeded } from '../../../src/dataplane/wire/icmp.js';
import { encodePacketTooBig } from '../../../src/dataplane/wire/icmpv6.js';
import {
  decodeIpv4Header,
  encodeIpv4Header,
  pseudoHeaderSum4,
} from '../../../src/dataplane/wire/ipv4.js';
import {
  decodeIpv6Header,
  encodeIpv6Header,
  isUnspecified6,
  pseudoHeaderSum6,
} from '../../../src/dataplane/wire/ipv6.js';
import { decodeNdp, encodeNeighborAdvertisement } from '../../../src/dataplane/wire/ndp.js';
import { decodeTcpHeader } from '../../../src/dataplane/wire/tcp.js';
import { decodeUdpPorts } from '../../../src/dataplane/wire/udp.js';
import { decodeVxlanHeader, encodeVxlanHeader } from '../../../src/dataplane/wire/vxlan.js';
import {
  bytes,
  checksum,
  checksum6,
  checksumUnderTest,
  ip6,
  viewOf,
} from '../../support/frames.js';
import { fuzzRuns } from '../../support/fuzz.js';

t.test('the VXLAN header reads as RFC 7348 says', async (t) => {
  const cases = [
    { name: 'plain', hex: '08000000 00abcd00', want: 0xabcd },
    { name: 'largest VNI keeps its sign', hex: '08000000 ffffff00', want: 0xffffff },
    { name: 'reserved bits are ignored, RFC 7348 §5', hex: 'ffffffff 00002aff', want: 42 },
    { name: 'I flag clear', hex: '00000000 00002a00', want: 'vxlan_vni_invalid' },
    { name: 'one byte short', hex: '08000000 00002a', want: 'vxlan_truncated' },
    { name: 'empty', hex: '', want: 'vxlan_truncated' },
  ] as const;
  for (const { name, hex, want } of cases) {
    const datagram = bytes(hex);
    t.equal(decodeVxlanHeader(viewOf(datagram), 0, datagram.length), want, name);
  }
});

t.test('the bound is the end that is told, not that of the buffer', async (t) => {
  const view = viewOf(bytes('08000000 00abcd00 0000'));
  t.equal(decodeVxlanHeader(view, 0, 7), 'vxlan_truncated');
  t.equal(decodeIpv4Header(viewOf(bytes('45'.padEnd(80, '0'))), 0, 19), 'ipv4_truncated');
});

t.test('encoding and decoding a VNI is identity, and the header has no stray bits', async () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xff_ffff }), fc.nat(8), (vni, offset) => {
      const buffer = Buffer.alloc(16, 0xaa);
      encodeVxlanHeader(viewOf(buffer), offset, vni);
      const naive = `08000000${vni.toString(16).padStart(6, '0')}00`;
      return (
        buffer.subarray(offset, offset + 8).toString('hex') === naive &&
        decodeVxlanHeader(viewOf(buffer), offset, 16) === vni
      );
    }),
    { numRuns: fuzzRuns(200) },
  );
});

t.test('a VNI beyond 24 bits, or a header beyond the buffer, is our own bug', async (t) => {
  t.throws(() => encodeVxlanHeader(viewOf(Buffer.alloc(8)), 0, 0x100_0000));
  t.throws(() => encodeVxlanHeader(viewOf(Buffer.alloc(7)), 0, 1));
  t.throws(() => encodeVxlanHeader(viewOf(Buffer.alloc(16)), -1, 1));
});

t.test('MAC addresses go from text to number to bytes and back', async (t) => {
  t.equal(parseMac('02:42:0A:00:01:05'), 0x0242_0a00_0105);
  t.equal(formatMac(0x0242_0a00_0105), '02:42:0a:00:01:05');
  for (const odd of [
    '',
    '02:42:0a:00:01',
    '02-42-0a-00-01-05',
    '02:42:0a:00:01:05:06',
    'g2:42:0a:00:01:05',
  ])
    t.equal(parseMac(odd), undefined, odd);
  fc.assert(
    fc.property(fc.maxSafeNat(), (n) => {
      const mac = n % 2 ** 48;
      return parseMac(formatMac(mac)) === mac && macOf(macHigh(mac), macLow(mac)) === mac;
    }),
  );
  const header = Buffer.alloc(14);
  encodeEthernetHeader(viewOf(header), 0, 0xffff_ffff_ffff, 0x0242_0a00_0105, 0x0806);
  t.equal(header.toString('hex'), 'ffffffffffff02420a0001050806');
});

t.test('addresses are strict literals, mapped into IPv6', async (t) => {
  const cases = [
    ['10.0.1.5', '00000000000000000000ffff0a000105'],
    ['fd00::5', 'fd000000000000000000000000000005'],
    ['::ffff:10.0.1.5', '00000000000000000000ffff0a000105'],
  ] as const;
  for (const [text, hex] of cases)
    t.equal(Buffer.from(parseAddress(text) ?? []).toString('hex'), hex, text);
  for (const odd of [
    '',
    '10',
    '10.1',
    '0x0a000105',
    '1.2.3.256',
    'fe80::1%eth0',
    ':::',
    '10.0.1.5/24',
    'localhost',
  ])
    t.equal(parseAddress(odd), undefined, odd);
  t.equal(formatAddress(parseAddress('10.0.1.5') ?? Buffer.alloc(16)), '10.0.1.5');
  t.equal(formatAddress(parseAddress('fd00:0::5') ?? Buffer.alloc(16)), 'fd00::5');
  t.ok(isIpv4Mapped(parseAddress('10.0.1.5') ?? Buffer.alloc(16)));
  t.notOk(isIpv4Mapped(parseAddress('fd00::5') ?? Buffer.alloc(16)));
});

t.test('the checksum agrees with RFC 1071, its example included', async (t) => {
  t.equal(checksumUnderTest(bytes('0001 f203 f4f5 f6f7')), 0x220d, 'RFC 1071 §3');
  t.equal(checksumUnderTest(Buffer.alloc(65_535, 0xff)), checksum(Buffer.alloc(65_535, 0xff)));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (data) => {
      return checksumUnderTest(Buffer.from(data)) === checksum(Buffer.from(data));
    }),
    { numRuns: fuzzRuns(300) },
  );
});

t.test('pseudo-headers agree with checksums that a kernel made', async (t) => {
  // 192.168.0.1 to 192.168.0.2, UDP 1 to 2, "hi"; and the same over fd00::1 to fd00::2.
  const v4 = bytes('4500001e00000000 4011 0000 c0a80001 c0a80002 0001 0002 000a 0000 6869');
  const sum4 = pseudoHeaderSum4(viewOf(v4), 0, 17, 10);
  const naive4 = checksum(Buffer.concat([v4.subarray(12, 20), bytes('0011000a'), v4.subarray(20)]));
  t.equal(finishChecksum(addBytes(viewOf(v4), 20, 10, sum4)), naive4);
  const v6 = Buffer.concat([
    bytes('60000000 000a 1140'),
    ip6('fd00::1'),
    ip6('fd00::2'),
    v4.subarray(20),
  ]);
  const sum6 = pseudoHeaderSum6(viewOf(v6), 0, 17, 10);
  t.equal(
    finishChecksum(addBytes(viewOf(v6), 40, 10, sum6)),
    checksum6('fd00::1', 'fd00::2', 17, v4.subarray(20)),
  );
});

t.test('IPv4 headers: golden bytes, and what is none', async (t) => {
  const buffer = Buffer.alloc(28);
  encodeIpv4Header(viewOf(buffer), 0, 0xac10_0a63, 0xac10_0a0c, 6, 64, 8);
  // Only the header checksum is not obvious; it makes the header sum to zero.
  t.match(buffer.toString('hex'), /^4500001c000040004006[0-9a-f]{4}ac100a63ac100a0c/);
  t.equal(checksum(buffer.subarray(0, 20)), 0);
  const cases = [
    { hex: '45'.padEnd(40, '0'), want: 20 },
    { hex: '4f'.padEnd(120, '0'), want: 60 },
    { hex: '4f'.padEnd(118, '0'), want: 'ipv4_truncated' },
    { hex: '44'.padEnd(40, '0'), want: 'ipv4_malformed' },
    { hex: '65'.padEnd(40, '0'), want: 'ipv4_malformed' },
    { hex: '45'.padEnd(38, '0'), want: 'ipv4_truncated' },
  ] as const;
  for (const { hex, want } of cases)
    t.equal(decodeIpv4Header(viewOf(bytes(hex)), 0, bytes(hex).length), want, hex);
});

t.test('IPv6 headers: golden bytes, and what is none', async (t) => {
  const buffer = Buffer.alloc(48);
  encodeIpv6Header(viewOf(buffer), 0, 58, 255, 8);
  t.equal(buffer.subarray(0, 8).toString('hex'), '6000000000083aff');
  t.equal(decodeIpv6Header(viewOf(buffer), 0, 48), 58);
  t.equal(decodeIpv6Header(viewOf(buffer), 0, 39), 'ipv6_truncated');
  buffer[0] = 0x45;
  t.equal(decodeIpv6Header(viewOf(buffer), 0, 48), 'ipv6_malformed');
  t.ok(isUnspecified6(viewOf(Buffer.alloc(16)), 0));
  t.notOk(isUnspecified6(viewOf(ip6('::1')), 0));
  t.notOk(isUnspecified6(viewOf(ip6('8000::')), 0));
});

t.test('transport headers', async (t) => {
  const tcp = bytes('0050 1f90 00000000 00000000 5002 0000 0000 0000');
  t.equal(decodeTcpHeader(viewOf(tcp), 0, 20), 20);
  t.equal(decodeTcpHeader(viewOf(tcp), 0, 19), 'tcp_truncated');
  t.equal(
    decodeTcpHeader(viewOf(bytes(`${tcp.toString('hex').slice(0, 24)}40${'0'.repeat(14)}`)), 0, 20),
    'tcp_malformed',
  );
  t.equal(
    decodeTcpHeader(viewOf(bytes(`${tcp.toString('hex').slice(0, 24)}f0${'0'.repeat(14)}`)), 0, 20),
    'tcp_truncated',
  );
  t.equal(decodeUdpPorts(viewOf(bytes('0050 1f90 0008 0000')), 0, 8), 0x0050_1f90);
  t.equal(decodeUdpPorts(viewOf(bytes('0050 1f90 0008 0000')), 0, 7), 'udp_truncated');
});

t.test('ARP: golden reply, and what is no IPv4 over Ethernet', async (t) => {
  const buffer = Buffer.alloc(28);
  encodeArp(
    viewOf(buffer),
    0,
    ARP_REPLY,
    0x0242_0a00_0105,
    0x0a00_0105,
    0x0242_0a00_0106,
    0x0a00_0106,
  );
  t.equal(
    buffer.toString('hex'),
    '0001080006040002' + '02420a0001050a000105' + '02420a0001060a000106',
  );
  t.equal(decodeArp(viewOf(buffer), 0, 28), ARP_REPLY);
  t.equal(decodeArp(viewOf(buffer), 0, 27), 'arp_malformed');
  for (const [at, value] of [
    [1, 6],
    [3, 1],
    [4, 8],
    [5, 16],
  ] as const) {
    const odd = Buffer.from(buffer);
    odd[at] = value;
    t.equal(decodeArp(viewOf(odd), 0, 28), 'arp_malformed', `byte ${at}`);
  }
});

t.test('neighbour discovery: validity as in RFC 4861 §7.1', async (t) => {
  const packet = Buffer.concat([
    bytes('60000000 0018 3aff'),
    ip6('fd00::6'),
    ip6('ff02::1:ff00:5'),
    bytes('87 00 0000 00000000'),
    ip6('fd00::5'),
  ]);
  const decode = (change: (packet: Buffer) => void, end = packet.length) => {
    const copy = Buffer.from(packet);
    change(copy);
    return decodeNdp(viewOf(copy), 0, end);
  };
  t.equal(
    decode(() => {}),
    135,
  );
  t.equal(
    decode((p) => p.writeUInt8(64, 7)),
    'ndp_malformed',
    'came over a router',
  );
  t.equal(
    decode((p) => p.writeUInt8(1, 41)),
    'ndp_malformed',
    'code',
  );
  t.equal(
    decode((p) => p.writeUInt8(0xff, 48)),
    'ndp_malformed',
    'multicast target',
  );
  t.equal(
    decode(() => {}, 63),
    'ndp_malformed',
    'truncated',
  );
  t.equal(
    decode((p) => p.writeUInt8(128, 40)),
    128,
    'an echo request is left alone',
  );
  t.equal(
    decode(() => {}, 40),
    -1,
    'no message at all',
  );
});

t.test('what the VTEP answers with has right checksums', async (t) => {
  const frame = Buffer.alloc(40 + 32);
  encodeIpv6Header(viewOf(frame), 0, 58, 255, 32);
  ip6('fd00::5').copy(frame, 8);
  ip6('fd00::6').copy(frame, 24);
  ip6('fd00::5').copy(frame, 48);
  encodeNeighborAdvertisement(viewOf(frame), 0, 0x6000_0000, 0x0242_0a00_0105);
  t.equal(checksum6('fd00::5', 'fd00::6', 58, frame.subarray(40)), 0);
  t.match(frame.subarray(40).toString('hex'), /^8800.{4}60000000.{32}020102420a000105$/);

  const icmp = Buffer.alloc(8 + 28, 0x11);
  encodeFragmentationNeeded(viewOf(icmp), 0, 1450, 28);
  t.equal(checksum(icmp), 0);
  t.match(icmp.toString('hex'), /^0304.{4}000005aa1111/);

  const big = Buffer.alloc(40 + 8 + 60, 0x22);
  encodeIpv6Header(viewOf(big), 0, 58, 64, 68);
  ip6('fd00::5').copy(big, 8);
  ip6('fd00::6').copy(big, 24);
  encodePacketTooBig(viewOf(big), 0, 1430, 60);
  t.equal(checksum6('fd00::5', 'fd00::6', 58, big.subarray(40)), 0);
  t.match(big.subarray(40).toString('hex'), /^0200.{4}000005962222/);
});

t.test('every decoder returns on any bytes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(120), (data, at) => {
      const view = viewOf(data);
      const offset = Math.min(at, data.length);
      for (const decode of [
        decodeVxlanHeader,
        decodeIpv4Header,
        decodeIpv6Header,
        decodeTcpHeader,
        decodeUdpPorts,
        decodeArp,
        decodeNdp,
      ]) {
        const got = decode(view, offset, data.length);
        if (typeof got !== 'number' && typeof got !== 'string') return false;
      }
      return true;
    }),
    { numRuns: fuzzRuns(2_000) },
  );
});
