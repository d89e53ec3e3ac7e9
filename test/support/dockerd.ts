import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Why no engine can be raised here; `undefined`: it can. */
export function whyNoDockerd(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  for (const program of ['dockerd', 'containerd', 'docker', 'busybox'])
    if (spawnSync('which', [program]).status !== 0) return `needs ${program}`;
  return undefined;
}

export const TEST_IMAGE = 'shoal-test/busybox:1';

/**
 * A real engine of a test's own: with a folder, a socket, a network namespace and a mount namespace
 * of its own, and one image, made of busybox. It leaves nothing behind.
 */
export class Dockerd {
  readonly dir: string;
  readonly socket: string;
  readonly cgroup: string;
  #child: ChildProcess | undefined;

  private constructor() {
    // In memory: an engine flushes much to disks that a test does not need.
    this.dir = mkdtempSync('/dev/shm/shoal-dockerd-');
    this.socket = join(this.dir, 'docker.sock');
    this.cgroup = `/shoal-dockerd-${process.pid}`;
  }

  static async raise(): Promise<Dockerd> {
    const engine = new Dockerd();
    mkdirSync(join(engine.dir, 'etc'));
    await engine.start();
    engine.docker('import', '-c', 'CMD ["sleep","1000000"]', engine.#rootfs(), TEST_IMAGE);
    return engine;
  }

  async start(): Promise<void> {
    const script = `
      set -e
      ip link set lo up
      mkdir -p ${this.dir}/cg; mount --rbind /sys/fs/cgroup ${this.dir}/cg
      mount -t sysfs sysfs /sys; mount --rbind ${this.dir}/cg /sys/fs/cgroup
      mkdir -p /etc/docker; mount --bind ${this.dir}/etc /etc/docker
      exec dockerd --data-root ${this.dir}/data --exec-root ${this.dir}/exec \\
        --pidfile ${this.dir}/pid -H unix://${this.socket} --cgroup-parent ${this.cgroup}`;
    rmSync(join(this.dir, 'pid'), { force: true });
    const log = join(this.dir, 'log');
    this.#child = spawn(
      'unshare',
      ['-n', '-m', '-u', '--propagation', 'private', 'bash', '-c', `(${script}) >>${log} 2>&1`],
      { stdio: 'ignore', detached: true },
    );
    for (let tries = 0; tries < 150; tries++) {
      if (spawnSync('docker', ['-H', `unix://${this.socket}`, 'version']).status === 0) return;
      await delay(200);
    }
    throw new Error(`dockerd did not start: ${readFileSync(log, 'utf8').slice(-2_000)}`);
  }

  docker(...args: string[]): string {
    return execFileSync('docker', ['-H', `unix://${this.socket}`, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    }).trim();
  }

  /** The files of `TEST_IMAGE`, as a tar. */
  get imageTar(): Uint8Array {
    return readFileSync(join(this.dir, 'rootfs.tar'));
  }

  get pid(): number {
    return Number(readFileSync(join(this.dir, 'pid'), 'utf8'));
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    const ended = once(child, 'exit');
    process.kill(this.pid, 'SIGTERM');
    await ended;
  }

  /** Ends it and all that it has, and takes its folder away. */
  async remove(): Promise<void> {
    const ids = this.docker('ps', '-aq').split('\n').filter(Boolean);
    if (ids.length > 0) this.docker('rm', '-fv', ...ids);
    await this.stop();
    for (const folder of ['systemd', 'unified', ...CONTROLLERS]) {
      const path = join('/sys/fs/cgroup', folder, this.cgroup);
      if (existsSync(path))
        spawnSync('find', [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    }
    for (let tries = 0; tries < 50; tries++) {
      try {
        rmSync(this.dir, { recursive: true, force: true });
        return;
      } catch {
        await delay(100);
      }
    }
  }

  #rootfs(): string {
    const root = join(this.dir, 'rootfs');
    for (const folder of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root'])
      mkdirSync(join(root, folder), { recursive: true });
    const busybox = execFileSync('which', ['busybox'], { encoding: 'utf8' }).trim();
    cpSync(busybox, join(root, 'bin/busybox'));
    const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n');
    for (const applet of applets)
      if (applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet));
    writeFileSync(
      join(root, 'etc/passwd'),
      'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n',
    );
    writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnobody:x:65534:\n');
    const tar = join(this.dir, 'rootfs.tar');
    execFileSync('tar', ['-C', root, '-cf', tar, '.']);
    return tar;
  }
}

const CONTROLLERS = [
  'cpu',
  'cpuacct',
  'cpuset',
  'memory',
  'devices',
  'freezer',
  'blkio',
  'pids',
  'hugetlb',
  'perf_event',
  'net_cls',
  'net_prio',
];
