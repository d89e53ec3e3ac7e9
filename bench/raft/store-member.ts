import { randomBytes } from 'node:crypto';
import type { NodeId } from '../../src/base/swarm-model.js';
import {
  type ControlAddress,
  createManager,
  JoinAttempt,
  joinManagers,
  type Manager,
  type NodeRegistration,
} from '../../src/control/index.js';
import { newId } from '../../src/control/io/ids.js';
import { type Load, VALUE_BYTES } from './cluster.js';
import { answer } from './processes.js';

export type StoreQuestion =
  | { readonly kind: 'create'; readonly dir: string; readonly at: ControlAddress }
  | {
      readonly kind: 'join';
      readonly dir: string;
      readonly at: ControlAddress;
      readonly token: string;
      readonly remote: ControlAddress;
    }
  | { readonly kind: 'leads' }
  | {
      readonly kind: 'load';
      readonly clients: number;
      readonly seconds: number;
      readonly warmSeconds: number;
    }
  | { readonly kind: 'close' };

const log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: (fields: object, message: string) =>
    process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
};

function onFatal(error: Error): void {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
}

function registration(address: string): NodeRegistration {
  return {
    description: {
      hostname: 'bench',
      os: 'linux',
      architecture: 'x86_64',
      nanoCpus: 2e9,
      memoryBytes: 2 ** 31,
      engineVersion: '0',
      engineLabels: {},
      plugins: [],
    },
    availability: 'active',
    address,
    dataPathAddress: '',
    gossipAddress: '',
    gossipPort: 7946,
  };
}

async function create(dir: string, at: ControlAddress): Promise<Manager> {
  const { manager } = await createManager({
    dataDir: dir,
    listen: at,
    advertise: at,
    node: registration(at.address),
    log,
    onFatal,
  });
  return manager;
}

async function join({
  dir,
  at,
  token,
  remote,
}: Extract<StoreQuestion, { kind: 'join' }>): Promise<Manager> {
  const remotes = [remote];
  const node = registration(at.address);
  const { identity } = await JoinAttempt.start({ token, remotes, node, dataDir: dir, log }).done;
  const signal = AbortSignal.timeout(30_000);
  return joinManagers({
    dataDir: dir,
    listen: at,
    advertise: at,
    log,
    onFatal,
    identity,
    remotes,
    signal,
  });
}

/** A node of the swarm that a client changes the label of; it runs nowhere. */
async function newNode(manager: Manager, address: string): Promise<NodeId> {
  const { description, ...rest } = registration(address);
  const id = newId<NodeId>();
  await manager.scope.propose({
    kind: 'node_create',
    node: {
      ...rest,
      id,
      spec: { name: '', labels: {}, role: 'worker', availability: 'active' },
      description: {
        ...description,
        trustRootPem: '',
        certIssuerSubject: '',
        certIssuerPublicKey: '',
      },
      state: 'ready',
      stateMessage: '',
      peerId: id,
    },
  });
  return id;
}

const nodes: NodeId[] = [];

async function load(
  manager: Manager,
  { clients, seconds, warmSeconds }: Extract<StoreQuestion, { kind: 'load' }>,
): Promise<Load> {
  while (nodes.length < clients) nodes.push(await newNode(manager, '127.0.0.1'));
  const beginMs = performance.now() + warmSeconds * 1_000;
  const endMs = beginMs + seconds * 1_000;
  const label = randomBytes((VALUE_BYTES * 3) / 4).toString('base64url');
  const tookMs: number[] = [];
  let failed = 0;
  const client = async (id: NodeId) => {
    for (let nowMs = performance.now(), n = 0; nowMs < endMs; n++) {
      const node = manager.group.replica.state.row('node', id);
      if (node === undefined) throw new Error(`the node ${id} is gone`);
      try {
        const labels = { label: `${n}${label}` };
        await manager.updateNode(id, node.version, { ...node.spec, labels });
        const afterMs = performance.now();
        if (nowMs >= beginMs && afterMs <= endMs) tookMs.push(afterMs - nowMs);
        nowMs = afterMs;
      } catch {
        failed++;
        nowMs = performance.now();
      }
    }
  };
  await Promise.all(nodes.slice(0, clients).map(client));
  tookMs.sort((a, b) => a - b);
  const quantile = (share: number) => tookMs[Math.floor((tookMs.length - 1) * share)] ?? 0;
  const perSecond = tookMs.length / seconds;
  return { perSecond, p50Ms: quantile(0.5), p99Ms: quantile(0.99), failed };
}

let manager: Manager | undefined;

answer<StoreQuestion>(async (question) => {
  switch (question.kind) {
    case 'create':
      manager = await create(question.dir, question.at);
      return manager.cluster().joinTokens.manager;
    case 'join':
      manager = await join(question);
      return undefined;
    case 'leads':
      return manager?.group.leaderPlace()?.local === true;
    case 'load':
      if (manager === undefined) throw new Error('this manager is not open');
      return load(manager, question);
    case 'close':
      await manager?.close();
      setTimeout(() => process.exit(0), 50);
      return undefined;
  }
});
