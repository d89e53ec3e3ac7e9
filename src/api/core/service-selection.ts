import {
  type ServiceObject,
  TASK_STATES,
  type TaskObject,
  taskName,
} from '../../base/service-model.js';
import { badRequest } from '../wire/errors.js';
import { type Filters, matchesAny, matchesLabels } from './filters.js';

export const SERVICE_FILTERS = ['id', 'label', 'mode', 'name', 'runtime'];

/** As the real engine lists objects: by id. */
export const byId = (a: { readonly id: string }, b: { readonly id: string }) =>
  a.id < b.id ? -1 : Number(a.id > b.id);

export function selectServices(
  services: readonly ServiceObject[],
  filters: Filters,
): ServiceObject[] {
  return services
    .filter(
      ({ id, spec }) =>
        matchesAny(filters, 'id', (value) => id.startsWith(value)) &&
        matchesAny(filters, 'name', (value) => spec.name.startsWith(value)) &&
        matchesAny(filters, 'mode', (value) => spec.mode.kind === value) &&
        matchesAny(filters, 'runtime', (value) => value === 'container') &&
        matchesLabels(filters, 'label', spec.labels),
    )
    .sort(byId);
}

/** Figures of `GET /services?status=true`. */
export interface ServiceCounts {
  readonly running: number;
  readonly desired: number;
  readonly completed: number;
}

export function countTasks(
  { spec: { mode }, job }: ServiceObject,
  tasks: readonly TaskObject[],
): ServiceCounts {
  // Of a job only the present run counts.
  const present =
    job === undefined ? tasks : tasks.filter((task) => task.jobIteration === job.iteration);
  const completed =
    job === undefined ? 0 : present.filter(({ status }) => status.state === 'complete').length;
  const running = present.filter(({ status }) => status.state === 'running').length;
  if (mode.kind === 'replicated') return { running, completed, desired: mode.replicas };
  if (mode.kind === 'replicated-job') return { running, completed, desired: mode.maxConcurrent };
  const desired = present.filter(
    ({ desiredState, status }) =>
      desiredState === 'running' || (desiredState === 'complete' && status.state !== 'complete'),
  ).length;
  return { running, completed, desired };
}

/** `_up-to-date` is what the CLI's progress asks for; it is in no help. */
export const TASK_FILTERS = [
  ...['_up-to-date', 'desired-state', 'id', 'label', 'name', 'node', 'runtime', 'service'],
];

/** By all filters but `service`, `node` and `_up-to-date`, which need to know other objects. */
export function selectTasks(tasks: readonly TaskObject[], filters: Filters): TaskObject[] {
  for (const value of filters.get('desired-state') ?? []) {
    if (!(TASK_STATES as readonly string[]).includes(value.toLowerCase()))
      throw badRequest(`Invalid desired-state filter: '${value}'`);
  }
  return tasks
    .filter(
      (task) =>
        matchesAny(filters, 'id', (value) => task.id.startsWith(value)) &&
        matchesAny(filters, 'name', (value) => taskName(task).startsWith(value)) &&
        matchesAny(
          filters,
          'desired-state',
          (value) => task.desiredState === value.toLowerCase(),
        ) &&
        matchesAny(filters, 'runtime', (value) => value === 'container' || value === '') &&
        matchesLabels(filters, 'label', task.serviceLabels),
    )
    .sort(byId);
}
