import { readFileSync } from 'node:fs';
import { delay, run, startIn } from '../support/run.js';
import type { DataPath } from './paths.js';

/** One round's figures on one path; NaN where a measurement failed. */
export interface Round {
  /** Nanoseconds that a cache line takes to another core and back, just before; it sets the price of everything else. */
  coreRoundTrip: number;
  /** Gbit/s received. */
  tcp1: number;
  tcp4: number;
  /** CPU seconds of the whole machine for 10^9 bytes, one stream. */
  cpuPerGb: number;
  /** Packets of 64 bytes delivered per second, of a flood. */
  udp64: number;
  /** Gbit/s of 1400-byte packets delivered, of a flood. */
  udp1400: number;
  /** Replies per second, 64 bytes, 256 outstanding. */
  echo64: number;
  /** Microseconds, one 64-byte request at a time without a pause: traffic flows. */
  latencyP50: number;
  latencyP99: number;
  /** Microseconds, a request each 10 ms: everything sleeps in between. */
  restLatencyP50: number;
}

export const UNITS: Readonly<Record<keyof Round, string>> = {
  coreRoundTrip: 'ns',
  tcp1: 'Gbit/s',
  tcp4: 'Gbit/s',
  cpuPerGb: 'CPU s/GB',
  udp64: 'packets/s',
  udp1400: 'Gbit/s',
  echo64: 'replies/s',
  latencyP50: 'µs',
  latencyP99: 'µs',
  restLatencyP50: 'µs',
};

const PORT = 5301;
const SERVER_START_MS = 250;
const ECHO_OUTSTANDING = 256;
const CORES_SECONDS = 0.2;

/** Busy ticks of all processors since boot, in seconds. */
function busySeconds(): number {
  const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '')
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields;
  return (user + nice + system + irq + softirq + steal) / 100;
}

interface IperfReport {
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number; readonly bytes: number };
  };
}

async function tcp(
  path: DataPath,
  streams: number,
  seconds: number,
): Promise<{ gbps: number; cpuPerGb: number }> {
  const bound = (seconds + 10) * 1000;
  const server = startIn(path.server, bound, 'iperf3', '-s', '-1', '-p', String(PORT));
  const serverDone = server.done.catch(() => '');
  await delay(SERVER_START_MS);
  const before = busySeconds();
  try {
    const client = startIn(
      path.client,
      bound,
      'iperf3',
      '-c',
      path.serverAddress,
      '-p',
      String(PORT),
      '-t',
      // iperf3 takes no fractions.
      String(Math.ceil(seconds)),
      '-P',
      String(streams),
      '-C',
      'cubic',
      '-J',
    );
    const report = JSON.parse(await client.done) as IperfReport;
    const received = report.end.sum_received;
    return {
      gbps: received.bits_per_second / 1e9,
      cpuPerGb: (busySeconds() - before) / (received.bytes / 1e9),
    };
  } finally {
    server.child.kill('SIGKILL');
    await serverDone;
  }
}

async function udpPair(
  path: DataPath,
  tool: string,
  seconds: number,
  serverMode: 'sink' | 'echo',
  ...client: readonly string[]
): Promise<{ server: Record<string, number>; client: Record<string, number> }> {
  const bound = (seconds + 10) * 1000;
  const server = startIn(path.server, bound, tool, serverMode, String(PORT), String(seconds + 1));
  await delay(SERVER_START_MS);
  const [mode = '', ...rest] = client;
  const sender = startIn(path.client, bound, tool, mode, path.serverAddress, String(PORT), ...rest);
  const [fromServer, fromClient] = await Promise.all([server.done, sender.done]);
  return {
    server: JSON.parse(fromServer) as Record<string, number>,
    client: JSON.parse(fromClient) as Record<string, number>,
  };
}

const rate = (result: Record<string, number>, key: string) =>
  ((result[key] ?? Number.NaN) * 1e9) / (result['spanNs'] || Number.NaN);

const micros = (result: Record<string, number>, key: string) => (result[key] ?? Number.NaN) / 1000;

/** Measures everything once on one path. @param tool The compiled UDP load program. */
export async function measureRound(path: DataPath, tool: string, seconds: number): Promise<Round> {
  const s = String(seconds);
  const cores = JSON.parse(run(tool, 'cores', String(CORES_SECONDS))) as Record<string, number>;
  const one = await tcp(path, 1, seconds);
  const four = await tcp(path, 4, seconds);
  const small = await udpPair(path, tool, seconds, 'sink', 'flood', '64', s);
  const large = await udpPair(path, tool, seconds, 'sink', 'flood', '1400', s);
  const echo = await udpPair(
    path,
    tool,
    seconds,
    'echo',
    'window',
    '64',
    s,
    String(ECHO_OUTSTANDING),
  );
  const flowing = await udpPair(path, tool, seconds, 'echo', 'pingpong', '64', s, '0');
  const resting = await udpPair(path, tool, seconds, 'echo', 'pingpong', '64', s, '10000');
  return {
    coreRoundTrip: cores['roundTripNs'] ?? Number.NaN,
    tcp1: one.gbps,
    tcp4: four.gbps,
    cpuPerGb: one.cpuPerGb,
    udp64: rate(small.server, 'packets'),
    udp1400: (rate(large.server, 'bytes') * 8) / 1e9,
    echo64: (echo.client['replies'] ?? Number.NaN) / (echo.client['seconds'] ?? Number.NaN),
    latencyP50: micros(flowing.client, 'p50Ns'),
    latencyP99: micros(flowing.client, 'p99Ns'),
    restLatencyP50: micros(resting.client, 'p50Ns'),
  };
}

/** CPU share of processes over a while, in percent of one core. */
export async function idlePercent(pids: readonly number[], seconds: number): Promise<number> {
  const ticks = () =>
    pids.reduce((sum, pid) => {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return sum + Number(fields[11]) + Number(fields[12]);
    }, 0);
  const before = ticks();
  await delay(seconds * 1000);
  return (ticks() - before) / seconds / Math.max(1, pids.length);
}
