import t from 'tap';
import {
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  OUTPUTS_MAX,
  PacketBatch,
  TO_PORT,
  TO_VTEP,
  TO_VTEP_SEALED,
  UNSEALED,
} from '../../../../src/dataplane/core/batch.js';
import {
  newOverlayCounters,
  OVERLAY_DROPS,
  readOverlayStats,
} from '../../../../src/dataplane/overlay/core/counters.js';
import { deriveTables, type OverlayInputs } from '../../../../src/dataplane/overlay/core/derive.js';
import { diffTables, NOTHING_PUBLISHED } from '../../../../src/dataplane/overlay/core/diff.js';
import { DEFAULT_SEGMENT_LIMITS, Vtep } from '../../../../src/dataplane/overlay/core/vtep.js';
import { parseAddress } from '../../../../src/dataplane/wire/address.js';
import {
  arp,
  bytes,
  checksum,
  checksum6,
  ethernet,
  icmpv6,
  ip6,
  ipv4,
  ipv6,
  solicitation,
  udp,
} from '../../../support/frames.js';
import { endpointOf, inputsOf, macOfEndpoint, portOf } from '../../../support/overlay.js';

const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const M = macOfEndpoint;

/** What one frame led to: outputs in words, and the one counter that moved if there are none. */
interface Verdict {
  readonly outputs: readonly string[];
  readonly counted: string | undefined;
  readonly made: readonly Buffer[];
}

/** This node has ports 1 and 2, `b` has endpoint 3, `c` has 4; a kernel stands at 203.0.113.1. */
const inputs = inputsOf({
  ports: [portOf(1), portOf(2), portOf(7, { isTrusted: true })],
  endpoints: [endpointOf('b', 3), endpointOf('c', 4)],
  staticVteps: [
    { vni: 4097, address: '203.0.113.1', udpPort: 4789, macs: [M(9)], flood: true },
    { vni: 4097, address: '203.0.113.2', udpPort: 4789, macs: [], flood: false },
  ],
  ownAddresses: ['198.51.100.1', 'fd00:99::1'],
});

class Bench {
  nowMs = 0;
  readonly counters = newOverlayCounters(false);
  readonly batch = new PacketBatch(1 << 18);
  readonly vtep: Vtep;
  readonly ports: ReadonlyMap<string, number>;
  readonly vteps: ReadonlyMap<string, number>;

  constructor(from: OverlayInputs = inputs, limits = DEFAULT_SEGMENT_LIMITS) {
    this.vtep = new Vtep(
      { limits, hashSeed: 7, counters: this.counters },
      { now: () => this.nowMs },
    );
    const { update, published } = diffTables(NOTHING_PUBLISHED, deriveTables(from).tables);
    this.vtep.apply(update);
    this.ports = published.portIndexes;
    this.vteps = published.vtepIndexes;
  }

  egress(
    port: string,
    frame: Buffer,
    gso: { type: number; size: number } = { type: 0, size: 0 },
  ): Verdict {
    const row = this.#row(frame);
    this.batch.rowPort[row] = this.ports.get(port) ?? 999;
    this.batch.rowGsoType[row] = gso.type;
    this.batch.rowGsoSize[row] = gso.size;
    return this.#verdict(() => this.vtep.egress(this.batch));
  }

  ingress(sender: string, vni: number, frame: Buffer, gso = { type: 0, size: 0 }): Verdict {
    const header = Buffer.from('0800000000000000', 'hex');
    header.writeUInt32BE(vni * 0x100, 4);
    return this.datagram(sender, Buffer.concat([header, frame]), gso);
  }

  /** From a sender that the driver has opened it from. */
  sealed(sealer: string, vni: number, frame: Buffer): Verdict {
    const header = Buffer.from('0800000000000000', 'hex');
    header.writeUInt32BE(vni * 0x100, 4);
    const index = this.vteps.get(`${sealer} 4789`) ?? 999;
    return this.datagram('203.0.113.77', Buffer.concat([header, frame]), undefined, index + 1);
  }

  datagram(
    sender: string,
    payload: Buffer,
    gso = { type: 0, size: 0 },
    rowSealer: number = UNSEALED,
  ): Verdict {
    const row = this.#row(payload);
    this.batch.rowGsoType[row] = gso.type;
    this.batch.rowGsoSize[row] = gso.size;
    this.batch.arena.set(parseAddress(sender) ?? [], 0);
    this.batch.rowSender[row] = 0;
    this.batch.rowSealer[row] = rowSealer;
    return this.#verdict(() => this.vtep.ingress(this.batch));
  }

  #row(data: Buffer): number {
    this.batch.clear();
    this.batch.arena.set(data, 128);
    this.batch.rowOffset[0] = 128;
    this.batch.rowLength[0] = data.length;
    this.batch.rowGsoType[0] = GSO_NONE;
    this.batch.rowCount = 1;
    return 0;
  }

  #verdict(run: () => void): Verdict {
    const before = readOverlayStats(this.counters);
    run();
    const after = readOverlayStats(this.counters);
    const moved = [
      ...Object.entries(after.drops).filter(([k, n]) => n !== before.drops[k as never]),
      ...Object.entries(after.replies).filter(([k, n]) => n !== before.replies[k as never]),
    ].map(([name]) => name);
    const name = (indexes: ReadonlyMap<string, number>, index: number) =>
      [...indexes].find(([, i]) => i === index)?.[0]?.split(' ')[0] ?? '?';
    const outputs: string[] = [];
    const made: Buffer[] = [];
    const { batch } = this;
    for (let out = 0; out < batch.outCount; out++) {
      const target = batch.outTarget[out] ?? -1;
      const isPort = batch.outKind[out] === TO_PORT;
      outputs.push(name(isPort ? this.ports : this.vteps, target));
      const at = batch.outOffset[out] ?? 0;
      if (batch.outRow[out] === -1)
        made.push(Buffer.from(batch.arena.subarray(at, at + (batch.outLength[out] ?? 0))));
    }
    return { outputs: outputs.sort(), counted: moved.join(' ') || undefined, made };
  }
}

const data = (length: number) => Buffer.alloc(length, 0x5a);
const packet4 = (length: number, dontFragment = true) =>
  ipv4(
    { source: '10.0.1.1', destination: '10.0.1.3', protocol: 17, dontFragment },
    udp(1, 2, data(length - 28)),
  );
const packet6 = (length: number) =>
  ipv6({ source: 'fd00:1::1', destination: 'fd00:1::3', next: 17 }, udp(1, 2, data(length - 48)));
const frame = (to: string, from: string, payload = packet4(64)) =>
  ethernet(to, from, 0x0800, payload);
const ask = (from: number, target: string, senderIp = `10.0.1.${from}`) =>
  ethernet(
    BROADCAST,
    M(from),
    0x0806,
    arp(1, { mac: M(from), ip: senderIp }, { mac: '00:00:00:00:00:00', ip: target }),
  );
const solicit = (from: number, source: string, target: string) =>
  ethernet(
    '33:33:ff:00:00:01',
    M(from),
    0x86dd,
    solicitation(source, target, source === '::' ? undefined : M(from)),
  );
const advertise = (from: number, target: string, to: string) =>
  ethernet(
    '33:33:00:00:00:01',
    M(from),
    0x86dd,
    icmpv6(
      { source: target, destination: to, hopLimit: 255 },
      Buffer.concat([bytes('88 00 0000 20000000'), ip6(target)]),
    ),
  );

t.test('a frame from a port goes where the tables say, or is counted', async (t) => {
  const everybody = ['192.0.2.98', '192.0.2.99', '203.0.113.1', 'port-2', 'port-7'];
  const cases: readonly (readonly [string, string, Buffer, readonly string[], string?])[] = [
    ['known, behind a VTEP', 'port-1', frame(M(3), M(1)), ['192.0.2.98']],
    ['known, behind a static VTEP', 'port-1', frame(M(9), M(1)), ['203.0.113.1']],
    ['known, at a local port', 'port-1', frame(M(2), M(1)), ['port-2']],
    ['unknown unicast', 'port-1', frame(M(200), M(1)), everybody],
    ['broadcast', 'port-1', frame(BROADCAST, M(1)), everybody],
    ['multicast', 'port-1', frame('01:00:5e:00:00:fb', M(1)), everybody],
    ['something that is no IP', 'port-1', ethernet(M(3), M(1), 0x88cc, data(50)), ['192.0.2.98']],
    [
      'IPv4 by type, but not by content',
      'port-1',
      ethernet(M(3), M(1), 0x0800, data(50)),
      ['192.0.2.98'],
    ],
    ['an empty payload', 'port-1', ethernet(M(3), M(1), 0x0800, data(0)), ['192.0.2.98']],
    ['a port that nobody knows', 'port-99', frame(M(3), M(1)), [], 'port_unknown'],
    ['13 bytes', 'port-1', frame(M(3), M(1)).subarray(0, 13), [], 'frame_truncated'],
    ['the MAC of another port', 'port-1', frame(M(3), M(2)), [], 'mac_not_attached'],
    ['a MAC of nobody', 'port-1', frame(M(3), M(100)), [], 'mac_not_attached'],
    ['any MAC from a trusted port', 'port-7', frame(M(3), M(100)), ['192.0.2.98']],
    ['a group MAC as source', 'port-7', frame(M(3), '01:00:5e:00:00:01'), [], 'mac_invalid'],
    ['to itself', 'port-1', frame(M(1), M(1)), [], 'hairpin'],
    ['tagged', 'port-1', ethernet(M(3), M(1), 0x8100, data(50)), [], 'vlan_tagged'],
    ['doubly tagged', 'port-1', ethernet(M(3), M(1), 0x88a8, data(50)), [], 'vlan_tagged'],
  ];
  const bench = new Bench();
  for (const [name, port, sent, outputs, counted] of cases) {
    const verdict = bench.egress(port, sent);
    t.strictSame(verdict.outputs, outputs, name);
    t.equal(verdict.counted, counted, name);
  }
});

t.test('a datagram goes to local ports only, from those who may send', async (t) => {
  const b = '192.0.2.98';
  const all = ['port-1', 'port-2', 'port-7'];
  const cases: readonly (readonly [string, string, number, Buffer, readonly string[], string?])[] =
    [
      ['to a port', b, 4097, frame(M(1), M(3)), ['port-1']],
      ['from a MAC that nobody lists', b, 4097, frame(M(1), M(77)), ['port-1']],
      ['broadcast, to all ports and to no VTEP', b, 4097, frame(BROADCAST, M(3)), all],
      ['multicast', b, 4097, frame('33:33:00:00:00:01', M(3)), all],
      ['from a static VTEP, any MAC', '203.0.113.2', 4097, frame(M(1), M(88)), ['port-1']],
      [
        "from a static VTEP, a MAC that is another's",
        '203.0.113.2',
        4097,
        frame(M(1), M(3)),
        [],
        'mac_spoofed',
      ],
      ['from a stranger', '203.0.113.77', 4097, frame(M(1), M(3)), [], 'vtep_unknown'],
      ['from a stranger over IPv6', 'fd00::77', 4097, frame(M(1), M(3)), [], 'vtep_unknown'],
      ['from ourselves', '192.0.2.1', 4097, frame(M(1), M(3)), [], 'looped'],
      ['from another address of ours', '198.51.100.1', 4097, frame(M(1), M(3)), [], 'looped'],
      ['from an IPv6 address of ours', 'fd00:99::1', 4097, frame(M(1), M(3)), [], 'looped'],
      ['a MAC of our own as source', b, 4097, frame(M(1), M(2)), [], 'looped'],
      ['a MAC of another VTEP', b, 4097, frame(M(1), M(4)), [], 'mac_spoofed'],
      ['a static MAC from another VTEP', b, 4097, frame(M(1), M(9)), [], 'mac_spoofed'],
      ['a group MAC as source', b, 4097, frame(M(1), BROADCAST), [], 'mac_invalid'],
      ['another VNI', b, 4098, frame(M(1), M(3)), [], 'vni_unknown'],
      ['an unknown MAC', b, 4097, frame(M(55), M(3)), [], 'mac_unknown'],
      ['a MAC behind another VTEP', b, 4097, frame(M(4), M(3)), [], 'mac_remote'],
      ['13 bytes of frame', b, 4097, frame(M(1), M(3)).subarray(0, 13), [], 'inner_truncated'],
      ['MTU and 18 bytes', b, 4097, ethernet(M(1), M(3), 0x0800, data(1454)), ['port-1']],
      ['one byte more', b, 4097, ethernet(M(1), M(3), 0x0800, data(1455)), [], 'oversized'],
      ['tagged', b, 4097, ethernet(M(1), M(3), 0x8100, data(50)), [], 'vlan_tagged'],
    ];
  const bench = new Bench();
  for (const [name, sender, vni, sent, outputs, counted] of cases) {
    const verdict = bench.ingress(sender, vni, sent);
    t.strictSame(verdict.outputs, outputs, name);
    t.equal(verdict.counted, counted, name);
  }
  t.equal(bench.datagram(b, Buffer.from('08000000001001', 'hex')).counted, 'vxlan_truncated');
  t.equal(bench.datagram(b, Buffer.alloc(60)).counted, 'vxlan_vni_invalid');
  const reasons = new Set(OVERLAY_DROPS);
  for (const [, , , , , reason] of cases)
    if (reason !== undefined) t.ok(reasons.has(reason as never));
});

t.test('a sealed network takes what is sealed, from whoever sealed it', async (t) => {
  const [b, c] = ['192.0.2.98', '192.0.2.99'];
  const [network] = inputs.networks;
  const bench = new Bench({
    ...inputs,
    networks: [{ ...network, isSealed: true } as never],
  });
  const good = ethernet(M(1), M(3), 0x88b5, Buffer.alloc(50));
  const kinds = () => [...bench.batch.outKind.subarray(0, bench.batch.outCount)];
  t.strictSame(bench.sealed(b, 4097, good).outputs, ['port-1'], 'whatever address it comes from');
  t.equal(bench.ingress(b, 4097, good).counted, 'unsealed');
  t.equal(bench.sealed(c, 4097, good).counted, 'mac_spoofed', 'a MAC of another one');
  t.strictSame(bench.sealed(b, 4097, good).outputs, ['port-1'], 'the memo tells senders apart');
  t.equal(bench.ingress(b, 4097, good).counted, 'unsealed', 'and ways');
  t.equal(bench.ingress('203.0.113.1', 4097, good).counted, 'vtep_unknown', 'a foreign VTEP');
  bench.egress('port-1', ethernet(M(3), M(1), 0x88b5, Buffer.alloc(50)));
  t.strictSame(kinds(), [TO_VTEP_SEALED]);
  bench.egress('port-1', ethernet(BROADCAST, M(1), 0x88b5, Buffer.alloc(50)));
  t.notOk(kinds().includes(TO_VTEP), 'floods are sealed, too');

  const plain = new Bench();
  t.equal(plain.sealed(b, 4097, good).counted, 'seal_unexpected');
  plain.egress('port-1', ethernet(M(3), M(1), 0x88b5, Buffer.alloc(50)));
  t.equal(plain.batch.outKind[0], TO_VTEP);
});

t.test('ARP for a known address is answered here, with the right reply', async (t) => {
  const bench = new Bench();
  const { outputs, made, counted } = bench.egress('port-1', ask(1, '10.0.1.3'));
  t.strictSame(outputs, ['port-1']);
  t.equal(counted, 'arp_reply');
  const want = ethernet(
    M(1),
    M(3),
    0x0806,
    arp(2, { mac: M(3), ip: '10.0.1.3' }, { mac: M(1), ip: '10.0.1.1' }),
  );
  t.equal(made[0]?.toString('hex'), want.toString('hex'));
});

t.test('other ARP', async (t) => {
  const all = ['192.0.2.98', '192.0.2.99', '203.0.113.1', 'port-2', 'port-7'];
  const announce = (op: number) =>
    ethernet(
      BROADCAST,
      M(1),
      0x0806,
      arp(op, { mac: M(1), ip: '10.0.1.1' }, { mac: M(1), ip: '10.0.1.1' }),
    );
  const malformed = ask(1, '10.0.1.3');
  malformed[18] = 8;
  const forged = ethernet(
    BROADCAST,
    M(1),
    0x0806,
    arp(1, { mac: M(3), ip: '10.0.1.3' }, { mac: M(2), ip: '10.0.1.2' }),
  );
  const cases: readonly (readonly [string, Buffer, readonly string[], string?])[] = [
    ['for an address that nobody has', ask(1, '10.0.1.200'), all],
    ['for the gateway, which has no entry', ask(1, '10.0.1.1'.replace('.1.1', '.1.254')), all],
    [
      'a probe for a taken address (RFC 5227) is answered',
      ask(1, '10.0.1.3', '0.0.0.0'),
      ['port-1'],
      'arp_reply',
    ],
    ['a probe for the own address is not', ask(1, '10.0.1.1', '0.0.0.0'), [], 'own_address_asked'],
    ['gratuitous request', announce(1), [], 'announcement_suppressed'],
    ['gratuitous reply', announce(2), [], 'announcement_suppressed'],
    ["another's MAC inside", forged, [], 'address_spoofed'],
    ["another's address inside", ask(1, '10.0.1.200', '10.0.1.3'), [], 'address_spoofed'],
    ['not for IPv4 over Ethernet', malformed, [], 'arp_malformed'],
    ['cut off', ask(1, '10.0.1.3').subarray(0, 41), [], 'arp_malformed'],
    [
      'a reply to one endpoint',
      ethernet(
        M(3),
        M(1),
        0x0806,
        arp(2, { mac: M(1), ip: '10.0.1.1' }, { mac: M(3), ip: '10.0.1.3' }),
      ),
      ['192.0.2.98'],
    ],
  ];
  const bench = new Bench();
  for (const [name, sent, outputs, counted] of cases) {
    const verdict = bench.egress('port-1', sent);
    t.strictSame(verdict.outputs, outputs, name);
    t.equal(verdict.counted, counted, name);
  }
});

t.test('a neighbour solicitation is answered here, with a right checksum', async (t) => {
  const bench = new Bench();
  const { outputs, made, counted } = bench.egress('port-1', solicit(1, 'fd00:1::1', 'fd00:1::3'));
  t.strictSame(outputs, ['port-1']);
  t.equal(counted, 'neighbor_advertisement');
  const reply = made[0] ?? Buffer.alloc(0);
  t.equal(reply.length, 14 + 40 + 32);
  t.equal(reply.subarray(0, 14).toString('hex'), '02420a00010102420a00010386dd');
  t.equal(reply[21], 255, 'hop limit');
  t.equal(checksum6('fd00:1::3', 'fd00:1::1', 58, reply.subarray(54)), 0);
  t.equal(reply.subarray(58, 62).toString('hex'), '60000000', 'solicited, override');
  t.equal(reply.subarray(62, 78).toString('hex'), ip6('fd00:1::3').toString('hex'));
  t.equal(reply.subarray(78).toString('hex'), '020102420a000103');
});

t.test(
  'duplicate address detection hears of others, to all nodes, and not of itself',
  async (t) => {
    const bench = new Bench();
    const { made, counted } = bench.egress('port-1', solicit(1, '::', 'fd00:1::3'));
    t.equal(counted, 'neighbor_advertisement');
    const reply = made[0] ?? Buffer.alloc(0);
    t.equal(reply.subarray(0, 6).toString('hex'), '333300000001');
    t.equal(reply.subarray(38, 54).toString('hex'), ip6('ff02::1').toString('hex'));
    t.equal(reply.subarray(58, 62).toString('hex'), '20000000', 'override, not solicited');
    t.equal(checksum6('fd00:1::3', 'ff02::1', 58, reply.subarray(54)), 0);
    t.equal(bench.egress('port-1', solicit(1, '::', 'fd00:1::1')).counted, 'own_address_asked');
  },
);

t.test('other neighbour discovery', async (t) => {
  const all = ['192.0.2.98', '192.0.2.99', '203.0.113.1', 'port-2', 'port-7'];
  const forwarded = solicit(1, 'fd00:1::1', 'fd00:1::3');
  forwarded[21] = 64;
  const routers = ethernet(
    '33:33:00:00:00:02',
    M(1),
    0x86dd,
    icmpv6(
      { source: 'fe80::1', destination: 'ff02::2', hopLimit: 255 },
      bytes('85 00 0000 00000000'),
    ),
  );
  const cases: readonly (readonly [string, Buffer, readonly string[], string?])[] = [
    ['for an address that nobody has', solicit(1, 'fd00:1::1', 'fd00:1::200'), all],
    ['for a link-local address', solicit(1, 'fe80::1', 'fe80::3'), all],
    ['detection for a link-local address', solicit(1, '::', 'fe80::1'), all],
    ['router solicitation', routers, all],
    ['came over a router', forwarded, [], 'ndp_malformed'],
    ["from another's address", solicit(1, 'fd00:1::4', 'fd00:1::3'), [], 'address_spoofed'],
    ["advertises another's address", advertise(1, 'fd00:1::3', 'ff02::1'), [], 'address_spoofed'],
    [
      'advertises its own to all',
      advertise(1, 'fd00:1::1', 'ff02::1'),
      [],
      'announcement_suppressed',
    ],
    ['advertises a link-local address', advertise(1, 'fe80::1', 'ff02::1'), all],
    [
      'multicast that is no discovery',
      ethernet('33:33:00:00:00:fb', M(1), 0x86dd, packet6(100)),
      all,
    ],
  ];
  const bench = new Bench();
  for (const [name, sent, outputs, counted] of cases) {
    const verdict = bench.egress('port-1', sent);
    t.strictSame(verdict.outputs, outputs, name);
    t.equal(verdict.counted, counted, name);
  }
});

t.test('a packet above the MTU is answered with fragmentation needed', async (t) => {
  const bench = new Bench();
  t.strictSame(bench.egress('port-1', frame(M(3), M(1), packet4(1450))).outputs, ['192.0.2.98']);
  const sent = packet4(1451);
  const { outputs, made, counted } = bench.egress('port-1', frame(M(3), M(1), sent));
  t.strictSame(outputs, ['port-1']);
  t.equal(counted, 'fragmentation_needed');
  const reply = made[0] ?? Buffer.alloc(0);
  t.equal(reply.subarray(0, 14).toString('hex'), '02420a00010102420a0001030800');
  t.equal(reply.length, 14 + 576);
  const ip = reply.subarray(14);
  t.equal(checksum(ip.subarray(0, 20)), 0);
  t.equal(ip.readUInt16BE(2), 576);
  t.equal(ip.subarray(12, 20).toString('hex'), '0a0001030a000101', 'from the destination');
  t.equal(checksum(ip.subarray(20)), 0);
  t.equal(ip.subarray(20, 22).toString('hex'), '0304');
  t.equal(ip.readUInt16BE(26), 1450);
  t.ok(ip.subarray(28).equals(sent.subarray(0, 548)), 'the packet is quoted');
});

t.test('an IPv6 packet above the MTU is answered with packet too big', async (t) => {
  const bench = new Bench();
  const sent = packet6(1451);
  const { outputs, made, counted } = bench.egress('port-1', ethernet(M(3), M(1), 0x86dd, sent));
  t.strictSame(outputs, ['port-1']);
  t.equal(counted, 'packet_too_big');
  const ip = (made[0] ?? Buffer.alloc(54)).subarray(14);
  t.equal(ip.length, 1280);
  t.equal(checksum6('fd00:1::3', 'fd00:1::1', 58, ip.subarray(40)), 0);
  t.equal(ip.subarray(40, 42).toString('hex'), '0200');
  t.equal(ip.readUInt32BE(44), 1450);
  t.ok(ip.subarray(48).equals(sent.subarray(0, 1232)));
});

t.test('what must not be answered is dropped', async (t) => {
  const bench = new Bench();
  const of = (change: Partial<Parameters<typeof ipv4>[0]>, payload = data(1500)) =>
    ipv4(
      { source: '10.0.1.1', destination: '10.0.1.3', protocol: 17, dontFragment: true, ...change },
      payload,
    );
  const cases: readonly (readonly [string, Buffer])[] = [
    ['without DF', frame(M(3), M(1), packet4(1451, false))],
    ['to multicast', frame('01:00:5e:00:00:fb', M(1), of({ destination: '224.0.0.251' }))],
    ['to a broadcast MAC', frame(BROADCAST, M(1), of({}))],
    ['from nobody', frame(M(3), M(1), of({ source: '0.0.0.0' }))],
    ['a later fragment', frame(M(3), M(1), of({ fragmentWord: 0x4001 }))],
    [
      'an ICMP error',
      frame(M(3), M(1), of({ protocol: 1 }, Buffer.concat([bytes('0301'), data(1500)]))),
    ],
    [
      'IPv6 from nobody',
      ethernet(
        M(3),
        M(1),
        0x86dd,
        ipv6({ source: '::', destination: 'fd00:1::3', next: 17 }, data(1500)),
      ),
    ],
    [
      'IPv6 to multicast',
      ethernet(
        '33:33:00:00:00:01',
        M(1),
        0x86dd,
        ipv6({ source: 'fd00:1::1', destination: 'ff02::1', next: 17 }, data(1500)),
      ),
    ],
    [
      'an ICMPv6 error',
      ethernet(
        M(3),
        M(1),
        0x86dd,
        ipv6(
          { source: 'fd00:1::1', destination: 'fd00:1::3', next: 58 },
          Buffer.concat([bytes('0100'), data(1500)]),
        ),
      ),
    ],
    ['no IP', ethernet(M(3), M(1), 0x88cc, data(1500))],
    ['IPv4 by type only', ethernet(M(3), M(1), 0x0800, data(1500))],
  ];
  for (const [name, sent] of cases) {
    const verdict = bench.egress('port-1', sent);
    t.equal(verdict.counted, 'mtu_exceeded', name);
    t.strictSame(verdict.outputs, [], name);
  }
  const echo = frame(M(3), M(1), of({ protocol: 1 }, Buffer.concat([bytes('0800'), data(1500)])));
  t.equal(bench.egress('port-1', echo).counted, 'fragmentation_needed', 'a ping is told');
});

t.test('of a super-frame only its segments count', async (t) => {
  const tcp = (headerWords: number) =>
    Buffer.concat([
      bytes(`0001 0002 00000000 00000000 ${headerWords}010 0000 0000 0000`),
      Buffer.alloc(headerWords * 4 - 20),
    ]);
  const tcp4 = (payload: number) =>
    frame(
      M(3),
      M(1),
      ipv4(
        { source: '10.0.1.1', destination: '10.0.1.3', protocol: 6, dontFragment: true },
        Buffer.concat([tcp(8), data(payload)]),
      ),
    );
  const tcp6 = (payload: number) =>
    ethernet(
      M(3),
      M(1),
      0x86dd,
      ipv6(
        { source: 'fd00:1::1', destination: 'fd00:1::3', next: 6 },
        Buffer.concat([tcp(5), data(payload)]),
      ),
    );
  const udp4 = frame(
    M(3),
    M(1),
    ipv4({ source: '10.0.1.1', destination: '10.0.1.3', protocol: 17 }, udp(1, 2, data(30_000))),
  );
  const cases: readonly (readonly [string, Buffer, number, number, string?])[] = [
    ['TCP over IPv4 that fits', tcp4(60_000), GSO_TCPV4, 1450 - 52],
    ['with the ECN bit', tcp4(60_000), GSO_TCPV4 | 0x80, 1450 - 52],
    ['TCP over IPv4, one too many', tcp4(60_000), GSO_TCPV4, 1450 - 51, 'fragmentation_needed'],
    ['fewer payload than a segment', tcp4(100), GSO_TCPV4, 9000],
    ['TCP over IPv6 that fits', tcp6(60_000), GSO_TCPV6, 1450 - 60],
    ['TCP over IPv6, one too many', tcp6(60_000), GSO_TCPV6, 1450 - 59, 'packet_too_big'],
    ['UDP that fits', udp4, GSO_UDP_L4, 1450 - 28],
    ['UDP, one too many, without DF', udp4, GSO_UDP_L4, 1450 - 27, 'mtu_exceeded'],
    ['size 0', tcp4(60_000), GSO_TCPV4, 0, 'gso_invalid'],
    ['IPv6 said to be IPv4', tcp6(60_000), GSO_TCPV4, 1000, 'gso_invalid'],
    ['IPv4 said to be IPv6', tcp4(60_000), GSO_TCPV6, 1000, 'gso_invalid'],
    ['TCP said to be UDP', tcp4(60_000), GSO_UDP_L4, 1000, 'gso_invalid'],
    ['UDP said to be TCP', udp4, GSO_TCPV4, 1000, 'gso_invalid'],
    ['a type that does not exist', tcp4(60_000), 3, 1000, 'gso_invalid'],
    ['no TCP header at all', frame(M(3), M(1), packet4(30)), GSO_TCPV4, 1000, 'gso_invalid'],
  ];
  const bench = new Bench();
  for (const [name, sent, type, size, counted] of cases)
    t.equal(bench.egress('port-1', sent, { type, size }).counted, counted, name);
});

t.test('a joined super-frame from another VTEP may be long, its segments not', async (t) => {
  const bench = new Bench();
  const tcp = Buffer.concat([bytes('0001 0002 00000000 00000000 5010 0000 0000 0000'), data(9000)]);
  const sent = ethernet(
    M(1),
    M(3),
    0x0800,
    ipv4({ source: '10.0.1.3', destination: '10.0.1.1', protocol: 6 }, tcp),
  );
  t.equal(bench.ingress('192.0.2.98', 4097, sent).counted, 'oversized');
  const gso = (size: number) => bench.ingress('192.0.2.98', 4097, sent, { type: GSO_TCPV4, size });
  t.strictSame(gso(1410).outputs, ['port-1']);
  t.equal(gso(1411).counted, 'oversized');
  t.equal(gso(0).counted, 'oversized');
});

t.test('answers and floods are rate-limited per segment, by time that comes in', async (t) => {
  const limits = { floodPerSecond: 10, floodBurst: 2, icmpPerSecond: 10, icmpBurst: 1 };
  const bench = new Bench(inputs, limits);
  const flood = () => bench.egress('port-1', frame(BROADCAST, M(1))).counted;
  t.equal(flood(), undefined);
  t.equal(flood(), undefined);
  t.equal(flood(), 'flood_limited');
  bench.nowMs = 99;
  t.equal(flood(), 'flood_limited');
  bench.nowMs = 100;
  t.equal(flood(), undefined);
  t.equal(flood(), 'flood_limited');
  const big = () => bench.egress('port-1', frame(M(3), M(1), packet4(1451))).counted;
  t.equal(big(), 'fragmentation_needed');
  t.equal(big(), 'mtu_exceeded');
  bench.nowMs = 200;
  t.equal(big(), 'fragmentation_needed');
});

t.test('a frame with nobody to hear it is counted', async (t) => {
  const bench = new Bench(inputsOf({ ports: [portOf(1)] }));
  t.equal(bench.egress('port-1', frame(BROADCAST, M(1))).counted, 'flood_empty');
  const noPorts = new Bench(inputsOf({ endpoints: [endpointOf('b', 3)] }));
  t.equal(noPorts.ingress('192.0.2.98', 4097, frame(BROADCAST, M(3))).counted, 'flood_empty');
});

t.test('one flow leaves from one source port, others spread', async (t) => {
  const bench = new Bench();
  const hash = (sent: Buffer) => {
    bench.egress('port-1', sent);
    return bench.batch.outHash[0] ?? 0;
  };
  const flow = (from: number, fragmentWord = 0) =>
    frame(
      M(3),
      M(1),
      ipv4(
        { source: '10.0.1.1', destination: '10.0.1.3', protocol: 17, fragmentWord },
        udp(from, 2, data(9)),
      ),
    );
  t.equal(hash(flow(1)), hash(flow(1)));
  const spread = new Set(Array.from({ length: 256 }, (_, i) => hash(flow(i)) % 16));
  t.equal(spread.size, 16);
  t.equal(hash(flow(1, 0x2000)), hash(flow(2, 1)), 'fragments of a packet stay together');
});

t.test('a full batch refuses whole frames, not some of their copies', async (t) => {
  const bench = new Bench();
  const { batch } = bench;
  batch.clear();
  batch.arena.set(frame(BROADCAST, M(1)), 128);
  for (let row = 0; row < 3000; row++) {
    batch.rowOffset[row] = 128;
    batch.rowLength[row] = frame(BROADCAST, M(1)).length;
    batch.rowPort[row] = bench.ports.get('port-1') ?? -1;
  }
  batch.rowCount = 3000;
  const limits = { ...DEFAULT_SEGMENT_LIMITS, floodBurst: 1e9 };
  const patient = new Bench(inputs, limits);
  patient.vtep.egress(batch);
  const { drops, totals } = readOverlayStats(patient.counters);
  t.equal(batch.outCount, OUTPUTS_MAX - (OUTPUTS_MAX % 5));
  t.equal(totals.floodFrames + drops.batch_full, 3000);
  t.equal(batch.overflowCount, 0);
});

t.test('tables change between batches, memos included', async (t) => {
  const bench = new Bench();
  const first = diffTables(NOTHING_PUBLISHED, deriveTables(inputs).tables);
  t.strictSame(bench.egress('port-1', frame(M(3), M(1))).outputs, ['192.0.2.98']);
  t.strictSame(bench.ingress('192.0.2.98', 4097, frame(M(1), M(3))).outputs, ['port-1']);
  const moved = { ...inputs, endpoints: [endpointOf('c', 3), endpointOf('c', 4)] };
  const second = diffTables(first.published, deriveTables(moved).tables);
  bench.vtep.apply(second.update);
  t.strictSame(bench.egress('port-1', frame(M(3), M(1))).outputs, ['192.0.2.99']);
  t.equal(bench.ingress('192.0.2.98', 4097, frame(M(1), M(3))).counted, 'vtep_unknown');
  t.strictSame(bench.ingress('192.0.2.99', 4097, frame(M(1), M(3))).outputs, ['port-1']);
  const third = diffTables(second.published, deriveTables(inputsOf({ networks: [] })).tables);
  bench.vtep.apply(third.update);
  t.equal(bench.egress('port-1', frame(M(3), M(1))).counted, 'port_unknown');
  t.equal(bench.ingress('192.0.2.99', 4097, frame(M(1), M(3))).counted, 'vni_unknown');
  t.strictSame(readOverlayStats(bench.counters).segments, []);
});

t.test('counters tell frames and bytes, in all and per segment', async (t) => {
  const bench = new Bench();
  const sent = frame(M(3), M(1));
  bench.egress('port-1', sent);
  bench.egress('port-1', frame(M(2), M(1)));
  bench.ingress('192.0.2.98', 4097, frame(BROADCAST, M(3)));
  const { totals, segments } = readOverlayStats(bench.counters);
  t.match(totals, {
    txFrames: 1,
    txBytes: sent.length,
    rxFrames: 1,
    localFrames: 1,
    tableRefusals: 0,
  });
  t.strictSame(segments, [
    { vni: 4097, txFrames: 1, txBytes: sent.length, rxFrames: 1, rxBytes: sent.length },
  ]);
});
