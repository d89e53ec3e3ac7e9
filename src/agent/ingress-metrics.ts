import type { Metrics, Sample } from '../observe/index.js';
import type { NodeIngress } from './ingress.js';

type Port = ReturnType<NodeIngress['stats']>['ports'][number];

/** Pairs of port and task in one answer. */
const BACKEND_SERIES_MAX = 2000;

/** What this node's published ports do, by service and port. */
export function addIngressMetrics(metrics: Metrics, ingress: () => NodeIngress | undefined): void {
  const ports = (read: (port: Port) => readonly [Readonly<Record<string, string>>, number][]) =>
    (ingress()?.stats().ports ?? []).flatMap((port) =>
      read(port).map(
        ([labels, value]): Sample => ({
          labels: { service: port.serviceName, port: port.key, ...labels },
          value,
        }),
      ),
    );
  const labelNames = ['service', 'port'];
  metrics.add({
    name: 'shoal_ingress_driver',
    help: 'The driver of published ports in use, as a label.',
    kind: 'gauge',
    labelNames: ['driver'],
    read: () => {
      const driver = ingress()?.stats().driver;
      return driver === undefined ? [] : [{ labels: { driver }, value: 1 }];
    },
  });
  metrics.add({
    name: 'shoal_ingress_accepted_total',
    help: 'Flows that came to a published port.',
    kind: 'counter',
    labelNames,
    read: () => ports((port) => [[{}, port.accepted]]),
  });
  metrics.add({
    name: 'shoal_ingress_flows_total',
    help: 'Flows of published ports that ended, by how they did.',
    kind: 'counter',
    labelNames: [...labelNames, 'end'],
    read: () => ports((port) => Object.entries(port.ends).map(([end, count]) => [{ end }, count])),
  });
  metrics.add({
    name: 'shoal_ingress_active_flows',
    help: 'Flows of published ports now.',
    kind: 'gauge',
    labelNames,
    read: () => ports((port) => [[{}, port.active]]),
  });
  metrics.add({
    name: 'shoal_ingress_bytes_total',
    help: 'Bytes of ended flows, towards the tasks (up) and back (down).',
    kind: 'counter',
    labelNames: [...labelNames, 'direction'],
    read: () =>
      ports((port) => [
        [{ direction: 'up' }, port.bytesUp],
        [{ direction: 'down' }, port.bytesDown],
      ]),
  });
  metrics.add({
    name: 'shoal_ingress_connects_total',
    help: 'Connections to tasks by result.',
    kind: 'counter',
    labelNames: [...labelNames, 'result'],
    read: () =>
      ports((port) => [
        [{ result: 'ok' }, port.connects],
        [{ result: 'failed' }, port.connectFailures],
      ]),
  });
  metrics.add({
    name: 'shoal_ingress_connect_seconds_total',
    help: 'Time that successful connections to tasks took, added up.',
    kind: 'counter',
    labelNames,
    read: () => ports((port) => [[{}, port.connectMsTotal / 1000]]),
  });
  metrics.add({
    name: 'shoal_ingress_backends',
    help: 'Tasks behind a published port, as this node sees them.',
    kind: 'gauge',
    labelNames: [...labelNames, 'state'],
    read: () =>
      ports(({ backends: { known, ready, ejected } }) => [
        [{ state: 'known' }, known],
        [{ state: 'ready' }, ready],
        [{ state: 'ejected' }, ejected],
      ]),
  });
  metrics.add({
    name: 'shoal_ingress_ejections_total',
    help: 'How often tasks were passed over because they kept failing.',
    kind: 'counter',
    labelNames,
    read: () => ports((port) => [[{}, port.ejections]]),
  });
  metrics.add({
    name: 'shoal_ingress_refused',
    help: 'Tasks of a service that are too many to get flows.',
    kind: 'gauge',
    labelNames,
    read: () => ports((port) => [[{}, port.refusedBackends]]),
  });
  metrics.add({
    name: 'shoal_ingress_task_connects_total',
    help: 'Connections to each task by result.',
    kind: 'counter',
    labelNames: [...labelNames, 'task', 'result'],
    read: () =>
      ports((port) =>
        port.tasks.flatMap(({ taskId, connects, connectFailures }) => [
          [{ task: taskId, result: 'ok' }, connects] as const,
          [{ task: taskId, result: 'failed' }, connectFailures] as const,
        ]),
      ).slice(0, BACKEND_SERIES_MAX * 2),
  });
  metrics.add({
    name: 'shoal_ingress_task_active_flows',
    help: 'Flows of published ports now, by task.',
    kind: 'gauge',
    labelNames: [...labelNames, 'task'],
    read: () =>
      ports((port) =>
        port.tasks.map(({ taskId, active }) => [{ task: taskId }, active] as const),
      ).slice(0, BACKEND_SERIES_MAX),
  });
  metrics.add({
    name: 'shoal_ingress_refused_flows_total',
    help: 'Flows that labels of the service do not let in, by which.',
    kind: 'counter',
    labelNames: [...labelNames, 'reason'],
    read: () =>
      ports((port) => Object.entries(port.refusals).map(([reason, count]) => [{ reason }, count])),
  });
  metrics.add({
    name: 'shoal_ingress_datagram_drops_total',
    help: 'Datagrams of published UDP ports that the native driver dropped, by reason.',
    kind: 'counter',
    labelNames: ['reason'],
    read: () =>
      Object.entries(ingress()?.stats().datagramDrops ?? {}).map(([reason, value]) => ({
        labels: { reason },
        value,
      })),
  });
  metrics.add({
    name: 'shoal_ingress_port_open',
    help: '1 while a published port is open on this node, 0 while somebody else has it.',
    kind: 'gauge',
    labelNames,
    read: () => ports((port) => [[{}, port.open ? 1 : 0]]),
  });
}
