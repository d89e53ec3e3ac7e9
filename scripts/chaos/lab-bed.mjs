// What the parts of `npm run chaos` on a lab have in common: commands on its nodes, and its life.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { root, setup } from '../setup.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const CONVERGED_MS_MAX = 60_000;

export function refuse(text) {
  process.stderr.write(`chaos: ${text}\n`);
  process.exit(2);
}

export function run(argv, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0], argv.slice(1), { env: { ...process.env, ...env } });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(stdout.trim());
      else reject(new Error(`${argv.join(' ')}: exit ${code}: ${stderr || stdout}`));
    });
  });
}

/** Three nodes, on which commands run. */
export class LabBed {
  #lab;

  constructor(lab) {
    this.#lab = lab;
  }

  get nodes() {
    return this.#lab.nodes;
  }

  argv(node, command) {
    return this.#lab.commandIn(node, command);
  }

  on(node, ...command) {
    return run(this.argv(node, command), this.#lab.envOf(node));
  }

  docker(...command) {
    return this.on('node1', 'docker', ...command);
  }

  /** A program of this folder's, told what to do, which says what it saw. */
  async program(node, file, wish) {
    return JSON.parse(await this.on(node, process.execPath, file, JSON.stringify(wish)));
  }

  /** The same as a program on an overlay network. */
  async attached(node, network, file, wish) {
    const shoal = [process.execPath, join(root, 'dist/main.js'), 'run', '--network', network, '--'];
    const argv = [...shoal, process.execPath, file, JSON.stringify(wish)];
    return JSON.parse(await this.on(node, ...argv));
  }

  async untilRunning(service, replicas) {
    const endMs = performance.now() + CONVERGED_MS_MAX;
    for (;;) {
      const states = await this.docker('service', 'ps', '--format', '{{.CurrentState}}', service);
      if (states.split('\n').filter((line) => line.startsWith('Running')).length === replicas)
        return;
      if (performance.now() > endMs) throw new Error(`the service does not start: ${states}`);
      await delay(200);
    }
  }
}

/** Flags of `options`, besides those that all parts have; `judge` refuses values and makes others of them. */
export function flagsOf(argv, options, judge) {
  let values;
  try {
    ({ values } = parseArgs({
      args: argv,
      options: {
        only: { type: 'string' },
        driver: { type: 'string', default: 'auto' },
        json: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        ...options,
      },
    }));
  } catch (error) {
    return refuse(error.message);
  }
  return { ...values, only: values.only?.split(','), ...judge(values) };
}

/** Refuses what is none of `known` in `--only`. */
export function refuseUnknown(only, known) {
  const unknown = only?.find((name) => !known.includes(name));
  if (unknown !== undefined) refuse(`--only takes ${known.join(', ')}, not '${unknown}'`);
}

const compiled = new Map();

/** A load program of the bench, compiled; empty where there is no compiler. */
export function loadTool(name) {
  const known = compiled.get(name);
  if (known !== undefined) return known;
  const path = join(root, 'build', name);
  mkdirSync(dirname(path), { recursive: true });
  const source = join(root, 'bench/load', `${name}.c`);
  const { status } = spawnSync('cc', ['-O2', source, '-o', path], { stdio: 'inherit' });
  const tool = status === 0 ? path : '';
  compiled.set(name, tool);
  return tool;
}

/** Requests in an open loop from node1, as `http-load.mjs` has them, until they are told to stop. */
export async function httpLoad(lab, wish) {
  const program = join(here, 'http-load.mjs');
  const argv = lab.commandIn('node1', [
    process.execPath,
    program,
    JSON.stringify({ onceTool: loadTool('http-once'), ...wish }),
  ]);
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  await new Promise((resolve) => child.stderr.once('data', resolve));
  const beganMs = performance.now();
  return {
    sinceMs: () => Math.round(performance.now() - beganMs),
    async stop() {
      const closed = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      await closed;
      return JSON.parse(stdout);
    },
  };
}

/** Runs `parts` on a lab of their own, which goes away after whatever happens. */
export async function onLab(options, keep, parts) {
  setup();
  const { Lab } = await import(pathToFileURL(join(root, 'dist/src/cli/lab/lab.js')).href);
  const parent = mkdtempSync(join(tmpdir(), 'shoal-chaos-'));
  const lab = new Lab({ dir: join(parent, 'lab') });
  let ending;
  const end = () => {
    ending ??= (async () => {
      if (keep) process.stderr.write(`chaos: kept: ${lab.dir}\n`);
      else {
        await lab.down();
        rmSync(parent, { recursive: true, force: true });
      }
    })();
    return ending;
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.once(signal, () => void end().finally(() => process.exit(130)));
  try {
    await lab.up({ nodes: 3, ...options });
    await parts(new LabBed(lab), lab);
  } finally {
    await end();
  }
}

/** Tells what came out, a line each or all as JSON, and sets the exit code. */
export class Results {
  #isJson;
  #all = [];

  constructor(isJson) {
    this.#isJson = isJson;
  }

  add(result) {
    this.#all.push(result);
    if (this.#isJson) return;
    process.stdout.write(`${result.isGood ? 'ok  ' : 'FAIL'} ${result.name}: ${result.text}\n`);
  }

  tell() {
    if (this.#isJson) process.stdout.write(`${JSON.stringify(this.#all, null, 2)}\n`);
    process.exitCode = this.#all.every(({ isGood }) => isGood) ? 0 : 1;
  }
}
