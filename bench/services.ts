import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { dockerMissing, openDocker } from './services/docker.js';
import { isRoot, openShoal } from './services/shoal.js';
import {
  type BenchSwarm,
  createService,
  removeService,
  runningCount,
  scaleService,
  untilTasks,
  updateService,
} from './services/swarm.js';
import { delay } from './support/run.js';
import { type Figure, figureOf } from './support/statistics.js';

const HELP = `shoal bench services: services of a swarm beside a real Docker Swarm, in the same run

Three nodes of each, as namespaces of this machine; tasks only sleep. Shoal runs them with the host
runtime, Docker as containers of a busybox image. Without docker.io Shoal is measured alone.

  --json FILE    write everything as JSON, with ratios of Shoal over Docker
  --rounds N     rounds, in turn (default 3); the median is quoted
  --parts LIST   of create,scale,update,lost,many,memory (default: all)
  --tasks N      of the part 'many', which only Shoal does (default 1000)
  --only NAME    docker or shoal
`;

const PARTS = ['create', 'scale', 'update', 'lost', 'many', 'memory'] as const;
type Part = (typeof PARTS)[number];
type Name = BenchSwarm['name'];
type Samples = Record<string, number[]>;

interface Options {
  readonly json: string | undefined;
  readonly rounds: number;
  readonly parts: readonly Part[];
  readonly tasks: number;
  readonly only: Name | undefined;
}

function refuse(message: string): never {
  process.stderr.write(`shoal bench: ${message}\n`);
  process.exit(2);
}

function positive(text: unknown, flag: string): number {
  const value = Number(text);
  if (!(value > 0)) refuse(`--${flag} takes a positive number, not '${text}'`);
  return Math.ceil(value);
}

function readOptions(): Options {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        parts: { type: 'string', default: PARTS.join(',') },
        tasks: { type: 'string', default: '1000' },
        only: { type: 'string' },
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
  const parts = String(values['parts']).split(',') as Part[];
  const unknown = parts.find((part) => !PARTS.includes(part));
  if (unknown !== undefined) refuse(`--parts takes ${PARTS.join(', ')}, not '${unknown}'`);
  const only = values['only'] as string | undefined;
  if (only !== undefined && only !== 'docker' && only !== 'shoal')
    refuse(`--only takes docker or shoal, not '${only}'`);
  return {
    json: values['json'] as string | undefined,
    rounds: positive(values['rounds'], 'rounds'),
    parts,
    tasks: positive(values['tasks'], 'tasks'),
    only,
  };
}

const say = (text: string) => process.stderr.write(`bench: ${text}\n`);
const SETTLE_MS = 3_000;

/** From the call until so many run, in seconds; the service stays. */
async function create(swarm: BenchSwarm, replicas: number): Promise<{ id: string; s: number }> {
  const fromMs = performance.now();
  const id = await createService(swarm, `bench-${Math.round(fromMs)}`, replicas);
  await untilTasks(swarm.client, id, 'create', (tasks) => runningCount(tasks) === replicas);
  return { id, s: (performance.now() - fromMs) / 1000 };
}

type Note = (metric: string, value: number) => void;

async function createAndScale(swarm: BenchSwarm, parts: readonly Part[], note: Note) {
  const { id, s } = await create(swarm, 3);
  if (parts.includes('create')) note('create3', s);
  if (parts.includes('scale')) {
    for (const [metric, replicas] of [
      ['scale3to30', 30],
      ['scale30to3', 3],
    ] as const) {
      const fromMs = performance.now();
      await scaleService(swarm.client, id, replicas);
      await untilTasks(
        swarm.client,
        id,
        metric,
        (tasks) =>
          runningCount(tasks) === replicas &&
          tasks.filter(({ Status }) => Status.State === 'running').length === replicas,
      );
      note(metric, (performance.now() - fromMs) / 1000);
    }
  }
  await removeService(swarm.client, id);
}

async function update(swarm: BenchSwarm, note: Note): Promise<void> {
  const { id } = await create(swarm, 6);
  note('update6', (await updateService(swarm, id)) / 1000);
  await removeService(swarm.client, id);
}

/** Last of all, since the node does not come back. */
async function lost(swarm: BenchSwarm, note: Note): Promise<void> {
  const { id } = await create(swarm, 6);
  const gone = swarm.nodes[2];
  const fromMs = performance.now();
  await swarm.kill(2);
  await untilTasks(swarm.client, id, 'tasks of the lost node run elsewhere', (tasks) => {
    const elsewhere = tasks.filter(({ NodeID }) => NodeID !== gone);
    return runningCount(elsewhere) === 6;
  });
  note('nodeLost', (performance.now() - fromMs) / 1000);
}

/** How long the swarm takes to place so many tasks, which then fit nowhere: none is started. */
async function many(swarm: BenchSwarm, count: number, note: Note): Promise<void> {
  const fromMs = performance.now();
  const id = await createService(swarm, 'bench-many', count, {
    constraints: ['node.labels.nowhere==true'],
  });
  await untilTasks(
    swarm.client,
    id,
    'many tasks are judged',
    (tasks) => tasks.length === count && tasks.every(({ Status }) => Status.State === 'pending'),
  );
  note('manyPending', (performance.now() - fromMs) / 1000);
  await removeService(swarm.client, id);
}

async function measure(swarms: readonly BenchSwarm[], options: Options) {
  const samples: Record<Name, Samples> = { docker: {}, shoal: {} };
  const noteOf =
    (name: Name): Note =>
    (metric, value) => {
      samples[name][metric] = [...(samples[name][metric] ?? []), value];
    };
  const { parts, rounds } = options;
  await delay(SETTLE_MS);
  if (parts.includes('memory'))
    for (const swarm of swarms) {
      noteOf(swarm.name)('rssManager', swarm.rssBytes(0) / 2 ** 20);
      noteOf(swarm.name)('rssWorker', swarm.rssBytes(1) / 2 ** 20);
    }
  for (let round = 1; round <= rounds; round += 1)
    for (const swarm of swarms) {
      say(`round ${round} of ${rounds}, ${swarm.name}`);
      if (parts.includes('create') || parts.includes('scale'))
        await createAndScale(swarm, parts, noteOf(swarm.name));
      if (parts.includes('update')) await update(swarm, noteOf(swarm.name));
    }
  for (const swarm of swarms) {
    if (parts.includes('many') && swarm.name === 'shoal')
      await many(swarm, options.tasks, noteOf(swarm.name));
    if (!parts.includes('lost')) continue;
    say(`a node is lost, ${swarm.name}`);
    await lost(swarm, noteOf(swarm.name));
  }
  return samples;
}

const cell = (figure: Figure | undefined) =>
  figure === undefined
    ? '–'
    : `${figure.median.toFixed(2)} (${figure.min.toFixed(2)}–${figure.max.toFixed(2)})`;

async function main(): Promise<number> {
  const options = readOptions();
  if (!isRoot()) refuse('namespaces need root');
  const missing = dockerMissing();
  if (missing !== undefined && options.only === 'docker') refuse(missing);
  if (missing !== undefined) say(`${missing}: Shoal alone`);
  const dir = mkdtempSync(join(tmpdir(), 'shoal-bench-services-'));
  const prefix = `sb${process.pid % 10_000}`;
  const swarms: BenchSwarm[] = [];
  const close = async () => {
    for (const swarm of swarms) await swarm.close();
    rmSync(dir, { recursive: true, force: true });
  };
  const onSignal = () => void close().finally(() => process.exit(130));
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    if (options.only !== 'shoal' && missing === undefined) {
      say('three engines are started');
      swarms.push(await openDocker(prefix, dir));
    }
    if (options.only !== 'docker') {
      say('three agents are started');
      swarms.push(await openShoal(prefix, dir));
    }
    const samples = await measure(swarms, options);
    const figures = Object.fromEntries(
      Object.entries(samples).map(([name, metrics]) => [
        name,
        Object.fromEntries(
          Object.entries(metrics).map(([metric, values]) => [metric, figureOf(values)]),
        ),
      ]),
    );
    const metrics = [...new Set(Object.values(samples).flatMap((one) => Object.keys(one)))];
    const ratios: Record<string, number> = {};
    for (const metric of metrics) {
      const docker = figures['docker']?.[metric]?.median;
      const shoal = figures['shoal']?.[metric]?.median;
      if (docker !== undefined && shoal !== undefined)
        ratios[metric] = Number((shoal / docker).toFixed(3));
    }
    process.stdout.write(
      `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores, kernel ${release()}, node ${process.version}\n`,
    );
    for (const metric of metrics) {
      const unit = metric.startsWith('rss') ? 'MiB' : 's';
      process.stdout.write(
        `${`${metric} [${unit}]`.padEnd(20)} docker ${cell(figures['docker']?.[metric]).padEnd(26)} shoal ${cell(figures['shoal']?.[metric]).padEnd(26)} ${ratios[metric] ?? ''}\n`,
      );
    }
    if (options.json !== undefined)
      writeFileSync(options.json, JSON.stringify({ figures, ratios }, null, 2));
    return 0;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    await close();
  }
}

process.exit(await main());
