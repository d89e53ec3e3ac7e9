import { randomBytes } from 'node:crypto';
import { type AddressInfo, createServer, connect as dialTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import {
  type Member,
  openRaftStorage,
  type RaftId,
  RaftNode,
  type RaftPurpose,
  type StateMachine,
  seedMembership,
  Vault,
} from '../../src/control/raft/index.js';

/** What the parent tells a member. */
export type ToMember =
  | {
      readonly kind: 'open';
      readonly id: number;
      readonly dir: string;
      readonly ports: readonly number[];
    }
  | {
      readonly kind: 'load';
      readonly clients: number;
      readonly seconds: number;
      readonly valueBytes: number;
    }
  | { readonly kind: 'status' }
  | { readonly kind: 'close' };

export interface LoadResult {
  readonly clients: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly flushes: number;
  readonly cpuPercent: number;
}

/** What a member answers. */
export type FromMember =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'opened' }
  | {
      readonly kind: 'status';
      readonly leader: number;
      readonly ready: boolean;
      readonly status: unknown;
    }
  | { readonly kind: 'loaded'; readonly result: LoadResult }
  | { readonly kind: 'closed' };

/** Keys and values, the last of each key, as small stores are. */
class MapMachine implements StateMachine {
  #values = new Map<string, Uint8Array>();

  apply({ data }: { readonly data: Uint8Array }): number {
    this.#values.set(Buffer.from(data.buffer, data.byteOffset, 8).toString('latin1'), data);
    return data.length;
  }

  *capture(): Iterable<Uint8Array> {
    for (const [key, value] of new Map(this.#values)) {
      const head = Buffer.alloc(12, key, 'latin1');
      head.writeUInt32BE(value.length, 8);
      yield Buffer.concat([head, value]);
    }
  }

  restore(data: Uint8Array): void {
    const bytes = Buffer.from(data);
    this.#values = new Map();
    for (let at = 0; at < bytes.length; ) {
      const end = at + 12 + bytes.readUInt32BE(at + 8);
      this.#values.set(bytes.toString('latin1', at, at + 8), bytes.subarray(at + 12, end));
      at = end;
    }
  }
}

const log = {
  debug: () => {},
  info: () => {},
  warn: (fields: object, message: string) => console.error(message, fields),
  error: (fields: object, message: string) => console.error(message, fields),
};

let node: RaftNode | undefined;
const waiting: { readonly socket: Socket; readonly purpose: RaftPurpose }[] = [];

/** Without TLS: the first byte says what the connection is for. */
const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.once('readable', () => {
    const first = socket.read(1) as Buffer | null;
    if (first === null) return socket.destroy();
    const purpose = first[0] === 1 ? 'log' : 'snapshot';
    if (node === undefined) waiting.push({ socket, purpose });
    else node.accept(socket, purpose);
    return undefined;
  });
});

function dial({ context }: Member, purpose: RaftPurpose, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dialTcp({ host: '127.0.0.1', port: Number(context), noDelay: true, signal });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      socket.write(Uint8Array.of(purpose === 'log' ? 1 : 2));
      resolve(socket);
    });
  });
}

function send(message: FromMember): void {
  process.send?.(message);
}

async function open({ id, dir, ports }: Extract<ToMember, { kind: 'open' }>): Promise<void> {
  const keys = await Vault.open(join(dir, 'keys.json'));
  const config = { dir: join(dir, 'raft'), keys, log };
  const seeded = await openRaftStorage(config);
  const members = ports.map((port, i) => ({
    id: (i + 1) as RaftId,
    voter: true,
    context: `${port}`,
  }));
  await seedMembership(seeded, members);
  await seeded.close();
  node = await RaftNode.open({
    id: id as RaftId,
    storage: await openRaftStorage(config),
    machine: new MapMachine(),
    log,
    dial,
    onFatal: (error) => {
      console.error(error);
      process.exit(1);
    },
  });
  for (const { socket, purpose } of waiting.splice(0)) node.accept(socket, purpose);
  send({ kind: 'opened' });
}

async function load(
  raft: RaftNode,
  { clients, seconds, valueBytes }: Extract<ToMember, { kind: 'load' }>,
): Promise<LoadResult> {
  const latencies: number[] = [];
  const flushesBefore = raft.status().storage.flushes;
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  const untilMs = startMs + seconds * 1_000;
  const client = async () => {
    for (let now = performance.now(); now < untilMs; ) {
      await raft.propose(randomBytes(valueBytes));
      const after = performance.now();
      latencies.push(after - now);
      now = after;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const tookMs = performance.now() - startMs;
  const cpu = process.cpuUsage(cpuBefore);
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? 0;
  return {
    clients,
    perSecond: (latencies.length / tookMs) * 1_000,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    flushes: raft.status().storage.flushes - flushesBefore,
    cpuPercent: (cpu.user + cpu.system) / 10 / tookMs,
  };
}

async function onMessage(message: ToMember): Promise<void> {
  if (message.kind === 'open') await open(message);
  else if (node !== undefined) await onRequest(node, message);
}

async function onRequest(
  raft: RaftNode,
  message: Exclude<ToMember, { readonly kind: 'open' }>,
): Promise<void> {
  switch (message.kind) {
    case 'status': {
      const status = raft.status();
      send({ kind: 'status', leader: status.leader, ready: status.leaderReady, status });
      break;
    }
    case 'load':
      send({ kind: 'loaded', result: await load(raft, message) });
      break;
    case 'close':
      await raft.close();
      server.close();
      send({ kind: 'closed' });
      process.disconnect();
      break;
  }
}

process.on('message', (message) => {
  onMessage(message as ToMember).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
server.listen(0, '127.0.0.1', () =>
  send({ kind: 'listening', port: (server.address() as AddressInfo).port }),
);
