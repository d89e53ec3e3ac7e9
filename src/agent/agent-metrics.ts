import type { Manager } from '../control/index.js';
import { STATS_FIELDS } from '../dataplane/io/index.js';
import { tablesDigest } from '../dataplane/overlay/index.js';
import { Metrics, type Sample } from '../observe/index.js';
import { addIngressMetrics } from './ingress-metrics.js';
import { addManagerMetrics } from './manager-metrics.js';
import type { SwarmNode } from './swarm-node.js';

const snake = (name: string) => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** Numbers of a record as labelled samples. */
function labelled(label: string, values: Readonly<Record<string, number>> | undefined): Sample[] {
  return Object.entries(values ?? {}).map(([key, value]) => ({
    labels: { [label]: snake(key) },
    value,
  }));
}

/** Every metric of the agent; Swarm's own names are kept where Swarm has one. */
export function createMetrics(node: SwarmNode): Metrics {
  const metrics = new Metrics();
  const active = () => node.active;
  metrics.add({
    name: 'shoal_data_path_driver',
    help: 'The packet driver in use, as a label.',
    kind: 'gauge',
    labelNames: ['driver'],
    read: () =>
      active() === undefined
        ? []
        : [{ labels: { driver: active()?.dataplane.driver ?? '' }, value: 1 }],
  });
  for (const field of STATS_FIELDS) {
    metrics.add({
      name: `shoal_io_${snake(field)}_total`,
      help: `Packet driver: ${snake(field).replaceAll('_', ' ')}.`,
      kind: 'counter',
      read: () => [{ value: active()?.dataplane.ioStats()[field] ?? 0 }],
    });
  }
  metrics.add({
    name: 'shoal_overlay_drops_total',
    help: 'Frames and datagrams that went nowhere, by reason.',
    kind: 'counter',
    labelNames: ['reason'],
    read: () => labelled('reason', active()?.dataplane.overlayStats().drops),
  });
  metrics.add({
    name: 'shoal_overlay_replies_total',
    help: 'Frames that the tunnel end answered by itself, by kind.',
    kind: 'counter',
    labelNames: ['kind'],
    read: () => labelled('kind', active()?.dataplane.overlayStats().replies),
  });
  metrics.add({
    name: 'shoal_overlay_traffic_total',
    help: 'Frames and bytes by direction.',
    kind: 'counter',
    labelNames: ['what'],
    read: () => labelled('what', active()?.dataplane.overlayStats().totals),
  });
  metrics.add({
    name: 'shoal_overlay_records',
    help: 'Endpoint records left out of the tables now, by reason.',
    kind: 'gauge',
    labelNames: ['reason'],
    read: () =>
      labelled('reason', active() === undefined ? undefined : { ...active()?.deriveStats() }),
  });
  metrics.add({
    name: 'shoal_attachments',
    help: 'Attachments of this node.',
    kind: 'gauge',
    read: () => [{ value: active()?.localAttachments().length ?? 0 }],
  });
  metrics.add({
    name: 'shoal_tasks',
    help: 'Tasks of this node by state.',
    kind: 'gauge',
    labelNames: ['state'],
    read: () => labelled('state', Object.fromEntries(active()?.tasks?.stats().tasks ?? [])),
  });
  metrics.add({
    name: 'shoal_task_reports_total',
    help: 'States of tasks that were told to the managers.',
    kind: 'counter',
    read: () => [{ value: active()?.tasks?.stats().reports ?? 0 }],
  });
  metrics.add({
    name: 'shoal_acknowledgements_total',
    help: 'Changes of tasks that all live nodes have said to decide by.',
    kind: 'counter',
    read: () => [{ value: active()?.acknowledgements.stats().acknowledged ?? 0 }],
  });
  metrics.add({
    name: 'shoal_acknowledgements_expired_total',
    help: 'Changes of tasks that a node had not acknowledged when the time was up.',
    kind: 'counter',
    read: () => [{ value: active()?.acknowledgements.stats().expired ?? 0 }],
  });
  metrics.add({
    name: 'shoal_acknowledgement_wait_seconds_total',
    help: 'Time that acknowledged changes waited for it, added up.',
    kind: 'counter',
    read: () => [{ value: (active()?.acknowledgements.stats().waitedMsTotal ?? 0) / 1000 }],
  });
  metrics.add({
    name: 'shoal_gossip_members',
    help: 'Members by state, as this node sees them.',
    kind: 'gauge',
    labelNames: ['state'],
    read: () => labelled('state', active()?.gossip.stats().members),
  });
  metrics.add({
    name: 'shoal_manager_connected',
    help: '1 while the session to a manager is up.',
    kind: 'gauge',
    read: () => [{ value: active()?.session.connected === true ? 1 : 0 }],
  });
  metrics.add({
    name: 'swarm_node_info',
    help: 'This node in its swarm.',
    kind: 'gauge',
    labelNames: ['node_id', 'swarm_id'],
    read: () =>
      active() === undefined
        ? []
        : [
            {
              labels: {
                node_id: active()?.identity.nodeId ?? '',
                swarm_id: active()?.identity.clusterId ?? '',
              },
              value: 1,
            },
          ],
  });
  addIngressMetrics(metrics, () => active()?.ingress);
  metrics.add({
    name: 'shoal_vip_ejections_total',
    help: 'How often tasks were passed over behind the VIP of a service because they kept failing, by network.',
    kind: 'counter',
    labelNames: ['service', 'network'],
    read: () =>
      vipOutliers(active()).map(({ service, network, ejections }) => ({
        labels: { service, network },
        value: ejections,
      })),
  });
  metrics.add({
    name: 'shoal_vip_passed_over',
    help: 'Tasks that are passed over behind the VIP of a service now, where any ever were.',
    kind: 'gauge',
    labelNames: ['service', 'network'],
    read: () =>
      vipOutliers(active()).map(({ service, network, passedOver }) => ({
        labels: { service, network },
        value: passedOver.length,
      })),
  });
  metrics.add({
    name: 'shoal_name_servers',
    help: 'Resolvers that are open: one for each attached namespace.',
    kind: 'gauge',
    read: () => [{ value: active()?.nameStats().servers ?? 0 }],
  });
  metrics.add({
    name: 'shoal_name_queries_total',
    help: 'Queries to the resolvers of attached namespaces, by transport.',
    kind: 'counter',
    labelNames: ['transport'],
    read: () => labelled('transport', active()?.nameStats().byTransport),
  });
  metrics.add({
    name: 'shoal_name_replies_total',
    help: "Replies of the resolvers: their own, and upstreams'.",
    kind: 'counter',
    labelNames: ['from'],
    read: () => labelled('from', active()?.nameStats().replies),
  });
  metrics.add({
    name: 'shoal_name_refusals_total',
    help: 'Queries and conversations that came to nothing at the resolvers, by reason.',
    kind: 'counter',
    labelNames: ['reason'],
    read: () => labelled('reason', active()?.nameStats().refusals),
  });
  metrics.add({
    name: 'shoal_task_checks_total',
    help: "Active checks of this node's tasks by result.",
    kind: 'counter',
    labelNames: ['result'],
    read: () => {
      const stats = active()?.checks.stats();
      return stats === undefined
        ? []
        : (['good', 'bad'] as const).map((result) => ({
            labels: { result },
            value: stats[result],
          }));
    },
  });
  metrics.add({
    name: 'shoal_task_checks_failing',
    help: 'Tasks of this node that fail their active checks now.',
    kind: 'gauge',
    labelNames: [],
    read: () => {
      const stats = active()?.checks.stats();
      return stats === undefined ? [] : [{ labels: {}, value: stats.failing }];
    },
  });
  addManagerMetrics(metrics, () => active()?.manager);
  return metrics;
}

/** With names in place of numbers. */
function vipOutliers(swarm: SwarmNode['active']) {
  return (swarm?.dataplane.vipOutliers() ?? []).map(({ vni, serviceId, ...outliers }) => {
    const { services = [], networks = [] } = swarm?.assignments ?? {};
    const service = services.find(({ id }) => id === serviceId)?.name ?? serviceId;
    const network = networks.find((held) => held.vni === vni)?.spec.name ?? String(vni);
    return { service, network, ...outliers };
  });
}

/** All that one node knows of its data path, for `shoal status` and for comparing nodes. */
export function describeNode(node: SwarmNode): Record<string, unknown> {
  const swarm = node.active;
  if (swarm === undefined) {
    const { state, error } = node.describe();
    return { state, ...(error === '' ? {} : { error }) };
  }
  const { tables } = swarm.dataplane;
  const { drops, replies, totals } = swarm.dataplane.overlayStats();
  return {
    state: 'active',
    ...swarm.describe(),
    ...(swarm.manager && { raft: describeRaft(swarm.manager) }),
    networks: swarm.assignments.networks.map((network) => ({
      id: network.id,
      name: network.spec.name,
      vni: network.vni,
      subnets: network.subnets.map((s) => s.subnet),
      endpoints: tables.segments.get(network.vni)?.fdb.size ?? 0,
      recordsDigest: swarm.gossip.records.digest(network.id),
      tablesDigest: tablesDigest(tables, network.vni),
    })),
    attachments: swarm.localAttachments(),
    records: swarm.deriveStats(),
    counters: { io: swarm.dataplane.ioStats(), drops, replies, totals },
    tasks: Object.fromEntries(swarm.tasks?.stats().tasks ?? []),
    names: swarm.nameStats(),
    ingress: { ...swarm.ingress.stats(), problems: swarm.ingress.problems() },
    vipOutliers: vipOutliers(swarm),
    gossip: swarm.gossip.stats(),
  };
}

/** This manager's place among the managers. */
function describeRaft(manager: Manager): Record<string, unknown> {
  const { raft } = manager.stats();
  const { members, version } = manager.group.holds();
  const nodeOf = (raftId: number) => members.find((member) => member.raftId === raftId);
  const known = new Map<number, { connected?: boolean; matchIndex?: number; mode?: string }>();
  for (const { id, connected } of raft.peers) known.set(id, { connected });
  for (const { id, matchIndex, mode, active } of raft.followers)
    known.set(id, { ...known.get(id), connected: active, matchIndex, mode });
  return {
    id: raft.id,
    role: raft.role,
    term: raft.term,
    leader: nodeOf(raft.leader)?.nodeId ?? '',
    lastIndex: raft.lastIndex,
    commitIndex: raft.commitIndex,
    appliedIndex: raft.appliedIndex,
    version,
    readOnly: raft.readOnly,
    peers: members
      .filter(({ raftId }) => raftId !== raft.id)
      .map((member) => ({ ...member, ...known.get(member.raftId) })),
    storage: raft.storage,
    dropped: raft.dropped,
  };
}
