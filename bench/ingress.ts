import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/io/package-root.js';
import { openHosts } from './ingress/hosts.js';
import {
  DIRECT_UDP_OFFSET,
  idleBytes,
  measureRound,
  type Round,
  type Tools,
  UNITS,
} from './ingress/measure.js';
import { PATHS, type ProxyPath, type Where } from './ingress/paths.js';
import type { WireMode } from './overlay/wire.js';
import { plotSvg } from './support/plot.js';
import { delay, type Running, startIn } from './support/run.js';
import { type Figure, figureOf } from './support/statistics.js';

const PATH_NAMES = Object.keys(PATHS);
/** Variants are measured when they are asked for. */
const DEFAULT_PATHS = PATH_NAMES.filter((name) => !name.startsWith('native-'));
const PARTS = ['connect', 'keep', 'bulk', 'latency', 'udp', 'idle'] as const;
const WIRES = ['wire', 'pass-through'] as const;

const HELP = `shoal bench ingress: published ports beside HAProxy and others, in the same run

A client's host, a node and a host with three backends are network namespaces in a row, joined by veths.
Every proxy listens on the node at the same time, and is measured in turn within each round. Needs root, a C
compiler (for the load programs) and ethtool; a peer that is not installed is left out.

  --json FILE         write everything as JSON, with ratios of Shoal (the native driver) over HAProxy
  --svg FILE          write a plot
  --rounds N          rounds (default 3); the median is quoted
  --seconds N         seconds of each measurement (default 1.5)
  --latency-seconds N seconds of those at a fixed rate (default 6): of a shorter one the p99 tells whether the
                      machine held everything up once
  --paths LIST        of ${PATH_NAMES.join(',')}
                      (default: all but native-1, with one thread, and native-asks, without choices ahead)
  --parts LIST        of ${PARTS.join(',')} (default: all)
  --wire NAME         wire (default): segmentation offloads off on the veths, GRO on, as on NICs;
                      pass-through: super-frames of 64 KiB cross whole
  --rate N            requests per second of the latencies over connections that stay (default 10000)
  --connect-rate N    connections per second of the others (default 3000)
  --idle N            idle connections held for the memory (default 9000)
  --proxy-flag F      a flag for Shoal's proxy, repeatable
`;

const METRICS = Object.keys(UNITS) as (keyof Round)[];
const LOWER_IS_BETTER: ReadonlySet<keyof Round> = new Set([
  'latencyP50',
  'latencyP99',
  'connectP50',
  'connectP99',
  'cpuPerRequest',
  'cpuPerConnection',
  'ownCpuPerConnection',
  'ownCpuPerRequest',
  'ownCpuPerGb',
]);
const TCP_PORT = 7001;
const UDP_PORT = TCP_PORT + DIRECT_UDP_OFFSET;
const FIRST_PORT = 8001;
const LIFE_MS = 3_600_000;

type Figures = Readonly<Partial<Record<keyof Round, Figure>>>;

function refuse(message: string): never {
  process.stderr.write(`shoal bench: ${message}\n`);
  process.exit(2);
}

function listOf<Name extends string>(text: string, allowed: readonly Name[], flag: string): Name[] {
  const names = text.split(',').filter((name) => name !== '');
  const unknown = names.find((name) => !(allowed as readonly string[]).includes(name));
  if (unknown !== undefined || names.length === 0)
    refuse(`--${flag} takes ${allowed.join(', ')}, not '${unknown ?? ''}'`);
  return names as Name[];
}

function positive(value: unknown, flag: string): number {
  const number = Number(value);
  if (!(number > 0)) refuse(`--${flag} takes a positive number, not '${value}'`);
  return number;
}

function readOptions() {
  let values: Record<string, string | boolean | string[] | undefined>;
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: 'string' },
        svg: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        seconds: { type: 'string', default: '1.5' },
        'latency-seconds': { type: 'string', default: '6' },
        paths: { type: 'string', default: DEFAULT_PATHS.join(',') },
        parts: { type: 'string', default: PARTS.join(',') },
        wire: { type: 'string', default: 'wire' },
        rate: { type: 'string', default: '10000' },
        'connect-rate': { type: 'string', default: '3000' },
        idle: { type: 'string', default: '9000' },
        'proxy-flag': { type: 'string', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (error) {
    return refuse(`${(error as Error).message}; see --help`);
  }
  if (values['help'] === true) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  return {
    json: values['json'] as string | undefined,
    svg: values['svg'] as string | undefined,
    rounds: Math.ceil(positive(values['rounds'], 'rounds')),
    seconds: positive(values['seconds'], 'seconds'),
    paths: listOf(String(values['paths']), PATH_NAMES, 'paths'),
    parts: new Set<string>(listOf(String(values['parts']), PARTS, 'parts')),
    wire: listOf(String(values['wire']), WIRES, 'wire')[0] as WireMode,
    rates: {
      seconds: positive(values['latency-seconds'], 'latency-seconds'),
      requests: positive(values['rate'], 'rate'),
      connections: positive(values['connect-rate'], 'connect-rate'),
    },
    idle: Math.ceil(positive(values['idle'], 'idle')),
    flags: values['proxy-flag'] as string[],
  };
}

/** Compiles a load program into the build folder. */
function loadTool(name: string): string {
  const root = packageRoot();
  const tool = join(root, 'build', name);
  mkdirSync(dirname(tool), { recursive: true });
  const { status } = spawnSync('cc', ['-O2', join(root, `bench/load/${name}.c`), '-o', tool], {
    stdio: 'inherit',
  });
  if (status !== 0) refuse('the load programs need a C compiler: install gcc');
  return tool;
}

function versionOf(command: string, ...args: string[]): string {
  const { stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (error !== undefined) return 'missing';
  return /\d+\.\d+[.\d]*/.exec(`${stdout}${stderr}`)?.[0] ?? 'unknown';
}

function machine() {
  const git = spawnSync('git', ['rev-parse', '--short', 'HEAD'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    haproxy: versionOf('haproxy', '-v'),
    nginx: versionOf('nginx', '-v'),
    commit: git.status === 0 ? git.stdout.trim() : 'unknown',
  };
}

const format = (value: number) => {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)}k`;
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(2);
};

function printTable(rows: readonly (readonly string[])[]): void {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  for (const row of rows)
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
}

/** Medians of one of our drivers over HAProxy's; of the two HAProxys the better one. */
function ratiosOf(figures: ReadonlyMap<string, Figures>, driver: string): Record<string, number> {
  const names = {
    newConnections: 'newConnections',
    keepAlive: 'keepAlive',
    bulk: 'bulk1',
    bulk4: 'bulk4',
    latencyP50: 'latencyP50',
    latencyP99: 'latencyP99',
    connectP50: 'connectP50',
    connectP99: 'connectP99',
    cpuPerRequest: 'cpuPerRequest',
    cpuPerConnection: 'cpuPerConnection',
    ownCpuPerConnection: 'ownCpuPerConnection',
    ownCpuPerRequest: 'ownCpuPerRequest',
    ownCpuPerGb: 'ownCpuPerGb',
  } as const;
  const ratios: Record<string, number> = {};
  for (const [name, metric] of Object.entries(names)) {
    const mine = figures.get(driver)?.[metric]?.median;
    const theirs = ['haproxy', 'haproxy-splice'].flatMap(
      (path) => figures.get(path)?.[metric]?.median ?? [],
    );
    if (mine === undefined || theirs.length === 0) continue;
    const best = LOWER_IS_BETTER.has(metric) ? Math.min(...theirs) : Math.max(...theirs);
    ratios[name] = Number((mine / best).toFixed(3));
  }
  return ratios;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (process.getuid?.() !== 0) refuse('network namespaces are made: run as root');
  const tools: Tools = { tcp: loadTool('tcp-load'), udp: loadTool('udp-load') };
  const dir = mkdtempSync(join(tmpdir(), 'shoal-bench-ingress-'));
  const hosts = openHosts(`shi${process.pid}`);
  const paths: ProxyPath[] = [];
  const servers: Running[] = [];
  const notes: string[] = [];
  let interrupted = false;
  const stop = () => {
    interrupted = true;
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    hosts.setWire(options.wire);
    const life = String(LIFE_MS / 1000);
    servers.push(
      startIn(hosts.back, LIFE_MS, tools.tcp, 'serve', String(TCP_PORT), life),
      startIn(hosts.back, LIFE_MS, tools.udp, 'echo', String(UDP_PORT), life),
    );
    for (const { done } of servers) done.catch(() => undefined);
    const where: Where = {
      hosts,
      dir,
      tcpPort: TCP_PORT,
      udpPort: UDP_PORT,
      lifeMs: LIFE_MS,
      flags: options.flags,
    };
    for (const [i, name] of options.paths.entries()) {
      const opened = await PATHS[name]?.(where, FIRST_PORT + i);
      if (typeof opened === 'string') notes.push(`${name} is left out: ${opened}`);
      else if (opened !== undefined) paths.push(opened);
    }
    for (const note of notes) process.stderr.write(`bench: ${note}\n`);
    await delay(500);
    const about = machine();
    process.stdout.write(
      `${about.processor}, ${about.cores} cores, kernel ${about.kernel}, node ${about.node}, haproxy ${about.haproxy}, nginx ${about.nginx}, commit ${about.commit}, ${options.wire}\n`,
    );
    const rounds = new Map<string, Round[]>(paths.map(({ name }) => [name, []]));
    for (let round = 0; round < options.rounds && !interrupted; round++) {
      // In turn within a round, so that a slow minute of the machine hits all of them.
      for (const path of paths) {
        if (interrupted) break;
        process.stderr.write(`bench: round ${round + 1} of ${options.rounds}, ${path.title}\n`);
        rounds
          .get(path.name)
          ?.push(
            await measureRound(hosts, path, tools, options.seconds, options.rates, options.parts),
          );
      }
    }
    const idle: Record<string, number> = {};
    for (const path of paths)
      if (options.parts.has('idle') && path.pids.length > 0 && !interrupted)
        idle[path.name] = await idleBytes(hosts, path, tools, options.idle);
    const figures = new Map(
      [...rounds].map(([name, samples]) => [
        name,
        Object.fromEntries(
          METRICS.map((metric) => [metric, figureOf(samples.map((s) => s[metric]))]),
        ) as Figures,
      ]),
    );
    const shown = METRICS.filter((metric) =>
      paths.some(({ name }) => figures.get(name)?.[metric] !== undefined),
    );
    printTable([
      ['median (min–max)', ...paths.map(({ title }) => title)],
      ...shown.map((metric) => [
        `${metric} [${UNITS[metric]}]`,
        ...paths.map(({ name }) => {
          const figure = figures.get(name)?.[metric];
          return figure === undefined
            ? '–'
            : `${format(figure.median)} (${format(figure.min)}–${format(figure.max)})`;
        }),
      ]),
    ]);
    for (const [name, bytes] of Object.entries(idle))
      process.stdout.write(
        `${name}: ${(bytes / 2 ** 20).toFixed(1)} MiB more for ${options.idle} idle connections\n`,
      );
    const driver = paths.some(({ name }) => name === 'native') ? 'native' : 'portable';
    const ratios = ratiosOf(figures, driver);
    process.stdout.write(`${driver} over haproxy: ${JSON.stringify(ratios)}\n`);
    const report = {
      bench: 'ingress',
      machine: about,
      wire: options.wire,
      rounds: options.rounds,
      seconds: options.seconds,
      rates: options.rates,
      flags: options.flags,
      notes,
      units: UNITS,
      ratios,
      idle: { connections: options.idle, bytes: idle },
      figures: Object.fromEntries(figures),
    };
    if (options.json !== undefined)
      writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
    if (options.svg !== undefined) {
      const title = `Ingress on ${about.processor}, ${about.cores} cores, kernel ${about.kernel}, commit ${about.commit}, ${options.wire}`;
      const panels = shown.map((metric) => ({
        title: metric,
        unit: UNITS[metric],
        bars: paths.map(({ name }) => ({ name, figure: figures.get(name)?.[metric] })),
      }));
      writeFileSync(options.svg, plotSvg(title, panels, format));
    }
    return interrupted ? 130 : 0;
  } finally {
    for (const path of paths) await path.close();
    for (const { child } of servers) child.kill('SIGKILL');
    hosts.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

process.exitCode = await main();
