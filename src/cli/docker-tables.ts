import type { ServiceJson, TaskJson } from './stack/api.js';

const ID_CHARS = 12;

export function shortId(id: string): string {
  return id.slice(0, ID_CHARS);
}

/** `Running 3 minutes ago`, as docker counts time. */
export function ago(then: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(then)) / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.round(minutes / 60);
  if (seconds < 1) return 'less than a second ago';
  if (seconds === 1) return '1 second ago';
  if (seconds < 60) return `${seconds} seconds ago`;
  if (minutes === 1) return 'about a minute ago';
  if (minutes < 46) return `${minutes} minutes ago`;
  if (hours === 1) return 'about an hour ago';
  if (hours < 48) return `${hours} hours ago`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days ago`;
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks ago`;
  return `${Math.floor(hours / 24 / 30)} months ago`;
}

export function titleCase(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

const MODES: readonly (readonly [string, string])[] = [
  ['Replicated', 'replicated'],
  ['Global', 'global'],
  ['ReplicatedJob', 'replicated job'],
  ['GlobalJob', 'global job'],
];

export function modeOf({ Spec }: ServiceJson): string {
  return MODES.find(([key]) => key in Spec.Mode)?.[1] ?? '';
}

/** `2/3`; of jobs `2/3 (1/3 completed)`. */
export function replicasOf(service: ServiceJson): string {
  const { RunningTasks = 0, DesiredTasks = 0, CompletedTasks = 0 } = service.ServiceStatus ?? {};
  const counts = `${RunningTasks}/${DesiredTasks}`;
  const job = service.Spec.Mode['ReplicatedJob'] as
    | { readonly TotalCompletions?: number }
    | undefined;
  if (job === undefined) return counts;
  return `${counts} (${CompletedTasks}/${job.TotalCompletions ?? 1} completed)`;
}

/** `*:8080->80/tcp`, sorted; ports of the host mode are not of the whole swarm. */
export function portsOf({ Endpoint }: ServiceJson): string {
  return (Endpoint?.Ports ?? [])
    .filter(({ PublishMode }) => PublishMode !== 'host')
    .toSorted((a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0))
    .map((port) => `*:${port.PublishedPort}->${port.TargetPort}/${port.Protocol}`)
    .join(', ');
}

export function imageOf(image: string | undefined): string {
  return (image ?? '').replace(/@sha256:[0-9a-f]+$/, '');
}

export const SERVICE_HEADER = ['ID', 'NAME', 'MODE', 'REPLICAS', 'IMAGE', 'PORTS'];

export function serviceRow(service: ServiceJson): readonly string[] {
  return [
    shortId(service.ID),
    service.Spec.Name,
    modeOf(service),
    replicasOf(service),
    imageOf(service.Spec.TaskTemplate.ContainerSpec.Image),
    portsOf(service),
  ];
}

export const TASK_HEADER = [
  'ID',
  'NAME',
  'IMAGE',
  'NODE',
  'DESIRED STATE',
  'CURRENT STATE',
  'ERROR',
];

const ERROR_CHARS = 30;

export interface TaskTableOptions {
  /** Names of services and nodes by id. */
  readonly services: ReadonlyMap<string, string>;
  readonly nodes: ReadonlyMap<string, string>;
  readonly nowMs: number;
  readonly truncate: boolean;
}

/** By name; within one place the youngest first, and the ones before it indented below, as docker does. */
export function taskRows(
  tasks: readonly TaskJson[],
  { services, nodes, nowMs, truncate }: TaskTableOptions,
): readonly (readonly string[])[] {
  const nameOf = ({ ServiceID, Slot, NodeID }: TaskJson) =>
    `${services.get(ServiceID) ?? ServiceID}.${Slot ? Slot : (NodeID ?? '')}`;
  const order = (a: TaskJson, b: TaskJson) =>
    nameOf(a).localeCompare(nameOf(b), 'en', { numeric: true }) ||
    Date.parse(b.CreatedAt) - Date.parse(a.CreatedAt);
  let last = '';
  return tasks.toSorted(order).map((task) => {
    const name = nameOf(task);
    const isEarlier = name === last;
    last = name;
    const error = task.Status.Err ?? '';
    const shown =
      truncate && error.length > ERROR_CHARS ? `${error.slice(0, ERROR_CHARS - 1)}…` : error;
    const image = task.Spec.ContainerSpec?.Image ?? '';
    return [
      truncate ? shortId(task.ID) : task.ID,
      `${isEarlier ? ' \\_ ' : ''}${name}`,
      truncate ? imageOf(image) : image,
      nodes.get(task.NodeID ?? '') ?? task.NodeID ?? '',
      titleCase(task.DesiredState),
      `${titleCase(task.Status.State)} ${ago(task.Status.Timestamp, nowMs)}`,
      shown === '' ? '' : `"${shown}"`,
    ];
  });
}
