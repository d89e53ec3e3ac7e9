import t from 'tap';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import { arp, checksum, ethernet, ipv4, ipv6, solicitation } from '../../../support/frames.js';
import { endpointOf, macOfEndpoint, NETWORK_ID, portOf } from '../../../support/overlay.js';
import {
  ACK,
  FIN,
  frameOf,
  ofService,
  RST,
  readFrame,
  type Sent,
  SYN,
  tcpPacket,
  toVip,
  udpPacket,
  VIP,
  VIP_MAC_TEXT,
  VIP6,
  VipBench,
  vipInputs,
} from '../../../support/vips.js';

const M = macOfEndpoint;
/** Where the tasks are. */
const TASKS: Readonly<Record<string, { to: string; mac: string }>> = {
  '10.0.1.3': { to: '192.0.2.98', mac: M(3) },
  '10.0.1.4': { to: '192.0.2.99', mac: M(4) },
  '10.0.1.5': { to: 'port-5', mac: M(5) },
};
const only = (n: number) =>
  vipInputs({
    ports: [portOf(1), portOf(2), portOf(5, n === 5 ? ofService(5) : {})],
    endpoints: [
      endpointOf('b', 3, n === 3 ? ofService(3) : {}),
      endpointOf('c', 4, n === 4 ? ofService(4) : {}),
    ],
  });
const syn = (fromPort: number, n = 1) =>
  toVip(
    n,
    tcpPacket({ from: `10.0.1.${n}`, to: VIP, fromPort, toPort: 80, flags: SYN, sequence: 99 }),
  );
const up = (fromPort: number, flags: number, more: { sequence?: number; payload?: string } = {}) =>
  toVip(1, tcpPacket({ from: '10.0.1.1', to: VIP, fromPort, toPort: 80, flags, ...more }));
const one = (sent: readonly Sent[]) => {
  if (sent.length !== 1) throw new Error(`${sent.length} frames, not one`);
  const [only] = sent;
  const { to: destination, ...seen } = readFrame(only?.frame ?? Buffer.alloc(64));
  return { ...seen, destination, to: only?.to };
};

t.test('ARP and neighbour discovery for a VIP are answered here', async (t) => {
  const bench = new VipBench();
  const ask = arp(1, { mac: M(1), ip: '10.0.1.1' }, { mac: '00:00:00:00:00:00', ip: VIP });
  const [reply] = bench.egress('port-1', ethernet('ff:ff:ff:ff:ff:ff', M(1), 0x0806, ask));
  t.equal(reply?.to, 'port-1');
  t.equal(reply?.frame.subarray(6, 12).toString('hex'), VIP_MAC_TEXT.replaceAll(':', ''));
  const [advertised] = bench.egress(
    'port-1',
    ethernet('33:33:ff:00:02:00', M(1), 0x86dd, solicitation('fd00:1::1', VIP6, M(1))),
  );
  t.equal(advertised?.frame.subarray(6, 12).toString('hex'), VIP_MAC_TEXT.replaceAll(':', ''));
});

t.test(
  'three connections reach three tasks, local or not, and answers come from the VIP',
  async (t) => {
    const bench = new VipBench();
    const reached = new Set<string>();
    for (let port = 4000; port < 4003; port++) {
      const first = one(bench.egress('port-1', syn(port)));
      const task = TASKS[readTask(first)];
      t.match(first, {
        to: task?.to,
        toMac: task?.mac,
        from: '10.0.1.1',
        toPort: 80,
        isSound: true,
      });
      reached.add(readTask(first));
      const answer = tcpPacket({
        from: readTask(first),
        to: '10.0.1.1',
        fromPort: 80,
        toPort: port,
        flags: SYN | ACK,
      });
      const frame = frameOf(first.toMac, M(1), answer, VIP);
      const back = one(
        first.to === 'port-5'
          ? bench.egress('port-5', frame)
          : bench.ingress(first.to ?? '', frame),
      );
      t.match(back, {
        to: 'port-1',
        from: VIP,
        destination: '10.0.1.1',
        fromPort: 80,
        isSound: true,
      });
      const more = one(bench.egress('port-1', up(port, ACK, { payload: 'hello' })));
      t.equal(readTask(more), readTask(first), 'the connection stays');
      t.ok(more.isSound);
    }
    t.equal(reached.size, 3);
    t.equal(bench.stats.totals.vipFlows, 3);
  },
);

/** The address that a frame went to; `to` of `one` is the output. */
function readTask(seen: { readonly toMac: string }): string {
  return Object.entries(TASKS).find(([, { mac }]) => mac === seen.toMac)?.[0] ?? '?';
}

t.test('IPv6, UDP with and without a checksum', async (t) => {
  const bench = new VipBench(only(3));
  const udp6 = udpPacket({ from: 'fd00:1::1', to: VIP6, fromPort: 5, toPort: 53, payload: 'abc' });
  t.match(one(bench.egress('port-1', toVip(1, udp6, VIP6))), { toMac: M(3), isSound: true });
  const back6 = udpPacket({ from: 'fd00:1::3', to: 'fd00:1::1', fromPort: 53, toPort: 5 });
  const restored = one(bench.ingress('192.0.2.98', frameOf(M(3), M(1), back6, VIP6)));
  t.match(restored, { from: VIP6, isSound: true });

  const plain = udpPacket({ from: '10.0.1.1', to: VIP, fromPort: 6, toPort: 53, payload: 'x' });
  plain.writeUInt16BE(0, 26);
  const seen = bench.egress('port-1', toVip(1, plain));
  t.equal(seen[0]?.frame.readUInt16BE(40), 0, 'none stays none');
});

t.test('a partial checksum stays the pseudo-header’s sum', async (t) => {
  const bench = new VipBench(only(3));
  const pseudo = (to: string) => {
    const sum = Buffer.alloc(12);
    Buffer.from([10, 0, 1, 1]).copy(sum, 0);
    Buffer.from(to.split('.').map(Number)).copy(sum, 4);
    sum[9] = 6;
    sum.writeUInt16BE(20, 10);
    return ~checksum(sum) & 0xffff;
  };
  const frame = syn(4000);
  frame.writeUInt16BE(pseudo(VIP), 14 + 20 + 16);
  const [sent] = bench.egress('port-1', frame, true);
  t.equal(sent?.frame.readUInt16BE(14 + 20 + 16), pseudo('10.0.1.3'));
});

t.test('a task reaches its own service, even when that means itself', async (t) => {
  const bench = new VipBench(only(5));
  const ask = tcpPacket({ from: '10.0.1.5', to: VIP, fromPort: 4000, toPort: 80, flags: SYN });
  const there = one(bench.egress('port-5', toVip(5, ask)));
  t.match(there, { to: 'port-5', from: VIP, fromPort: 4000, toPort: 80, isSound: true });
  t.match(there, { fromMac: VIP_MAC_TEXT, toMac: M(5) });
  const answer = tcpPacket({
    from: '10.0.1.5',
    to: VIP,
    fromPort: 80,
    toPort: 4000,
    flags: SYN | ACK,
  });
  const back = one(bench.egress('port-5', toVip(5, answer)));
  t.match(back, { to: 'port-5', from: VIP, fromPort: 80, toPort: 4000, isSound: true });
  t.equal(bench.stats.totals.vipFlows, 1);
});

t.test('ping is answered here', async (t) => {
  const bench = new VipBench(only(3));
  const echo = Buffer.from('0800000012340001abcdef', 'hex');
  echo.writeUInt16BE(checksum(echo), 2);
  const packet = ipv4({ source: '10.0.1.1', destination: VIP, protocol: 1 }, echo);
  const [sent] = bench.egress('port-1', toVip(1, packet));
  t.equal(sent?.to, 'port-1');
  const message = sent?.frame.subarray(34) ?? Buffer.alloc(0);
  t.equal(message[0], 0);
  t.equal(checksum(message), 0);
  t.equal(sent?.frame.subarray(26, 34).toString('hex'), '0a0001c80a000101');
  t.equal(bench.stats.replies.vip_echo, 1);

  const echo6 = ipv6(
    { source: 'fd00:1::1', destination: VIP6, next: 58 },
    Buffer.from('8000000012340001', 'hex'),
  );
  t.equal(bench.egress('port-1', toVip(1, echo6, VIP6))[0]?.frame[54], 129);
});

t.test('errors about packets are told in the words of whom they are told', async (t) => {
  const bench = new VipBench(only(3));
  const asked = udpPacket({ from: '10.0.1.1', to: VIP, fromPort: 7, toPort: 53, payload: 'abcd' });
  const [sent] = bench.egress('port-1', toVip(1, asked));
  const unreachable = Buffer.concat([
    Buffer.from('0303000000000000', 'hex'),
    sent?.frame.subarray(14) ?? Buffer.alloc(0),
  ]);
  unreachable.writeUInt16BE(checksum(unreachable), 2);
  const error = ipv4({ source: '10.0.1.3', destination: '10.0.1.1', protocol: 1 }, unreachable);
  const [told] = bench.ingress('192.0.2.98', frameOf(M(3), M(1), error, VIP));
  t.equal(told?.frame.subarray(26, 30).join('.'), VIP, 'from the VIP');
  t.equal(told?.frame.subarray(34 + 8 + 16, 34 + 8 + 20).join('.'), VIP, 'about the VIP');
  t.equal(checksum(told?.frame.subarray(34) ?? Buffer.alloc(1)), 0, 'message');
  t.equal(checksum(told?.frame.subarray(14, 34) ?? Buffer.alloc(1)), 0, 'header');
  t.equal(checksum(told?.frame.subarray(42, 62) ?? Buffer.alloc(1)), 0, 'quoted header');

  const answer = udpPacket({ from: VIP, to: '10.0.1.1', fromPort: 53, toPort: 7 });
  const closed = Buffer.concat([Buffer.from('0303000000000000', 'hex'), answer]);
  closed.writeUInt16BE(checksum(closed), 2);
  const ours = ipv4({ source: '10.0.1.1', destination: VIP, protocol: 1 }, closed);
  const [passed] = bench.egress('port-1', toVip(1, ours));
  t.equal(passed?.to, '192.0.2.98');
  t.equal(passed?.frame.subarray(30, 34).join('.'), '10.0.1.3');
  t.equal(passed?.frame.subarray(34 + 8 + 12, 34 + 8 + 16).join('.'), '10.0.1.3');
  t.equal(checksum(passed?.frame.subarray(34) ?? Buffer.alloc(1)), 0);
});

t.test('later fragments follow the first, both ways', async (t) => {
  const bench = new VipBench(only(3));
  const whole = udpPacket({
    from: '10.0.1.1',
    to: VIP,
    fromPort: 8,
    toPort: 53,
    payload: 'x'.repeat(64),
  });
  const fragment = (packet: Buffer, at: number, more: boolean) => {
    const word = (at >> 3) | (more ? 0x2000 : 0);
    const [source, destination] = [packet.subarray(12, 16), packet.subarray(16, 20)];
    const fields = { source: source.join('.'), destination: destination.join('.'), protocol: 17 };
    const payload = packet.subarray(20 + at, more ? 20 + at + 32 : undefined);
    const piece = ipv4({ ...fields, fragmentWord: word }, payload);
    piece.writeUInt16BE(0x4242, 4);
    piece.writeUInt16BE(0, 10);
    piece.writeUInt16BE(checksum(piece.subarray(0, 20)), 10);
    return piece;
  };
  t.strictSame(bench.egress('port-1', toVip(1, fragment(whole, 32, false))), [], 'too early');
  t.equal(bench.stats.drops.vip_fragment, 1);
  for (const piece of [fragment(whole, 0, true), fragment(whole, 32, false)]) {
    const [sent] = bench.egress('port-1', toVip(1, piece));
    t.equal(sent?.to, '192.0.2.98');
    t.equal(checksum(sent?.frame.subarray(14, 34) ?? Buffer.alloc(1)), 0);
  }
  const answer = udpPacket({
    from: '10.0.1.3',
    to: '10.0.1.1',
    fromPort: 53,
    toPort: 8,
    payload: 'y'.repeat(64),
  });
  for (const piece of [fragment(answer, 0, true), fragment(answer, 32, false)]) {
    const [sent] = bench.ingress('192.0.2.98', frameOf(M(3), M(1), piece, VIP));
    t.equal(sent?.frame.subarray(26, 30).join('.'), VIP);
  }
});

t.test('with nobody ready a connection is refused, and a datagram counted', async (t) => {
  const bench = new VipBench(only(0));
  const refused = one(bench.egress('port-1', syn(4000)));
  t.match(refused, {
    to: 'port-1',
    from: VIP,
    flags: RST | ACK,
    acknowledgment: 100,
    isSound: true,
  });
  const datagram = udpPacket({ from: '10.0.1.1', to: VIP, fromPort: 9, toPort: 53 });
  t.strictSame(bench.egress('port-1', toVip(1, datagram)), []);
  t.equal(bench.stats.drops.vip_no_backend, 1);
});

t.test('what drains keeps its flows and gets no new ones; what is gone resets them', async (t) => {
  const bench = new VipBench(only(3));
  one(bench.egress('port-1', syn(4000)));
  const draining = (rest: boolean) =>
    vipInputs({
      ports: [portOf(1), portOf(2), portOf(5)],
      endpoints: [
        ...(rest ? [endpointOf('b', 3, ofService(3, 'draining'))] : []),
        endpointOf('c', 4, ofService(4)),
      ],
    });
  bench.publish(draining(true));
  t.match(one(bench.egress('port-1', up(4000, ACK))), { toMac: M(3) });
  t.match(one(bench.egress('port-1', syn(4001))), { toMac: M(4) });
  bench.publish(draining(false));
  t.match(one(bench.egress('port-1', up(4000, ACK))), { to: 'port-1', from: VIP, flags: RST });
  const again = udpPacket({ from: '10.0.1.1', to: VIP, fromPort: 9, toPort: 53 });
  t.match(one(bench.egress('port-1', toVip(1, again))), { toMac: M(4) });
});

t.test('a datagram flow goes on elsewhere when its task is gone', async (t) => {
  const bench = new VipBench(only(3));
  const ask = () => {
    const datagram = udpPacket({ from: '10.0.1.1', to: VIP, fromPort: 9, toPort: 53 });
    return one(bench.egress('port-1', toVip(1, datagram)));
  };
  t.match(ask(), { toMac: M(3) });
  bench.publish(only(4));
  t.match(ask(), { toMac: M(4), isSound: true });
});

t.test('the tasks of a node that seems dead keep their flows, and get no new ones', async (t) => {
  const bench = new VipBench();
  const ports = [4000, 4001, 4002];
  const held = new Map(ports.map((port) => [port, one(bench.egress('port-1', syn(port))).toMac]));
  const members = ['a', 'b', 'c'].map((id) => ({
    id,
    state: id === 'b' ? ('dead' as const) : ('alive' as const),
  }));
  bench.publish(vipInputs({ members }));
  for (const [port, mac] of held) {
    const sent = bench.egress('port-1', up(port, ACK));
    if (mac === M(3)) t.strictSame(sent, [], 'lost while the node is away');
    else t.equal(one(sent).toMac, mac);
  }
  t.equal(bench.stats.drops.vip_unreachable, 1);
  for (let port = 5000; port < 5006; port++)
    t.not(one(bench.egress('port-1', syn(port))).toMac, M(3));
  bench.publish(vipInputs());
  for (const [port, mac] of held) t.equal(one(bench.egress('port-1', up(port, ACK))).toMac, mac);
});

t.test('a packet in the middle of an unknown connection is reset', async (t) => {
  const bench = new VipBench();
  const middle = tcpPacket({
    from: '10.0.1.1',
    to: VIP,
    fromPort: 4000,
    toPort: 80,
    flags: ACK,
    sequence: 7,
    acknowledgment: 1234,
    payload: 'x',
  });
  const reset = one(bench.egress('port-1', toVip(1, middle)));
  t.match(reset, { to: 'port-1', from: VIP, flags: RST, sequence: 1234, isSound: true });
  t.strictSame(bench.egress('port-1', up(4000, RST)), [], 'a reset is not answered');
});

t.test('a SYN that is not answered is tried elsewhere', async (t) => {
  const bench = new VipBench();
  const first = one(bench.egress('port-1', syn(4000))).toMac;
  t.equal(one(bench.egress('port-1', syn(4000))).toMac, first, 'a duplicate');
  bench.nowMs = 1000;
  t.not(one(bench.egress('port-1', syn(4000))).toMac, first);
  t.equal(bench.stats.totals.vipFlows, 2);
});

t.test(
  'who refuses by IPv4 is passed over, who does by IPv6 may listen by IPv4 alone',
  async (t) => {
    const V6 = {
      '10.0.1.3': 'fd00:1::3',
      '10.0.1.4': 'fd00:1::4',
      '10.0.1.5': 'fd00:1::5',
    } as const;
    const bench = new VipBench();
    let fromPort = 4000;
    /** @returns Who was asked; those of `refusing` refuse. */
    const ask = (isV6: boolean, refusing: readonly string[]): string => {
      fromPort += 1;
      const [from, to] = isV6 ? ['fd00:1::1', VIP6] : ['10.0.1.1', VIP];
      const packet = tcpPacket({ from, to, fromPort, toPort: 80, flags: SYN });
      const first = one(bench.egress('port-1', toVip(1, packet, to)));
      const task = readTask(first) as keyof typeof V6;
      const answer = tcpPacket({
        ...{ from: isV6 ? V6[task] : task, to: from, fromPort: 80, toPort: fromPort },
        flags: refusing.includes(task) ? RST | ACK : SYN | ACK,
      });
      const frame = frameOf(first.toMac, M(1), answer, to);
      if (first.to === 'port-5') bench.egress('port-5', frame);
      else bench.ingress(first.to ?? '', frame);
      return task;
    };
    const all = Object.keys(V6);
    for (let count = 0; count < 30; count++) ask(true, all);
    t.equal(new Set([1, 2, 3].map(() => ask(false, []))).size, 3, 'all three are asked by IPv4');
    for (let count = 0; count < 15; count++) ask(false, ['10.0.1.3']);
    for (let count = 0; count < 6; count++)
      t.not(ask(count % 2 === 0, []), '10.0.1.3', 'it is passed over, by both');
  },
);

t.test('an ended connection’s port begins a new one', async (t) => {
  const bench = new VipBench(only(3));
  const down = (flags: number) =>
    bench.ingress(
      '192.0.2.98',
      frameOf(
        M(3),
        M(1),
        tcpPacket({ from: '10.0.1.3', to: '10.0.1.1', fromPort: 80, toPort: 4000, flags }),
        VIP,
      ),
    );
  bench.egress('port-1', syn(4000));
  down(SYN | ACK);
  bench.egress('port-1', up(4000, FIN | ACK));
  t.match(one(down(FIN | ACK)), { from: VIP }, 'until both have ended');
  t.match(one(bench.egress('port-1', up(4000, ACK))), { toMac: M(3) }, 'the last ACK too');
  bench.nowMs = 10;
  bench.publish(only(4));
  t.match(one(bench.egress('port-1', syn(4000))), { toMac: M(4) });
});

t.test('an idle hour and two change nothing; what is given up is reset at both ends', async (t) => {
  const bench = new VipBench(only(3), 4);
  const down = (toPort: number, flags: number, sequence: number) =>
    bench.ingress(
      '192.0.2.98',
      frameOf(
        M(3),
        M(1),
        tcpPacket({ from: '10.0.1.3', to: '10.0.1.1', fromPort: 80, toPort, flags, sequence }),
        VIP,
      ),
    );
  bench.egress('port-1', syn(4000));
  down(4000, SYN | ACK, 500);
  bench.egress('port-1', up(4000, ACK, { sequence: 100, payload: 'abc' }));
  bench.nowMs = 2.5 * 3_600_000;
  t.match(one(bench.egress('port-1', up(4000, ACK, { sequence: 103 }))), { toMac: M(3) });
  for (let port = 4001; port < 4004; port++) {
    bench.egress('port-1', syn(port));
    down(port, SYN | ACK, 0);
    bench.nowMs += 1;
  }
  const sent = bench.egress('port-1', syn(4010)).map(({ frame }) => readFrame(frame));
  t.match(
    sent.filter(({ flags }) => (flags & RST) !== 0),
    [
      { from: VIP, toPort: 4000, sequence: 501, isSound: true },
      { from: '10.0.1.1', fromPort: 4000, sequence: 103, isSound: true },
    ],
  );
  t.equal(bench.stats.totals.vipEvictions, 1);
  t.equal(sent.filter(({ flags }) => flags === SYN).length, 1, 'and the new one goes');
});

t.test('two services with one task behind them do not mix answers', async (t) => {
  const other = '10.0.1.201';
  const inputs = only(3);
  const bench = new VipBench({
    ...inputs,
    endpoints: [endpointOf('b', 3, ofService(3)), endpointOf('c', 4, ofService(4, 'ready', 's2'))],
    services: [
      ...(inputs.services ?? []),
      { id: 's2', vips: [{ networkId: NETWORK_ID, address: other }], balance: DEFAULT_BALANCE },
    ],
  });
  const send = (to: string) =>
    bench.egress(
      'port-1',
      toVip(1, udpPacket({ from: '10.0.1.1', to, fromPort: 4000, toPort: 53 })),
    );
  t.equal(one(send(VIP)).toMac, M(3));
  t.equal(one(send(other)).toMac, M(4));
  for (const [from, sender, vip] of [
    [3, '192.0.2.98', VIP],
    [4, '192.0.2.99', other],
  ] as const) {
    const answer = udpPacket({
      from: `10.0.1.${from}`,
      to: '10.0.1.1',
      fromPort: 53,
      toPort: 4000,
    });
    t.equal(one(bench.ingress(sender, frameOf(M(from), M(1), answer, VIP))).from, vip);
  }
});

t.test(
  'a service that is removed leaves nothing behind, and its connections do not hang',
  async (t) => {
    const bench = new VipBench();
    bench.egress('port-1', syn(4000));
    bench.publish(vipInputs({ services: [] }));
    t.strictSame(bench.egress('port-1', up(4000, ACK)), []);
    t.equal(bench.stats.drops.vip_unknown, 1);
    bench.publish(vipInputs());
    t.match(one(bench.egress('port-1', up(4000, ACK))), { flags: RST });
  },
);

t.test('direct talk with a task is left alone', async (t) => {
  const bench = new VipBench();
  bench.egress('port-1', syn(4000));
  const direct = tcpPacket({ from: '10.0.1.2', to: '10.0.1.3', fromPort: 4000, toPort: 80 });
  t.match(one(bench.egress('port-2', frameOf(M(2), M(3), direct, VIP))), { from: '10.0.1.2' });
  const back = tcpPacket({ from: '10.0.1.3', to: '10.0.1.2', fromPort: 80, toPort: 4000 });
  t.match(one(bench.ingress('192.0.2.98', frameOf(M(3), M(2), back, VIP))), { from: '10.0.1.3' });
});
