import type { ClassicContainer, ClassicNode } from './node.js';

/** Of a container that is to run elsewhere when its node fails: a JSON list with the one policy. */
export const POLICY_LABEL = 'com.docker.swarm.reschedule-policies';
/** Ids of the containers that it has taken the place of, one after the other. */
export const FORMER_LABEL = 'com.docker.shoal.rescheduled-from';

const POLICY = 'on-node-failure';

export interface Placed<Node> {
  readonly node: Node;
  readonly container: ClassicContainer;
}

export interface Reschedule<Node> {
  /** On failed nodes, and nowhere else yet. */
  readonly move: readonly Placed<Node>[];
  /** On nodes that have come back, with a successor elsewhere. */
  readonly remove: readonly Placed<Node>[];
}

/**
 * What the policies of containers ask for. It is a function of what there is, so that it does not matter
 * who asks, and how often.
 *
 * @param isFailed By the managers' word, and not for one question without an answer.
 */
export function rescheduleOf<Node extends ClassicNode>(
  nodes: readonly Node[],
  isFailed: (node: Node) => boolean,
): Reschedule<Node> {
  const all = nodes.flatMap((node) => node.containers.map((container) => ({ node, container })));
  const former = new Set(all.flatMap(({ container }) => formerOf(container)));
  return {
    move: all.filter(
      ({ node, container }) => isFailed(node) && hasPolicy(container) && !former.has(container.id),
    ),
    remove: all.filter(
      ({ node, container }) =>
        node.trouble === undefined && former.has(container.id) && hasPolicy(container),
    ),
  };
}

export function hasPolicy({ labels }: Pick<ClassicContainer, 'labels'>): boolean {
  return policiesOf(labels[POLICY_LABEL]).includes(POLICY);
}

function policiesOf(label: string | undefined): readonly unknown[] {
  try {
    const parsed: unknown = JSON.parse(label ?? '[]');
    return Array.isArray(parsed) ? parsed : [];
  } catch {
    return [];
  }
}

function formerOf({ labels }: ClassicContainer): readonly string[] {
  const label = labels[FORMER_LABEL] ?? '';
  return label === '' ? [] : label.split(',');
}

/** The label of the one that takes a container's place. */
export const successorLabel = (container: ClassicContainer): string =>
  [...formerOf(container), container.id].join(',');
