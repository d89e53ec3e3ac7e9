import t from 'tap';
import { PacketBatch } from '../../../../src/dataplane/core/batch.js';
import { Returns } from '../../../../src/dataplane/overlay/core/returns.js';
import { ipv4, ipv6 } from '../../../support/frames.js';
import {
  endpointOf,
  inputsOf,
  macOfEndpoint,
  NETWORK_ID,
  portOf,
} from '../../../support/overlay.js';
import {
  ACK,
  FIN,
  frameOf,
  RST,
  readFrame,
  type Segment,
  type Sent,
  SYN,
  tcpPacket,
  udpPacket,
  VIP_MAC_TEXT,
  VipBench,
} from '../../../support/vips.js';

const CLIENT = '203.0.113.7';
const CLIENT6 = '2001:db8::7';
const TASK = '10.0.1.5';
const TASK6 = 'fd00:1::5';

/** Task 5 and this node's own place, 1, are here; `b` and `c` have their places, 3 and 4. */
const inputs = inputsOf({
  networks: [
    {
      id: NETWORK_ID,
      vni: 4097,
      subnets: [{ subnet: '10.0.1.0/24' }, { subnet: 'fd00:1::/64' }],
      spec: { ingress: true },
    },
  ],
  ports: [portOf(1), portOf(5)],
  endpoints: [endpointOf('b', 3), endpointOf('c', 4)],
});

const bench = () => new VipBench(inputs);

/** From a client, through the place of a node, to the task. */
function inward(place: number, change: Partial<Segment> = {}): Buffer {
  const segment = { from: CLIENT, to: TASK, fromPort: 4000, toPort: 80, flags: SYN, ...change };
  return frameOf(macOfEndpoint(place), macOfEndpoint(5), tcpPacket(segment), segment.from);
}

/** What the task answers; its only neighbour for all addresses outside is the VTEP. */
function answer(change: Partial<Segment> = {}): Buffer {
  const segment = { from: TASK, to: CLIENT, fromPort: 80, toPort: 4000, flags: ACK, ...change };
  return frameOf(macOfEndpoint(5), VIP_MAC_TEXT, tcpPacket(segment), segment.from);
}

/** The same of datagrams; with `more` the first fragment of one. */
function inwardUdp(place: number, change: Partial<Segment> = {}): Buffer {
  const segment = { from: CLIENT, to: TASK, fromPort: 4000, toPort: 80, ...change };
  return frameOf(macOfEndpoint(place), macOfEndpoint(5), udpPacket(segment), segment.from);
}

function answerUdp(change: Partial<Segment> = {}): Buffer {
  const segment = { from: TASK, to: CLIENT, fromPort: 80, toPort: 4000, ...change };
  return frameOf(macOfEndpoint(5), VIP_MAC_TEXT, udpPacket(segment), segment.from);
}

/** What the task's kernel says of a packet that it got. */
function errorAbout(frame: Buffer): Buffer {
  const quoted = frame.subarray(14);
  const is4 = frame.readUInt16BE(12) === 0x0800;
  const [type, code] = is4 ? [3, 3] : [1, 4];
  const message = Buffer.concat([Buffer.from([type, code, 0, 0, 0, 0, 0, 0]), quoted]);
  const [from, to] = is4 ? [TASK, CLIENT] : [TASK6, CLIENT6];
  const packet = is4
    ? ipv4({ source: from, destination: to, protocol: 1 }, message)
    : ipv6({ source: from, destination: to, next: 58 }, message);
  return frameOf(macOfEndpoint(5), VIP_MAC_TEXT, packet, from);
}

/** A fragment of an answer: the first one has its ports, later ones 64 bytes of anything. */
function fragment(isFirst: boolean, identification: number): Buffer {
  const frame = isFirst ? answerUdp() : answerUdp({ fromPort: 1, toPort: 2 });
  frame.writeUInt16BE(identification, 18);
  frame.writeUInt16BE(isFirst ? 0x2000 : 8, 20);
  return frame;
}

function fragment6(isFirst: boolean, identification: number): Buffer {
  const udp = udpPacket({ from: TASK6, to: CLIENT6, fromPort: 80, toPort: 4000 }).subarray(40);
  const header = Buffer.from([17, 0, 0, isFirst ? 1 : 8, 0, 0, 0, identification]);
  const message = Buffer.concat([header, isFirst ? udp : Buffer.alloc(8)]);
  const packet = ipv6({ source: TASK6, destination: CLIENT6, next: 44 }, message);
  return frameOf(macOfEndpoint(5), VIP_MAC_TEXT, packet, TASK6);
}

const one = (sent: readonly Sent[]) => {
  t.equal(sent.length, 1);
  return { ...readFrame(sent[0]?.frame ?? Buffer.alloc(64)), place: sent[0]?.to };
};

t.test('what a task answers goes to the node that the question came from', async (t) => {
  const vtep = bench();
  t.match(one(vtep.ingress('192.0.2.98', inward(3))), { place: 'port-5', from: CLIENT });
  t.match(one(vtep.egress('port-5', answer())), {
    place: '192.0.2.98',
    toMac: macOfEndpoint(3),
    fromMac: macOfEndpoint(5),
    isSound: true,
  });
  t.match(one(vtep.ingress('192.0.2.99', inward(4, { fromPort: 4001 }))), { place: 'port-5' });
  t.equal(one(vtep.egress('port-5', answer({ toPort: 4001 }))).place, '192.0.2.99');
  t.equal(one(vtep.egress('port-5', answer())).place, '192.0.2.98', 'each has its own');
});

t.test('the node of the task itself is one of them, and IPv6 is like IPv4', async (t) => {
  const vtep = bench();
  const v6 = { from: CLIENT6, to: TASK6 };
  t.equal(one(vtep.egress('port-1', inward(1, v6))).place, 'port-5');
  const back = one(vtep.egress('port-5', answer({ from: TASK6, to: CLIENT6 })));
  t.match(back, { place: 'port-1', toMac: macOfEndpoint(1) });
});

t.test('who has not spoken to a task is not answered by it', async (t) => {
  const vtep = bench();
  t.strictSame(vtep.egress('port-5', answer()), []);
  vtep.ingress('192.0.2.98', inward(3));
  t.strictSame(vtep.egress('port-5', answer({ toPort: 4001 })), []);
  t.equal(vtep.stats.drops.return_unknown, 2);
  t.strictSame(vtep.egress('port-5', answerUdp()), [], 'a connection is no flow of datagrams');
});

t.test(
  'of two nodes with one client’s port the second is refused, until the first has ended',
  async (t) => {
    const vtep = bench();
    vtep.ingress('192.0.2.98', inward(3));
    const refusal = one(vtep.ingress('192.0.2.99', inward(4, { sequence: 41 })));
    t.match(refusal, {
      place: '192.0.2.99',
      toMac: macOfEndpoint(4),
      from: TASK,
      fromPort: 80,
      toPort: 4000,
      flags: RST | ACK,
      acknowledgment: 42,
      isSound: true,
    });
    t.strictSame(vtep.ingress('192.0.2.99', inward(4, { flags: ACK })), []);
    t.equal(vtep.stats.drops.return_conflict, 1);
    t.equal(
      one(vtep.egress('port-5', answer())).place,
      '192.0.2.98',
      'nothing has changed for the first',
    );

    vtep.egress('port-5', answer({ flags: FIN | ACK }));
    t.match(
      one(vtep.ingress('192.0.2.99', inward(4))),
      { flags: RST | ACK },
      'one side is not both',
    );
    vtep.ingress('192.0.2.98', inward(3, { flags: FIN | ACK }));
    t.match(
      one(vtep.ingress('192.0.2.99', inward(4))),
      { flags: RST | ACK },
      'the task that ended it first waits',
    );
    vtep.nowMs += 59_999;
    t.match(one(vtep.ingress('192.0.2.99', inward(4))), { flags: RST | ACK });
    vtep.nowMs += 1;
    t.equal(one(vtep.ingress('192.0.2.99', inward(4))).place, 'port-5');
    t.equal(one(vtep.egress('port-5', answer())).place, '192.0.2.99');
  },
);

t.test('of what the client ended first, or was reset, the next node need not wait', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inward(3));
  vtep.ingress('192.0.2.98', inward(3, { flags: FIN | ACK }));
  vtep.egress('port-5', answer({ flags: FIN | ACK }));
  t.equal(one(vtep.ingress('192.0.2.99', inward(4))).place, 'port-5');
  vtep.egress('port-5', answer({ flags: FIN | ACK }));
  vtep.egress('port-5', answer({ flags: RST }));
  t.equal(one(vtep.ingress('192.0.2.98', inward(3))).place, 'port-5');
});

t.test('a node that comes again takes its own connection’s place at once', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inward(3));
  vtep.egress('port-5', answer({ flags: FIN | ACK }));
  vtep.ingress('192.0.2.98', inward(3, { flags: FIN | ACK }));
  t.equal(one(vtep.ingress('192.0.2.98', inward(3))).place, 'port-5');
  t.match(one(vtep.ingress('192.0.2.99', inward(4))), { flags: RST | ACK }, 'and has it again');
});

t.test('one that was silent for long gives way', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inward(3));
  vtep.nowMs = 150_000;
  t.equal(one(vtep.ingress('192.0.2.99', inward(4))).place, 'port-5');
});

t.test('endpoints are found by their MACs, as ever', async (t) => {
  const vtep = bench();
  t.equal(one(vtep.ingress('192.0.2.98', inward(3, { from: '10.0.1.3' }))).place, 'port-5');
  t.strictSame(vtep.egress('port-5', answer({ to: '10.0.1.3' })), [], 'nothing is remembered');
});

t.test('more than fit displace the longest silent of them', async (t) => {
  const returns = new Returns(7, () => true, 4);
  const batch = new PacketBatch(1 << 12);
  const note = (fromPort: number, nowMs: number) => {
    const frame = inward(3, { fromPort });
    batch.arena.set(frame, 0);
    return returns.note(batch, 0, 0, frame.length, nowMs);
  };
  const knows = (toPort: number) => {
    const frame = answer({ toPort });
    batch.arena.set(frame, 0);
    return returns.steer(batch, 0, 0, frame.length, 0);
  };
  for (let port = 1; port <= 4; port++) t.equal(note(port, port), 'noted');
  note(1, 5);
  note(5, 6);
  t.strictSame([1, 2, 3, 4, 5].map(knows), [true, false, true, true, true]);
});

t.test('datagrams find back like connections, over both families', async (t) => {
  const vtep = bench();
  for (const ends of [
    { from: CLIENT, to: TASK },
    { from: CLIENT6, to: TASK6 },
  ]) {
    const back = { from: ends.to, to: ends.from };
    t.match(one(vtep.ingress('192.0.2.98', inwardUdp(3, ends))), { place: 'port-5' });
    t.match(one(vtep.egress('port-5', answerUdp(back))), {
      place: '192.0.2.98',
      toMac: macOfEndpoint(3),
      isSound: true,
    });
    t.strictSame(vtep.egress('port-5', answerUdp({ ...back, toPort: 4001 })), []);
    t.strictSame(vtep.egress('port-5', answer(back)), [], 'nor is it a connection');
  }
});

t.test('errors of the task’s kernel find back by what they quote', async (t) => {
  const vtep = bench();
  for (const ends of [
    { from: CLIENT, to: TASK },
    { from: CLIENT6, to: TASK6 },
  ]) {
    for (const frame of [inwardUdp(3, ends), inward(3, ends)]) {
      t.strictSame(vtep.egress('port-5', errorAbout(frame)), [], 'nothing is known yet');
      vtep.ingress('192.0.2.98', frame);
      const { place, toMac } = one(vtep.egress('port-5', errorAbout(frame)));
      t.strictSame({ place, toMac }, { place: '192.0.2.98', toMac: macOfEndpoint(3) });
    }
    const quotesAnError = errorAbout(errorAbout(inwardUdp(3, ends)));
    t.strictSame(vtep.egress('port-5', quotesAnError), []);
  }
});

t.test('later fragments of an answer follow its first one', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inwardUdp(3));
  vtep.ingress('192.0.2.99', inwardUdp(4, { from: CLIENT6, to: TASK6 }));
  for (const [make, place] of [
    [fragment, '192.0.2.98'],
    [fragment6, '192.0.2.99'],
  ] as const) {
    t.strictSame(vtep.egress('port-5', make(false, 7)), [], 'before its first one');
    t.equal(vtep.egress('port-5', make(true, 7))[0]?.to, place);
    t.equal(vtep.egress('port-5', make(false, 7))[0]?.to, place);
    t.strictSame(vtep.egress('port-5', make(false, 8)), [], 'of another');
  }
});

t.test('of two nodes with one client’s datagrams the second is told', async (t) => {
  const vtep = bench();
  for (const [ends, header] of [
    [{ from: CLIENT, to: TASK }, '030d'],
    [{ from: CLIENT6, to: TASK6 }, '0101'],
  ] as const) {
    vtep.ingress('192.0.2.98', inwardUdp(3, ends));
    const asked = inwardUdp(4, ends);
    const [refusal] = vtep.ingress('192.0.2.99', asked);
    t.equal(refusal?.to, '192.0.2.99');
    const at = header === '030d' ? 34 : 54;
    t.equal(refusal?.frame.toString('hex', at, at + 2), header);
    t.strictSame(refusal?.frame.subarray(at + 8), asked.subarray(14), 'it quotes what was sent');
    t.equal(readFrame(refusal?.frame ?? Buffer.alloc(64)).toMac, macOfEndpoint(4));
    const back = one(vtep.egress('port-5', answerUdp({ from: ends.to, to: ends.from })));
    t.equal(back.place, '192.0.2.98', 'nothing has changed for the first');
  }
  t.equal(vtep.stats.replies.return_prohibited, 2);
  for (let i = 0; i < 200; i++) vtep.ingress('192.0.2.99', inwardUdp(4));
  t.ok(vtep.stats.drops.return_conflict > 0, 'within a rate');
});

t.test('answers keep the way of datagrams, which may go one way for long', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inwardUdp(3));
  vtep.nowMs = 100_000;
  vtep.egress('port-5', answerUdp());
  vtep.nowMs = 200_000;
  t.not(vtep.ingress('192.0.2.99', inwardUdp(4))[0]?.to, 'port-5');
});

t.test('a node that is away keeps nobody from going on through another', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inwardUdp(3));
  vtep.ingress('192.0.2.98', inward(3));
  vtep.publish({ ...inputs, endpoints: [endpointOf('c', 4)] });
  t.equal(vtep.egress('port-5', answerUdp()).length, 0);
  for (const frame of [inwardUdp(4), inward(4)])
    t.equal(one(vtep.ingress('192.0.2.99', frame)).place, 'port-5');
  t.equal(one(vtep.egress('port-5', answerUdp())).place, '192.0.2.99');
});

t.test('a flood of datagrams costs no connection its way', async (t) => {
  const vtep = bench();
  vtep.ingress('192.0.2.98', inward(3));
  vtep.nowMs = 1;
  for (let n = 0; n < 200_000; n++) {
    const from = `198.51.${(n >> 16) & 255}.${(n >> 8) & 255}`;
    vtep.ingress('192.0.2.99', inwardUdp(4, { from, fromPort: 1 + (n & 255) }));
  }
  t.equal(one(vtep.egress('port-5', answer())).place, '192.0.2.98');
});
