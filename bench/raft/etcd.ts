import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { delay } from '../support/run.js';
import {
  type Cluster,
  FILL_COUNT,
  FILL_VALUE_BYTES,
  fillMegabytes,
  GAP_CLIENTS,
  type Gap,
  type GapWatch,
  type Install,
  type Load,
  VALUE_BYTES,
} from './cluster.js';
import { askProgram, cpuMsOf, endOf, freePort, rssBytesOf } from './processes.js';

/** As many as Shoal's snapshots, where a state is installed; etcd's own default is 100,000. */
const INSTALL_SNAPSHOT_ENTRIES = 10_000;
const READY_MS_MAX = 30_000;
/** Where Debian keeps the sources of packaged Go libraries. */
const GO_PATH = '/usr/share/gocode';

interface MemberStatus {
  readonly endpoint: string;
  readonly id: string;
  readonly leader: boolean;
  readonly hasLeader: boolean;
  readonly applied: number;
}

interface Place {
  readonly name: string;
  readonly client: string;
  readonly peer: string;
}

export interface EtcdTools {
  readonly load: string;
  readonly version: string;
}

/**
 * The load program is compiled unless it is there.
 * @returns What is to be done first, in one sentence, where etcd cannot be measured.
 */
export function etcdTools(source: string, build: string): EtcdTools | string {
  const version = spawnSync('etcd', ['--version'], { encoding: 'utf8' });
  if (version.status !== 0)
    return 'etcd is missing, so Shoal is measured alone: apt-get install etcd-server etcd-client golang-go golang-etcd-server-dev';
  mkdirSync(build, { recursive: true });
  const load = join(build, 'etcd-load');
  const made = spawnSync('go', ['build', '-o', load, join(source, 'main.go')], {
    encoding: 'utf8',
    env: { ...process.env, GOPATH: GO_PATH, GO111MODULE: 'off' },
  });
  if (made.status !== 0)
    return `the load program of etcd cannot be compiled, so Shoal is measured alone: apt-get install golang-go golang-etcd-server-dev (${(made.error?.message ?? made.stderr).trim()})`;
  return { load, version: /Version: (\S+)/.exec(version.stdout)?.[1] ?? 'unknown' };
}

/** Three members with etcd's own defaults, without TLS, fsync on. */
export class EtcdCluster implements Cluster {
  readonly name = 'etcd';
  readonly #tools: EtcdTools;
  readonly #dir: string;
  readonly #flags: readonly string[];
  readonly #places: Place[];
  readonly #members = new Map<string, ChildProcess>();

  private constructor(tools: EtcdTools, dir: string, places: Place[], flags: readonly string[]) {
    this.#tools = tools;
    this.#dir = dir;
    this.#places = places;
    this.#flags = flags;
  }

  static async open(
    tools: EtcdTools,
    dir: string,
    flags: readonly string[] = [],
  ): Promise<EtcdCluster> {
    mkdirSync(dir, { recursive: true });
    const places: Place[] = [];
    for (let i = 1; i <= 3; i++) places.push(await newPlace(`m${i}`));
    const cluster = new EtcdCluster(tools, dir, places, flags);
    try {
      for (const place of places) cluster.#start(place, places, 'new');
      await cluster.#ready(3);
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  /** With snapshots as often as Shoal's: for the time that an install takes. */
  static openForInstall(tools: EtcdTools, dir: string): Promise<EtcdCluster> {
    return EtcdCluster.open(tools, dir, [`--snapshot-count=${INSTALL_SNAPSHOT_ENTRIES}`]);
  }

  cpuMs(): number {
    return [...this.#members.values()].reduce((sum, { pid }) => sum + cpuMsOf(pid), 0);
  }

  rssBytes(): number[] {
    return [...this.#members.values()].map(({ pid }) => rssBytesOf(pid));
  }

  async write(clients: number, seconds: number): Promise<Load> {
    const leader = await this.#leader();
    return this.#ask(
      'load',
      ...[`-endpoints=${leader.client}`, `-clients=${clients}`, `-seconds=${seconds}`],
      ...[`-conns=${Math.ceil(clients / 64)}`, `-bytes=${VALUE_BYTES}`],
    );
  }

  async watchGaps(): Promise<GapWatch> {
    const endpoints = this.#places.map(({ client }) => client).join(',');
    const args = ['gap', `-endpoints=${endpoints}`, `-clients=${GAP_CLIENTS}`];
    const child = spawn(this.#tools.load, args, { stdio: ['pipe', 'pipe', 'ignore'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return {
      report: async () => {
        child.stdin.write('\n');
        return JSON.parse((await lines.next()).value ?? '') as Gap;
      },
      stop: async () => {
        child.kill('SIGKILL');
        await endOf(child);
      },
    };
  }

  async killLeader(): Promise<{ restart(): Promise<void> }> {
    const leader = await this.#leader();
    const child = this.#members.get(leader.name);
    if (child === undefined) throw new Error(`there is no etcd member ${leader.name}`);
    child.kill('SIGKILL');
    await endOf(child);
    return {
      restart: async () => {
        this.#start(leader, this.#places, 'existing');
        await this.#ready(3);
      },
    };
  }

  async installSnapshot(): Promise<Install> {
    const leader = await this.#leader();
    await this.#ask(
      'fill',
      ...[`-endpoints=${leader.client}`, `-count=${FILL_COUNT}`, `-bytes=${FILL_VALUE_BYTES}`],
    );
    await delay(2_000);
    const statuses = await this.#statuses();
    const follower = this.#places.find((place) => place.client !== leader.client);
    const status = statuses.find(({ endpoint }) => endpoint === follower?.client);
    const goal = statuses.find(({ endpoint }) => endpoint === leader.client);
    if (follower === undefined || status === undefined || goal === undefined)
      throw new Error('an etcd member does not answer');
    const fresh = await newPlace('m4');
    const old = this.#members.get(follower.name);
    await this.#ask(
      'replace',
      ...[`-endpoints=${leader.client}`, `-remove=${status.id}`],
      ...[`-name=${fresh.name}`, `-peer=${fresh.peer}`],
    );
    old?.kill('SIGKILL');
    this.#members.delete(follower.name);
    this.#places.splice(this.#places.indexOf(follower), 1, fresh);
    const startMs = performance.now();
    this.#start(fresh, this.#places, 'existing');
    await this.#ask('caught', `-endpoints=${fresh.client}`, `-index=${goal.applied}`);
    const seconds = (performance.now() - startMs) / 1_000;
    return { seconds, megabytesPerSecond: fillMegabytes / seconds };
  }

  async close(): Promise<void> {
    for (const child of this.#members.values()) {
      child.kill('SIGKILL');
      await endOf(child);
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #ask<Answer>(verb: string, ...args: string[]): Promise<Answer> {
    return askProgram<Answer>(this.#tools.load, [verb, ...args]);
  }

  #statuses(): Promise<MemberStatus[]> {
    return this.#ask('status', `-endpoints=${this.#places.map(({ client }) => client).join(',')}`);
  }

  async #ready(count: number): Promise<void> {
    const untilMs = performance.now() + READY_MS_MAX;
    while (performance.now() < untilMs) {
      const statuses = await this.#statuses();
      if (statuses.filter(({ hasLeader }) => hasLeader).length >= count) return;
      await delay(100);
    }
    throw new Error(`etcd is not ready within ${READY_MS_MAX} ms: see ${this.#dir}/*.log`);
  }

  async #leader(): Promise<Place> {
    const untilMs = performance.now() + READY_MS_MAX;
    while (performance.now() < untilMs) {
      const leader = (await this.#statuses()).find((status) => status.leader);
      const place = this.#places.find(({ client }) => client === leader?.endpoint);
      if (place !== undefined) return place;
      await delay(50);
    }
    throw new Error('etcd has no leader');
  }

  #start(place: Place, all: readonly Place[], state: 'new' | 'existing'): void {
    const log = openSync(join(this.#dir, `${place.name}.log`), 'a');
    const args = [
      `--name=${place.name}`,
      `--data-dir=${join(this.#dir, place.name)}`,
      `--listen-client-urls=http://${place.client}`,
      `--advertise-client-urls=http://${place.client}`,
      `--listen-peer-urls=${place.peer}`,
      `--initial-advertise-peer-urls=${place.peer}`,
      `--initial-cluster=${all.map(({ name, peer }) => `${name}=${peer}`).join(',')}`,
      `--initial-cluster-state=${state}`,
      '--logger=zap',
      ...this.#flags,
    ];
    const child = spawn('etcd', args, {
      stdio: ['ignore', log, log],
      env: { PATH: process.env['PATH'] },
    });
    closeSync(log);
    this.#members.set(place.name, child);
  }
}

async function newPlace(name: string): Promise<Place> {
  const [client, peer] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')];
  return { name, client: `127.0.0.1:${client}`, peer: `http://127.0.0.1:${peer}` };
}
