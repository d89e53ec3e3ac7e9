import type { Duplex } from 'node:stream';
import type {
  LogIndex,
  Member,
  RaftId,
  SnapshotMeta,
} from '../../../../src/control/raft/core/types.js';
import type { StateMachine } from '../../../../src/control/raft/io/applier.js';
import { RaftNode } from '../../../../src/control/raft/io/raft-node.js';
import type {
  RaftNodeConfig,
  RaftPurpose,
} from '../../../../src/control/raft/io/raft-node-config.js';
import { MemoryDisk, MemoryStorage } from '../../../support/memory-storage.js';
import { Pipe } from './pipe.js';

export const idOf = (n: number): RaftId => n as RaftId;

const quiet = () => {};
export const silentLog = { debug: quiet, info: quiet, warn: quiet, error: quiet };

/** Polls until `check` gives something, for at most `withinMs`. */
export async function until<T>(
  what: string,
  check: () => T | undefined | false,
  withinMs = 10_000,
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const value = check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Of the event loop. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Remembers every command, in order. */
export class ListMachine implements StateMachine {
  commands: string[] = [];
  appliedIndex: LogIndex = 0;
  restores = 0;

  apply({ index, data }: { readonly index: LogIndex; readonly data: Uint8Array }): string {
    if (index <= this.appliedIndex) throw new Error(`index ${index} is applied twice`);
    this.appliedIndex = index;
    this.commands.push(Buffer.from(data).toString());
    return `${index}`;
  }

  applied(index: LogIndex): void {
    this.appliedIndex = index;
  }

  *capture(): Iterable<Uint8Array> {
    const { commands } = this;
    const count = commands.length;
    for (let at = 0; at < count; at += 100)
      yield Buffer.from(
        commands
          .slice(at, Math.min(at + 100, count))
          .map((command) => `${command}\n`)
          .join(''),
      );
  }

  restore(data: Uint8Array, meta: SnapshotMeta): void {
    this.commands = Buffer.from(data).toString().split('\n').slice(0, -1);
    this.appliedIndex = meta.index;
    this.restores++;
  }
}

/** One member that may be down: its disk stays. */
export class Host {
  readonly id: RaftId;
  readonly disk = new MemoryDisk();
  machine = new ListMachine();
  storage: MemoryStorage | undefined;
  node: RaftNode | undefined;
  fatal: Error | undefined;
  /** Whether the process of the present node lives: a dead one reaches nobody. */
  life = { alive: false };

  constructor(id: RaftId) {
    this.id = id;
  }

  get running(): RaftNode {
    if (this.node === undefined) throw new Error(`member ${this.id} is down`);
    return this.node;
  }
}

interface Line {
  readonly from: RaftId;
  readonly to: RaftId;
  readonly purpose: RaftPurpose;
  readonly pipe: Pipe;
}

/** Members in one process over pipes in memory. */
export class Cluster {
  readonly hosts = new Map<RaftId, Host>();
  readonly #options: Partial<RaftNodeConfig>;
  #lines: Line[] = [];
  /** Pairs, as `from-to`, that cannot reach each other: packets vanish. */
  readonly #parted = new Set<string>();
  dials = 0;
  /** Nodes whose process was killed, and that do not know it. */
  readonly #ghosts: Promise<void>[] = [];
  /** Called for every new connection. */
  onLine: ((line: Line) => void) | undefined;

  constructor(options: Partial<RaftNodeConfig> = {}) {
    // Long enough for a busy machine on which all members share one thread.
    this.#options = { electionTimeoutMs: 500, heartbeatMs: 50, ...options };
  }

  /** A new group. The first member is alone for a moment, so that no election is waited for: it leads. */
  async bootstrap(...ids: number[]): Promise<void> {
    const [first = 1, ...rest] = ids;
    const founder = { id: idOf(first), voter: true, context: `host-${first}` };
    this.host(first).disk.base = { index: 0, term: 0, members: [founder] };
    const node = await this.start(first);
    await this.leader();
    await Promise.all(rest.map((id) => this.start(id)));
    for (const id of rest) await node.addVoter(idOf(id), `host-${id}`);
    await until('all know each other', () =>
      this.up.every(({ running }) => {
        const { leader, members, peers } = running.status();
        const connected = peers.filter((peer) => peer.connected).length;
        return leader === first && members.length === ids.length && connected === rest.length;
      }),
    );
  }

  host(id: number): Host {
    const known = this.hosts.get(idOf(id));
    if (known !== undefined) return known;
    const host = new Host(idOf(id));
    this.hosts.set(host.id, host);
    return host;
  }

  async start(id: number): Promise<RaftNode> {
    const host = this.host(id);
    const storage = new MemoryStorage(host.disk);
    host.storage = storage;
    host.machine = new ListMachine();
    host.fatal = undefined;
    const life = { alive: true };
    host.life = life;
    host.node = await RaftNode.open({
      id: host.id,
      storage,
      machine: host.machine,
      log: silentLog,
      dial: (member, purpose, signal) => this.#dial(host, life, member, purpose, signal),
      onFatal: (error) => {
        host.fatal = error;
      },
      ...this.#options,
    });
    return host.node;
  }

  /** As `kill -9`: nothing that was not flushed is there at the next start. */
  kill(id: number): void {
    const host = this.host(id);
    const { node } = host;
    host.storage?.crash();
    host.life.alive = false;
    host.node = undefined;
    for (const { from, to, pipe } of this.#lines)
      if (from === host.id || to === host.id) pipe.cut();
    // When it has noticed that it reaches nobody: it would try to hand over before.
    if (node !== undefined) this.#ghosts.push(turns(3).then(() => node.close()));
  }

  async close(id: number): Promise<void> {
    const host = this.host(id);
    const { node } = host;
    await node?.close();
    host.node = undefined;
  }

  /** At once, and without a word: not a test of an orderly end. */
  async closeAll(): Promise<void> {
    for (const host of this.hosts.values()) host.life.alive = false;
    for (const { pipe } of this.#lines) pipe.cut();
    // Connections end a turn later; with nobody to hand over to, a leader closes at once.
    await turns(3);
    await Promise.all(
      [...this.hosts.values()].map(async (host) => {
        host.life.alive = false;
        await host.node?.close().catch(() => {});
      }),
    );
    await Promise.allSettled(this.#ghosts);
    for (const { pipe } of this.#lines) pipe.cut();
  }

  /** Cuts the path between two members, silently, or mends it. */
  part(a: number, b: number, parted = true): void {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const key = `${from}-${to}`;
      if (parted) this.#parted.add(key);
      else this.#parted.delete(key);
      for (const pipe of this.lines(from, to)) {
        // What was lost meanwhile is lost: in real life the stream would go on much later.
        if (parted) pipe.mode = 'lost';
      }
    }
  }

  /** Open pipes that `from` has dialled to `to`. */
  lines(from: number, to: number, purpose?: RaftPurpose): Pipe[] {
    return this.#lines
      .filter((line) => line.from === from && line.to === to)
      .filter((line) => purpose === undefined || line.purpose === purpose)
      .map(({ pipe }) => pipe)
      .filter((pipe) => pipe.alive);
  }

  get up(): Host[] {
    return [...this.hosts.values()].filter(({ node }) => node !== undefined);
  }

  /** Whom a majority of those that are up takes for the leader, and who can take proposals. */
  async leader(withinMs = 10_000, except?: RaftId): Promise<Host> {
    return await until(
      'a leader',
      () =>
        this.up.find(({ id, node }) => {
          const status = node?.status();
          return id !== except && status?.role === 'leader' && status.leaderReady;
        }),
      withinMs,
    );
  }

  /** Waits until all that are up have applied the same. */
  async settled(withinMs = 10_000): Promise<void> {
    await until(
      'all members have the same state',
      () => {
        const indexes = this.up.map(({ node }) => node?.status().appliedIndex ?? -1);
        const commits = this.up.map(({ node }) => node?.status().commitIndex ?? -2);
        return new Set([...indexes, ...commits]).size === 1;
      },
      withinMs,
    );
  }

  async #dial(
    host: Host,
    life: { readonly alive: boolean },
    member: Member,
    purpose: RaftPurpose,
    signal: AbortSignal,
  ): Promise<Duplex> {
    this.dials++;
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#parted.has(`${host.id}-${member.id}`))
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new Error('cancelled'))),
      );
    const target = this.hosts.get(member.id);
    if (target?.node === undefined || !target.life.alive || !life.alive)
      throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' });
    const pipe = new Pipe();
    const line = { from: host.id, to: member.id, purpose, pipe };
    this.#lines = [...this.#lines.filter((known) => known.pipe.alive), line];
    this.onLine?.(line);
    target.node.accept(pipe.b, purpose, host.id);
    return pipe.a;
  }
}
