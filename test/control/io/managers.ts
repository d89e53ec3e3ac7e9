import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { ClusterSpec, NetworkObject, NodeId } from '../../../src/base/swarm-model.js';
import {
  type ControlAddress,
  createManager,
  JoinAttempt,
  joinManagers,
  type Logger,
  loadedBy,
  loadIdentity,
  type Manager,
  ManagerSession,
  type NodeIdentity,
  openManager,
  openVault,
  savedBy,
} from '../../../src/control/index.js';
import { REGISTRATION } from '../support.js';

export const HOST = '127.0.0.1';

/** Polls until it holds, or fails with what was waited for. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  timeoutMs = 8_000,
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > endMs)
      throw new Error(`in ${timeoutMs} ms it did not come to pass that ${what}`);
    await pause(10);
  }
}

/** What was refused with, or nothing. */
/** Without the ingress network, which every swarm has from its beginning. */
export function overlaysOf(manager: Manager): NetworkObject[] {
  return manager.networks().filter(({ spec }) => !spec.ingress);
}

export function refusalOf(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

export interface LogLine {
  readonly level: string;
  readonly line: string;
}

/** A host with a manager, as the agent would run it: the manager, and its node's own session. */
export class Seat {
  readonly world: World;
  readonly dataDir: string;
  identity: NodeIdentity;
  #manager: Manager | undefined;
  #session: ManagerSession | undefined;
  #port = 0;
  /** How often it was told that its manager is one no more. */
  ended = 0;

  constructor(world: World, dataDir: string, identity: NodeIdentity) {
    this.world = world;
    this.dataDir = dataDir;
    this.identity = identity;
  }

  get id(): NodeId {
    return this.identity.nodeId;
  }

  get manager(): Manager {
    if (this.#manager === undefined) throw new Error('this manager does not run');
    return this.#manager;
  }

  get runs(): boolean {
    return this.#manager !== undefined;
  }

  get leads(): boolean {
    const status = this.#manager?.stats().raft;
    return status?.role === 'leader' && status.leaderReady;
  }

  get remote(): ControlAddress {
    return { address: HOST, port: this.#port };
  }

  get session(): ManagerSession {
    if (this.#session === undefined) throw new Error('this node has no session');
    return this.#session;
  }

  take(manager: Manager): void {
    this.#manager = manager;
    this.#port = manager.port;
    manager.onEnd(() => this.ended++);
  }

  /** The session of the manager's own node, by which its certificate is renewed. */
  async openSession(): Promise<ManagerSession> {
    const session = await ManagerSession.open({
      identity: this.identity,
      managers: this.world.remotes(),
      registration: () => REGISTRATION,
      dataDir: this.dataDir,
      log: this.world.log,
      localManager: () => (this.#manager === undefined ? undefined : this.remote),
      saveOptions: () => savedBy(this.#manager?.group.vault),
    });
    session.onIdentity((identity) => {
      this.identity = identity;
      this.#manager?.useIdentity(identity);
    });
    this.#session = session;
    return session;
  }

  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
    await this.closeManager();
  }

  async closeManager(): Promise<void> {
    const manager = this.#manager;
    this.#manager = undefined;
    await manager?.close();
  }

  /** As after a restart of the process: everything is read from the disk. */
  async reopen(unlockKey?: string, port = this.#port): Promise<void> {
    const vault = await openVault(this.dataDir);
    if (unlockKey !== undefined) vault.unlock(unlockKey);
    const identity = await loadIdentity(this.dataDir, loadedBy(vault));
    if (identity === undefined || 'locked' in identity) throw new Error('the identity is locked');
    const opened = await openManager({
      ...this.world.place(this.dataDir, port),
      identity,
      vault,
      unlockKey,
    });
    this.identity = opened.identity;
    this.take(opened.manager);
  }
}

export interface WorldOptions {
  readonly managers?: number;
  readonly spec?: Partial<ClusterSpec>;
}

/** Managers and workers in one process, on loopback and real disks; all gone at the end. */
export class World {
  readonly dir: string;
  readonly lines: LogLine[] = [];
  readonly seats: Seat[] = [];
  readonly fatals: Error[] = [];
  readonly #open: { close(): Promise<void> }[] = [];
  /** How far the managers' clocks are ahead. */
  aheadMs = 0;
  #nodes = 0;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async run(
    { managers = 1, spec = {} }: WorldOptions,
    work: (world: World) => Promise<void>,
  ): Promise<void> {
    const dir = await mkdtemp(join(tmpdir(), 'shm-'));
    const world = new World(dir);
    try {
      const dataDir = join(dir, 'manager-0');
      const created = await createManager({
        ...world.place(dataDir),
        clusterSpec: spec,
        node: REGISTRATION,
      });
      world.#seat(dataDir, created.identity, created.manager);
      for (let i = 1; i < managers; i++) await world.joinAsManager();
      await work(world);
      if (world.fatals[0] !== undefined) throw world.fatals[0];
    } finally {
      await Promise.all(world.#open.map((one) => one.close()));
      await Promise.all(world.seats.map((seat) => seat.close()));
      await rm(dir, { recursive: true, force: true });
    }
  }

  readonly log: Logger = {
    debug: () => {},
    info: (...line) => this.#note('info', line),
    warn: (...line) => this.#note('warn', line),
    error: (...line) => this.#note('error', line),
  };

  #note(level: string, line: readonly unknown[]): void {
    const text = JSON.stringify(line, (_key, value: unknown) =>
      value instanceof Error ? `${value.name}: ${value.message}` : value,
    );
    this.lines.push({ level, line: text });
  }

  place(dataDir: string, port = 0) {
    return {
      dataDir,
      listen: { address: HOST, port },
      advertise: { address: HOST, port },
      log: this.log,
      onFatal: (error: Error) => this.fatals.push(error),
      now: () => Date.now() + this.aheadMs,
    };
  }

  /** The first of the seats. */
  get first(): Seat {
    return this.seatAt(0);
  }

  seatAt(i: number): Seat {
    const seat = this.seats[i];
    if (seat === undefined) throw new Error(`there is no manager ${i}`);
    return seat;
  }

  /** Of the first seat. */
  get manager(): Manager {
    return this.first.manager;
  }

  get running(): Seat[] {
    return this.seats.filter((seat) => seat.runs);
  }

  remotes(): ControlAddress[] {
    return this.running.map((seat) => seat.remote);
  }

  get leader(): Seat {
    const leader = this.running.find((seat) => seat.leads);
    if (leader === undefined) throw new Error('nobody leads');
    return leader;
  }

  get followers(): Seat[] {
    return this.running.filter((seat) => !seat.leads);
  }

  /** A leader is there, and all running managers know it. */
  settled(): Promise<void> {
    return until('all managers know who leads', () => {
      const leaders = new Set(this.running.map((seat) => seat.manager.stats().raft.leader));
      const [leader] = leaders;
      return leaders.size === 1 && leader !== 0 && this.running.some((seat) => seat.leads);
    });
  }

  folder(kind: string): string {
    return join(this.dir, `${kind}-${++this.#nodes}`);
  }

  join(token: string, more: object = {}): JoinAttempt {
    return JoinAttempt.start({
      token,
      remotes: this.remotes(),
      node: { ...REGISTRATION, description: { ...REGISTRATION.description, hostname: 'worker' } },
      dataDir: this.folder('node'),
      log: this.log,
      ...more,
    });
  }

  /** Another manager, from its token to its copy of the state. */
  async joinAsManager(): Promise<Seat> {
    const dataDir = this.folder('manager');
    const [seat] = this.running;
    const token = seat?.manager.cluster().joinTokens.manager ?? '';
    const { identity } = await this.join(token, { dataDir }).within(5_000);
    return this.#seat(dataDir, identity, await this.becomeManager(dataDir, identity));
  }

  /** What an agent does whose certificate is a manager's. */
  becomeManager(dataDir: string, identity: NodeIdentity, port = 0): Promise<Manager> {
    return joinManagers({
      ...this.place(dataDir, port),
      identity,
      remotes: this.remotes(),
      signal: AbortSignal.timeout(8_000),
    });
  }

  #seat(dataDir: string, identity: NodeIdentity, manager: Manager): Seat {
    const seat = new Seat(this, dataDir, identity);
    seat.take(manager);
    this.seats.push(seat);
    return seat;
  }

  async worker(): Promise<{ identity: NodeIdentity; session: ManagerSession; dataDir: string }> {
    const dataDir = this.folder('worker');
    const [seat] = this.running;
    const token = seat?.manager.cluster().joinTokens.worker ?? '';
    const { identity, managers } = await this.join(token, { dataDir }).within(5_000);
    const session = await this.session(identity, dataDir, managers);
    await session.firstAssignments(5_000);
    return { identity, session, dataDir };
  }

  async session(
    identity: NodeIdentity,
    dataDir: string,
    managers: readonly ControlAddress[] = this.remotes(),
  ): Promise<ManagerSession> {
    const session = await ManagerSession.open({
      identity,
      managers,
      registration: () => REGISTRATION,
      dataDir,
      log: this.log,
    });
    this.#open.push(session);
    return session;
  }

  /** Log lines that say this. */
  said(pattern: RegExp): LogLine[] {
    return this.lines.filter(({ line }) => pattern.test(line));
  }
}

/** All files below a folder, with their contents. */
export async function filesBelow(
  folder: string,
): Promise<{ readonly path: string; readonly bytes: Buffer }[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const read = await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const path = join(parentPath, name);
      // A file that was renamed or removed meanwhile is no more.
      return { path, bytes: await readFile(path).catch(() => undefined) };
    }),
  );
  return read.flatMap(({ path, bytes }) => (bytes === undefined ? [] : [{ path, bytes }]));
}
