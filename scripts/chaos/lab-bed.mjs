// What the parts of `npm run chaos` on a lab have in common: commands on its nodes, and its life.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { root, setup } from '../setup.mjs';

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
