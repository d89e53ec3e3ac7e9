import { compareTaskStates, isTerminal, type TaskObject } from '../../../base/service-model.js';
import type { GenericResource, NodeObject, TaskId } from '../../../base/swarm-model.js';
import { isActive } from './node-load.js';
import { satisfiesAll } from './outdated.js';
import type { View } from './view.js';

/** Tasks on a node that has changed so that they may not stay there; the youngest give way first. */
export function misplaced(view: View, node: NodeObject): readonly TaskId[] {
  // On a node that is drained all tasks end anyway, and one that is paused is to be left alone.
  if (node.spec.availability !== 'active') return [];
  const { description } = node;
  let { nanoCpus, memoryBytes } = description;
  const generic = new GenericLeft(description.genericResources ?? []);
  const away: TaskId[] = [];
  const tasks = [...view.tasksOnNode(node.id)].filter(isPresent);
  tasks.sort((a, b) => a.createdAtMs - b.createdAtMs || a.version - b.version);
  for (const task of tasks) {
    // As the service is now: tasks need not be replaced when only its constraints change.
    const { placement } = view.service(task.serviceId)?.spec.task ?? task.spec;
    const constraints = placement?.constraints ?? [];
    const reserved = task.spec.resources?.reservations ?? {};
    const { nanoCpus: cpus = 0, memoryBytes: bytes = 0 } = reserved;
    if (
      !satisfiesAll(node, constraints) ||
      cpus > nanoCpus ||
      bytes > memoryBytes ||
      !generic.take(task.assignedResources ?? [])
    ) {
      away.push(task.id);
      continue;
    }
    nanoCpus -= cpus;
    memoryBytes -= bytes;
  }
  return away;
}

function isPresent(task: TaskObject): boolean {
  const { state } = task.status;
  return isActive(task) && !isTerminal(state) && compareTaskStates(state, 'assigned') >= 0;
}

/** What of a node's generic resources is left while tasks take theirs again. */
class GenericLeft {
  readonly #named = new Set<string>();
  readonly #discrete = new Map<string, number>();

  constructor(resources: readonly GenericResource[]) {
    for (const resource of resources) {
      if (resource.kind === 'named') this.#named.add(`${resource.name}=${resource.value}`);
      else this.#discrete.set(resource.name, resource.value);
    }
  }

  take(wanted: readonly GenericResource[]): boolean {
    const has = wanted.every((want) =>
      want.kind === 'named'
        ? this.#named.has(`${want.name}=${want.value}`)
        : (this.#discrete.get(want.name) ?? 0) >= want.value,
    );
    if (!has) return false;
    for (const want of wanted) {
      if (want.kind === 'named') this.#named.delete(`${want.name}=${want.value}`);
      else this.#discrete.set(want.name, (this.#discrete.get(want.name) ?? 0) - want.value);
    }
    return true;
  }
}
