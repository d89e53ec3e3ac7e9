import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import type { PacketIoStats } from '../../src/dataplane/core/packet-io.js';
import {
  isTest,
  type PacketIoBed,
  type TestPeer,
  type TestPort,
  testFrame,
  vxlan,
} from './packet-io-bed.js';
import { sealingConformance } from './sealing.js';

const DEADLINE_MS = 8_000;
/** The contract of `PacketIo`, to be run against every implementation of it. */
export function packetIoConformance(t: Test, bed: PacketIoBed): void {
  const until = async (what: string, t: Test, holds: () => boolean | Promise<boolean>) => {
    const deadlineMs = Date.now() + DEADLINE_MS;
    while (Date.now() < deadlineMs) {
      await bed.settle();
      if (await holds()) {
        t.pass(what);
        return;
      }
      await delay(5);
    }
    t.fail(`${what}: not within ${DEADLINE_MS} ms`);
  };
  const frames = (port: TestPort) => port.received().filter(isTest);
  const holds = (port: TestPort, frame: Buffer) => frames(port).some((got) => got.equals(frame));
  const payloads = (peer: TestPeer) =>
    peer.received().filter(({ payload }) => isTest(payload.subarray(8)));
  const heard = (peer: TestPeer, payload: Buffer) =>
    payloads(peer).some((got) => got.payload.equals(payload));

  t.test('a frame out of a port arrives at the VTEP, behind a VXLAN header', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(3);
    await driver.setVtep(5, peer);
    await driver.wire({ ports: { 3: [{ to: 'vtep', index: 5, vni: 0xabcdef }] }, vnis: {} });
    for (const length of [60, 61, 590, 1464]) {
      const frame = testFrame(`out ${length}`, length);
      port.send(frame);
      await until(`${length} bytes`, t, () => heard(peer, vxlan(0xabcdef, frame)));
    }
  });

  t.test('a datagram arrives at the port as a frame, and the sender is told', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(0);
    await driver.wire({ ports: {}, vnis: { 7: [{ to: 'port', index: 0 }] } });
    for (const length of [60, 61, 590, 1464]) {
      const frame = testFrame(`in ${length}`, length);
      peer.send(vxlan(7, frame));
      await until(`${length} bytes`, t, () => holds(port, frame));
    }
    const { lastSender, faults } = await driver.report();
    const mapped = peer.address
      .split('.')
      .map((part) => Number(part).toString(16).padStart(2, '0'));
    t.equal(lastSender, `00000000000000000000ffff${mapped.join('')}`);
    t.equal(faults, 0);
  });

  t.test('the underlay may be IPv6', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv6');
    const port = await driver.addPort(0);
    await driver.setVtep(0, peer);
    await driver.wire({
      ports: { 0: [{ to: 'vtep', index: 0, vni: 9 }] },
      vnis: { 9: [{ to: 'port', index: 0 }] },
    });
    const out = testFrame('six out', 200);
    port.send(out);
    await until('out', t, () => heard(peer, vxlan(9, out)));
    const back = testFrame('six in', 200);
    peer.send(vxlan(9, back));
    await until('in', t, () => holds(port, back));
    t.match((await driver.report()).lastSender, /^fd/);
  });

  t.test('several ports are kept apart, and reach each other', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const first = await driver.addPort(1);
    const second = await driver.addPort(2);
    await driver.wire({
      ports: { 1: [{ to: 'vtep', index: 0, vni: 100 }], 2: [{ to: 'port', index: 1 }] },
      vnis: { 200: [{ to: 'port', index: 2 }] },
    });
    first.send(testFrame('first'));
    await until('the first goes out', t, () => heard(peer, vxlan(100, testFrame('first'))));
    second.send(testFrame('second'));
    await until('the second goes to the first', t, () => holds(first, testFrame('second')));
    peer.send(vxlan(200, testFrame('third')));
    await until('VNI 200 goes to the second', t, () => holds(second, testFrame('third')));
    t.notOk(holds(first, testFrame('third')));
    t.notOk(heard(peer, vxlan(100, testFrame('second'))));
  });

  t.test('one frame goes to two VTEPs and a port, each with its own header', async (t) => {
    const driver = await bed.open(t);
    const near = await bed.openPeer(t, 'ipv4');
    const far = await bed.openPeer(t, 'ipv6');
    await driver.setVtep(0, near);
    await driver.setVtep(1, far);
    const port = await driver.addPort(0);
    const other = await driver.addPort(1);
    await driver.wire({
      ports: {
        0: [
          { to: 'vtep', index: 0, vni: 11 },
          { to: 'port', index: 1 },
          { to: 'vtep', index: 1, vni: 11 },
          { to: 'vtep', index: 0, vni: 12 },
        ],
      },
      vnis: {},
    });
    for (let i = 0; i < 20; i++) port.send(testFrame(`flood ${i}`, 100 + i));
    for (let i = 0; i < 20; i++) {
      const frame = testFrame(`flood ${i}`, 100 + i);
      await until(
        `${i} at all four`,
        t,
        () =>
          heard(near, vxlan(11, frame)) &&
          heard(far, vxlan(11, frame)) &&
          heard(near, vxlan(12, frame)) &&
          holds(other, frame),
      );
    }
  });

  t.test('frames that the handler made go to ports and VTEPs', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const port = await driver.addPort(0);
    const answer = testFrame('answer', 42);
    const notice = testFrame('notice', 86);
    await driver.wire({
      ports: {
        0: [
          { to: 'made-for-port', index: 0, hex: answer.toString('hex') },
          { to: 'made-for-vtep', index: 0, vni: 5, hex: notice.toString('hex') },
        ],
      },
      vnis: {},
    });
    port.send(testFrame('question'));
    await until('to the port', t, () => holds(port, answer));
    await until('to the VTEP', t, () => heard(peer, vxlan(5, notice)));
  });

  t.test('a VTEP can move, and one that is gone is counted', async (t) => {
    const driver = await bed.open(t);
    const before = await bed.openPeer(t, 'ipv4');
    const after = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(0);
    await driver.wire({ ports: { 0: [{ to: 'vtep', index: 4, vni: 1 }] }, vnis: {} });
    await driver.setVtep(4, before);
    port.send(testFrame('one'));
    await until('the first place', t, () => heard(before, vxlan(1, testFrame('one'))));
    await driver.setVtep(4, after);
    port.send(testFrame('two'));
    await until('the second place', t, () => heard(after, vxlan(1, testFrame('two'))));
    t.notOk(heard(before, vxlan(1, testFrame('two'))));
    const { datagramSendDrops } = await driver.stats();
    await driver.removeVtep(4);
    port.send(testFrame('three'));
    await until(
      'a drop is counted',
      t,
      async () => (await driver.stats()).datagramSendDrops > datagramSendDrops,
    );
    t.notOk(heard(after, vxlan(1, testFrame('three'))));
  });

  t.test('a removed port is closed, and its index can be used again', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const first = await driver.addPort(6);
    await driver.wire({ ports: {}, vnis: { 3: [{ to: 'port', index: 6 }] } });
    peer.send(vxlan(3, testFrame('early')));
    await until('it works', t, () => holds(first, testFrame('early')));
    await driver.removePort(6);
    await driver.removePort(6);
    await driver.removePort(77);
    await until('the device is gone', t, () => !first.exists());
    const { portWriteDrops } = await driver.stats();
    peer.send(vxlan(3, testFrame('lost')));
    await until(
      'a drop is counted',
      t,
      async () => (await driver.stats()).portWriteDrops > portWriteDrops,
    );
    const second = await driver.addPort(6);
    peer.send(vxlan(3, testFrame('late')));
    await until('the new one works', t, () => holds(second, testFrame('late')));
    t.notOk(holds(second, testFrame('lost')));
  });

  t.test('a device that dies takes nothing else with it', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const dying = await driver.addPort(0);
    const living = await driver.addPort(1);
    await driver.wire({
      ports: { 0: [{ to: 'vtep', index: 0, vni: 1 }], 1: [{ to: 'vtep', index: 0, vni: 2 }] },
      vnis: { 1: [{ to: 'port', index: 0 }], 2: [{ to: 'port', index: 1 }] },
    });
    dying.send(testFrame('last words'));
    await until('both work', t, () => heard(peer, vxlan(1, testFrame('last words'))));
    await dying.kill();
    const { portWriteDrops } = await driver.stats();
    peer.send(vxlan(1, testFrame('to the dead')));
    peer.send(vxlan(2, testFrame('to the living')));
    await until('the other still hears', t, () => holds(living, testFrame('to the living')));
    living.send(testFrame('still here'));
    await until('the other still speaks', t, () => heard(peer, vxlan(2, testFrame('still here'))));
    await until(
      'a drop is counted',
      t,
      async () => (await driver.stats()).portWriteDrops > portWriteDrops,
    );
    await driver.removePort(0);
  });

  t.test('a burst arrives whole and in order', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const port = await driver.addPort(0);
    await driver.wire({
      ports: { 0: [{ to: 'vtep', index: 0, vni: 1 }] },
      vnis: { 1: [{ to: 'port', index: 0 }] },
    });
    const burst = Array.from({ length: 300 }, (_, i) =>
      testFrame(`burst ${i}.`, 60 + ((i * 7) % 1400)),
    );
    for (const frame of burst) port.send(frame);
    await until('all go out', t, () => payloads(peer).length >= burst.length);
    t.ok(payloads(peer).every(({ payload }, i) => payload.subarray(8).equals(burst[i] as Buffer)));
    for (const frame of burst) peer.send(vxlan(1, frame));
    await until('all come in', t, () => frames(port).length >= burst.length);
    t.ok(frames(port).every((frame, i) => frame.equals(burst[i] as Buffer)));
  });

  t.test('flows spread over source ports, and one flow stays on one', async (t) => {
    const driver = await bed.open(t, { sourcePorts: 4 });
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const port = await driver.addPort(0);
    await driver.wire({ ports: { 0: [{ to: 'vtep', index: 0, vni: 1 }] }, vnis: {} });
    for (let i = 0; i < 64; i++) port.send(testFrame(`flow ${i}`, 60, i % 16));
    await until('all arrive', t, () => payloads(peer).length >= 64);
    const portsOf = new Map<number, Set<number>>();
    for (const { payload, fromPort } of payloads(peer)) {
      const flow = payload[22] ?? 0;
      portsOf.set(flow, (portsOf.get(flow) ?? new Set()).add(fromPort));
    }
    t.ok([...portsOf.values()].every(({ size }) => size === 1));
    t.equal(new Set([...portsOf.values()].flatMap((ports) => [...ports])).size, 4);
  });

  t.test('odd datagrams harm nobody', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(0);
    await driver.wire({ ports: {}, vnis: { 1: [{ to: 'port', index: 0 }] } });
    for (const length of [0, 1, 7, 8, 9, 21]) peer.send(Buffer.alloc(length, 8));
    peer.send(vxlan(1, testFrame('after them')));
    await until('the next one arrives', t, () => holds(port, testFrame('after them')));
    t.equal((await driver.report()).faults, 0);
  });

  t.test('counters tell what moved', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    await driver.setVtep(0, peer);
    const port = await driver.addPort(0);
    await driver.wire({
      ports: { 0: [{ to: 'vtep', index: 0, vni: 1 }] },
      vnis: { 1: [{ to: 'port', index: 0 }] },
    });
    const before = await driver.stats();
    for (let i = 0; i < 10; i++) {
      port.send(testFrame(`count ${i}`, 100));
      peer.send(vxlan(1, testFrame(`count ${i}`, 100)));
    }
    await until('all moved', t, () => frames(port).length >= 10 && payloads(peer).length >= 10);
    // A kernel's own frames may be among them.
    await until('all are counted', t, async () => {
      const after = await driver.stats();
      const grew = (name: keyof PacketIoStats) => after[name] - before[name];
      return (
        grew('portFramesRead') >= 10 &&
        grew('portBytesRead') >= 1000 &&
        grew('portFramesWritten') === 10 &&
        grew('portBytesWritten') === 1000 &&
        grew('datagramsReceived') === 10 &&
        grew('datagramBytesReceived') === 1080 &&
        grew('datagramsSent') >= 10 &&
        grew('datagramBytesSent') >= 1080 &&
        grew('portWriteDrops') === 0 &&
        grew('datagramReceiveDrops') === 0
      );
    });
  });

  t.test('after stop nothing moves, and everything can be opened anew', async (t) => {
    const driver = await bed.open(t);
    const peer = await bed.openPeer(t, 'ipv4');
    const port = await driver.addPort(0);
    await driver.wire({ ports: {}, vnis: { 1: [{ to: 'port', index: 0 }] } });
    peer.send(vxlan(1, testFrame('before')));
    await until('it works', t, () => holds(port, testFrame('before')));
    await driver.stop();
    await driver.stop();
    await until('the device is gone', t, () => !port.exists());
    peer.send(vxlan(1, testFrame('after')));
    const again = await bed.open(t);
    const second = await again.addPort(0);
    await again.wire({ ports: {}, vnis: { 1: [{ to: 'port', index: 0 }] } });
    peer.send(vxlan(1, testFrame('anew')));
    await until('a second driver works', t, () => holds(second, testFrame('anew')));
  });

  sealingConformance(t, bed, until);
}
