import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/io/package-root.js';
import { idlePercent, measureRound, type Round, UNITS } from './overlay/measure.js';
import { bareVeth, type DataPath, kernelVxlan } from './overlay/paths.js';
import { shoalPath } from './overlay/shoal-path.js';
import type { Gro, WireMode } from './overlay/wire.js';
import { plotSvg } from './support/plot.js';
import { delay, run } from './support/run.js';
import { type Figure, figureOf } from './support/statistics.js';

const HELP = `shoal bench overlay: the overlay beside bare veth and the kernel's vxlan, in the same run

Two hosts are two network namespaces joined by a veth; an application namespace hangs on each.
Needs root, iperf3, ethtool and a C compiler (for the UDP load program).

  --json FILE       write everything as JSON, with ratios of the native driver over the kernel's vxlan
  --svg FILE        write a plot
  --rounds N        rounds on the wire (default 3); the median is quoted
  --seconds N       seconds of each measurement, whole ones of TCP (default 2)
  --paths LIST      of veth,kernel,native,native-sealed,portable (default: all)
  --wires LIST      of wire,wire-no-gro,pass-through (default: all)
                      wire          as a NIC without tunnel offload: segmentation offloads off, so one frame
                                    a datagram, and the receiving device aggregates (GRO), as NIC drivers do
                      wire-no-gro   the same without GRO, as a veth is unless told
                      pass-through  super-frames cross whole, which flatters whoever never segments
  --agent-flag F    a flag for the agents, repeatable (for example --agent-flag=--busy-poll-micros=0)
`;

type WireName = 'wire' | 'wire-no-gro' | 'pass-through';

const WIRES: Readonly<Record<WireName, { readonly mode: WireMode; readonly gro: Gro }>> = {
  wire: { mode: 'wire', gro: 'on' },
  'wire-no-gro': { mode: 'wire', gro: 'off' },
  'pass-through': { mode: 'pass-through', gro: 'off' },
};

const PATHS = ['veth', 'kernel', 'native', 'native-sealed', 'portable'] as const;
type PathName = (typeof PATHS)[number];

const METRICS = Object.keys(UNITS) as (keyof Round)[];

/** Figures that the JSON's `ratios` hold. */
const RATIOS = [
  'tcp1',
  'tcp4',
  'udp64',
  'udp1400',
  'echo64',
  'latencyP50',
  'restLatencyP50',
  'cpuPerGb',
] as const;

const SETTLE_MS = 10_000;
const REST_SECONDS = 10;

type Figures = Readonly<Partial<Record<keyof Round, Figure>>>;

interface Options {
  readonly json: string | undefined;
  readonly svg: string | undefined;
  readonly rounds: number;
  readonly seconds: number;
  readonly paths: readonly PathName[];
  readonly wires: readonly WireName[];
  readonly agentFlags: readonly string[];
}

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

function fromOne(text: string, flag: string): number {
  const value = Number(text);
  if (!(value >= 1)) refuse(`--${flag} takes a number from 1, not '${text}'`);
  return value;
}

function readOptions(): Options {
  let values: Record<string, string | boolean | string[] | undefined>;
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: 'string' },
        svg: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        seconds: { type: 'string', default: '2' },
        paths: { type: 'string', default: PATHS.join(',') },
        wires: { type: 'string', default: Object.keys(WIRES).join(',') },
        'agent-flag': { type: 'string', multiple: true, default: [] },
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
    rounds: Math.ceil(fromOne(String(values['rounds']), 'rounds')),
    seconds: fromOne(String(values['seconds']), 'seconds'),
    paths: listOf(String(values['paths']), PATHS, 'paths'),
    wires: listOf(String(values['wires']), Object.keys(WIRES) as WireName[], 'wires'),
    agentFlags: values['agent-flag'] as string[],
  };
}

/** Compiles the UDP load program into the build folder, unless it is there. */
function loadTool(): string {
  const root = packageRoot();
  const tool = join(root, 'build/udp-load');
  mkdirSync(dirname(tool), { recursive: true });
  const { status } = spawnSync('cc', ['-O2', join(root, 'bench/load/udp-load.c'), '-o', tool], {
    stdio: 'inherit',
  });
  if (status !== 0) refuse('the UDP load program needs a C compiler: install gcc');
  return tool;
}

function checkTools(): void {
  if (process.getuid?.() !== 0) refuse('network namespaces are made: run as root');
  for (const [tool, hint] of [
    ['iperf3', 'iperf3'],
    ['ethtool', 'ethtool'],
    ['ip', 'iproute2'],
    ['nsenter', 'util-linux'],
  ] as const) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).error !== undefined)
      refuse(`${tool} is missing: install ${hint}`);
  }
}

async function openPath(
  name: PathName,
  prefix: string,
  dir: string,
  flags: readonly string[],
): Promise<DataPath> {
  switch (name) {
    case 'veth':
      return bareVeth(prefix);
    case 'kernel':
      return kernelVxlan(prefix);
    case 'native':
    case 'native-sealed':
    case 'portable':
      return shoalPath(prefix, dir, name, flags);
  }
}

interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  readonly iperf3: string;
  readonly commit: string;
}

function machine(): Machine {
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
    iperf3: (run('iperf3', '--version').split('\n')[0] ?? '').trim(),
    commit: git.status === 0 ? git.stdout.trim() : 'unknown',
  };
}

const format = (value: number) => {
  if (value >= 10_000) return `${(value / 1000).toFixed(0)}k`;
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(2);
};

function printTable(
  wire: string,
  paths: readonly DataPath[],
  figures: ReadonlyMap<string, Figures>,
): void {
  process.stdout.write(`\n${wire}: median (min–max)\n`);
  const rows = METRICS.map((metric) => [
    `${metric} [${UNITS[metric]}]`,
    ...paths.map(({ name }) => {
      const figure = figures.get(name)?.[metric];
      return figure === undefined
        ? '–'
        : `${format(figure.median)} (${format(figure.min)}–${format(figure.max)})`;
    }),
  ]);
  const table = [['', ...paths.map((p) => p.title)], ...rows];
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => (row[column] ?? '').length)),
  );
  for (const row of table)
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
}

/** Of each figure the median of a path over that of another, by default the kernel's vxlan, wired as Docker does. */
function ratiosOf(
  figures: ReadonlyMap<string, Figures>,
  over: string,
  under = 'kernel',
): Record<string, number> {
  const [shoal, kernel] = [figures.get(over), figures.get(under)];
  const ratios: Record<string, number> = {};
  for (const metric of RATIOS) {
    const [mine, theirs] = [shoal?.[metric]?.median, kernel?.[metric]?.median];
    if (mine !== undefined && theirs !== undefined && theirs > 0)
      ratios[metric] = Number((mine / theirs).toFixed(3));
  }
  return ratios;
}

async function measureWire(
  wire: WireName,
  paths: readonly DataPath[],
  tool: string,
  options: Options,
): Promise<ReadonlyMap<string, Figures>> {
  const rounds = new Map<string, Round[]>(paths.map(({ name }) => [name, []]));
  for (const path of paths) path.setWire(WIRES[wire].mode, WIRES[wire].gro);
  for (let round = 0; round < options.rounds; round++) {
    // In turn within a round, so that a slow minute of the machine hits all of them.
    for (const path of paths) {
      process.stderr.write(
        `bench: ${wire}, round ${round + 1} of ${options.rounds}, ${path.title}\n`,
      );
      rounds.get(path.name)?.push(await measureRound(path, tool, options.seconds));
    }
  }
  return new Map(
    [...rounds].map(([name, samples]) => [
      name,
      Object.fromEntries(
        METRICS.map((metric) => [metric, figureOf(samples.map((s) => s[metric]))]),
      ) as Figures,
    ]),
  );
}

async function main(): Promise<number> {
  const options = readOptions();
  checkTools();
  const tool = loadTool();
  const dir = mkdtempSync(join(tmpdir(), 'shoal-bench-'));
  const prefix = `shb${process.pid}`;
  const paths: DataPath[] = [];
  let interrupted = false;
  const stop = () => {
    interrupted = true;
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    for (const name of options.paths)
      paths.push(await openPath(name, prefix, dir, options.agentFlags));
    // At rest is what comes after starting: code is compiled, members know each other.
    await delay(SETTLE_MS);
    const about = machine();
    process.stdout.write(
      `${about.processor}, ${about.cores} cores, kernel ${about.kernel}, node ${about.node}, ${about.iperf3}, commit ${about.commit}\n`,
    );
    const startedIdle = await idleOf(paths);
    const wires: Record<
      string,
      {
        figures: Record<string, Figures>;
        ratios: Record<string, number>;
        ratiosPortable: Record<string, number>;
        /** Sealed over plain, both native. */
        ratiosSealed: Record<string, number>;
      }
    > = {};
    const panels: Parameters<typeof plotSvg>[1][number][] = [];
    for (const wire of options.wires) {
      if (interrupted) break;
      const figures = await measureWire(wire, paths, tool, options);
      printTable(wire, paths, figures);
      wires[wire] = {
        figures: Object.fromEntries(figures),
        ratios: ratiosOf(figures, 'native'),
        ratiosPortable: ratiosOf(figures, 'portable'),
        ratiosSealed: ratiosOf(figures, 'native-sealed', 'native'),
      };
      for (const [who, ratios] of [
        ['native over kernel', wires[wire].ratios],
        ['portable over kernel', wires[wire].ratiosPortable],
        ['native-sealed over native', wires[wire].ratiosSealed],
      ] as const) {
        if (Object.keys(ratios).length > 0)
          process.stdout.write(`${who}: ${JSON.stringify(ratios)}\n`);
      }
      for (const metric of METRICS) {
        const bars = paths.map(({ name }) => ({ name, figure: figures.get(name)?.[metric] }));
        panels.push({ title: `${wire}: ${metric}`, unit: UNITS[metric], bars });
      }
    }
    await delay(SETTLE_MS);
    const idle = await idleOf(paths);
    for (const [name, percent] of Object.entries(idle))
      process.stdout.write(
        `agent at rest, ${name} driver: ${percent.toFixed(2)} % of a core (${startedIdle[name]?.toFixed(2)} % just after starting)\n`,
      );
    const { rounds, seconds, agentFlags } = options;
    // The wire as a NIC without tunnel offload is what the project's goals are stated for.
    const ratios = wires['wire']?.ratios ?? Object.values(wires)[0]?.ratios ?? {};
    const report = {
      bench: 'overlay',
      machine: about,
      rounds,
      seconds,
      agentFlags,
      units: UNITS,
      ratios,
      idlePercent: idle,
      idlePercentAfterStart: startedIdle,
      wires,
    };
    if (options.json !== undefined)
      writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
    if (options.svg !== undefined) {
      const title = `Overlay on ${about.processor}, ${about.cores} cores, kernel ${about.kernel}, commit ${about.commit}`;
      writeFileSync(options.svg, plotSvg(title, panels, format));
    }
    return interrupted ? 130 : 0;
  } finally {
    for (const path of paths) await path.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Of a core that an agent takes while nothing is asked of it, by path. */
async function idleOf(paths: readonly DataPath[]): Promise<Readonly<Record<string, number>>> {
  const idle: Record<string, number> = {};
  for (const { name, pids } of paths)
    if (pids.length > 0) idle[name] = await idlePercent(pids, REST_SECONDS);
  return idle;
}

process.exitCode = await main();
