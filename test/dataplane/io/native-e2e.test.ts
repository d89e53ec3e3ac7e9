import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { NativePacketIo } from '../../../src/dataplane/io/native.js';
import { loadNative, nativeUnavailableReason } from '../../../src/dataplane/io/native-binding.js';
import { inNetns } from '../../../src/dataplane/io/netns.js';
import { SCRATCH_MAC } from '../../support/native-host.js';
import {
  inside,
  type Lab,
  makeLab,
  startKernel,
  startNative,
  type Teardown,
} from '../../support/native-lab.js';

const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
const skip = !isRoot
  ? 'needs root on Linux'
  : loadNative() === undefined
    ? nativeUnavailableReason()
    : false;

const IP_HEADERS_BYTES = 20 + 8;
const ETHERNET_HEADERS_IPV6_BYTES = 40 + 8;

interface IperfEnd {
  readonly sum_sent: { readonly retransmits?: number; readonly bits_per_second: number };
  readonly sum_received: { readonly bits_per_second: number };
  readonly sum?: { readonly lost_percent: number; readonly packets: number };
}

/** One iperf3 run from namespace x to y; `args` as for the client. */
async function iperf(t: Teardown, lab: Lab, ...args: string[]): Promise<IperfEnd> {
  const server = spawn('ip', ['netns', 'exec', lab.apps[1], 'iperf3', '-s', '-1', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => server.kill());
  await once(server.stdout, 'data');
  const text = await new Promise<string>((resolve, reject) => {
    const client = spawn('ip', ['netns', 'exec', lab.apps[0], 'iperf3', '-J', '-t', '1', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 30_000,
    });
    let output = '';
    client.stdout.on('data', (bytes) => (output += bytes));
    client.on('error', reject);
    client.on('close', () => resolve(output));
  });
  const result = JSON.parse(text) as { end?: IperfEnd; error?: string };
  if (result.end === undefined || result.error !== undefined) throw new Error(result.error ?? text);
  return result.end;
}

function pings(lab: Lab, sizes: readonly number[], target: string, from: 0 | 1 = 0): void {
  for (const size of sizes) {
    inside(
      lab.apps[from],
      'ping',
      '-n',
      '-c',
      '3',
      '-i',
      '0.05',
      '-W',
      '3',
      '-s',
      String(size),
      target,
    );
  }
}

/** Every payload size class: smallest, odd, the MTU, and beyond it in fragments. */
const pingSizes = (mtuBytes: number) => [0, 1, 57, 1001, mtuBytes - IP_HEADERS_BYTES, 3000, 20_000];

async function carriesEverything(t: Test, lab: Lab, label: string): Promise<void> {
  // The first packets wait for ARP and ND.
  pings(lab, pingSizes(lab.mtuBytes), '10.8.0.2');
  pings(lab, [57, lab.mtuBytes - ETHERNET_HEADERS_IPV6_BYTES, 5000], 'fd08::2', 1);
  for (const [what, args] of [
    ['TCP over IPv4', ['-c', '10.8.0.2']],
    ['TCP over IPv4, other way', ['-c', '10.8.0.2', '-R']],
    ['TCP over IPv6, four streams', ['-c', 'fd08::2', '-P', '4']],
  ] as const) {
    const end = await iperf(t, lab, ...args);
    const gigabits = end.sum_received.bits_per_second / 1e9;
    const retransmits = end.sum_sent.retransmits ?? 0;
    t.comment(`${label}, ${what}: ${gigabits.toFixed(2)} Gbit/s, ${retransmits} retransmitted`);
    // Far below what any machine does: what it catches is a collapse.
    t.ok(gigabits > 0.3, `${what} moves`);
  }
  const udp = await iperf(t, lab, '-c', '10.8.0.2', '-u', '-b', '50M', '-l', '1000');
  t.ok((udp.sum?.lost_percent ?? 100) < 20, 'UDP arrives');
}

t.test(
  'two native hosts over IPv4 carry pings, TCP and UDP',
  { skip, timeout: 100_000 },
  async (t) => {
    const lab = makeLab(t);
    const a = await startNative(t, lab, 0, { busyPollMicros: 50 });
    const b = await startNative(t, lab, 1, { busyPollMicros: 50 });
    await carriesEverything(t, lab, 'native to native');
    t.ok(a.stats().datagramsSent > 1000);
    t.ok(b.stats().portFramesWritten < b.stats().datagramsReceived, 'datagrams were joined');
    t.equal(a.stats().datagramSendDrops, 0);
  },
);

t.test('two native hosts over IPv6, on a wire', { skip, timeout: 100_000 }, async (t) => {
  const lab = makeLab(t, { ipv6: true, wire: true });
  await startNative(t, lab, 0);
  await startNative(t, lab, 1);
  await carriesEverything(t, lab, 'native to native, IPv6');
});

for (const wire of [false, true]) {
  const where = wire ? 'on a wire' : 'with super-frames on the underlay';
  t.test(`a native host and the kernel's vxlan ${where}`, { skip, timeout: 100_000 }, async (t) => {
    const lab = makeLab(t, { wire });
    await startNative(t, lab, 0);
    startKernel(lab, 1);
    await carriesEverything(t, lab, `native and kernel ${where}`);
  });
}

t.test(
  'two ports of one host, with a copy of every frame for a VTEP',
  { skip, timeout: 60_000 },
  async (t) => {
    const lab = makeLab(t);
    const hub = await startNative(t, lab, 0, { apps: [0, 1] });
    pings(lab, pingSizes(lab.mtuBytes), '10.8.0.2');
    const end = await iperf(t, lab, '-c', '10.8.0.2');
    t.comment(`port to port: ${(end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s`);
    t.ok(end.sum_received.bits_per_second > 3e8, 'copies do not harm the local delivery');
    t.ok(
      hub.stats().datagramsSent > hub.stats().portFramesRead,
      'super-frames were copied in segments',
    );

    const dropsBefore = hub.stats();
    t.throws(() => inside(lab.apps[0], 'ping', '-c', '1', '-W', '1', '10.8.0.99'));
    t.match(inside(lab.apps[0], 'ip', 'neighbour', 'show', '10.8.0.99'), SCRATCH_MAC);
    t.ok(
      hub.stats().datagramSendDrops > dropsBefore.datagramSendDrops,
      'an unknown VTEP is counted',
    );
    t.ok(hub.stats().portWriteDrops > dropsBefore.portWriteDrops, 'an unknown port is counted');
  },
);

t.test(
  'an underlay too small for the datagrams carries them in fragments',
  { skip, timeout: 60_000 },
  async (t) => {
    const lab = makeLab(t, { underlayMtuBytes: 1300 });
    const a = await startNative(t, lab, 0);
    await startNative(t, lab, 1);
    pings(lab, pingSizes(lab.mtuBytes), '10.8.0.2');
    // Trains of datagrams that do not fit are refused by the kernel, single ones are not.
    const end = await iperf(t, lab, '-c', '10.8.0.2');
    t.comment(`in fragments: ${(end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s`);
    t.ok(end.sum_received.bits_per_second > 2e7);
    t.equal(a.stats().datagramSendDrops, 0);
  },
);

t.test('a driver at rest sleeps', { skip, timeout: 60_000 }, async (t) => {
  const lab = makeLab(t);
  const host = await startNative(t, lab, 0, { busyPollMicros: 50 });
  inside(lab.apps[0], 'ip', 'link', 'set', 'eth0', 'down');
  const before = host.cpuMs();
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const percent = (host.cpuMs() - before) / 20;
  t.comment(`at rest: ${percent} % of a core`);
  // Clock ticks of ten milliseconds: one tick more or less is half a percent.
  t.ok(percent < 2);
});

t.test('a port that is taken is refused with the name of its holder', { skip }, async (t) => {
  const binding = loadNative()!;
  const config = { receiveBufferBytes: 65_536, busyPollMicros: 0, sourcePorts: 1 };
  const lab = makeLab(t);
  inNetns(`/run/netns/${lab.hosts[0]}`, () => {
    const first = new NativePacketIo({ ...config, udpPort: 4789 }, { binding, poll: () => false });
    t.throws(
      () => new NativePacketIo({ ...config, udpPort: 4789 }, { binding, poll: () => false }),
      { code: 'SWARM_PORT_TAKEN' },
    );
    t.ok(first.wakeFd > 0);
    // A loop that is told at once to end, ends; its port is free again.
    first.start({ egress: () => undefined, ingress: () => undefined });
    new NativePacketIo({ ...config, udpPort: 4789 }, { binding, poll: () => false })
      .stop()
      .catch(t.fail);
  });
});

t.test('a stopped driver has let go of its port', { skip, timeout: 60_000 }, async (t) => {
  const lab = makeLab(t);
  const first = await startNative(t, lab, 0);
  await first.stop();
  const again = await startNative(t, lab, 0);
  t.equal(again.stats().datagramsSent >= 0, true);
});
