import { readdirSync, readFileSync } from 'node:fs';
import { rssOf } from '../services/memory.js';
import { delay, startIn } from '../support/run.js';
import type { Hosts } from './hosts.js';
import type { ProxyPath } from './paths.js';

/** One round's figures on one path; NaN where something does not apply or failed. */
export interface Round {
  /** Connections per second, each with one request, closed by the backend. */
  newConnections: number;
  /** Requests per second over connections that stay. */
  keepAlive: number;
  /** Gbit/s received. */
  bulk1: number;
  bulk4: number;
  /** Microseconds from when a request was due to its answer, at a fixed rate; connections stay. */
  latencyP50: number;
  latencyP99: number;
  /** The same for a connection, from its beginning to its end. */
  connectP50: number;
  connectP99: number;
  /** CPU microseconds of the whole machine for one of these, client and backend included. */
  cpuPerRequest: number;
  cpuPerConnection: number;
  /** The proxy's own CPU, as the scheduler counted it, in the first three loads: what other work on the machine disturbs least. */
  ownCpuPerConnection: number;
  ownCpuPerRequest: number;
  ownCpuPerGb: number;
  /** UDP answers per second, 64 bytes, 256 outstanding. */
  udpEcho: number;
}

export const UNITS: Readonly<Record<keyof Round, string>> = {
  newConnections: 'connections/s',
  keepAlive: 'requests/s',
  bulk1: 'Gbit/s',
  bulk4: 'Gbit/s',
  latencyP50: 'µs',
  latencyP99: 'µs',
  connectP50: 'µs',
  connectP99: 'µs',
  cpuPerRequest: 'µs',
  cpuPerConnection: 'µs',
  ownCpuPerConnection: 'µs',
  ownCpuPerRequest: 'µs',
  ownCpuPerGb: 'ms',
  udpEcho: 'answers/s',
};

export interface Tools {
  readonly tcp: string;
  readonly udp: string;
}

/** What the loads at a fixed rate are. */
export interface Rates {
  readonly seconds: number;
  readonly requests: number;
  readonly connections: number;
}

const CLIENTS = 64;
const BULK_STREAMS = 4;
const ECHO_OUTSTANDING = 256;
/** Before anything counts: code is compiled, caches are filled. */
const PAUSE_MS = 50;

type Result = Readonly<Record<string, number>>;

/** Busy time of all processors since boot, in seconds. */
function busySeconds(): number {
  const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '')
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) / 100;
}

/** Nanoseconds that processes have run. */
function ranNanos(pids: readonly number[]): number {
  let nanos = 0;
  for (const pid of pids)
    for (const thread of readdirSync(`/proc/${pid}/task`))
      nanos += Number(
        readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0] ?? 0,
      );
  return pids.length === 0 ? Number.NaN : nanos;
}

/** A load in the client's host; what did not end well is told, and its figures are missing. */
async function load(
  hosts: Hosts,
  path: ProxyPath,
  seconds: number,
  tool: string,
  mode: string,
  ...rest: readonly string[]
): Promise<Result> {
  const target = [path.address, String(path.port)];
  try {
    const argv = [tool, mode, ...target, ...rest];
    const { done } = startIn(hosts.client, (seconds + 30) * 1000, ...argv);
    const result = JSON.parse(await done) as Result;
    const failed = result['failed'] ?? 0;
    if (failed > 0) process.stderr.write(`bench: ${path.title}: ${mode}: ${failed} failed\n`);
    await delay(PAUSE_MS);
    return result;
  } catch (error) {
    process.stderr.write(`bench: ${path.title}: ${mode}: ${(error as Error).message}\n`);
    return {};
  }
}

const per = (result: Result, key: string) =>
  (result[key] ?? Number.NaN) / (result['seconds'] ?? Number.NaN);

/** Measures everything once on one path. */
export async function measureRound(
  hosts: Hosts,
  path: ProxyPath,
  tools: Tools,
  seconds: number,
  rates: Rates,
  only: ReadonlySet<string>,
): Promise<Round> {
  const clients = String(CLIENTS);
  const timed = async (forSeconds: number, part: string, ...args: readonly string[]) => {
    if (!only.has(part)) return {};
    const [mode = '', ...rest] = args;
    return load(hosts, path, forSeconds, tools.tcp, mode, String(forSeconds), ...rest);
  };
  const tcp = (part: string, ...args: readonly string[]) => timed(seconds, part, ...args);
  const paced = async (part: string, mode: string, rate: number) => {
    const before = busySeconds();
    const result = await timed(rates.seconds, part, mode, clients, String(rate));
    const busy = busySeconds() - before;
    return { result, cpu: (busy * 1e6) / (result['count'] ?? Number.NaN) };
  };
  const own = async (key: string, part: string, ...args: readonly string[]) => {
    const before = ranNanos(path.pids);
    const result = await tcp(part, ...args);
    const micros = (ranNanos(path.pids) - before) / 1000;
    return { result, cpu: micros / (result[key] ?? Number.NaN) };
  };
  path.begin?.();
  try {
    const connections = await own('count', 'connect', 'connect', clients);
    const keep = await own('count', 'keep', 'keep', clients);
    const one = await own('bytes', 'bulk', 'bulk', '1');
    const four = await tcp('bulk', 'bulk', String(BULK_STREAMS));
    const requests = await paced('latency', 'keep', rates.requests);
    const connects = await paced('latency', 'connect', rates.connections);
    const echo =
      path.udp && only.has('udp')
        ? await load(
            hosts,
            udpOf(path),
            seconds,
            tools.udp,
            'window',
            '64',
            String(seconds),
            String(ECHO_OUTSTANDING),
          )
        : {};
    return {
      newConnections: per(connections.result, 'count'),
      keepAlive: per(keep.result, 'count'),
      bulk1: (per(one.result, 'bytes') * 8) / 1e9,
      bulk4: (per(four, 'bytes') * 8) / 1e9,
      latencyP50: requests.result['p50Us'] ?? Number.NaN,
      latencyP99: requests.result['p99Us'] ?? Number.NaN,
      connectP50: connects.result['p50Us'] ?? Number.NaN,
      connectP99: connects.result['p99Us'] ?? Number.NaN,
      cpuPerRequest: requests.cpu,
      cpuPerConnection: connects.cpu,
      ownCpuPerConnection: connections.cpu,
      ownCpuPerRequest: keep.cpu,
      ownCpuPerGb: one.cpu * 1e6,
      udpEcho: per(echo, 'replies'),
    };
  } finally {
    path.end?.();
  }
}

/** The backends' UDP port is another one; a proxy's is the same. */
export const DIRECT_UDP_OFFSET = 1;

function udpOf(path: ProxyPath): ProxyPath {
  return path.name === 'direct' ? { ...path, port: path.port + DIRECT_UDP_OFFSET } : path;
}

/** Resident bytes of a proxy more while it holds so many connections that were asked once and are silent since. */
export async function idleBytes(
  hosts: Hosts,
  path: ProxyPath,
  tools: Tools,
  connections: number,
): Promise<number> {
  const before = rssOf(path.pids);
  const { child, done } = startIn(
    hosts.client,
    60_000,
    tools.tcp,
    'idle',
    path.address,
    String(path.port),
    '4',
    String(connections),
  );
  const held = await new Promise<number>((resolve) => {
    child.stdout?.once('data', (line) =>
      resolve((JSON.parse(String(line)) as Result)['heard'] ?? 0),
    );
    void done.then(
      () => resolve(0),
      () => resolve(0),
    );
  });
  await delay(500);
  const bytes = rssOf(path.pids) - before;
  child.kill('SIGTERM');
  await done.catch(() => undefined);
  if (held === connections) return bytes;
  process.stderr.write(`bench: ${path.title}: only ${held} of ${connections} were held\n`);
  return Number.NaN;
}
