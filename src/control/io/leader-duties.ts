import { randomBytes } from 'node:crypto';
import { isTerminal, type TaskObject } from '../../base/service-model.js';
import type { NetworkId, NodeId } from '../../base/swarm-model.js';
import { finishRotation, newJoinToken, publicTrust, rotationProgress } from '../identity/index.js';
import { type Member, RaftError } from '../raft/index.js';
import { lackingIngress, type ReadonlyState } from '../store/index.js';
import { formatMemberContext, parseMemberContext } from '../wire/member-context.js';
import { newId } from './ids.js';
import { caOf, clusterOf, type ManagerScope, secretsOf } from './manager-scope.js';

const GOSSIP_KEY_BYTES = 32;
const GOSSIP_KEY_LIFE_MS = 12 * 3_600_000;
/** How often a leader looks at what is due; a change of the state makes it look at once. */
const DUTIES_INTERVAL_MS = 1_000;
/** A full ingress network is looked at again then. */
const INGRESS_RETRY_MS = 60_000;
/** Swarmkit's, too. */
const ORPHAN_AFTER_MS = 24 * 3_600_000;
const ORPHANED_TEXT = 'the node has been down for a day';
const WAKING_TABLES: ReadonlySet<string> = new Set(['node', 'secrets', 'network']);
/** Changes within this time are looked at together. */
const SETTLE_MS = 20;

/**
 * What only the leader does: brings the raft group in line with the roles that were asked for, and
 * does what is due by the calendar. Everything here may be done twice, or by the next leader.
 */
export class LeaderDuties {
  readonly #scope: ManagerScope;
  readonly #tellRemoved: (member: Member) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #unwatch: () => void;
  #soon: NodeJS.Timeout | undefined;
  #running = false;
  #again = false;
  #closed = false;
  /** Not before then is it looked who is on the ingress network. */
  #ingressAtMs = 0;

  /** @param tellRemoved Tells a manager that it is out of the group, as far as it can be reached. */
  constructor(scope: ManagerScope, tellRemoved: (member: Member) => void) {
    this.#scope = scope;
    this.#tellRemoved = tellRemoved;
    this.#timer = setInterval(() => this.#look(), DUTIES_INTERVAL_MS);
    this.#timer.unref();
    this.#unwatch = scope.replica.watch((changes) => {
      if (changes.some(({ table }) => WAKING_TABLES.has(table))) this.wake();
    });
  }

  wake(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.#look();
    }, SETTLE_MS);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    this.#unwatch();
  }

  #look(): void {
    const { role, leaderReady } = this.#scope.replica.status;
    if (this.#closed || role !== 'leader' || !leaderReady) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    void this.#perform().finally(() => {
      this.#running = false;
      if (!this.#again) return;
      this.#again = false;
      this.wake();
    });
  }

  async #perform(): Promise<void> {
    for (const duty of [
      () => this.#settleMembers(),
      () => this.#settleRoles(),
      () => this.#rotateGossipKeys(),
      () => this.#finishRotation(),
      () => this.#settleIngress(),
      () => this.#orphanTasks(),
    ]) {
      try {
        await duty();
      } catch (error) {
        // Another leader by now, or something that a later look will find again.
        const passing = error instanceof RaftError || this.#closed;
        if (!passing) this.#scope.log.warn({ err: error }, 'a duty of the leader failed');
      }
    }
  }

  /** Members of the group whose nodes are gone, or are to be workers, go; one at a time. */
  async #settleMembers(): Promise<void> {
    const { replica, self } = this.#scope;
    const { members } = replica.status;
    for (const member of members) {
      const context = parseMemberContext(member.context);
      const node = context && replica.state.row('node', context.nodeId);
      const known = members.find(({ id }) => id === node?.manager?.raftId);
      if (node === undefined || node.spec.role === 'worker') await this.#removeMember(member);
      else if (known !== undefined && known !== member && node.id !== self) {
        // The node came back with an empty disk, as another member, of which its row tells. While the
        // row tells of none, that other one is on its way in.
        await this.#removeMember(member);
      } else if (
        known === member &&
        node.manager !== undefined &&
        node.manager.address !== context?.address
      )
        await replica.raft.changeMembers({
          kind: 'describe',
          id: member.id,
          context: formatMemberContext({ nodeId: node.id, address: node.manager.address }),
        });
    }
  }

  async #removeMember(member: Member): Promise<void> {
    const { replica, log } = this.#scope;
    if (member.id === replica.status.id) {
      // The next leader removes this one.
      await replica.raft.transferLeadership();
      return;
    }
    log.info({ raftId: member.id }, 'manager leaves the group');
    await replica.raft.changeMembers({ kind: 'remove', id: member.id });
    // Who is out of the group is sent nothing more of the log, not even that it is out.
    this.#tellRemoved(member);
  }

  /** What the rows say of managers follows what the group is. */
  async #settleRoles(): Promise<void> {
    const { replica, propose } = this.#scope;
    const members = new Map(replica.status.members.map((member) => [member.id as number, member]));
    for (const node of replica.state.rows('node')) {
      const member = node.manager && members.get(node.manager.raftId);
      if (node.spec.role === 'worker' && node.manager !== undefined && member === undefined)
        await propose({ kind: 'node_role', nodeId: node.id, role: 'worker' });
    }
  }

  /**
   * Every swarm begins with an ingress network, also one that is older than that; and every node is on
   * it, as far as there are addresses.
   */
  async #settleIngress(): Promise<void> {
    const { replica, propose, now, log } = this.#scope;
    if (now() < this.#ingressAtMs) return;
    // Set before, so that what fails is not tried again with every look.
    this.#ingressAtMs = now() + INGRESS_RETRY_MS;
    if (secretsOf(this.#scope).ingressMade !== true)
      await propose({ kind: 'ingress_create', id: newId<NetworkId>() });
    for (;;) {
      const lacking = lackingIngress(replica.state);
      if (lacking.length === 0) break;
      await propose({ kind: 'ingress_attach' });
      // Counting alone would take a node that has joined meanwhile for one that got nothing.
      const left = new Set(lackingIngress(replica.state).map(({ id }) => id));
      if (lacking.some(({ id }) => !left.has(id))) continue;
      log.warn(
        { nodes: lacking.length },
        'nodes are not on the ingress network: it has no address left',
      );
      return;
    }
    this.#ingressAtMs = 0;
  }

  /** Tasks of a node that does not come back are over, whatever became of them. */
  async #orphanTasks(): Promise<void> {
    const { replica, propose, now, log } = this.#scope;
    for (const node of replica.state.rows('node')) {
      // A node that is down changes by the operator's word only.
      if (node.state !== 'down' || now() - node.updatedAtMs < ORPHAN_AFTER_MS) continue;
      const reports = lostTasks(replica.state, node.id).map(({ id: taskId, status }) => ({
        taskId,
        status: { ...status, state: 'orphaned' as const, atMs: now(), message: ORPHANED_TEXT },
      }));
      if (reports.length === 0) continue;
      log.info({ node: node.id, tasks: reports.length }, 'tasks of a lost node are given up');
      await propose({ kind: 'task_status', reports });
    }
  }

  async #rotateGossipKeys(): Promise<void> {
    const { now, propose } = this.#scope;
    if (now() < secretsOf(this.#scope).gossipKeysRotatedAtMs + GOSSIP_KEY_LIFE_MS) return;
    const secret = randomBytes(GOSSIP_KEY_BYTES).toString('base64');
    await propose({ kind: 'gossip_keys_rotate', secret });
  }

  /** When every node holds a certificate of the new root, nobody needs the old one. */
  async #finishRotation(): Promise<void> {
    const { replica, now, propose, log } = this.#scope;
    const ca = caOf(this.#scope);
    if (ca.rotation === undefined) return;
    const nodes = [...replica.state.rows('node')].map(({ id, description }) => ({
      nodeId: id as NodeId,
      issuerPublicKey: description.certIssuerPublicKey,
    }));
    if (rotationProgress(ca, nodes).waiting.length > 0) return;
    const { version } = clusterOf(this.#scope);
    const finished = finishRotation(ca, now());
    const { rootPem } = finished;
    await propose({
      kind: 'ca_rotation_finish',
      version,
      ca: finished,
      trust: await publicTrust(finished),
      joinTokens: { worker: newJoinToken(rootPem), manager: newJoinToken(rootPem) },
    });
    log.info({}, 'all nodes have certificates of the new root: the old one is retired');
  }
}

function lostTasks(state: ReadonlyState, node: NodeId): readonly TaskObject[] {
  return [...state.tasksOnNode(node)]
    .flatMap((id) => state.row('task', id) ?? [])
    .filter(({ status }) => !isTerminal(status.state));
}
