import type { Manager, ManagerStats } from '../control/index.js';
import type { Metrics, Sample } from '../observe/index.js';

const NODE_STATES = ['unknown', 'down', 'ready', 'disconnected'] as const;

const STORAGE = ['segments', 'bytes', 'flushMsP50', 'flushMsMax'] as const;

const snake = (name: string) => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

function by(label: string, values: Readonly<Record<string, number | undefined>>): Sample[] {
  return Object.entries(values).map(([key, value]) => ({
    labels: { [label]: snake(key) },
    value: value ?? 0,
  }));
}

/**
 * The metrics of a manager, empty on other nodes; Swarm's own names where Swarm has one.
 * @param manager The manager on this node, while there is one.
 */
export function addManagerMetrics(metrics: Metrics, manager: () => Manager | undefined): void {
  const gauge = (
    name: string,
    help: string,
    read: (manager: Manager, stats: ManagerStats) => Iterable<Sample>,
    ...labelNames: readonly string[]
  ) => add('gauge', name, help, read, labelNames);
  const counter = (
    name: string,
    help: string,
    read: (manager: Manager, stats: ManagerStats) => Iterable<Sample>,
    ...labelNames: readonly string[]
  ) => add('counter', name, help, read, labelNames);
  const add = (
    kind: 'gauge' | 'counter',
    name: string,
    help: string,
    read: (manager: Manager, stats: ManagerStats) => Iterable<Sample>,
    labelNames: readonly string[],
  ) =>
    metrics.add({
      name,
      help,
      kind,
      labelNames,
      read: () => {
        const here = manager();
        return here === undefined ? [] : read(here, here.stats());
      },
    });

  gauge(
    'swarm_manager_nodes',
    'Nodes by state.',
    (here) => {
      const nodes = here.nodes();
      return NODE_STATES.map((state) => ({
        labels: { state },
        value: nodes.filter((node) => node.state === state).length,
      }));
    },
    'state',
  );
  gauge('swarm_manager_leader', '1 while this manager leads.', (_, { raft }) => [
    { value: raft.role === 'leader' ? 1 : 0 },
  ]);
  gauge('swarm_manager_networks_total', 'Networks.', (here) => [{ value: here.networks().length }]);
  gauge('swarm_manager_secrets_total', 'Secrets.', (here) => [{ value: here.secrets().length }]);
  gauge('swarm_manager_configs_total', 'Configs.', (here) => [{ value: here.configs().length }]);
  gauge('shoal_raft_term', 'Term of the raft group.', (_, { raft }) => [{ value: raft.term }]);
  gauge(
    'shoal_raft_index',
    'Positions in the log.',
    (_, { raft: { lastIndex, commitIndex, appliedIndex } }) =>
      by('of', { last: lastIndex, commit: commitIndex, applied: appliedIndex }),
    'of',
  );
  gauge(
    'shoal_raft_members',
    'Members of the raft group, by kind.',
    (_, { raft: { members } }) => {
      const voters = members.filter(({ voter }) => voter).length;
      return by('kind', { voter: voters, learner: members.length - voters });
    },
    'kind',
  );
  gauge('shoal_raft_read_only', '1 while the disk has no room.', (_, { raft }) => [
    { value: raft.readOnly ? 1 : 0 },
  ]);
  gauge(
    'shoal_raft_waiting',
    'Proposals and reads under way.',
    (_, { raft: { proposals, reads } }) => by('what', { proposals, reads }),
    'what',
  );
  gauge(
    'shoal_raft_log',
    'The log on the disk: segments, bytes, milliseconds of a flush.',
    (_, { raft: { storage } }) =>
      by('what', Object.fromEntries(STORAGE.map((field) => [field, storage[field]]))),
    'what',
  );
  counter('shoal_raft_flushes_total', 'Flushes of the log.', (_, { raft }) => [
    { value: raft.storage.flushes },
  ]);
  counter(
    'shoal_raft_drops_total',
    'Messages between managers that went nowhere, by reason.',
    (_, { raft }) => by('reason', raft.dropped),
    'reason',
  );
  counter('shoal_raft_stalls_total', 'Times that the leader stood still.', (_, { raft }) => [
    { value: raft.stalls },
  ]);
  gauge(
    'shoal_dispatch_sessions',
    'Sessions of agents with this manager.',
    (_, { dispatcher }) =>
      by('kind', {
        open: dispatcher.sessions,
        provisional: dispatcher.provisionalSessions,
      }),
    'kind',
  );
  counter(
    'shoal_control_peers_total',
    'Managers that connected, by verdict.',
    (_, { peers }) => by('verdict', peers),
    'verdict',
  );
  counter(
    'shoal_control_refused_total',
    'Certificates that were asked for and not given, by reason.',
    (_, { ca }) => by('reason', ca.refused),
    'reason',
  );
  counter(
    'shoal_control_port_total',
    'Connections of the control port that came to nothing, by reason.',
    (_, { listener: { failedHandshakes, overflows, strangers } }) =>
      by('reason', { failedHandshakes, overflows, strangers }),
    'reason',
  );
}
