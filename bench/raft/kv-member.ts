import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import type { NodeId } from '../../src/base/swarm-model.js';
import { readPeerCertificate } from '../../src/control/identity/index.js';
import { connectTls } from '../../src/control/io/connect.js';
import { ForwardServer } from '../../src/control/io/forward-server.js';
import { Listener } from '../../src/control/io/listener.js';
import { outcomeOf } from '../../src/control/io/propose-outcome.js';
import {
  openRaftStorage,
  type RaftId,
  RaftNode,
  type RaftPurpose,
  seedMembership,
  Vault,
} from '../../src/control/raft/index.js';
import { ALPN_FORWARD, type LeaderHint } from '../../src/control/wire/forward-messages.js';
import { formatMemberContext, parseMemberContext } from '../../src/control/wire/member-context.js';
import { ALPN_RAFT, ALPN_RAFT_SNAPSHOT } from '../../src/control/wire/protocol.js';
import { encodePuts, isPut, KvMachine, type Put } from './kv-machine.js';
import { answer } from './processes.js';

/** Puts of one turn of the event loop share an entry of the log, as the store's commands do. */
const BATCH_PUTS_MAX = 256;

export interface MemberPlace {
  readonly id: number;
  readonly nodeId: NodeId;
  readonly address: string;
  readonly port: number;
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
}

export type MemberQuestion =
  | {
      readonly kind: 'open';
      readonly dir: string;
      readonly self: MemberPlace;
      /** Who begins the group; nobody: this one is to be added to it. */
      readonly founders: readonly MemberPlace[];
    }
  | { readonly kind: 'status' }
  | { readonly kind: 'replace'; readonly remove: number; readonly add: MemberPlace }
  | { readonly kind: 'close' };

export interface MemberAnswer {
  readonly id: number;
  readonly leads: boolean;
  readonly leader: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly keys: number;
}

const log = {
  debug: () => {},
  info: () => {},
  warn: (fields: object, message: string) =>
    process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
  error: (fields: object, message: string) =>
    process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
};

const contextOf = ({ nodeId, address, port }: MemberPlace) =>
  formatMemberContext({ nodeId, address: `${address}:${port}` });

/** A manager without a swarm: raft, its disk and its transport, and keys and values in place of the store. */
class KvMember {
  readonly machine = new KvMachine();
  raft!: RaftNode;
  #waiting: { readonly put: Put; readonly resolve: (index: Promise<number>) => void }[] = [];

  static async open({
    dir,
    self,
    founders,
  }: Extract<MemberQuestion, { kind: 'open' }>): Promise<KvMember> {
    const member = new KvMember();
    const keys = await Vault.open(join(dir, 'keys.json'));
    const config = { dir: join(dir, 'raft'), keys, log };
    let storage = await openRaftStorage(config);
    if (
      founders.length > 0 &&
      storage.restart.entries.length === 0 &&
      storage.restart.snapshot.index === 0
    ) {
      const seats = founders.map((one) => ({
        id: one.id as RaftId,
        voter: true,
        context: contextOf(one),
      }));
      await seedMembership(storage, seats);
      await storage.close();
      storage = await openRaftStorage(config);
    }
    const credentials = { keyPem: self.keyPem, certPem: self.certPem, caPem: self.caPem };
    const forward = new ForwardServer({
      log,
      propose: (_dedupe, command) =>
        outcomeOf(
          isPut(command) ? member.#put(command) : Promise.reject(new Error('not a put')),
          () => member.#hint(),
        ),
      methods: {},
    });
    await Listener.open({
      ...credentials,
      listen: { address: self.address, port: self.port },
      log,
      protocols: [ALPN_RAFT, ALPN_RAFT_SNAPSHOT, ALPN_FORWARD],
      onSocket: (socket) => {
        const peer = readPeerCertificate(socket, self.caPem);
        if (peer?.role !== 'manager' || member.raft === undefined) refuse(socket);
        else if (socket.alpnProtocol === ALPN_FORWARD) forward.accept(socket, peer.nodeId);
        else member.#accept(socket, peer.nodeId);
      },
    });
    member.raft = await RaftNode.open({
      id: self.id as RaftId,
      storage,
      machine: member.machine,
      log,
      dial: async ({ context }, purpose, signal) => {
        const place = parseMemberContext(context);
        const [address, port] = (place?.address ?? '').split(':');
        const socket = await connectTls({
          ...credentials,
          remote: { address: address ?? '', port: Number(port) },
          alpn: purpose === 'log' ? ALPN_RAFT : ALPN_RAFT_SNAPSHOT,
          timeoutMs: 3_000,
          signal,
        });
        if (readPeerCertificate(socket, self.caPem)?.nodeId === place?.nodeId) return socket;
        refuse(socket);
        throw new Error('another node is at the address of the member');
      },
      onFatal: (error) => {
        process.stderr.write(`${error.stack}\n`);
        process.exit(1);
      },
    });
    return member;
  }

  answer(): MemberAnswer {
    const { id, role, leader, leaderReady, commitIndex, appliedIndex } = this.raft.status();
    const leads = role === 'leader' && leaderReady;
    return { id, leads, leader, commitIndex, appliedIndex, keys: this.machine.size };
  }

  async replace(remove: number, add: MemberPlace): Promise<void> {
    await this.raft.changeMembers({ kind: 'remove', id: remove as RaftId });
    await this.raft.addVoter(add.id as RaftId, contextOf(add), { timeoutMs: 120_000 });
  }

  async #put(put: Put): Promise<{ readonly id: string; readonly index: number }> {
    const index = await new Promise<number>((resolve) => {
      this.#waiting.push({ put, resolve });
      if (this.#waiting.length === 1) queueMicrotask(() => this.#flush());
    });
    return { id: put.key, index };
  }

  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < waiting.length; at += BATCH_PUTS_MAX) {
      const batch = waiting.slice(at, at + BATCH_PUTS_MAX);
      const done = this.raft.propose(encodePuts(batch.map(({ put }) => put))) as Promise<number>;
      for (const { resolve } of batch) resolve(done);
    }
  }

  #hint(): LeaderHint | undefined {
    const { leader, members } = this.raft.status();
    const place = parseMemberContext(members.find(({ id }) => id === leader)?.context ?? '');
    if (place === undefined) return undefined;
    const [address, port] = place.address.split(':');
    return { nodeId: place.nodeId, address: { address: address ?? '', port: Number(port) } };
  }

  #accept(socket: TLSSocket, nodeId: NodeId): void {
    const peer = this.raft
      .status()
      .members.find(({ context }) => parseMemberContext(context)?.nodeId === nodeId);
    const purpose: RaftPurpose = socket.alpnProtocol === ALPN_RAFT ? 'log' : 'snapshot';
    this.raft.accept(socket, purpose, peer?.id);
  }
}

function refuse(socket: TLSSocket): void {
  socket.on('error', () => {});
  socket.destroy();
}

let member: KvMember | undefined;

answer<MemberQuestion>(async (question) => {
  if (question.kind === 'open') member = await KvMember.open(question);
  else if (member === undefined) throw new Error('this member is not open');
  else return perform(member, question);
  return undefined;
});

async function perform(
  kv: KvMember,
  question: Exclude<MemberQuestion, { readonly kind: 'open' }>,
): Promise<unknown> {
  switch (question.kind) {
    case 'status':
      return kv.answer();
    case 'replace':
      return kv.replace(question.remove, question.add);
    case 'close':
      await kv.raft.close();
      setTimeout(() => process.exit(0), 50);
      return undefined;
  }
}
