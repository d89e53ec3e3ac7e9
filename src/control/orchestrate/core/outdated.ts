import { parseConstraints, satisfies } from '../../../base/constraint.js';
import type { TaskObject } from '../../../base/service-model.js';
import type { NodeObject } from '../../../base/swarm-model.js';
import type { Draft } from './draft.js';

type Difference = 'none' | 'placement' | 'task';

/** A service, and where its tasks are. */
type Subject = Pick<Draft, 'service' | 'nodeOf'>;

/** Which tasks are not as the service's spec wants them; tasks of one spec version are alike. */
export class Outdated {
  readonly #draft: Subject;
  readonly #differences = new Map<number, Difference>();

  constructor(draft: Subject) {
    this.#draft = draft;
  }

  has(task: TaskObject): boolean {
    let difference = this.#differences.get(task.specVersion);
    if (difference === undefined) {
      difference = this.#compare(task);
      this.#differences.set(task.specVersion, difference);
    }
    if (difference !== 'placement') return difference === 'task';
    // A task that is where it may be stays, although it was put there for another reason.
    const node = this.#draft.nodeOf(task);
    return node === undefined || !isAllowed(this.#draft, node);
  }

  #compare(task: TaskObject): Difference {
    const { service } = this.#draft;
    if (task.specVersion === service.specVersion) return 'none';
    const { placement: before, ...old } = task.spec;
    const { placement: after, ...now } = service.spec.task;
    if (!isSame(old, now) || !isSame(task.ports, service.endpoint.ports)) return 'task';
    return isSame(before, after) ? 'none' : 'placement';
  }
}

/** Whether the constraints of the service, as it is now, are satisfied. */
export function isAllowed({ service }: Pick<Draft, 'service'>, node: NodeObject): boolean {
  return satisfiesAll(node, service.spec.task.placement?.constraints ?? []);
}

export function satisfiesAll(node: NodeObject, texts: readonly string[]): boolean {
  const constraints = parseConstraints(texts);
  return (
    typeof constraints === 'string' ||
    constraints.every((constraint) => constraint.isSoft || satisfies(node, constraint))
  );
}

/** The same JSON, whatever the order of its keys. */
function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  for (const key of keys)
    if (!isSame((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]))
      return false;
  return true;
}
