import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { SwarmError } from '../../../src/base/swarm-error.js';
import type { AttachmentId, NodeId } from '../../../src/base/swarm-model.js';
import { Dispatcher, Session, type SessionConfig } from '../../../src/control/dispatch/index.js';
import {
  type Authority,
  createAuthority,
  issueNodeCertificate,
  makeIdentity,
  type NodeIdentity,
  rawPublicKeyOf,
  readPeerCertificate,
} from '../../../src/control/identity/index.js';
import { newId } from '../../../src/control/io/ids.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { decide } from '../../../src/control/store/core/decide.js';
import { type Change, ONLY_ROW, State } from '../../../src/control/store/core/state.js';
import type { ControlAddress } from '../../../src/control/wire/model.js';
import type { TaskReport } from '../../../src/control/wire/task-model.js';
import { CLUSTER_SPEC, clusterCreate, node, nodeId, REGISTRATION, silent } from '../support.js';

export const HOST = '127.0.0.1';

export async function until(what: string, holds: () => boolean, timeoutMs = 8_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    if (Date.now() > endMs)
      throw new Error(`in ${timeoutMs} ms it did not come to pass that ${what}`);
    await sleep(5);
  }
}

/** Commands in their order, which every manager applies when it is its turn. */
export class Log {
  readonly #committed = new State();
  readonly #entries: CommandBody[] = [];
  readonly managers: TestManager[] = [];
  /** False: nothing can be committed. */
  quorum = true;

  get state(): State {
    return this.#committed;
  }

  entry(index: number): CommandBody | undefined {
    return this.#entries[index];
  }

  get length(): number {
    return this.#entries.length;
  }

  /** @throws SwarmError the store's, or that nothing can be decided. */
  commit(command: CommandBody): string {
    if (!this.quorum)
      throw new SwarmError({ code: 'SWARM_NO_QUORUM' }, 'too few managers are online');
    const { changes, id } = decide(this.#committed, { ...command, atMs: 1 });
    this.#committed.commit(changes);
    this.#entries.push(command);
    for (const manager of this.managers) manager.apply();
    return id;
  }
}

/** A manager in the eyes of agents: a port, a dispatcher, and a copy of the state. */
export class TestManager {
  readonly id: NodeId;
  readonly state = new State();
  readonly dispatcher: Dispatcher;
  readonly #log: Log;
  readonly #server: Server;
  readonly #sockets = new Set<TLSSocket>();
  #applied = 0;
  /** What agents said of their tasks, message by message. */
  readonly reports: { readonly from: NodeId; readonly reports: readonly TaskReport[] }[] = [];
  /** It hears nothing of the others. */
  cut = false;

  constructor(id: NodeId, log: Log, identity: NodeIdentity) {
    this.id = id;
    this.#log = log;
    log.managers.push(this);
    this.apply();
    this.dispatcher = this.#makeDispatcher();
    const { keyPem, certPem, caPem } = identity;
    this.#server = createServer({
      key: keyPem,
      cert: certPem,
      ca: caPem,
      ALPNProtocols: ['shoal-dispatch/1'],
      minVersion: 'TLSv1.3',
      requestCert: true,
    });
    this.#server.on('secureConnection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      const peer = readPeerCertificate(socket, caPem);
      if (peer === undefined) socket.destroy();
      else this.dispatcher.accept(socket, peer.nodeId, HOST, peer);
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, HOST, resolve));
    const { address, port } = this.remote;
    this.#log.commit({
      kind: 'node_observe',
      nodeId: this.id,
      observation: { manager: { raftId: 1, address: `${address}:${port}` } },
    });
  }

  get remote(): ControlAddress {
    const { port } = this.#server.address() as { port: number };
    return { address: HOST, port };
  }

  apply(): void {
    if (this.cut) return;
    const all: Change[] = [];
    for (; this.#applied < this.#log.length; this.#applied++) {
      const command = this.#log.entry(this.#applied) as CommandBody;
      const { changes } = decide(this.state, { ...command, atMs: 1 });
      this.state.commit(changes);
      all.push(...changes);
    }
    if (all.length > 0) this.dispatcher?.changed(all);
  }

  async propose(command: CommandBody): Promise<string> {
    await sleep(1);
    if (this.cut || !this.#log.quorum) await sleep(100);
    if (this.cut) throw new SwarmError({ code: 'SWARM_NO_QUORUM' }, 'cut off');
    return this.#log.commit(command);
  }

  /** With a goodbye, or as a process that is killed. */
  async close(kind: 'goodbye' | 'kill' = 'goodbye'): Promise<void> {
    if (kind === 'kill') for (const socket of this.#sockets) socket.destroy();
    this.dispatcher.close();
    const index = this.#log.managers.indexOf(this);
    if (index >= 0) this.#log.managers.splice(index, 1);
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #makeDispatcher(): Dispatcher {
    const { state } = this;
    const observe = async (nodeId: NodeId, more: object, ifSession?: number) => {
      await this.propose({
        kind: 'node_observe',
        nodeId,
        observation: more,
        ...(ifSession !== undefined && { ifSession }),
      });
    };
    const row = (id: AttachmentId) => {
      const attachment = state.row('attachment', id);
      if (attachment === undefined) throw new Error('no such attachment');
      return attachment;
    };
    return new Dispatcher({
      log: silent,
      self: this.id,
      source: () => ({
        version: state.version,
        cluster: state.row('cluster', ONLY_ROW) as never,
        gossipKeys: [],
        networks: state.rows('network'),
        nodes: state.rows('node'),
        services: state.rows('service'),
      }),
      own: (id) => ({
        attachments: [...state.attachmentsOf(id)].map(row),
        tasks: [...state.tasksOnNode(id)].flatMap((task) => state.row('task', task) ?? []),
        service: (service) => state.row('service', service),
        secret: (secret) => state.row('secret', secret),
        config: (config) => state.row('config', config),
      }),
      node: (id) => state.row('node', id),
      isRemoved: (id) => state.row('removed', id) !== undefined,
      current: async () => {
        await sleep(1);
        if (this.cut || !this.#log.quorum) throw new Error('no leader');
      },
      stale: () => this.cut || !this.#log.quorum,
      register: (id, { description }, _remote, session) =>
        observe(id, {
          description: { ...node(id).description, ...description },
          ...(session && { session, state: 'ready', stateMessage: '' }),
        }),
      attach: async (id, request) =>
        row(
          (await this.propose({
            kind: 'attachment_create',
            id: newId<AttachmentId>(),
            nodeId: id,
            request,
          })) as AttachmentId,
        ),
      detach: async (id, attachment) => {
        await this.propose({ kind: 'attachment_remove', id: attachment, nodeId: id });
      },
      report: async (id, reports) => {
        this.reports.push({ from: id, reports });
        await this.propose({ kind: 'task_status', nodeId: id, reports });
      },
      leave: async (id) => {
        await this.propose({ kind: 'node_leave', nodeId: id });
      },
      setState: (id, nodeState, stateMessage, ifSession) =>
        observe(id, { state: nodeState, stateMessage }, ifSession),
    });
  }
}

/** Some managers and the agents that look for them; all gone at the end. */
export class Cluster {
  readonly log = new Log();
  readonly managers: TestManager[] = [];
  readonly #dir: string;
  readonly #authority: Authority;
  readonly #sessions: Session[] = [];

  private constructor(dir: string, authority: Authority) {
    this.#dir = dir;
    this.#authority = authority;
  }

  static async run(
    managerCount: number,
    work: (cluster: Cluster) => Promise<void>,
    heartbeatMs = 5_000,
  ): Promise<void> {
    const dir = await mkdtemp(join(tmpdir(), 'shd-'));
    const cluster = new Cluster(dir, await createAuthority(Date.now()));
    try {
      const create = clusterCreate();
      if (create.kind !== 'cluster_create') throw new Error('not a cluster');
      const spec = { ...CLUSTER_SPEC, dispatcherHeartbeatMs: heartbeatMs };
      cluster.log.commit({ ...create, cluster: { ...create.cluster, spec } });
      for (let n = 0; n < managerCount; n++) {
        const id = nodeId(`m${n}`);
        cluster.log.commit({ kind: 'node_create', node: node(id, 'manager') });
        await cluster.start(id);
      }
      await work(cluster);
    } finally {
      for (const session of cluster.#sessions) await session.close();
      for (const manager of cluster.managers) await manager.close();
      await rm(dir, { recursive: true, force: true });
    }
  }

  async start(id: NodeId): Promise<TestManager> {
    const manager = new TestManager(id, this.log, await this.#identity(id, 'manager'));
    this.managers.push(manager);
    await manager.listen();
    return manager;
  }

  async stop(manager: TestManager, kind: 'goodbye' | 'kill' = 'goodbye'): Promise<void> {
    this.managers.splice(this.managers.indexOf(manager), 1);
    await manager.close(kind);
  }

  join(id: NodeId): void {
    this.log.commit({ kind: 'node_create', node: { ...node(id), state: 'unknown' } });
  }

  /** An agent; a second one of the same id finds what the first left on disk. */
  async agent(id: NodeId, more: Partial<SessionConfig> = {}): Promise<Session> {
    const identity = await this.#identity(id, 'worker');
    const session = await Session.open({
      dataDir: join(this.#dir, id),
      nodeId: id,
      managers: this.managers.map(({ remote }) => remote),
      log: silent,
      registration: () => REGISTRATION,
      credentials: async () => identity,
      ...more,
    });
    this.#sessions.push(session);
    return session;
  }

  managerOf(session: Session): TestManager {
    const { remote } = session;
    const manager = this.managers.find((one) => one.remote.port === remote?.port);
    if (manager === undefined) throw new Error('no manager serves the agent');
    return manager;
  }

  async #identity(id: NodeId, role: 'manager' | 'worker'): Promise<NodeIdentity> {
    const seed = randomBytes(32);
    const certPem = await issueNodeCertificate(this.#authority, {
      nodeId: id,
      clusterId: nodeId('c') as never,
      role,
      publicKey: rawPublicKeyOf(seed),
      atMs: Date.now(),
      lifeMs: 86_400_000,
    });
    const identity = makeIdentity(seed, certPem, this.#authority.caPem);
    if (identity === undefined) throw new Error('no identity');
    return identity;
  }
}
