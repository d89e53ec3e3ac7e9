// `npm run sim [-- SEEDS]`: the simulated worlds and scenarios of gossip, over many seeds.
// `npm run sim -- raft --seeds N [--from N] [--nodes 3|5|7]`: N lives of a group of managers (of each
// size, unless one is named), by two processes. `npm run sim -- raft --seed N --nodes 3 --trace`: one, told in full.
// `npm run sim -- cluster --seeds N [--from N]`: N lives of a whole cluster with its services;
// `npm run sim -- cluster --seed N --trace`: one, told in full.
import { fork, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { root, setup } from './setup.mjs';

const PROCESSES = 2;
const PROGRESS_MS = 5_000;

function refuse(text) {
  process.stderr.write(`sim: ${text}\n`);
  process.exit(2);
}

const numberOf = (name, text) =>
  /^[1-9]\d*$/.test(text)
    ? Number(text)
    : refuse(`the ${name} is a whole number from 1, not '${text}'`);

function gossip(seeds) {
  const files = [
    'test/sim/swim.test.ts',
    'test/sim/records-convergence.test.ts',
    'test/sim/acknowledgements.test.ts',
    'test/gossip/core/scenarios.test.ts',
  ];
  const tap = join(root, 'node_modules/tap/dist/esm/run.mjs');
  const child = spawn(process.execPath, [tap, '--reporter=terse', '--timeout=0', ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, SIM_SEEDS: seeds, FUZZ_FACTOR: String(Math.ceil(Number(seeds) / 12)) },
  });
  child.on('exit', (code) => process.exit(code ?? 1));
}

const FOLDERS = [
  'src/base',
  'src/control/raft/core',
  'src/control/raft/wire',
  'test/support',
  'test/sim/raft',
];
const built = join(root, 'dist', 'sim');

/** The simulation is test code, so the build leaves it out: translated here, and run as plain JavaScript. */
async function translate() {
  const { default: ts } = await import('typescript');
  const compilerOptions = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext };
  for (const folder of FOLDERS) {
    for (const name of readdirSync(join(root, folder))) {
      if (!/\.ts$/.test(name) || /\.test\.ts$/.test(name)) continue;
      const text = readFileSync(join(root, folder, name), 'utf8');
      const output = join(built, folder, name.replace(/\.ts$/, '.js'));
      mkdirSync(dirname(output), { recursive: true });
      writeFileSync(output, ts.transpileModule(text, { compilerOptions }).outputText);
    }
  }
}

/** As `translate`, but only what these files import, and they themselves. */
async function translateFrom(...entries) {
  const { default: ts } = await import('typescript');
  const compilerOptions = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext };
  const pending = entries.map((path) => join(root, path));
  const seen = new Set(pending);
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const { outputText } = ts.transpileModule(readFileSync(path, 'utf8'), { compilerOptions });
    for (const [, specifier] of outputText.matchAll(/from '(\.[^']+)'/g)) {
      const imported = join(dirname(path), specifier.replace(/\.js$/, '.ts'));
      if (seen.has(imported)) continue;
      seen.add(imported);
      pending.push(imported);
    }
    const output = join(built, relative(root, path).replace(/\.ts$/, '.js'));
    mkdirSync(dirname(output), { recursive: true });
    writeFileSync(output, outputText);
  }
}

async function loadCluster() {
  const at = (path) => import(pathToFileURL(join(built, path)).href);
  const { runSeed } = await at('test/sim/cluster/run.js');
  const { Orchestrator } = await at('src/control/orchestrate/core/orchestrator.js');
  return (seed, trace) => runSeed(seed, { orchestrator: Orchestrator, ...(trace && { trace }) });
}

/** In a process of its own: every `step`th seed from `from` to `to`. */
async function workCluster({ from, to, step }) {
  const run = await loadCluster();
  for (let seed = from; seed <= to; seed += step) {
    const result = run(seed);
    process.send({ ...result, faults: [...result.faults] });
    await new Promise((resolve) => setImmediate(resolve));
  }
  process.disconnect();
}

async function cluster(args) {
  const { values } = parseArgs({
    args,
    options: {
      seeds: { type: 'string', default: '1000' },
      from: { type: 'string', default: '1' },
      seed: { type: 'string' },
      trace: { type: 'boolean', default: false },
    },
  });
  setup({ native: false, typescript: false });
  await translateFrom('test/sim/cluster/run.ts', 'src/control/orchestrate/core/orchestrator.ts');
  if (values.seed !== undefined) {
    const run = await loadCluster();
    const write = (line) => process.stdout.write(`${line}\n`);
    const result = run(numberOf('seed', values.seed), values.trace ? write : undefined);
    write(JSON.stringify({ ...result, faults: Object.fromEntries(result.faults) }));
    process.exit(result.failure === undefined ? 0 : 1);
  }
  const from = numberOf('first seed', values.from);
  const to = from + numberOf('number of seeds', values.seeds) - 1;
  const startMs = Date.now();
  const sums = { runs: 0, failed: 0, commits: 0, leaders: 0, restarts: 0, replacements: 0 };
  const faults = new Map();
  const children = Array.from({ length: PROCESSES }, (_, i) => {
    const task = { from: from + i, to, step: PROCESSES };
    const child = fork(fileURLToPath(import.meta.url), ['cluster-worker', JSON.stringify(task)]);
    child.on('message', (result) => {
      sums.runs += 1;
      for (const name of ['commits', 'leaders', 'restarts', 'replacements'])
        sums[name] += result[name];
      addTo(faults, result.faults);
      if (result.failure === undefined) return;
      sums.failed += 1;
      process.stdout.write(
        `FAIL seed ${result.seed}: ${result.failure}\n` +
          `     npm run sim -- cluster --seed ${result.seed} --trace\n`,
      );
    });
    return new Promise((resolve) => child.on('exit', resolve));
  });
  const codes = await Promise.all(children);
  const seconds = ((Date.now() - startMs) / 1000).toFixed(1);
  const told = Object.entries(sums).map(([name, sum]) => `${sum} ${name}`);
  process.stdout.write(`${told.join(', ')} in ${seconds} s\nfaults: ${listOf(faults)}\n`);
  process.exit(sums.failed > 0 || codes.some((code) => code !== 0) ? 1 : 0);
}

async function load() {
  const at = (path) => import(pathToFileURL(join(built, path)).href);
  const { runSeed } = await at('test/sim/raft/run.js');
  const { Raft } = await at('src/control/raft/core/raft.js');
  return (seed, nodes, trace) => runSeed(seed, nodes, { raft: Raft, ...(trace && { trace }) });
}

/** In a process of its own: every `step`th seed from `from` to `to`. */
async function work({ from, to, step, sizes }) {
  const run = await load();
  for (let seed = from; seed <= to; seed += step) {
    for (const nodes of sizes) {
      const result = run(seed, nodes);
      process.send({ ...result, faults: [...result.faults], sights: [...result.sights] });
      // Lets messages go out, which nothing else here does.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  process.disconnect();
}

function addTo(sums, counts) {
  for (const [name, count] of counts) sums.set(name, (sums.get(name) ?? 0) + count);
}

const listOf = (counts) =>
  [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');

class Tally {
  #startMs = Date.now();
  #shownMs = Date.now();
  runs = 0;
  failed = 0;
  undecided = 0;
  #sums = { messages: 0, entries: 0, elections: 0, acknowledged: 0, unknown: 0 };
  #faults = new Map();
  #sights = new Map();

  add(result) {
    this.runs += 1;
    if (result.isUndecided) this.undecided += 1;
    for (const name of Object.keys(this.#sums)) this.#sums[name] += result[name];
    addTo(this.#faults, result.faults);
    addTo(this.#sights, result.sights);
    if (result.failure !== undefined) {
      this.failed += 1;
      const { seed, nodeCount, failure } = result;
      process.stdout.write(
        `FAIL seed ${seed} of ${nodeCount} nodes: ${failure}\n` +
          `     npm run sim -- raft --seed ${seed} --nodes ${nodeCount} --trace\n`,
      );
    }
    if (Date.now() - this.#shownMs > PROGRESS_MS) this.show();
  }

  show() {
    this.#shownMs = Date.now();
    const seconds = (Date.now() - this.#startMs) / 1000;
    const sums = Object.entries(this.#sums).map(([name, sum]) => `${sum} ${name}`);
    process.stdout.write(
      `${this.runs} runs in ${seconds.toFixed(1)} s (${(this.runs / seconds).toFixed(1)}/s), ` +
        `${this.failed} failed, ${this.undecided} undecided: ${sums.join(', ')}\n`,
    );
  }

  showSights() {
    process.stdout.write(`faults: ${listOf(this.#faults)}\nsights: ${listOf(this.#sights)}\n`);
  }
}

async function campaign(from, count, sizes) {
  const tally = new Tally();
  const children = Array.from({ length: PROCESSES }, (_, i) => {
    const task = { from: from + i, to: from + count - 1, step: PROCESSES, sizes };
    const child = fork(fileURLToPath(import.meta.url), ['raft-worker', JSON.stringify(task)]);
    child.on('message', (result) => tally.add(result));
    return new Promise((resolve) => child.on('exit', resolve));
  });
  const codes = await Promise.all(children);
  tally.show();
  tally.showSights();
  process.exit(tally.failed > 0 || codes.some((code) => code !== 0) ? 1 : 0);
}

async function replay(seed, sizes, isTraced) {
  const run = await load();
  let failed = 0;
  for (const nodes of sizes) {
    const lines = [];
    const result = run(seed, nodes, isTraced ? (line) => lines.push(line) : undefined);
    if (isTraced) process.stdout.write(`${lines.join('\n')}\n`);
    const { failure, faults, sights, ...rest } = result;
    process.stdout.write(
      `${JSON.stringify(rest)}\nfaults: ${listOf(faults)}\nsights: ${listOf(sights)}\n` +
        `seed ${seed} of ${nodes} nodes: ${failure ?? 'nothing is wrong'}\n`,
    );
    if (failure !== undefined) failed += 1;
  }
  process.exitCode = failed > 0 ? 1 : 0;
}

async function raft(args) {
  const { values } = parseArgs({
    args,
    options: {
      seeds: { type: 'string', default: '100' },
      from: { type: 'string', default: '1' },
      nodes: { type: 'string' },
      seed: { type: 'string' },
      trace: { type: 'boolean', default: false },
    },
  });
  if (values.nodes !== undefined && !/^[1-9]$/.test(values.nodes)) refuse('the nodes are 1 to 9');
  const sizes = values.nodes === undefined ? [3, 5, 7] : [Number(values.nodes)];
  setup({ native: false, typescript: false });
  await translate();
  if (values.seed !== undefined) await replay(numberOf('seed', values.seed), sizes, values.trace);
  else
    await campaign(
      numberOf('first seed', values.from),
      numberOf('number of seeds', values.seeds),
      sizes,
    );
}

const [what = '100', ...rest] = process.argv.slice(2);
if (what === 'raft-worker') await work(JSON.parse(rest[0]));
else if (what === 'raft') await raft(rest);
else if (what === 'cluster-worker') await workCluster(JSON.parse(rest[0]));
else if (what === 'cluster') await cluster(rest);
else {
  numberOf('number of seeds', what);
  setup();
  gossip(what);
}
