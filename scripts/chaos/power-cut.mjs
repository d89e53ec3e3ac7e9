// Copies of managers' disks, taken while they write: each must open.
import { fork } from 'node:child_process';
import { copyFile, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { root } from '../setup.mjs';
import { ask } from './api.mjs';

const CHECK_MS_MAX = 60_000;

/** Copies file by file, whatever changes meanwhile; what is gone when it would be its turn is left out. */
async function copyFolder(from, to, order = (names) => names) {
  await mkdir(to, { recursive: true, mode: 0o700 });
  for (const name of order(await readdir(from))) {
    const path = join(from, name);
    try {
      if ((await stat(path)).isDirectory()) await copyFolder(path, join(to, name));
      else await copyFile(path, join(to, name));
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
}

export class PowerCuts {
  #lab;
  #dir;
  #random;
  taken = 0;
  violations = [];
  entries = 0;
  slowestMs = 0;

  constructor({ lab, dir, random }) {
    this.#lab = lab;
    this.#dir = dir;
    this.#random = random;
  }

  async run(stop) {
    while (!stop.aborted) {
      await delay(700 + this.#random() * 600);
      const node = this.#lab.nodes[Math.floor(this.#random() * this.#lab.nodes.length)];
      await this.#cut(node);
    }
  }

  async #cut(node) {
    const copy = join(this.#dir, `copy-${this.taken}`);
    this.taken += 1;
    const before = await ask(node.socket, 'GET', '/shoal/v1/status', { timeoutMs: 1_000 });
    const raft = before.value?.raft;
    // The log before the snapshots: a log may begin where an older one ended, but not after.
    await copyFolder(node.dataDir, copy, (names) =>
      names.filter((name) => name === 'identity' || name === 'control'),
    );
    const result = await check(copy);
    // A follower acknowledges what is on its disk, and applies what a quorum acknowledged.
    const least = raft?.role === 'follower' ? raft.appliedIndex : 0;
    if (result.error !== undefined) this.violations.push(`${node.name}: ${result.error} (${copy})`);
    else if (result.lastIndex < least)
      this.violations.push(`${node.name}: ends at ${result.lastIndex}, and ${least} was applied`);
    else await rm(copy, { recursive: true, force: true });
    this.entries += result.entries ?? 0;
    this.slowestMs = Math.max(this.slowestMs, result.ms ?? 0);
  }
}

/** In a process of its own, as after a restart. */
function check(copy) {
  return new Promise((resolve) => {
    const child = fork(fileURLToPath(import.meta.url), [copy], { stdio: ['ignore', 2, 2, 'ipc'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), CHECK_MS_MAX);
    let result = { error: 'the checker ended without a word' };
    child.on('message', (message) => {
      result = message;
    });
    child.on('exit', () => {
      clearTimeout(timer);
      resolve(result);
    });
  });
}

async function open(copy) {
  const at = (path) => import(pathToFileURL(join(root, 'dist/src/control', path)).href);
  const { openVault } = await at('index.js');
  const { openRaftStorage } = await at('raft/index.js');
  const { inspectSnapshot } = await at('store/index.js');
  const beganMs = performance.now();
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const keys = await openVault(copy);
  const storage = await openRaftStorage({ dir: join(copy, 'control'), keys, log });
  const { restart } = storage;
  const reader = await storage.openSnapshot();
  if (reader !== undefined) {
    inspectSnapshot(await reader.read(0, reader.sizeBytes));
    await reader.close();
  }
  const lastIndex = restart.entries.at(-1)?.index ?? restart.snapshot.index;
  await storage.close();
  return { lastIndex, entries: restart.entries.length, ms: performance.now() - beganMs };
}

const [, self, copy] = process.argv;
if (self === fileURLToPath(import.meta.url))
  open(copy).then(
    (result) => process.send(result),
    (error) => process.send({ error: `${error.code ?? error.name}: ${error.message}` }),
  );
