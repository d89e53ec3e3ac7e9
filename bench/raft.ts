import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/io/package-root.js';
import type { Cluster, Load } from './raft/cluster.js';
import { fillMegabytes } from './raft/cluster.js';
import { measureDisk } from './raft/disk.js';
import { EtcdCluster, type EtcdTools, etcdTools } from './raft/etcd.js';
import { ShoalCluster } from './raft/shoal.js';
import { type StoreFigures, StoreSwarm } from './raft/store.js';
import { plotSvg } from './support/plot.js';
import { delay } from './support/run.js';
import { type Figure, figureOf } from './support/statistics.js';

const HELP = `shoal bench raft: the managers' log beside etcd, in the same run and on the same disk

Three members of each, every one a process with a data folder of its own, and clients in another process.
Writes are puts of 256 bytes at the leader. Shoal's members speak mutual TLS and encrypt what they write;
etcd's do neither, which are its defaults. Without etcd, Shoal is measured alone.

  --json FILE       write everything as JSON, with ratios of Shoal over etcd
  --svg FILE        write a plot
  --rounds N        rounds of writes, in turn (default 3); the median is quoted
  --seconds N       seconds of each load (default 3)
  --clients LIST    numbers of clients (default: 1,16,64,256)
  --kills N         how often a leader of each is killed (default 5)
  --parts LIST      of writes,failover,install,store (default: all)
  --only NAME       etcd or shoal
  --dir DIR         on the disk that is meant (default: the system's temporary folder)
  --prof DIR        write a CPU profile of each of Shoal's processes there
`;

const PARTS = ['writes', 'failover', 'install', 'store'] as const;
type Part = (typeof PARTS)[number];

/** What a metric is in, and what it is called. */
const UNITS: Readonly<Record<string, string>> = {
  writes: '/s',
  p50: 'ms',
  p99: 'ms',
  failover: 'ms without acknowledged writes',
  install: 'MB/s',
  rss: 'MB',
};

const DISK_SECONDS = 1;
const SETTLE_MS = 1_000;
const WARM_CLIENTS = 64;
const WARM_SECONDS = 3;
/** After a leader is killed writes are watched until they have come back, for so long at least and at most. */
const KILL_WATCH_MS_MIN = 2_000;
const KILL_WATCH_MS_MAX = 15_000;
const KILL_LOOK_MS = 250;
/** Writes in one look that tell that they have come back. */
const BACK_WRITES_MIN = 20;

type Name = Cluster['name'];
type Samples = Record<string, number[]>;

interface Options {
  readonly json: string | undefined;
  readonly svg: string | undefined;
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: readonly number[];
  readonly kills: number;
  readonly parts: readonly Part[];
  readonly only: Name | undefined;
  readonly dir: string;
  readonly prof: string | undefined;
}

function refuse(message: string): never {
  process.stderr.write(`shoal bench: ${message}\n`);
  process.exit(2);
}

function positive(text: unknown, flag: string): number {
  const value = Number(text);
  if (!(value > 0)) refuse(`--${flag} takes a positive number, not '${text}'`);
  return value;
}

const listOf = (text: unknown) =>
  String(text)
    .split(',')
    .filter((one) => one !== '');

function readOptions(): Options {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: 'string' },
        svg: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        seconds: { type: 'string', default: '3' },
        clients: { type: 'string', default: '1,16,64,256' },
        kills: { type: 'string', default: '5' },
        parts: { type: 'string', default: PARTS.join(',') },
        only: { type: 'string' },
        dir: { type: 'string', default: tmpdir() },
        prof: { type: 'string' },
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
  const text = (flag: string) => values[flag] as string | undefined;
  const parts = listOf(values['parts']) as Part[];
  const unknown = parts.find((part) => !PARTS.includes(part));
  if (unknown !== undefined) refuse(`--parts takes ${PARTS.join(', ')}, not '${unknown}'`);
  const only = text('only');
  if (only !== undefined && only !== 'etcd' && only !== 'shoal')
    refuse(`--only takes etcd or shoal, not '${only}'`);
  return {
    json: text('json'),
    svg: text('svg'),
    rounds: Math.ceil(positive(values['rounds'], 'rounds')),
    seconds: positive(values['seconds'], 'seconds'),
    clients: listOf(values['clients']).map((one) => Math.ceil(positive(one, 'clients'))),
    kills: Math.ceil(positive(values['kills'], 'kills')),
    parts,
    only,
    dir: text('dir') ?? tmpdir(),
    prof: text('prof'),
  };
}

function versionsOf(tools: EtcdTools | undefined) {
  const options = { cwd: packageRoot(), encoding: 'utf8' } as const;
  const git = spawnSync('git', ['rev-parse', '--short', 'HEAD'], options);
  return {
    node: process.version,
    etcd: tools?.version ?? 'none',
    commit: git.status === 0 ? git.stdout.trim() : 'unknown',
  };
}

const say = (text: string) => process.stderr.write(`bench: ${text}\n`);

/** One run: clusters are opened and closed here, and samples are gathered. */
class Run {
  readonly #options: Options;
  readonly #tools: EtcdTools | undefined;
  readonly #dir: string;
  readonly #samples: Record<Name, Samples> = { etcd: {}, shoal: {} };
  interrupted = false;

  constructor(options: Options, tools: EtcdTools | undefined, dir: string) {
    this.#options = options;
    this.#tools = tools;
    this.#dir = dir;
  }

  figures(): Record<Name, Record<string, Figure>> {
    const of = (samples: Samples) =>
      Object.fromEntries(
        Object.entries(samples).flatMap(([metric, values]) => {
          const figure = figureOf(values);
          return figure === undefined ? [] : [[metric, figure]];
        }),
      ) as Record<string, Figure>;
    return { etcd: of(this.#samples.etcd), shoal: of(this.#samples.shoal) };
  }

  async writes(): Promise<void> {
    const { rounds, clients, seconds } = this.#options;
    await this.#withAll('writes', async (all) => {
      for (let round = 0; round < rounds; round++)
        // In turn, so that a slow minute of the machine hits both.
        for (const count of clients)
          for (const cluster of all) {
            if (this.interrupted) return;
            say(`round ${round + 1} of ${rounds}, ${count} clients, ${cluster.name}`);
            const cpuMs = cluster.cpuMs();
            const load = await cluster.write(count, seconds);
            this.#noteLoad(cluster.name, count, load);
            this.#note(cluster.name, `cpu${count}`, (cluster.cpuMs() - cpuMs) / 10 / seconds);
          }
      for (const cluster of all)
        for (const bytes of cluster.rssBytes()) this.#note(cluster.name, 'rss', bytes / 1e6);
    });
  }

  async failover(): Promise<void> {
    await this.#withAll('failover', async (all) => {
      for (let kill = 0; kill < this.#options.kills; kill++)
        for (const cluster of all) {
          if (this.interrupted) return;
          say(`kill ${kill + 1} of ${this.#options.kills}, ${cluster.name}`);
          this.#note(cluster.name, 'failover', await gapOfKill(cluster));
        }
    });
  }

  async install(): Promise<void> {
    for (const name of this.#names()) {
      if (this.interrupted) return;
      say(`a fresh member gets ${fillMegabytes.toFixed(0)} MB, ${name}`);
      const cluster = await this.#open(name, true);
      try {
        const { seconds, megabytesPerSecond } = await cluster.installSnapshot();
        this.#note(name, 'installSeconds', seconds);
        this.#note(name, 'install', megabytesPerSecond);
      } finally {
        await cluster.close();
      }
    }
  }

  async store(): Promise<StoreFigures> {
    const { clients, seconds, prof } = this.#options;
    const swarm = await StoreSwarm.open(join(this.#dir, 'store'), profiling(prof));
    try {
      const figures: StoreFigures = {};
      for (const count of clients) {
        if (this.interrupted) break;
        say(`the whole store, ${count} clients`);
        figures[`${count}`] = {
          leader: await swarm.write('leader', count, seconds),
          follower: await swarm.write('follower', count, seconds),
        };
      }
      return figures;
    } finally {
      if (prof !== undefined) await swarm.closeGently();
      await swarm.close();
    }
  }

  #names(): Name[] {
    const { only } = this.#options;
    if (only !== undefined) return [only];
    return this.#tools === undefined ? ['shoal'] : ['etcd', 'shoal'];
  }

  async #open(name: Name, forInstall = false): Promise<Cluster> {
    const dir = join(this.#dir, name);
    if (name === 'shoal') return ShoalCluster.open(dir, profiling(this.#options.prof));
    if (this.#tools === undefined) throw new Error('etcd is missing');
    return forInstall
      ? EtcdCluster.openForInstall(this.#tools, dir)
      : EtcdCluster.open(this.#tools, dir);
  }

  async #withAll(what: string, work: (all: readonly Cluster[]) => Promise<void>): Promise<void> {
    const all: Cluster[] = [];
    try {
      say(`${what}: starting members`);
      for (const name of this.#names()) all.push(await this.#open(name));
      // As they are after running for a while: Node has compiled what is used.
      for (const cluster of all) await cluster.write(WARM_CLIENTS, WARM_SECONDS);
      await delay(SETTLE_MS);
      await work(all);
      if (this.#options.prof !== undefined)
        for (const cluster of all) if (cluster instanceof ShoalCluster) await cluster.closeGently();
    } finally {
      for (const cluster of all) await cluster.close();
    }
  }

  #noteLoad(name: Name, count: number, load: Load): void {
    if (load.failed > 0) say(`${load.failed} writes of ${name} failed`);
    this.#note(name, `writes${count}`, load.perSecond);
    this.#note(name, `p50at${count}`, load.p50Ms);
    this.#note(name, `p99at${count}`, load.p99Ms);
  }

  #note(name: Name, metric: string, value: number): void {
    const samples = this.#samples[name];
    samples[metric] = [...(samples[metric] ?? []), value];
  }
}

async function gapOfKill(cluster: Cluster): Promise<number> {
  const watch = await cluster.watchGaps();
  try {
    await delay(SETTLE_MS);
    await watch.report();
    await delay(SETTLE_MS / 2);
    const killedMs = performance.now();
    const { restart } = await cluster.killLeader();
    let longestMs = 0;
    for (;;) {
      await delay(KILL_LOOK_MS);
      const gap = await watch.report();
      longestMs = Math.max(longestMs, gap.longestMs);
      const tookMs = performance.now() - killedMs;
      if (tookMs > KILL_WATCH_MS_MIN && gap.acked >= BACK_WRITES_MIN) break;
      if (tookMs > KILL_WATCH_MS_MAX) throw new Error(`${cluster.name} did not come back`);
    }
    await watch.stop();
    await restart();
    return longestMs;
  } finally {
    await watch.stop();
  }
}

function profiling(dir: string | undefined): string[] {
  if (dir === undefined) return [];
  return ['--cpu-prof', '--cpu-prof-interval=500', `--cpu-prof-dir=${dir}`];
}

const format = (value: number) => {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)}k`;
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(2);
};

const cellOf = (figure: Figure | undefined) =>
  figure === undefined
    ? '–'
    : `${format(figure.median)} (${format(figure.min)}–${format(figure.max)})`;

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

const unitOf = (metric: string) => {
  if (metric === 'installSeconds') return 's';
  if (metric.startsWith('cpu')) return '% of a core, members';
  return UNITS[metric.replace(/(at)?\d+$/, '')] ?? '';
};

/** Of each figure the median of Shoal over etcd's. */
function ratiosOf({ etcd, shoal }: Record<Name, Record<string, Figure>>): Record<string, number> {
  const ratios: Record<string, number> = {};
  const ratio = (name: string, mine: number | undefined, theirs: number | undefined) => {
    if (mine !== undefined && theirs !== undefined && theirs > 0)
      ratios[name] = Number((mine / theirs).toFixed(3));
  };
  for (const metric of Object.keys(shoal))
    if (metric === 'failover') {
      ratio('failoverMedian', shoal[metric]?.median, etcd[metric]?.median);
      ratio('failoverWorst', shoal[metric]?.max, etcd[metric]?.max);
    } else ratio(metric, shoal[metric]?.median, etcd[metric]?.median);
  return ratios;
}

async function main(): Promise<number> {
  const options = readOptions();
  const root = packageRoot();
  const found =
    options.only === 'shoal'
      ? undefined
      : etcdTools(join(root, 'bench/raft/etcd-load'), join(root, 'build'));
  const tools = typeof found === 'string' ? undefined : found;
  if (typeof found === 'string') {
    if (options.only === 'etcd') refuse(found);
    say(found);
  }
  if (options.prof !== undefined) mkdirSync(options.prof, { recursive: true });
  const dir = mkdtempSync(join(options.dir, 'shoal-bench-raft-'));
  const run = new Run(options, tools, dir);
  const stop = () => {
    run.interrupted = true;
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    const machine = {
      processor: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      kernel: release(),
    };
    const versions = versionsOf(tools);
    const disk = measureDisk(dir, DISK_SECONDS);
    process.stdout.write(
      `${machine.processor}, ${machine.cores} cores, kernel ${machine.kernel}, node ${versions.node}, etcd ${versions.etcd}, commit ${versions.commit}\n` +
        `disk: ${format(disk.perSecond)} writes of 4 KiB with fdatasync a second, p50 ${format(disk.p50Ms)} ms, p99 ${format(disk.p99Ms)} ms\n`,
    );
    if (options.parts.includes('writes')) await run.writes();
    if (options.parts.includes('failover') && !run.interrupted) await run.failover();
    if (options.parts.includes('install') && !run.interrupted) await run.install();
    const store =
      options.parts.includes('store') && options.only !== 'etcd' && !run.interrupted
        ? await run.store()
        : {};
    const figures = run.figures();
    const ratios = ratiosOf(figures);
    const metrics = [...new Set([...Object.keys(figures.etcd), ...Object.keys(figures.shoal)])];
    printTable([
      ['median (min–max)', 'etcd', 'shoal', 'shoal/etcd'],
      ...metrics.map((metric) => [
        `${metric} [${unitOf(metric)}]`,
        cellOf(figures.etcd[metric]),
        cellOf(figures.shoal[metric]),
        String((metric === 'failover' ? ratios['failoverMedian'] : ratios[metric]) ?? ''),
      ]),
    ]);
    if (Object.keys(store).length > 0) {
      process.stdout.write(
        '\nthe whole store of a swarm with three managers: label changes of nodes, a second\n',
      );
      printTable([
        ['clients', 'at the leader', 'p50', 'p99', 'at another manager', 'p50', 'p99'],
        ...Object.entries(store).map(([count, { leader, follower }]) => [
          count,
          ...[leader, follower].flatMap((load) => [
            format(load.perSecond),
            format(load.p50Ms),
            format(load.p99Ms),
          ]),
        ]),
      ]);
    }
    const { rounds, seconds, clients } = options;
    const report = {
      bench: 'raft',
      machine,
      versions,
      disk,
      rounds,
      seconds,
      clients,
      units: Object.fromEntries(metrics.map((metric) => [metric, unitOf(metric)])),
      figures,
      ratios,
      store,
    };
    if (options.json !== undefined)
      writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
    if (options.svg !== undefined) {
      const title = `Raft on ${machine.processor}, ${machine.cores} cores, kernel ${machine.kernel}, commit ${versions.commit}`;
      const panels = metrics.map((metric) => ({
        title: metric,
        unit: unitOf(metric),
        bars: (['etcd', 'shoal'] as const).map((name) => ({ name, figure: figures[name][metric] })),
      }));
      writeFileSync(options.svg, plotSvg(title, panels, format));
    }
    return run.interrupted ? 130 : 0;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

process.exitCode = await main();
