import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import { SwarmError } from '../../base/swarm-error.js';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import { formatControlAddress, parseControlAddress } from '../dispatch/index.js';
import {
  type NodeIdentity,
  PeerJudge,
  readPeerCertificate,
  trustBundle,
} from '../identity/index.js';
import type { DiskStorage, Member, RaftPurpose, Vault } from '../raft/index.js';
import { isCommand, ONLY_ROW } from '../store/index.js';
import { ALPN_FORWARD, type LeaderHint } from '../wire/forward-messages.js';
import { formatMemberContext, parseMemberContext } from '../wire/member-context.js';
import type { ControlAddress } from '../wire/model.js';
import { ALPN_CA, ALPN_DISPATCH, ALPN_RAFT, ALPN_RAFT_SNAPSHOT } from '../wire/protocol.js';
import { errorOf } from '../wire/refusal.js';
import { connectTls } from './connect.js';
import { ForwardClient } from './forward-client.js';
import { ForwardClients } from './forward-clients.js';
import { type ForwardMethod, ForwardServer, NotLeader } from './forward-server.js';
import { LeaderClient, type LeaderPlace } from './leader-client.js';
import { Listener } from './listener.js';
import { certifiedRoleOf } from './manager-ca.js';
import { type MemberFile, openStorage, writeMember } from './manager-disk.js';
import { caOf } from './manager-scope.js';
import { outcomeOf } from './propose-outcome.js';
import { Replica } from './replica.js';

const CONNECT_MS_MAX = 3_000;
/** How long one manager may take to bring another one in. */
const JOIN_ATTEMPT_MS_MAX = 40_000;
const JOIN_RETRY_MS = 300;
/** How long the leader waits until the log of a new manager has caught up. */
const CATCH_UP_MS_MAX = 30_000;

export interface ManagerPlace {
  readonly dataDir: string;
  /** Port 0: any free one, which is then advertised if `advertise.port` is 0, too. */
  readonly listen: ControlAddress;
  readonly advertise: ControlAddress;
  readonly log: Logger;
  /** The manager cannot go on: its disk failed, or it met a bug. */
  readonly onFatal: (error: Error) => void;
  /** Milliseconds since the Unix epoch. */
  readonly now?: () => number;
  /** Where a node was last heard of, whatever its row says: gossip follows a node that moves. */
  readonly addressHint?: (nodeId: NodeId) => string | undefined;
}

export interface GroupParts {
  readonly vault: Vault;
  readonly member: MemberFile;
  readonly identity: NodeIdentity;
}

const eraSchema = z.object({ era: z.int().min(0) });
const joinSchema = z.object({ raftId: z.int().min(1), address: z.string().max(300) });

export interface ManagerHolds {
  readonly nodeId: NodeId;
  readonly address: string;
  readonly raftId: number;
  readonly role: string;
  readonly term: number;
  /** 0: none is known. */
  readonly leader: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  /** Of the store. */
  readonly version: number;
  readonly members: readonly {
    readonly raftId: number;
    readonly voter: boolean;
    readonly nodeId?: NodeId;
    readonly address?: string;
  }[];
}

export type SocketHandler = (socket: TLSSocket, remoteAddress: string) => void;

/** Not before the state is there. */
export interface Services {
  readonly onCa: SocketHandler;
  readonly onDispatch: SocketHandler;
}

/** A manager's place among the managers: its port, its replica, and the way to whoever leads. */
export class ManagerGroup {
  readonly place: ManagerPlace;
  readonly vault: Vault;
  member: MemberFile;
  readonly storage: DiskStorage;
  readonly leader: LeaderClient;
  /** Of other managers. */
  readonly judge: PeerJudge;
  /** Of agents: one that was removed is let in to be told so. */
  readonly agentJudge: PeerJudge;
  readonly replica: Replica;
  readonly #clients: ForwardClients;
  readonly #server: ForwardServer;
  readonly #listener: Listener;
  readonly #methods: Record<string, ForwardMethod>;
  readonly #dials = new Map<NodeId, number>();
  #identity: NodeIdentity;
  #services: Services | undefined;

  private constructor(
    place: ManagerPlace,
    parts: GroupParts,
    storage: DiskStorage,
    openReplica: { replica: Replica },
    listener: Listener,
  ) {
    this.place = place;
    this.vault = parts.vault;
    this.member = parts.member;
    this.storage = storage;
    this.replica = openReplica.replica;
    this.#identity = parts.identity;
    this.#listener = listener;
    const { log } = place;
    this.#methods = {
      'raft.join': (params, from) => this.#onJoin(params, from),
      'raft.holds': () => Promise.resolve(this.holds()),
    };
    const rules = {
      clusterId: parts.identity.clusterId,
      log,
      nowMs: place.now ?? Date.now,
      trust: () => this.trust,
    };
    this.judge = new PeerJudge({
      ...rules,
      isRemoved: (nodeId) => this.replica.state.row('removed', nodeId) !== undefined,
      roleOf: (nodeId) => {
        const node = this.replica.state.row('node', nodeId);
        return node && certifiedRoleOf(node);
      },
    });
    this.agentJudge = new PeerJudge({ ...rules, isRemoved: () => false });
    this.#clients = new ForwardClients({
      log,
      credentials: () => this.credentials,
      addressOf: (nodeId) => this.addressesOf(nodeId)[0],
    });
    const propose = (dedupe: string, command: unknown) => {
      // One that only a newer manager knows would stop this one, and all of its age, once in the log.
      const taken = isCommand(command)
        ? this.replica.propose({ dedupe, command })
        : Promise.reject(unknownCommand());
      return outcomeOf(taken, () => this.leaderHint());
    };
    this.#server = new ForwardServer({ log, propose, methods: this.#methods });
    // A certificate is judged when a connection begins: those of managers that are none any more end.
    this.replica.watch((changes) => {
      for (const { table, key } of changes) {
        if (table !== 'node') continue;
        const node = this.replica.state.row('node', key);
        if (node === undefined || certifiedRoleOf(node) === 'worker')
          this.#server.drop(key as NodeId);
      }
    });
    this.leader = new LeaderClient({
      self: parts.identity.nodeId,
      log,
      leader: () => this.leaderPlace(),
      onLeaderChange: (listener) => this.replica.onStatus(() => listener()),
      propose,
      methods: this.#methods,
      clientOf: (hint) => this.#clients.of(hint),
      waitApplied: (index, signal) => this.replica.waitApplied(index, signal),
    });
  }

  /** @throws SwarmError `SWARM_PORT_TAKEN`, `SWARM_BAD_ADDRESS`; RaftStorageError for the disk. */
  static async open(place: ManagerPlace, parts: GroupParts): Promise<ManagerGroup> {
    const { keyPem, certPem, caPem } = parts.identity;
    let group: ManagerGroup | undefined;
    const accept: SocketHandler = (socket, remoteAddress) => {
      if (group === undefined) refuse(socket);
      else group.#accept(socket, remoteAddress);
    };
    const listener = await Listener.open({
      listen: place.listen,
      keyPem,
      certPem,
      caPem,
      log: place.log,
      protocols: [ALPN_DISPATCH, ALPN_CA, ALPN_RAFT, ALPN_RAFT_SNAPSHOT, ALPN_FORWARD],
      onSocket: accept,
    });
    let storage: DiskStorage | undefined;
    try {
      storage = await openStorage(place.dataDir, parts.vault, place.log);
      const replica = await Replica.open({
        raftId: parts.member.raftId,
        storage,
        log: place.log,
        dial: (nodeId, address, purpose, signal) => {
          if (group === undefined) return Promise.reject(new Error('not yet'));
          return group.#dial(nodeId, address, purpose, signal);
        },
        onFatal: place.onFatal,
      });
      group = new ManagerGroup(place, parts, storage, { replica }, listener);
      return group;
    } catch (error) {
      await listener.close();
      await storage?.close();
      throw error;
    }
  }

  /** The port that is listened on. */
  get port(): number {
    return this.#listener.port;
  }

  get advertised(): ControlAddress {
    const { address, port } = this.place.advertise;
    return { address, port: port || this.port };
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  get listener(): Listener {
    return this.#listener;
  }

  /** PEM of all roots that count now. */
  get trust(): string {
    const { caPem } = this.#identity;
    if (this.replica.state.row('cluster', ONLY_ROW) === undefined) return caPem;
    return trustBundle(caOf(this));
  }

  get credentials(): { readonly keyPem: string; readonly certPem: string; readonly caPem: string } {
    const { keyPem, certPem } = this.#identity;
    return { keyPem, certPem, caPem: this.trust };
  }

  /** For new connections; those that are open keep what they were opened with. */
  useIdentity(identity: NodeIdentity): void {
    this.#identity = identity;
    this.#listener.setCertificate(identity.keyPem, identity.certPem, identity.caPem);
  }

  /** The state is there: agents and joiners are served from now on. */
  serve(services: Services, methods: Readonly<Record<string, ForwardMethod>>): void {
    this.#services = services;
    Object.assign(this.#methods, methods);
  }

  leaderPlace(): LeaderPlace | undefined {
    const { role, leaderReady } = this.replica.current;
    if (role === 'leader') return leaderReady ? { local: true } : undefined;
    const hint = this.leaderHint();
    return hint && { local: false, ...hint };
  }

  leaderHint(): LeaderHint | undefined {
    const { leader, members } = this.replica.current;
    const member = members.find(({ id }) => id === leader);
    const context = member && parseMemberContext(member.context);
    if (context === undefined) return undefined;
    const [address] = this.addressesOf(context.nodeId, context.address);
    return address && { nodeId: context.nodeId, address };
  }

  /** Where a manager may be, the likeliest first. */
  addressesOf(nodeId: NodeId, known?: string): ControlAddress[] {
    const row = this.replica.state.row('node', nodeId);
    const port = parseControlAddress(row?.manager?.address ?? known ?? '')?.port;
    const hint = this.place.addressHint?.(nodeId);
    const texts = [
      row?.manager?.address,
      known,
      hint === undefined || port === undefined
        ? undefined
        : formatControlAddress({ address: hint, port }),
    ];
    return [...new Set(texts)].flatMap((text) => parseControlAddress(text ?? '') ?? []);
  }

  /** This node's managers as it knows them, itself first. */
  managers(): ControlAddress[] {
    const others = this.replica.status.members.flatMap((member) => {
      const context = parseMemberContext(member.context);
      if (context === undefined || context.nodeId === this.#identity.nodeId) return [];
      return this.addressesOf(context.nodeId, context.address).slice(0, 1);
    });
    return [this.advertised, ...others];
  }

  /** As far as it can be reached; otherwise its own agent hears of it from another manager. */
  tellRemoved(member: Member): void {
    const { nodeId, address } = parseMemberContext(member.context) ?? {};
    if (nodeId === undefined) return;
    const [at] = this.addressesOf(nodeId, address);
    if (at === undefined) return;
    void this.#clients
      .of({ nodeId, address: at })
      .call('raft.removed', { raftId: member.id }, { timeoutMs: CONNECT_MS_MAX });
  }

  /** What this manager has of the log: what a recovery would go by. */
  holds(): ManagerHolds {
    const { id, term, role, leader, commitIndex, appliedIndex, lastIndex, lastTerm, members } =
      this.replica.status;
    return {
      nodeId: this.#identity.nodeId,
      address: formatControlAddress(this.advertised),
      raftId: id,
      role,
      term,
      leader,
      lastIndex,
      lastTerm,
      commitIndex,
      appliedIndex,
      version: this.replica.state.version,
      members: members.map(({ id: raftId, voter, context }) => ({
        raftId,
        voter,
        ...parseMemberContext(context),
      })),
    };
  }

  /** Asks the other members what they hold; those that do not answer in time say nothing. */
  async othersHold(timeoutMs: number): Promise<readonly unknown[]> {
    const others = this.replica.status.members.flatMap(({ context }) => {
      const { nodeId, address } = parseMemberContext(context) ?? {};
      if (nodeId === undefined || nodeId === this.#identity.nodeId) return [];
      const [at] = this.addressesOf(nodeId, address);
      return at === undefined ? [] : [{ nodeId, address: at }];
    });
    const answers = await Promise.all(
      others.map((hint) => this.#clients.of(hint).call('raft.holds', {}, { timeoutMs })),
    );
    return answers.map((answer, i) =>
      answer.kind === 'result'
        ? answer.result
        : { nodeId: others[i]?.nodeId, unreachable: 'why' in answer ? answer.why : answer.kind },
    );
  }

  /**
   * Becomes a member of the group, and resolves when its state is here.
   * @throws SwarmError a refusal; `SWARM_NO_MANAGER` when cancelled.
   */
  async join(remotes: readonly ControlAddress[], signal: AbortSignal): Promise<void> {
    const params = {
      raftId: this.member.raftId,
      address: formatControlAddress(this.advertised),
    };
    for (let turn = 0; ; turn++) {
      const remote = remotes[turn % Math.max(1, remotes.length)];
      if (remote !== undefined && (await this.#joinAt(remote, params, signal))) break;
      if (signal.aborted) throw cancelled();
      await delay(JOIN_RETRY_MS, undefined, { signal }).catch(() => {});
    }
    while (this.replica.state.row('cluster', ONLY_ROW) === undefined) {
      await this.replica.raft.read().catch(() => {});
      if (signal.aborted) throw cancelled();
      await delay(10);
    }
  }

  async #joinAt(remote: ControlAddress, params: object, signal: AbortSignal): Promise<boolean> {
    let at: ControlAddress | undefined = remote;
    for (let hops = 0; hops < 3 && at !== undefined; hops++) {
      const address: ControlAddress = at;
      const client = new ForwardClient({
        log: this.place.log,
        dial: (stop) =>
          connectTls({
            remote: address,
            alpn: ALPN_FORWARD,
            ...this.credentials,
            timeoutMs: CONNECT_MS_MAX,
            signal: stop,
          }),
      });
      try {
        const outcome = await client.call('raft.join', params, {
          timeoutMs: JOIN_ATTEMPT_MS_MAX,
          signal,
        });
        if (outcome.kind === 'result') {
          await this.#adoptEra(outcome.result);
          return true;
        }
        if (outcome.kind === 'refused') throw errorOf(outcome.refusal);
        at = outcome.kind === 'not_leader' ? outcome.leader?.address : undefined;
        if (at === undefined)
          this.place.log.warn(
            { remote: address, outcome: outcome.kind },
            'not among the managers yet',
          );
      } finally {
        client.close();
      }
    }
    return false;
  }

  /** On the leader: another manager wants to be a member. */
  async #onJoin(params: unknown, from: NodeId): Promise<unknown> {
    const wish = joinSchema.safeParse(params).data;
    if (wish === undefined)
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        'a manager joins with its number and address',
      );
    const { raft, status, state } = this.replica;
    if (status.role !== 'leader') throw new NotLeader(this.leaderHint());
    await raft.read();
    const node = state.row('node', from);
    if (node === undefined || node.spec.role !== 'manager')
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        'only a node that is to be a manager may join',
      );
    const { raftId, address } = wish;
    const context = formatMemberContext({ nodeId: from, address });
    for (const member of raft.status().members)
      if (member.id !== raftId && parseMemberContext(member.context)?.nodeId === from)
        await raft.changeMembers({ kind: 'remove', id: member.id });
    await raft.addVoter(raftId as (typeof status)['id'], context, { timeoutMs: CATCH_UP_MS_MAX });
    await this.leader.propose({
      kind: 'node_role',
      nodeId: from,
      role: 'manager',
      manager: { raftId, address },
      atMs: (this.place.now ?? Date.now)(),
    });
    this.place.log.info({ node: from, raftId, address }, 'manager joined the group');
    return { era: this.member.era };
  }

  async #adoptEra(answer: unknown): Promise<void> {
    const era = eraSchema.safeParse(answer).data?.era ?? 0;
    this.member = { ...this.member, era };
    await writeMember(this.place.dataDir, this.member);
  }

  async close(): Promise<void> {
    this.leader.close();
    await this.replica.close();
    this.#clients.close();
    this.#server.close();
    await this.#listener.close();
  }

  #accept(socket: TLSSocket, remoteAddress: string): void {
    const { alpnProtocol } = socket;
    if (alpnProtocol === ALPN_CA) {
      if (this.#services === undefined) refuse(socket);
      else this.#services.onCa(socket, remoteAddress);
      return;
    }
    if (alpnProtocol === ALPN_DISPATCH) {
      if (this.#services === undefined) refuse(socket);
      else this.#services.onDispatch(socket, remoteAddress);
      return;
    }
    const peer = this.judge.judge(socket, remoteAddress, 'manager');
    if (peer === undefined) refuse(socket);
    else if (alpnProtocol === ALPN_FORWARD) this.#server.accept(socket, peer.nodeId);
    else {
      const member = this.replica.status.members.find(
        ({ context }) => parseMemberContext(context)?.nodeId === peer.nodeId,
      );
      const purpose: RaftPurpose = alpnProtocol === ALPN_RAFT ? 'log' : 'snapshot';
      this.replica.raft.accept(socket, purpose, member?.id);
    }
  }

  async #dial(
    nodeId: NodeId,
    known: string,
    purpose: RaftPurpose,
    signal: AbortSignal,
  ): Promise<TLSSocket> {
    const addresses = this.addressesOf(nodeId, known);
    const turn = this.#dials.get(nodeId) ?? 0;
    const remote = addresses[turn % Math.max(1, addresses.length)];
    if (remote === undefined) throw new Error(`nobody knows where manager ${nodeId} is`);
    try {
      const socket = await connectTls({
        remote,
        alpn: purpose === 'log' ? ALPN_RAFT : ALPN_RAFT_SNAPSHOT,
        ...this.credentials,
        timeoutMs: CONNECT_MS_MAX,
        signal,
      });
      if (readPeerCertificate(socket, this.trust)?.nodeId === nodeId) return socket;
      refuse(socket);
      throw new Error('another node is at the address of the manager');
    } catch (error) {
      this.#dials.set(nodeId, turn + 1);
      throw error;
    }
  }
}

function refuse(socket: TLSSocket): void {
  socket.on('error', () => {});
  socket.destroy();
}

function cancelled(): SwarmError {
  return new SwarmError({ code: 'SWARM_NO_MANAGER' }, 'the attempt to join was cancelled');
}

function unknownCommand(): SwarmError {
  return new SwarmError(
    { code: 'SWARM_UNSUPPORTED' },
    'the leader does not know this kind of change: update it',
  );
}
