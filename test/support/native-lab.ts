import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { PacketIoStats } from '../../src/dataplane/core/packet-io.js';
import { readStats, STATS_FIELDS } from '../../src/dataplane/io/native.js';
import { openTap } from '../../src/dataplane/io/tap.js';
import type { NativeHostOptions } from './native-host.js';

export const VNI = 42;
export const UDP_PORT = 4789;

const STOP_TIMEOUT_MS = 5000;

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: 'pipe' });
}

/** Runs a program in a namespace and returns what it printed; throws if it fails. */
export function inside(netns: string, command: string, ...args: string[]): string {
  return execFileSync('ip', ['netns', 'exec', netns, command, ...args], {
    encoding: 'utf8',
    stdio: 'pipe',
    timeout: 60_000,
  });
}

export interface Teardown {
  teardown(work: () => unknown): unknown;
}

export interface Lab {
  /** Namespaces: underlay hosts a and b, and the application namespaces behind them. */
  readonly hosts: readonly [string, string];
  readonly apps: readonly [string, string];
  /** Underlay addresses. */
  readonly addresses: readonly [string, string];
  /** Inner MTU that fills the underlay's 1500. */
  readonly mtuBytes: number;
}

/**
 * Two hosts joined by a veth, an application namespace beside each.
 *
 * @param wire Whether datagrams cross one by one, as on a wire without tunnel offloads.
 */
export function makeLab(
  t: Teardown,
  options: {
    readonly ipv6?: boolean;
    readonly wire?: boolean;
    /** MTU of the underlay; the inner one stays, so that a small one means fragments. */
    readonly underlayMtuBytes?: number;
  } = {},
): Lab {
  const tag = process.pid.toString(36) + Math.floor(Math.random() * 1296).toString(36);
  const name = (what: string) => `shn-${tag}-${what}`;
  const hosts = [name('a'), name('b')] as const;
  const apps = [name('x'), name('y')] as const;
  for (const netns of [...hosts, ...apps]) {
    ip('netns', 'add', netns);
    t.teardown(() => ip('netns', 'delete', netns));
    ip('-n', netns, 'link', 'set', 'lo', 'up');
  }
  const addresses = options.ipv6
    ? (['fd00::1', 'fd00::2'] as const)
    : (['10.9.0.1', '10.9.0.2'] as const);
  ip(
    'link',
    'add',
    'u0',
    'netns',
    hosts[0],
    'type',
    'veth',
    'peer',
    'name',
    'u0',
    'netns',
    hosts[1],
  );
  for (const i of [0, 1] as const) {
    const address = `${addresses[i]}/${options.ipv6 ? 64 : 24}`;
    ip('-n', hosts[i], 'address', 'add', address, 'dev', 'u0', ...(options.ipv6 ? ['nodad'] : []));
    const mtu = String(options.underlayMtuBytes ?? 1500);
    ip('-n', hosts[i], 'link', 'set', 'u0', 'mtu', mtu, 'up');
    const offloads = options.wire
      ? ['tso', 'off', 'gso', 'off', 'tx-udp-segmentation', 'off', 'gro', 'on']
      : ['gro', 'on'];
    inside(hosts[i], 'ethtool', '-K', 'u0', ...offloads);
  }
  return { hosts, apps, addresses, mtuBytes: options.ipv6 ? 1430 : 1450 };
}

/** Gives the application namespace's device `dev` its address: 10.8.0.1 or .2, and fd08::1 or ::2. */
export function configureApp(lab: Lab, i: 0 | 1, dev: string): void {
  const netns = lab.apps[i];
  ip('-n', netns, 'address', 'add', `10.8.0.${i + 1}/24`, 'dev', dev);
  ip('-n', netns, 'address', 'add', `fd08::${i + 1}/64`, 'dev', dev, 'nodad');
  ip('-n', netns, 'link', 'set', dev, 'mtu', String(lab.mtuBytes), 'up');
}

export interface NativeHost {
  stats(): PacketIoStats;
  /** Processor time of the driver's thread. */
  cpuMs(): number;
  stop(): Promise<void>;
}

/** Processor time of a thread of this process, in steps of a clock tick (10 ms). */
function cpuMsOf(tid: number): number {
  const fields =
    readFileSync(`/proc/self/task/${tid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/**
 * Serves side `i` with the native driver.
 *
 * @param apps Namespaces to serve there, each with a TAP; usually the one of side `i`.
 */
export async function startNative(
  t: Teardown,
  lab: Lab,
  i: 0 | 1,
  options: {
    readonly busyPollMicros?: number;
    readonly sourcePorts?: number;
    readonly apps?: readonly (0 | 1)[];
  } = {},
): Promise<NativeHost> {
  const apps = options.apps ?? [i];
  const tapFds = apps.map((app) =>
    openTap({
      netns: `/run/netns/${lab.apps[app]}`,
      name: 'eth0',
      offloads: true,
      persist: false,
    }),
  );
  const stats = new Float64Array(
    new SharedArrayBuffer(STATS_FIELDS.length * Float64Array.BYTES_PER_ELEMENT),
  );
  const workerData: NativeHostOptions = {
    netns: `/run/netns/${lab.hosts[i]}`,
    tapFds,
    peer: lab.addresses[1 - i]!,
    vni: VNI,
    udpPort: UDP_PORT,
    busyPollMicros: options.busyPollMicros ?? 0,
    sourcePorts: options.sourcePorts ?? 4,
    stats,
  };
  const worker = new Worker(new URL('./native-host.js', import.meta.url), {
    workerData,
    // Descriptors come from system calls, not from node:fs.
    trackUnmanagedFds: false,
  });
  const [ready] = (await once(worker, 'message')) as [
    { readonly wakeFd: number; readonly tid: number },
  ];
  let stopped = false;
  const stop = async () => {
    if (stopped) return;
    stopped = true;
    const exited = once(worker, 'exit', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
    worker.postMessage('stop');
    writeSync(ready.wakeFd, new Uint8Array(new BigUint64Array([1n]).buffer));
    await exited;
  };
  t.teardown(stop);
  for (const app of apps) configureApp(lab, app, 'eth0');
  return { stats: () => readStats(stats), stop, cpuMs: () => cpuMsOf(ready.tid) };
}

/** Serves side `i` with the kernel's vxlan device, a bridge and a veth, as container engines do. */
export function startKernel(lab: Lab, i: 0 | 1): void {
  const host = lab.hosts[i];
  const family = lab.addresses[i].includes(':') ? ['-6'] : [];
  ip(
    ...family,
    '-n',
    host,
    'link',
    'add',
    'vx',
    'type',
    'vxlan',
    'id',
    String(VNI),
    'local',
    lab.addresses[i],
    'remote',
    lab.addresses[1 - i]!,
    'dev',
    'u0',
    'dstport',
    String(UDP_PORT),
  );
  ip('-n', host, 'link', 'add', 'bridge0', 'type', 'bridge');
  ip(
    'link',
    'add',
    'eth0',
    'netns',
    lab.apps[i],
    'type',
    'veth',
    'peer',
    'name',
    'p0',
    'netns',
    host,
  );
  for (const dev of ['vx', 'p0']) {
    ip('-n', host, 'link', 'set', dev, 'mtu', String(lab.mtuBytes), 'master', 'bridge0', 'up');
  }
  ip('-n', host, 'link', 'set', 'bridge0', 'up');
  configureApp(lab, i, 'eth0');
}
