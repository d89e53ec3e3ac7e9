import { type TaskObject, taskName } from '../../../base/service-model.js';
import type { NetworkObject } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { type Filters, parseFilters } from '../../core/filters.js';
import { resolve } from '../../core/references.js';
import { requireManager } from '../../core/selection.js';
import { selectTasks, TASK_FILTERS } from '../../core/service-selection.js';
import { taskJson } from '../../wire/task-json.js';
import { type Call, type Reply, type Route, readingSwarm } from '../call.js';
import { JsonTexts, jsonList } from '../json-texts.js';
import type { LogStreams } from '../logs.js';
import { findNode } from './nodes.js';
import { findService } from './services.js';

export function taskRoutes(backend: Backend, logs: LogStreams): Route[] {
  let networks: ReadonlyMap<string, NetworkObject> = new Map();
  const networkOf = (id: string) => networks.get(id);
  const texts = new JsonTexts<TaskObject>((task) => taskJson(task, networkOf));
  const textOf = (task: TaskObject) =>
    texts.of(
      task,
      task.networks.map(({ networkId }) => networkOf(networkId)),
    );
  const look = () => {
    networks = new Map(backend.networks().map((network) => [network.id, network]));
  };

  const find = (ref: string): TaskObject => {
    requireManager(backend.swarm());
    return backend.task(ref) ?? resolve('task', ref, backend.tasks(), (task) => [taskName(task)]);
  };

  function list(call: Call): Reply {
    const filters = parseFilters(call.query.get('filters'), TASK_FILTERS);
    requireManager(backend.swarm());
    look();
    const tasks = selectTasks(candidates(backend, filters), filters);
    return { kind: 'json-text', text: jsonList(tasks.map(textOf)) };
  }

  return readingSwarm([
    { method: 'GET', path: '/tasks', handle: list },
    {
      method: 'GET',
      path: '/tasks/:id',
      handle: (call) => {
        look();
        return { kind: 'json-text', text: textOf(find(call.param('id'))) };
      },
    },
    {
      method: 'GET',
      path: '/tasks/:id/logs',
      handle: (call) => {
        const task = find(call.param('id'));
        return logs.reply(call, { taskId: task.id }, task.spec.container.tty === true);
      },
    },
  ]);
}

/** By `service`, `node` and `_up-to-date`; a service or node that is not there is refused. */
function candidates(backend: Backend, filters: Filters): readonly TaskObject[] {
  const services = filters.get('service')?.map((ref) => findService(backend, ref).id);
  const nodes = filters.get('node')?.map((ref) => findNode(backend, ref).id as string);
  let tasks =
    services === undefined
      ? backend.tasks()
      : [...new Set<string>(services)].flatMap((id) => backend.tasksOfService(id));
  if (nodes !== undefined)
    tasks = tasks.filter(({ nodeId }) => nodeId !== undefined && nodes.includes(nodeId));
  if (!filters.has('_up-to-date')) return tasks;
  return tasks.filter((task) => {
    const service = backend.service(task.serviceId);
    return service !== undefined && backend.isUpToDate(service, task);
  });
}
