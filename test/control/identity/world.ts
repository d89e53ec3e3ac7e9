import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { ClusterId, NodeId, NodeRole } from '../../../src/base/swarm-model.js';
import type { Logger } from '../../../src/control/core/logger.js';
import {
  CaServer,
  type CaServerBackend,
  type CaState,
  createAuthority,
  finishRotation,
  type GivenRoot,
  initialCaState,
  issueCertificate,
  JoinAttempt,
  type Joined,
  makeIdentity,
  type NodeIdentity,
  newJoinToken,
  PeerJudge,
  rawPublicKeyOf,
  renewIdentity,
  startRotation,
  trustBundle,
} from '../../../src/control/identity/index.js';
import { connectTls } from '../../../src/control/io/connect.js';
import { ALPN_CA, ALPN_DISPATCH } from '../../../src/control/wire/protocol.js';
import { nodeId, REGISTRATION } from '../support.js';

export const DAY_MS = 86_400_000;
export const HOST = '127.0.0.1';
export const clusterId = nodeId('cluster') as unknown as ClusterId;

interface LogLine {
  readonly fields: Record<string, unknown>;
  readonly message: string;
}

/** One manager as far as identity goes: a port, a CA, and a memory in place of a store. */
export class CaWorld {
  readonly dir: string;
  state: CaState;
  readonly members = new Map<NodeId, { role: NodeRole; peerId: string }>();
  readonly removed = new Set<NodeId>();
  tokens = { worker: '', manager: '' };
  /** Of the manager only: TLS itself goes by the real clock. */
  aheadMs = 0;
  lifeMs = 90 * DAY_MS;
  readonly logged: LogLine[] = [];
  readonly seenOnCa: string[] = [];
  identity!: NodeIdentity;
  readonly ca: CaServer;
  readonly judge: PeerJudge;
  /** Whom the other protocol asks for. */
  needRole: 'manager' | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(dir: string, state: CaState, conversationMs?: number) {
    this.dir = dir;
    this.state = state;
    const log: Logger = {
      debug() {},
      info() {},
      warn: (fields, message) =>
        void this.logged.push({ fields: fields as Record<string, unknown>, message }),
      error() {},
    };
    const nowMs = () => Date.now() + this.aheadMs;
    const isRemoved = (node: NodeId) => this.removed.has(node);
    const roleOf = (node: NodeId) => this.members.get(node)?.role;
    const trust = () => trustBundle(this.state);
    this.judge = new PeerJudge({ clusterId, log, nowMs, trust, isRemoved, roleOf });
    const backend: CaServerBackend = {
      clusterId,
      log,
      nowMs,
      isRemoved,
      ca: () => this.state,
      joinTokens: () => this.tokens,
      managers: () => [this.remote],
      admit: async (role, peerId) => this.admit(role, peerId),
      member: async (node) => this.members.get(node),
      issue: (node, role, publicKey) => this.issue(node, role, publicKey),
    };
    this.ca = new CaServer(backend, conversationMs);
    this.#server = createServer({
      ALPNProtocols: [ALPN_CA, ALPN_DISPATCH],
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: false,
    });
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('secureConnection', (socket) => this.#onSecure(socket));
  }

  static async run(work: (world: CaWorld) => Promise<void>, conversationMs?: number) {
    const dir = await mkdtemp(join(tmpdir(), 'shi-'));
    const state = initialCaState(await createAuthority(Date.now()));
    const world = new CaWorld(dir, state, conversationMs);
    world.newTokens();
    const seed = randomBytes(32);
    world.identity = { seed } as unknown as NodeIdentity;
    const manager = nodeId('manager');
    await world.renewManager(manager, seed);
    world.members.set(manager, { role: 'manager', peerId: world.identity.peerId });
    await new Promise<void>((resolve) => world.#server.listen(0, HOST, resolve));
    try {
      await work(world);
    } finally {
      for (const socket of world.#sockets) socket.destroy();
      await new Promise<void>((resolve) => world.#server.close(() => resolve()));
      await rm(dir, { recursive: true, force: true });
    }
  }

  get remote() {
    return { address: HOST, port: (this.#server.address() as AddressInfo).port };
  }

  newTokens(): void {
    const { rootPem } = this.state;
    this.tokens = { worker: newJoinToken(rootPem), manager: newJoinToken(rootPem) };
  }

  admit(role: NodeRole, peerId: string): { nodeId: NodeId; role: NodeRole } {
    for (const [id, member] of this.members)
      if (member.peerId === peerId) return { nodeId: id, role: member.role };
    const id = nodeId(`n${this.members.size}`);
    this.members.set(id, { role, peerId });
    return { nodeId: id, role };
  }

  issue(node: NodeId, role: NodeRole, publicKey: Uint8Array, atMs = Date.now() + this.aheadMs) {
    const request = { nodeId: node, clusterId, role, publicKey, atMs, lifeMs: this.lifeMs };
    return issueCertificate(this.state, request);
  }

  /** The manager's own certificate; backdated, so that its clock may be ahead of TLS. */
  async renewManager(id = this.identity.nodeId, seed = this.identity.seed): Promise<void> {
    const issued = await this.issue(id, 'manager', rawPublicKeyOf(seed));
    const atMs = Date.now();
    const leaf = await issueCertificate(this.state, {
      nodeId: id,
      clusterId,
      role: 'manager',
      publicKey: rawPublicKeyOf(seed),
      atMs,
      lifeMs: this.lifeMs,
    });
    // The chain is as of the manager's clock, the leaf as of the real one.
    const [first = ''] = leaf.certPem.split(/(?<=-----END CERTIFICATE-----\n)/);
    const [, ...chain] = issued.certPem.split(/(?<=-----END CERTIFICATE-----\n)/);
    const identity = makeIdentity(seed, first + chain.join(''), issued.caPem);
    if (identity === undefined) throw new Error('no identity');
    this.identity = identity;
    this.#server.setSecureContext({
      key: identity.keyPem,
      cert: identity.certPem,
      ca: identity.caPem,
      minVersion: 'TLSv1.3',
    });
  }

  join(token = this.tokens.worker, more: { seed?: Uint8Array; signal?: AbortSignal } = {}) {
    const attempt = JoinAttempt.start({
      token,
      remotes: [this.remote],
      node: REGISTRATION,
      dataDir: join(this.dir, randomBytes(6).toString('hex')),
      log: { debug() {}, info() {}, warn() {}, error() {} },
      // An attempt ends by an answer only; none takes so long here.
      signal: AbortSignal.timeout(20_000),
      ...more,
    });
    return attempt.done;
  }

  async joined(token?: string): Promise<NodeIdentity> {
    return ((await this.join(token)) as Joined).identity;
  }

  renew(identity: NodeIdentity): Promise<NodeIdentity> {
    return renewIdentity(identity, this.remote, join(this.dir, identity.nodeId));
  }

  /** A connection of the other protocol: what the manager says of it, or why there is none. */
  async visit(identity: NodeIdentity | undefined): Promise<string> {
    const { keyPem, certPem, caPem } = identity ?? { caPem: trustBundle(this.state) };
    const keys = keyPem === undefined || certPem === undefined ? {} : { keyPem, certPem };
    let socket: TLSSocket;
    try {
      const common = { remote: this.remote, alpn: ALPN_DISPATCH, timeoutMs: 20_000 };
      socket = await connectTls({ ...common, caPem, ...keys });
    } catch (error) {
      return `no connection: ${(error as NodeJS.ErrnoException).code}`;
    }
    return new Promise((resolve, reject) => {
      socket.on('error', reject);
      socket.once('data', (chunk: Buffer) => {
        resolve(chunk.toString());
        socket.destroy();
      });
      socket.once('close', () => reject(new Error('closed without a word')));
    });
  }

  async startRotation(given?: GivenRoot): Promise<void> {
    const { forceRotate } = this.state;
    const wish = { atMs: Date.now() + this.aheadMs, forceRotate: forceRotate + 1, given };
    this.state = await startRotation(this.state, wish);
    await this.renewManager();
  }

  finishRotation(): void {
    this.state = finishRotation(this.state, Date.now() + this.aheadMs);
    this.newTokens();
  }

  #onSecure(socket: TLSSocket): void {
    if (socket.alpnProtocol === ALPN_CA) {
      socket.on('data', (chunk: Buffer) => this.seenOnCa.push(chunk.toString()));
      this.ca.serve(socket, HOST);
      return;
    }
    socket.on('error', () => {});
    const before = this.judge.stats();
    const node = this.judge.judge(socket, HOST, this.needRole);
    const after = this.judge.stats();
    const reasons = Object.keys(after) as (keyof typeof after)[];
    const reason = reasons.find((key) => after[key] !== before[key]);
    socket.end(node === undefined ? `${reason}` : `${node.role} ${node.nodeId}`);
  }
}

/** Code of a refusal that was waited for. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'no refusal';
  } catch (error) {
    return String((error as { code?: string }).code ?? error);
  }
}
