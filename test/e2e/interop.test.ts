import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { LabUpOptions } from '../../src/cli/lab/lab.js';
import { type Attached, hostOf, isPortable, scratch, skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { must, type Teardown, until } from './support/process.js';
import { formatRate, type IperfResult, iperf, iperfUntil } from './support/tcp.js';

/**
 * The kernel's vxlan device on the other end of the wire, with static tables on both sides. The wire
 * carries single frames, as a real one does.
 */

const skip = skipUnless('bridge', 'ethtool', 'iperf3', 'tcpdump', 'tshark');
const VNI = 4097;
const KERNEL_MAC = '02:42:0a:32:00:c8';
const KERNEL_OVERLAY_ADDRESS = '10.50.0.200';
const TCP_BITS_PER_SECOND_MIN = 0.5e9;
/** Segments sent again in one second: a path that loses a lot has tens of thousands. */
const RETRANSMITS_MAX = 2000;
const UDP_LOST_PERCENT_MAX = 10;

interface Underlay {
  readonly name: string;
  readonly kernelAddress: string;
  readonly prefixBits: number;
  readonly overlayMtuBytes: number;
  /** How the kernel is told to send with outer checksums, and without. */
  readonly checksums: readonly (readonly [string, readonly string[]])[];
}

const IPV4: Underlay = {
  name: 'IPv4',
  kernelAddress: '10.213.9.1',
  prefixBits: 16,
  overlayMtuBytes: 1450,
  checksums: [
    ['with outer checksums', ['udpcsum']],
    ['without outer checksums', ['noudpcsum']],
  ],
};
const IPV6: Underlay = {
  name: 'IPv6',
  kernelAddress: 'fd00:213::91',
  prefixBits: 64,
  overlayMtuBytes: 1430,
  checksums: [
    ['with outer checksums', ['noudp6zerocsumtx', 'noudp6zerocsumrx']],
    ['without outer checksums', ['udp6zerocsumtx', 'udp6zerocsumrx']],
  ],
};

interface World {
  readonly lab: TestLab;
  /** Attached by the agent. */
  readonly app: Netns;
  readonly attached: Attached;
  /** The host of the kernel's vxlan device. */
  readonly kernel: Netns;
  /** Of the agent, on the wire. */
  readonly agentAddress: string;
}

/** One agent, told of a foreign VTEP by its config file, and the namespace where that shall be. */
async function makeWorld(t: Teardown, underlay: Underlay): Promise<World> {
  const config = join(scratch(t), 'agent.json');
  const vtep = { vni: VNI, address: underlay.kernelAddress, macs: [KERNEL_MAC], flood: true };
  writeFileSync(config, JSON.stringify({ 'static-vteps': [vtep] }));
  const isIpv6 = underlay === IPV6;
  const options: LabUpOptions = {
    nodes: 1,
    wireOffloads: 'off',
    ipv6: isIpv6,
    swarm: false,
    extraFlags: ['--config', config],
  };
  const lab = await TestLab.up(t, options);
  const node = lab.lab.node('node1');
  const agentAddress = (isIpv6 ? node.address6 : node.address) ?? '';
  await lab.call('node1', 'POST', '/swarm/init', { AdvertiseAddr: agentAddress });
  await lab.createNetwork('mesh', { IPAM: { Config: [{ Subnet: '10.50.0.0/24' }] } });
  const app = await Netns.make(t);
  const attached = await lab.attach('node1', 'mesh', app, { name: 'app' });

  const onWire = `${underlay.kernelAddress}/${underlay.prefixBits}`;
  const kernel = await lab.hostOnWire(t, onWire);
  await kernel.must(['ethtool', '-K', 'eth0', 'tso', 'off', 'gso', 'off']);
  // A veth leaves inner checksums open, which no wire does; the native driver completes them.
  if (isPortable) await kernel.must(['ethtool', '-K', 'eth0', 'tx', 'off']);
  await until('the wire is whole', 5_000, async () => (await kernel.ping(agentAddress)) === 1);
  return { lab, app, attached, kernel, agentAddress };
}

/** The kernel's device with nothing to learn: where the agent's endpoint is, is written down. */
async function makeVxlan(
  world: World,
  underlay: Underlay,
  flags: readonly string[],
): Promise<void> {
  const { kernel, attached, agentAddress } = world;
  if ((await kernel.links()).includes('vx0')) await kernel.must(['ip', 'link', 'delete', 'vx0']);
  const mtu = String(underlay.overlayMtuBytes);
  const type = ['type', 'vxlan', 'id', String(VNI), 'local', underlay.kernelAddress, 'dev', 'eth0'];
  await kernel.must([
    ...['ip', 'link', 'add', 'vx0', 'address', KERNEL_MAC, 'mtu', mtu, ...type],
    ...['dstport', '4789', 'nolearning', ...flags],
  ]);
  for (const mac of ['00:00:00:00:00:00', attached.mac])
    await kernel.must(['bridge', 'fdb', 'append', mac, 'dev', 'vx0', 'dst', agentAddress]);
  await kernel.must(['ip', 'addr', 'add', `${KERNEL_OVERLAY_ADDRESS}/24`, 'dev', 'vx0']);
  await kernel.must(['ip', 'link', 'set', 'vx0', 'up']);
}

const isFast = (result: IperfResult) => result.bitsPerSecond > TCP_BITS_PER_SECOND_MIN;
const isWhole = (result: IperfResult) => result.lostPercent < UDP_LOST_PERCENT_MAX;

for (const underlay of [IPV4, IPV6]) {
  t.test(`the kernel's vxlan device over ${underlay.name}`, { skip }, async (t) => {
    const world = await makeWorld(t, underlay);
    const { app, kernel, attached, lab } = world;
    const address = hostOf(attached.addresses[0]);

    for (const [name, flags] of underlay.checksums) {
      await t.test(name, async (t) => {
        await makeVxlan(world, underlay, flags);
        await until(
          'they reach each other',
          5_000,
          async () => (await app.ping(KERNEL_OVERLAY_ADDRESS)) === 1,
        );
        // The largest that fits with an IPv4 and an ICMP header.
        const most = underlay.overlayMtuBytes - 28;
        for (const payloadBytes of [1, 63, 64, 65, 512, 1000, most - 1, most]) {
          const options = { payloadBytes, count: 3, intervalMs: 10, dontFragment: true };
          const [there, back] = await Promise.all([
            app.ping(KERNEL_OVERLAY_ADDRESS, options),
            kernel.ping(address, options),
          ]);
          t.equal(there + back, 6, `${payloadBytes} bytes, both ways`);
        }
        t.equal(await app.ping(KERNEL_OVERLAY_ADDRESS, { payloadBytes: 9000 }), 1, 'fragments');
        t.equal(await kernel.ping(address, { payloadBytes: 9000 }), 1, 'fragments, back');

        for (const [direction, ...more] of [['kernel to Shoal'], ['Shoal to kernel', '-R']]) {
          const tcp = await iperfUntil(isFast, kernel, app, address, '-t', '1', ...more);
          const text = `${formatRate(tcp.bitsPerSecond)}, ${tcp.retransmits} retransmits`;
          t.comment(`TCP, ${direction}: ${text}`);
          t.ok(isFast(tcp), `TCP, ${direction}: ${text}`);
          t.ok(tcp.retransmits < RETRANSMITS_MAX, `few retransmits: ${tcp.retransmits}`);
          const udp = await iperfUntil(
            isWhole,
            kernel,
            app,
            address,
            '-u',
            '-b',
            '10M',
            '-l',
            '1000',
            '-t',
            '1',
            ...more,
          );
          const lost = `${udp.lostPercent.toFixed(2)} % of ${udp.packets} lost`;
          t.ok(udp.packets > 500, `UDP, ${direction}: ${udp.packets} datagrams`);
          t.ok(isWhole(udp), `UDP, ${direction}: ${lost}`);
        }
      });
    }

    await t.test('what Shoal sends, as tshark reads it', (t) => dissect(t, world, underlay));
    const { drops } = (await lab.status('node1')).counters;
    for (const reason of ['looped', 'mac_spoofed', 'vtep_unknown', 'vni_unknown', 'oversized'])
      t.equal(drops[reason], 0, `nothing of the kernel's was dropped as ${reason}`);
  });
}

interface Captured {
  readonly vni: string;
  readonly protocols: string;
  readonly statuses: Readonly<Record<string, readonly string[]>>;
  readonly isMalformed: boolean;
}

const STATUS_FIELDS = [
  'ip.checksum.status',
  'udp.checksum.status',
  'tcp.checksum.status',
  'icmp.checksum.status',
] as const;

/** Captures traffic of each kind, and has every packet of Shoal's taken apart by somebody else. */
async function dissect(
  t: Teardown & Pick<typeof import('tap').t, 'equal' | 'ok' | 'strictSame' | 'comment'>,
  world: World,
  underlay: Underlay,
): Promise<void> {
  const { app, kernel, lab } = world;
  // With these done by the device, a capture would show checksums that are not computed yet.
  const node = lab.lab.node('node1').netns;
  await must(['nsenter', `--net=/run/netns/${node}`, '--', 'ethtool', '-K', 'eth0', 'tx', 'off']);
  const file = join(scratch(t), 'wire.pcap');
  const filter = `udp dst port 4789 and src host ${world.agentAddress}`;
  const capture = kernel.start(t, [
    'tcpdump',
    '--immediate-mode',
    '-Z',
    'root',
    '-U',
    '-i',
    'eth0',
    '-w',
    file,
    filter,
  ]);
  await until('tcpdump listens', 5_000, () => capture.output().includes('listening on'));
  await app.ping(KERNEL_OVERLAY_ADDRESS, { count: 3, intervalMs: 10 });
  await app.ping(KERNEL_OVERLAY_ADDRESS, { payloadBytes: 3000 });
  await iperf(app, kernel, KERNEL_OVERLAY_ADDRESS, '-u', '-b', '10M', '-n', '200K');
  await iperf(app, kernel, KERNEL_OVERLAY_ADDRESS, '-n', '2M');
  let writtenBytes = -1;
  await until('all is written', 5_000, () => {
    const before = writtenBytes;
    writtenBytes = statSync(file).size;
    return writtenBytes > 0 && writtenBytes === before;
  });
  await capture.stop('SIGINT');

  const checks = ['ip', 'udp', 'tcp'].flatMap((p) => ['-o', `${p}.check_checksum:TRUE`]);
  const columns = ['vxlan.vni', 'frame.protocols', '_ws.malformed', ...STATUS_FIELDS];
  const text = await must([
    ...['tshark', '-r', file, '-d', 'udp.port==4789,vxlan', ...checks, '-T', 'fields'],
    ...['-E', 'separator=;', '-E', 'occurrence=a', ...columns.flatMap((c) => ['-e', c])],
  ]);
  const packets = text.split('\n').filter(Boolean).map(parseRow);
  t.ok(packets.length > 300, `${packets.length} packets captured`);
  t.strictSame([...new Set(packets.map((p) => p.vni))], [String(VNI)], 'all of the right VNI');
  t.equal(packets.filter((p) => p.isMalformed).length, 0, 'none malformed');
  const outer = underlay === IPV6 ? 'eth:ethertype:ipv6:udp:vxlan' : 'eth:ethertype:ip:udp:vxlan';
  t.ok(
    packets.every((p) => p.protocols.startsWith(`${outer}:eth:ethertype:`)),
    'all dissect as Ethernet in VXLAN',
  );
  for (const protocol of ['tcp', 'udp', 'icmp']) {
    const inner = packets.filter((p) =>
      p.protocols.slice(outer.length).includes(`:ip:${protocol}`),
    );
    t.ok(inner.length > 0, `${inner.length} of ${protocol}`);
  }
  for (const field of STATUS_FIELDS) {
    const seen = packets.flatMap((p) => p.statuses[field] ?? []);
    const bad = seen.filter((status) => status === '0').length;
    t.equal(bad, 0, `no bad ${field}, outer or inner, of ${seen.length}`);
    t.ok(seen.includes('1'), `some are verified to be good`);
  }
}

function parseRow(row: string): Captured {
  const [vni = '', protocols = '', malformed = '', ...rest] = row.split(';');
  const statuses = Object.fromEntries(
    STATUS_FIELDS.map((field, i) => [field, (rest[i] ?? '').split(',').filter(Boolean)]),
  );
  return { vni, protocols, isMalformed: malformed !== '', statuses };
}
