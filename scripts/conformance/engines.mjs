// Real container engines for the nodes of a lab: each in its node's network, with a folder of its own and one image of busybox.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export const IMAGE = 'shoal-test/busybox:1';
const START_MS = 60_000;
const CONTROLLERS = [
  ...['cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids', 'hugetlb'],
  ...['perf_event', 'net_cls', 'net_prio', 'systemd', 'unified', ''],
];

/** Why there can be none here; `undefined`: there can. */
export function whyNoEngines() {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = ['dockerd', 'containerd', 'docker', 'busybox'].find(
    (program) => spawnSync('which', [program]).status !== 0,
  );
  return missing && `needs ${missing}`;
}

function must(program, ...args) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
}

/** A root file system with nothing but busybox, as a tar file. */
export function makeRootfs(dir) {
  const root = join(dir, 'rootfs');
  for (const folder of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root'])
    mkdirSync(join(root, folder), { recursive: true });
  const busybox = must('which', 'busybox').trim();
  must('cp', busybox, join(root, 'bin/busybox'));
  for (const applet of must(busybox, '--list').trim().split('\n'))
    if (applet !== 'busybox') spawnSync('ln', ['-sf', 'busybox', join(root, 'bin', applet)]);
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  const tar = join(dir, 'rootfs.tar');
  must('tar', '-C', root, '-cf', tar, '.');
  return tar;
}

/** One engine; `start` begins it, and returns when it answers and has its image. */
export class LabEngine {
  constructor(dir, name, namespace) {
    this.dir = dir;
    this.name = name;
    this.namespace = namespace;
    this.socket = join(dir, 'docker.sock');
  }

  async start(rootfs) {
    const { dir } = this;
    mkdirSync(join(dir, 'etc'), { recursive: true });
    const script = `
      set -e
      mkdir -p ${dir}/cg; mount --rbind /sys/fs/cgroup ${dir}/cg
      mount -t sysfs sysfs /sys; mount --rbind ${dir}/cg /sys/fs/cgroup
      mount -t tmpfs tmpfs /run; mkdir -p /run/lock /etc/docker; mount --bind ${dir}/etc /etc/docker
      exec dockerd --data-root ${dir}/data --exec-root ${dir}/exec --pidfile ${dir}/pid \\
        -H unix://${this.socket} --cgroup-parent /${this.name}`;
    const isolated = ['unshare', '-m', '-u', '--propagation', 'private'];
    const argv = [`--net=/run/netns/${this.namespace}`, '--', ...isolated, 'bash', '-c'];
    this.child = spawn('nsenter', [...argv, `(${script}) >>${dir}/log 2>&1`], {
      stdio: 'ignore',
      detached: true,
    });
    const end = Date.now() + START_MS;
    while (spawnSync('docker', ['-H', `unix://${this.socket}`, 'version']).status !== 0) {
      if (Date.now() > end) throw new Error(readFileSync(`${dir}/log`, 'utf8').slice(-2_000));
      await delay(100);
    }
    const command = ['import', '-c', 'CMD ["sleep","1000000"]', rootfs, IMAGE];
    must('docker', '-H', `unix://${this.socket}`, ...command);
  }

  /** Ends it and all that it has. */
  async remove() {
    const host = ['-H', `unix://${this.socket}`];
    const { stdout = '' } = spawnSync('docker', [...host, 'ps', '-aq'], { encoding: 'utf8' });
    const ids = stdout.split('\n').filter((id) => id !== '');
    if (ids.length > 0) spawnSync('docker', [...host, 'rm', '-fv', ...ids]);
    if (existsSync(join(this.dir, 'pid')) && this.child?.exitCode === null) {
      const ended = once(this.child, 'exit');
      process.kill(Number(readFileSync(join(this.dir, 'pid'), 'utf8')), 'SIGTERM');
      await ended;
    }
    for (const controller of CONTROLLERS) {
      const path = join('/sys/fs/cgroup', controller, this.name);
      if (existsSync(path))
        spawnSync('find', [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    }
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
  }
}
