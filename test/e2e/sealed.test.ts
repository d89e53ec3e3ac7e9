import t from 'tap';
import { PacketSocket } from '../support/driver-lab.js';
import { hostOf, skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { must, until } from './support/process.js';
import { iperf } from './support/tcp.js';

/** `docker network create --opt encrypted`: what two nodes say is nobody else's. */

const SECRET = 'c0ffee5ea1ed';
const PORT = 4789;
const SEALED = 0x53;

/** UDP payloads to the data path port, of IPv4 frames. */
const payloadsOf = (frames: readonly Buffer[]) =>
  frames.flatMap((frame) => {
    const isUdp = frame.length > 42 && frame.readUInt16BE(12) === 0x0800 && frame[23] === 17;
    return isUdp && frame.readUInt16BE(36) === PORT ? [frame.subarray(42)] : [];
  });

t.test('an encrypted network', { skip: skipUnless('iperf3') }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 2 });
  await lab.createNetwork('sealed', { Options: { encrypted: '' } });
  const inspected = (await lab.call('node1', 'GET', '/networks/sealed')) as { Options: object };
  t.match(inspected.Options, { encrypted: '' });
  const [a, b] = [await Netns.make(t), await Netns.make(t)];
  const wire = new PacketSocket(t, lab.lab.node('node2').netns, 'eth0');
  await lab.attach('node1', 'sealed', a, { name: 'a' });
  const attached = await lab.attach('node2', 'sealed', b, { name: 'b' });
  const address = hostOf(attached.addresses[0]);
  t.equal(attached.mtuBytes, 1422);

  await until('they reach each other', 5_000, async () => (await a.ping(address)) === 1);
  const { stdout } = await a.run(['ping', '-c2', '-i0.1', '-p', SECRET, '-s600', address]);
  t.match(stdout, / 2 received/);
  t.equal(await a.ping(address, { payloadBytes: 1394, dontFragment: true }), 1, 'whole frames');
  const seen = wire.received();
  const payloads = payloadsOf(seen);
  const sealed = payloads.filter((payload) => payload[0] === SEALED);
  t.ok(sealed.length >= 3, 'it went over the wire');
  const { vni } = await lab.network('node1', 'sealed');
  t.notOk(
    // Other networks are there too, as the ingress network, which are not encrypted.
    payloads.some((payload) => payload[0] !== SEALED && payload.readUInt32BE(4) >>> 8 === vni),
    'sealed, all of it',
  );
  const secret = Buffer.from(SECRET, 'hex');
  t.notOk(
    seen.some((frame) => frame.includes(secret)),
    'and nothing is to be read',
  );

  const target = lab.lab.node('node2').address;
  const forge = `
    const datagram = Buffer.alloc(100, 1);
    datagram.writeUInt32BE(0x08000000, 0);
    datagram.writeUInt32BE(${vni} * 256, 4);
    Buffer.from('${attached.mac}'.replaceAll(':', ''), 'hex').copy(datagram, 8);
    const socket = require('node:dgram').createSocket('udp4');
    socket.send(datagram, ${PORT}, '${target}', () => socket.close());`;
  await must(lab.lab.commandIn('node1', [process.execPath, '-e', forge]));
  await until(
    'what comes in the clear is dropped and counted, though from a node',
    5_000,
    async () => (await lab.status('node2')).counters.drops['unsealed'] === 1,
  );
  // Nobody else is on this wire: what was taken from it comes again, in full.
  const before = (await lab.status('node2')).counters.io['openReplayedDrops'] ?? 0;
  const replay = `
    const socket = require('node:dgram').createSocket('udp4');
    const datagram = Buffer.from('${sealed.at(-1)?.toString('hex')}', 'hex');
    socket.send(datagram, ${PORT}, '${target}', () => socket.close());`;
  await must(lab.lab.commandIn('node1', [process.execPath, '-e', replay]));
  await until('a datagram that comes again is counted', 5_000, async () => {
    return (await lab.status('node2')).counters.io['openReplayedDrops'] === before + 1;
  });

  const { bitsPerSecond } = await iperf(a, b, address, '-t', '1');
  const megabits = Math.round(bitsPerSecond / 1e6);
  // The machine's speed is not the point; what does not flow would be far below.
  t.ok(megabits > 10, `TCP flows: ${megabits} Mbit/s`);

  for (const name of ['node2', 'node1']) {
    await lab.lab.stopAgent(name, 'SIGKILL');
    await lab.lab.startAgent(name);
    await until(`with the next agent of ${name} it goes on`, 10_000, async () => {
      return (await a.ping(address, { timeoutMs: 300 })) === 1;
    });
  }
  const { io } = (await lab.status('node2')).counters;
  t.match(io, { openBadTagDrops: 0, sealDrops: 0 });
});
