import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { openTap } from '../../src/dataplane/io/tap.js';
import { deriveTables, type OverlayInputs } from '../../src/dataplane/overlay/core/derive.js';
import { diffTables, NOTHING_PUBLISHED } from '../../src/dataplane/overlay/core/diff.js';
import { DriverWorker, inside, ip, makeNetns, makeUnderlay, UDP_PORT } from './driver-lab.js';
import { addressesOf, endpointOf, inputsOf, macOfEndpoint, portOf } from './overlay.js';

const run = promisify(execFile);
const VNI = 4097;
type Family = 'ipv4' | 'ipv6';
const ADDRESSES = {
  ipv4: ['10.9.0.1', '10.9.0.2'],
  ipv6: ['fd09::1', 'fd09::2'],
} as const;
const MTU_BYTES = { ipv4: 1450, ipv6: 1430 } as const;

/** Node i: one endpoint 10.0.1.(i+1) in a namespace of its own, whose TAP is `eth0`. */
async function startNode(
  t: Test,
  kind: 'native' | 'portable',
  hosts: readonly [string, string],
  i: 0 | 1,
  family: Family,
  change: Partial<OverlayInputs>,
): Promise<{ readonly app: string; readonly driver: DriverWorker }> {
  const app = makeNetns(t, 'x', false);
  const fd = openTap({
    netns: `/run/netns/${app}`,
    name: 'eth0',
    offloads: kind === 'native',
    persist: false,
  });
  const driver = await DriverWorker.open(t, {
    kind,
    netns: hosts[i],
    udpPort: UDP_PORT,
    sourcePorts: 4,
    busyPollMicros: 0,
    handler: 'vtep',
  });
  configure(app, i, MTU_BYTES[family]);
  const { tables } = deriveTables({
    ...inputsOf({
      family,
      underlayMtuBytes: 1500,
      ports: [portOf(i + 1)],
      ...change,
    }),
    self: { id: i === 0 ? 'a' : 'b', vtep: { address: ADDRESSES[family][i], udpPort: UDP_PORT } },
  });
  const { update, published } = diffTables(NOTHING_PUBLISHED, tables);
  await driver.call({ call: 'apply', update });
  await driver.call({
    call: 'addPort',
    index: published.portIndexes.get(`port-${i + 1}`) ?? -1,
    fd,
  });
  return { app, driver };
}

function configure(netns: string, i: 0 | 1, mtuBytes: number, dev = 'eth0'): void {
  ip('-n', netns, 'link', 'set', dev, 'address', macOfEndpoint(i + 1));
  for (const address of addressesOf(i + 1))
    ip(
      '-n',
      netns,
      'address',
      'add',
      address,
      'dev',
      dev,
      ...(address.includes(':') ? ['nodad'] : []),
    );
  ip('-n', netns, 'link', 'set', dev, 'mtu', String(mtuBytes), 'up');
}

const peerOf = (family: Family, i: 0 | 1) => [
  endpointOf(i === 0 ? 'b' : 'a', i === 0 ? 2 : 1, { vtepAddress: ADDRESSES[family][1 - i] ?? '' }),
];

async function ping(t: Test, netns: string, target: string, size: number): Promise<void> {
  const args = [
    'netns',
    'exec',
    netns,
    'ping',
    '-n',
    '-M',
    'do',
    '-c',
    '2',
    '-i',
    '0.05',
    '-W',
    '5',
    '-s',
    String(size),
    target,
  ];
  const { stdout } = await run('ip', args).catch((error: { stdout: string }) => error);
  t.match(stdout, / 0% packet loss/, `${size} bytes to ${target}`);
}

async function pingAllSizes(t: Test, netns: string, family: Family): Promise<void> {
  const mtu = MTU_BYTES[family];
  for (const size of [0, 1, 56, 57, 512, 1000, mtu - 29, mtu - 28])
    await ping(t, netns, '10.0.1.2', size);
  for (const size of [8, 57, 1000, mtu - 49, mtu - 48]) await ping(t, netns, 'fd00:1::2', size);
}

async function iperf(t: Test, client: string, server: string, reverse: boolean): Promise<void> {
  const serving = spawn('ip', ['netns', 'exec', server, 'iperf3', '-s', '-1', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => serving.kill());
  await once(serving.stdout, 'data');
  const args = ['netns', 'exec', client, 'iperf3', '-J', '-t', '2', '-c', '10.0.1.2'];
  const { stdout } = await run('ip', reverse ? [...args, '-R'] : args, { timeout: 30_000 });
  const { end } = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
  const megabits = Math.round(end.sum_received.bits_per_second / 1e6);
  // The machine's speed is not the point; a stall or a retransmission storm would be far below.
  t.ok(megabits > 20, `TCP moves: ${megabits} Mbit/s${reverse ? ', reverse' : ''}`);
}

/** Two nodes, each with the packet core and a real driver, and kernels on the other side. */
export function overlayEndToEnd(kind: 'native' | 'portable'): void {
  for (const family of ['ipv4', 'ipv6'] as const) {
    t.test(`${kind}: two nodes over ${family}`, async (t) => {
      const hosts = makeUnderlay(t);
      const a = await startNode(t, kind, hosts, 0, family, { endpoints: peerOf(family, 0) });
      const b = await startNode(t, kind, hosts, 1, family, { endpoints: peerOf(family, 1) });
      await pingAllSizes(t, a.app, family);
      await iperf(t, a.app, b.app, false);
      const { drops, replies } = await a.driver.overlayStats();
      t.ok(replies.arp_reply >= 1, 'ARP was answered here');
      t.ok(replies.neighbor_advertisement >= 1, 'and neighbour discovery');
      t.match(drops, { mac_not_attached: 0, mac_unknown: 0, mac_spoofed: 0, vtep_unknown: 0 });
    });

    t.test(`${kind}: the kernel's vxlan on the other side, over ${family}`, async (t) => {
      const hosts = makeUnderlay(t);
      // As on a wire: else a veth hands over inner packets without checksums and unsegmented.
      inside(hosts[1], 'ethtool', '-K', 'u0', 'tx', 'off', 'tso', 'off', 'gso', 'off');
      const [local, remote] = [ADDRESSES[family][1], ADDRESSES[family][0]];
      const v6 = family === 'ipv6' ? ['-6'] : [];
      ip(
        ...v6,
        '-n',
        hosts[1],
        'link',
        'add',
        'vx0',
        'type',
        'vxlan',
        'id',
        String(VNI),
        'local',
        local,
        'remote',
        remote,
        'dstport',
        String(UDP_PORT),
        'dev',
        'u0',
      );
      configure(hosts[1], 1, MTU_BYTES[family], 'vx0');
      const a = await startNode(t, kind, hosts, 0, family, {
        staticVteps: [
          { vni: VNI, address: local, udpPort: UDP_PORT, macs: [macOfEndpoint(2)], flood: true },
        ],
      });
      await pingAllSizes(t, a.app, family);
      await iperf(t, a.app, hosts[1], false);
      await iperf(t, a.app, hosts[1], true);
      const { drops } = await a.driver.overlayStats();
      t.match(drops, { mac_spoofed: 0, vtep_unknown: 0, oversized: 0 });
    });
  }

  t.test(`${kind}: who sends too large packets is told the MTU`, async (t) => {
    const hosts = makeUnderlay(t);
    const a = await startNode(t, kind, hosts, 0, 'ipv4', { endpoints: peerOf('ipv4', 0) });
    await startNode(t, kind, hosts, 1, 'ipv4', { endpoints: peerOf('ipv4', 1) });
    ip('-n', a.app, 'link', 'set', 'eth0', 'mtu', '1500');
    const tell = (target: string, size: number) =>
      run('ip', [
        'netns',
        'exec',
        a.app,
        'ping',
        '-n',
        '-M',
        'do',
        '-c',
        '1',
        '-W',
        '3',
        '-s',
        String(size),
        target,
      ]).catch((error: { stdout: string; stderr: string }) => error);
    await ping(t, a.app, '10.0.1.2', 56);
    t.match((await tell('10.0.1.2', 1472)).stdout, /Frag needed and DF set \(mtu = 1450\)/);
    await ping(t, a.app, 'fd00:1::2', 56);
    t.match((await tell('fd00:1::2', 1452)).stdout, /Packet too big: mtu=1450/);
    const { replies } = await a.driver.overlayStats();
    t.match(replies, { fragmentation_needed: 1, packet_too_big: 1 });
    const route = inside(a.app, 'ip', 'route', 'get', '10.0.1.2');
    t.match(route, /mtu 1450/, 'and believes it');
  });
}
