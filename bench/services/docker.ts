import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { AgentClient } from '../../src/cli/agent-client.js';
import { delay, run, tryRun } from '../support/run.js';
import { rssOf } from './memory.js';
import type { BenchSwarm } from './swarm.js';

const NODES = 3;
const NETWORK = '10.213.77';
const START_MS = 30_000;
const STOP_MS = 15_000;
const IMAGE = 'shoal-bench/busybox';

/** Debian's engine and a busybox to run in it. Says what is missing, if something is. */
export function dockerMissing(): string | undefined {
  const has = (program: string) =>
    spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0;
  if (!has('dockerd')) return 'dockerd is not there (apt-get install docker.io)';
  if (!existsSync('/bin/busybox')) return 'busybox is not there (apt-get install busybox-static)';
  return undefined;
}

/**
 * Three engines in namespaces of their own, as hosts: a private /run, so that each has its own containerd, and
 * the cgroups of the machine under a parent of their own.
 */
export async function openDocker(prefix: string, dir: string): Promise<BenchSwarm> {
  const engines: Engine[] = [];
  const bridge = `${prefix}dbr`;
  const close = async () => {
    await Promise.all(engines.map((engine) => engine.stop()));
    for (const engine of engines) engine.removeTraces();
    tryRun('ip', 'netns', 'del', bridge);
  };
  try {
    const rootfs = makeRootfs(join(dir, 'rootfs'));
    run('ip', 'netns', 'add', bridge);
    run('ip', '-n', bridge, 'link', 'set', 'lo', 'up');
    run('ip', '-n', bridge, 'link', 'add', 'br0', 'type', 'bridge');
    run('ip', '-n', bridge, 'link', 'set', 'br0', 'up');
    for (let at = 0; at < NODES; at += 1) {
      const engine = new Engine(`${prefix}d${at + 1}`, join(dir, `docker${at + 1}`), at);
      engines.push(engine);
      engine.wire(bridge);
      await engine.start();
      for (const tag of ['1', '2']) engine.docker('import', rootfs, `${IMAGE}:${tag}`);
    }
    const [first, ...others] = engines;
    if (first === undefined) throw new Error('there is a first engine');
    first.docker('swarm', 'init', '--advertise-addr', first.address);
    const token = first.docker('swarm', 'join-token', '-q', 'worker').trim();
    for (const engine of others)
      engine.docker('swarm', 'join', '--token', token, `${first.address}:2377`);
    const client = new AgentClient(first.socket);
    return {
      name: 'docker',
      client,
      task: { image: `${IMAGE}:1`, args: ['sleep', '1000000'] },
      updated: { image: `${IMAGE}:2`, args: ['sleep', '1000000'] },
      nodes: engines.map((engine) => engine.docker('info', '-f', '{{.Swarm.NodeID}}').trim()),
      kill: async (node) => engines[node]?.kill(),
      rssBytes: (node) => rssOf(engines[node]?.daemonPids() ?? []),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function makeRootfs(dir: string): string {
  mkdirSync(join(dir, 'bin'), { recursive: true });
  run('cp', '/bin/busybox', join(dir, 'bin/busybox'));
  for (const name of ['sh', 'sleep', 'true']) run('ln', '-sf', 'busybox', join(dir, 'bin', name));
  const tar = `${dir}.tar`;
  run('tar', '-C', dir, '-cf', tar, '.');
  return tar;
}

/** What runs in the new mount namespace, before it becomes dockerd. */
const HOST_SCRIPT = `
name=$1 dir=$2
hostname "$name"
mkdir -p "$dir/cg" && mount --rbind /sys/fs/cgroup "$dir/cg"
mount -t sysfs sysfs /sys
mount --rbind "$dir/cg" /sys/fs/cgroup
mount -t tmpfs tmpfs /run && mkdir -p /run/lock
mkdir -p "$dir/etc-docker" /etc/docker && mount --bind "$dir/etc-docker" /etc/docker
exec dockerd --data-root "$dir/data" --exec-root /run/docker --pidfile "$dir/docker.pid" \\
  -H "unix://$dir/docker.sock" --cgroup-parent "/$name"
`;

class Engine {
  readonly socket: string;
  readonly address: string;
  readonly #name: string;
  readonly #dir: string;
  #child: ChildProcess | undefined;

  constructor(name: string, dir: string, at: number) {
    this.#name = name;
    this.#dir = dir;
    this.socket = join(dir, 'docker.sock');
    this.address = `${NETWORK}.${11 + at}`;
  }

  wire(bridge: string): void {
    const port = `p${this.#name}`.slice(0, 15);
    run('ip', 'netns', 'add', this.#name);
    run('ip', '-n', this.#name, 'link', 'set', 'lo', 'up');
    run(
      'ip',
      '-n',
      bridge,
      'link',
      'add',
      port,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      this.#name,
    );
    run('ip', '-n', bridge, 'link', 'set', port, 'master', 'br0', 'up');
    run('ip', '-n', this.#name, 'addr', 'add', `${this.address}/24`, 'dev', 'eth0');
    run('ip', '-n', this.#name, 'link', 'set', 'eth0', 'up');
  }

  async start(): Promise<void> {
    mkdirSync(this.#dir, { recursive: true });
    const netns = `--net=/run/netns/${this.#name}`;
    const unshare = ['unshare', '-m', '-u', '--propagation', 'private', '--'];
    const script = ['/bin/sh', '-ec', HOST_SCRIPT, 'host', this.#name, this.#dir];
    this.#child = spawn('nsenter', [netns, '--', ...unshare, ...script], {
      stdio: 'ignore',
      detached: true,
      // Else every task first asks a registry that nobody can reach.
      env: { ...process.env, DOCKER_SERVICE_PREFER_OFFLINE_IMAGE: '1' },
    });
    const until = Date.now() + START_MS;
    while (!this.#answers()) {
      if (Date.now() > until) throw new Error(`${this.#name} did not start`);
      await delay(100);
    }
  }

  #answers(): boolean {
    return existsSync(this.socket) && tryRun('docker', '-H', `unix://${this.socket}`, 'version');
  }

  docker(...args: string[]): string {
    return run('docker', '-H', `unix://${this.socket}`, ...args);
  }

  /** Everything in the engine's namespaces: those in its network, and what descends from them. */
  #pids(): readonly number[] {
    const netns = inode(`/run/netns/${this.#name}`);
    if (netns === undefined) return [];
    const all = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
    const own = new Set(all.filter((pid) => inode(`/proc/${pid}/ns/net`) === netns));
    for (let before = -1; before !== own.size; ) {
      before = own.size;
      for (const pid of all) if (own.has(parentOf(pid))) own.add(pid);
    }
    return [...own];
  }

  daemonPids(): readonly number[] {
    return this.#pids().filter((pid) => /^(dockerd|containerd)$/.test(nameOf(pid)));
  }

  kill(): void {
    for (const pid of this.#pids()) tryKill(pid);
  }

  async stop(): Promise<void> {
    const pid = this.#child?.pid;
    if (pid !== undefined) {
      tryKill(pid, 'SIGTERM');
      for (const until = Date.now() + STOP_MS; Date.now() < until && this.#pids().length > 0; )
        await delay(100);
    }
    this.kill();
  }

  removeTraces(): void {
    tryRun('ip', 'netns', 'del', this.#name);
    for (const folder of existsSync('/sys/fs/cgroup') ? readdirSync('/sys/fs/cgroup') : [])
      tryRun(
        'find',
        `/sys/fs/cgroup/${folder}/${this.#name}`,
        '-depth',
        '-type',
        'd',
        '-exec',
        'rmdir',
        '{}',
        ';',
      );
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

function inode(path: string): number | undefined {
  try {
    return statSync(path).ino;
  } catch {
    return undefined;
  }
}

function parentOf(pid: number): number {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

function tryKill(pid: number, signal: NodeJS.Signals = 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}
