import t from 'tap';
import { PacketBatch } from '../../../../src/dataplane/core/batch.js';
import { Returns } from '../../../../src/dataplane/overlay/core/returns.js';
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

/** Task 5 and this node's own place, 1, are here; `b` and `c` have their places, 3 and 4. */
function bench(): VipBench {
  return new VipBench(
    inputsOf({
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
    }),
  );
}

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
  const v6 = { from: CLIENT6, to: 'fd00:1::5' };
  t.equal(one(vtep.egress('port-1', inward(1, v6))).place, 'port-5');
  const back = one(vtep.egress('port-5', answer({ from: 'fd00:1::5', to: CLIENT6 })));
  t.match(back, { place: 'port-1', toMac: macOfEndpoint(1) });
});

t.test('who has not spoken to a task is not answered by it', async (t) => {
  const vtep = bench();
  t.strictSame(vtep.egress('port-5', answer()), []);
  vtep.ingress('192.0.2.98', inward(3));
  t.strictSame(vtep.egress('port-5', answer({ toPort: 4001 })), []);
  t.equal(vtep.stats.drops.return_unknown, 2);
  const datagram = udpPacket({ from: TASK, to: CLIENT, fromPort: 80, toPort: 4000 });
  t.strictSame(vtep.egress('port-5', frameOf(macOfEndpoint(5), VIP_MAC_TEXT, datagram, TASK)), []);
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
    t.equal(one(vtep.ingress('192.0.2.99', inward(4))).place, 'port-5');
    t.equal(one(vtep.egress('port-5', answer())).place, '192.0.2.99');
  },
);

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
  const returns = new Returns(7, 4);
  const batch = new PacketBatch(1 << 12);
  const note = (fromPort: number, nowMs: number) => {
    const frame = inward(3, { fromPort });
    batch.arena.set(frame, 0);
    return returns.note(batch, 0, 0, frame.length, nowMs);
  };
  const knows = (toPort: number) => {
    const frame = answer({ toPort });
    batch.arena.set(frame, 0);
    return returns.steer(batch, 0, 0, frame.length);
  };
  for (let port = 1; port <= 4; port++) t.equal(note(port, port), 'noted');
  note(1, 5);
  note(5, 6);
  t.strictSame([1, 2, 3, 4, 5].map(knows), [true, false, true, true, true]);
});
