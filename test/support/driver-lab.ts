import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import koffi from 'koffi';
import type { PacketIoStats } from '../../src/dataplane/core/packet-io.js';
import { inNetns, openUdpInNetns } from '../../src/dataplane/io/netns.js';
import { signalEventfd } from '../../src/dataplane/io/sys.js';
import { openTap } from '../../src/dataplane/io/tap.js';
import type { OverlayStats } from '../../src/dataplane/overlay/core/counters.js';
import type { PacketIoBed, TestDatagram, TestPort } from '../conformance/packet-io-bed.js';
import type { PatchReport } from '../conformance/patch-panel.js';
import type { DriverCommand, DriverHostOptions } from './driver-host.js';

export const UDP_PORT = 4789;
export const isRoot = process.platform === 'linux' && process.getuid?.() === 0;

interface Teardown {
  teardown(work: () => unknown): unknown;
}

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: 'pipe' });
}

export function inside(netns: string, command: string, ...args: string[]): string {
  return execFileSync('ip', ['netns', 'exec', netns, command, ...args], {
    encoding: 'utf8',
    stdio: 'pipe',
    timeout: 60_000,
  });
}

let made = 0;

/** A namespace that is gone after the test; `isQuiet` without IPv6 noise of its own. */
export function makeNetns(t: Teardown, what: string, isQuiet: boolean): string {
  made += 1;
  const name = `sho-${process.pid.toString(36)}-${made}${what}`;
  ip('netns', 'add', name);
  t.teardown(() => ip('netns', 'delete', name));
  ip('-n', name, 'link', 'set', 'lo', 'up');
  if (isQuiet) inside(name, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
  return name;
}

/** Two underlay hosts on one veth: 10.9.0.1 and .2, fd09::1 and ::2. */
export function makeUnderlay(t: Teardown): readonly [string, string] {
  const hosts = [makeNetns(t, 'a', false), makeNetns(t, 'b', false)] as const;
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
  for (const [i, host] of hosts.entries()) {
    ip('-n', host, 'address', 'add', `10.9.0.${i + 1}/24`, 'dev', 'u0');
    ip('-n', host, 'address', 'add', `fd09::${i + 1}/64`, 'dev', 'u0', 'nodad');
    ip('-n', host, 'link', 'set', 'u0', 'up');
  }
  return hosts;
}

/** A driver on a thread of its own. */
export class DriverWorker {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (result: unknown) => void>();
  #wakeFd: number | undefined;
  #nextId = 1;
  #stopped: Promise<void> | undefined;

  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.on('message', ({ id, result }: { id: number; result?: unknown }) => {
      this.#waiting.get(id)?.(result);
      this.#waiting.delete(id);
    });
  }

  static async open(t: Teardown, options: DriverHostOptions): Promise<DriverWorker> {
    const worker = new Worker(new URL('./driver-host.js', import.meta.url), {
      workerData: { ...options, netns: `/run/netns/${options.netns}` },
      trackUnmanagedFds: false,
    });
    const [ready] = (await once(worker, 'message')) as [{ wakeFd: number | undefined }];
    const driver = new DriverWorker(worker);
    driver.#wakeFd = ready.wakeFd;
    t.teardown(() => driver.stop());
    return driver;
  }

  call(command: DriverCommand): Promise<unknown> {
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve) => this.#waiting.set(id, resolve));
    this.#worker.postMessage({ id, command });
    if (this.#wakeFd !== undefined) signalEventfd(this.#wakeFd);
    return answer;
  }

  async stats(): Promise<PacketIoStats> {
    return (await this.call({ call: 'stats' })) as PacketIoStats;
  }

  async overlayStats(): Promise<OverlayStats> {
    return (await this.call({ call: 'overlayStats' })) as OverlayStats;
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const exited = once(this.#worker, 'exit', { signal: AbortSignal.timeout(5000) });
    await this.call({ call: 'stop' });
    this.#wakeFd = undefined;
    await exited;
  }
}

const libc = koffi.load(null);
const socket = libc.func('socket', 'int', ['int', 'int', 'int']);
const bind = libc.func('bind', 'int', ['int', 'void *', 'uint']);
const setsockopt = libc.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']);
const read = libc.func('read', 'int64_t', ['int', 'void *', 'size_t']);
const write = libc.func('write', 'int64_t', ['int', 'void *', 'size_t']);

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK_CLOEXEC = 3 | 0o4000 | 0o2000000;
const ETH_P_ALL_BIG_ENDIAN = 0x0300;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;

/** A raw socket on a link: sends and hears whole frames, as the kernel of a task would. */
export class PacketSocket {
  readonly #fd: number;
  readonly #received: Buffer[] = [];
  readonly #buffer = Buffer.alloc(70_000);

  constructor(t: Teardown, netns: string, link: string) {
    this.#fd = inNetns(`/run/netns/${netns}`, () => {
      const fd = socket(AF_PACKET, SOCK_RAW_NONBLOCK_CLOEXEC, ETH_P_ALL_BIG_ENDIAN) as number;
      const index = Number(
        /\n?(\d+): /.exec(ip('-n', netns, '-o', 'link', 'show', 'dev', link))?.[1],
      );
      const address = Buffer.alloc(20);
      address.writeUInt16LE(AF_PACKET, 0);
      address.writeUInt16LE(ETH_P_ALL_BIG_ENDIAN, 2);
      address.writeInt32LE(index, 4);
      setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, Int32Array.of(1), 4);
      const SO_RCVBUFFORCE = 33;
      setsockopt(fd, 1, SO_RCVBUFFORCE, Int32Array.of(8 * 1024 * 1024), 4);
      if (fd < 0 || bind(fd, address, address.length) !== 0) throw new Error('no packet socket');
      return fd;
    });
    t.teardown(() => closeSync(this.#fd));
  }

  send(frame: Buffer): void {
    write(this.#fd, frame, frame.length);
  }

  received(): readonly Buffer[] {
    for (;;) {
      const count = Number(read(this.#fd, this.#buffer, this.#buffer.length));
      if (count <= 0) return this.#received;
      this.#received.push(Buffer.from(this.#buffer.subarray(0, count)));
    }
  }
}

/** Runs the conformance suite on a real driver: TAPs and a veth, in namespaces. */
export function namespaceBed(t: Teardown, kind: 'native' | 'portable'): PacketIoBed {
  const hosts = makeUnderlay(t);
  let links = 0;
  return {
    async open(t, { sourcePorts = 1 } = {}) {
      const driver = await DriverWorker.open(t, {
        kind,
        netns: hosts[0],
        udpPort: UDP_PORT,
        sourcePorts,
        busyPollMicros: 0,
        handler: 'panel',
      });
      const addPort = async (index: number): Promise<TestPort> => {
        links += 1;
        const link = `t${links}`;
        const app = makeNetns(t, 'x', true);
        const netns = `/run/netns/${app}`;
        const fd = openTap({ netns, name: link, offloads: kind === 'native', persist: false });
        ip('-n', app, 'link', 'set', link, 'mtu', '1450', 'up');
        const packets = new PacketSocket(t, app, link);
        await driver.call({ call: 'addPort', index, fd });
        return {
          send: (frame) => packets.send(frame),
          received: () => packets.received(),
          kill: async () => void ip('-n', app, 'link', 'delete', link),
          exists: () => hasLink(app, link),
        };
      };
      return {
        addPort,
        removePort: async (index) => void (await driver.call({ call: 'removePort', index })),
        setVtep: async (index, { address, port }) =>
          void (await driver.call({ call: 'setVtep', index, address, port })),
        removeVtep: async (index) => void (await driver.call({ call: 'removeVtep', index })),
        setSeals: async (index, keys) =>
          void (await driver.call({ call: 'setSeals', index, keys })),
        allowSeals: async (first, count) =>
          void (await driver.call({ call: 'allowSeals', first, count })),
        wire: async (routes) => void (await driver.call({ call: 'wire', routes })),
        report: async () => (await driver.call({ call: 'report' })) as PatchReport,
        stats: () => driver.stats(),
        stop: () => driver.stop(),
      };
    },
    async openPeer(t, family) {
      const isIpv4 = family === 'ipv4';
      const netns = `/run/netns/${hosts[1]}`;
      const fd = openUdpInNetns(netns, isIpv4 ? '10.9.0.2' : 'fd09::2', 0);
      const peer = createSocket(isIpv4 ? 'udp4' : 'udp6');
      peer.bind({ fd });
      peer.setRecvBufferSize(4 * 1024 * 1024);
      t.teardown(() => peer.close());
      const received: TestDatagram[] = [];
      peer.on('message', (payload, { port }) => received.push({ payload, fromPort: port }));
      return {
        address: isIpv4 ? '10.9.0.2' : 'fd09::2',
        port: peer.address().port,
        send: (payload) => peer.send(payload, UDP_PORT, isIpv4 ? '10.9.0.1' : 'fd09::1'),
        received: () => received,
      };
    },
    settle: async () => {},
  };
}

function hasLink(netns: string, link: string): boolean {
  return inNetns(`/run/netns/${netns}`, () =>
    readFileSync('/proc/thread-self/net/dev', 'utf8').includes(` ${link}:`),
  );
}
