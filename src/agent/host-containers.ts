import type { HostContainers } from '../api/index.js';
import type { TaskObject } from '../base/service-model.js';
import type { TaskId } from '../base/swarm-model.js';
import { type KnownTask, type Runtime, RuntimeError } from '../runtime/index.js';

/** @param taskOf What the swarm knows of a task, for what its runtime does not keep. */
export function hostContainers(
  runtime: Runtime,
  taskOf: (id: string) => TaskObject | undefined,
): HostContainers {
  const id = (taskId: string) => taskId as TaskId;
  return {
    async list() {
      const known = await runtime.list();
      return known.map((task) => hostContainer(task, taskOf(task.id)));
    },
    logs: (taskId, query, signal) => runtime.logs(id(taskId), query, signal),
    stop: (taskId, how) => runtime.stop(id(taskId), how),
    remove: (taskId) => runtime.remove(id(taskId)),
    exec(taskId, spec, streams, signal) {
      if (runtime.exec === undefined) throw lacking('exec');
      return runtime.exec(id(taskId), spec, streams, signal);
    },
    stats(taskId) {
      if (runtime.stats === undefined) throw lacking('stats');
      return runtime.stats(id(taskId));
    },
    top(taskId) {
      if (runtime.top === undefined) throw lacking('top');
      return runtime.top(id(taskId));
    },
  };
}

const lacking = (what: string) =>
  new RuntimeError({ code: 'RUNTIME_REJECTED' }, `this runtime has no ${what}`);

function hostContainer(known: KnownTask, task: TaskObject | undefined) {
  const { container } = task?.spec ?? {};
  const { id: taskId, containerId: id, labels, startedAtMs, ...rest } = known;
  return {
    ...rest,
    id,
    taskId,
    labels,
    name: labels['com.docker.swarm.task.name'] ?? taskId,
    image: container?.image ?? 'host',
    command: [...(container?.command ?? []), ...(container?.args ?? [])],
    env: container?.env ?? [],
    tty: container?.tty ?? false,
    createdAtMs: task?.createdAtMs ?? startedAtMs ?? 0,
    ...(startedAtMs === undefined ? {} : { startedAtMs }),
  };
}
