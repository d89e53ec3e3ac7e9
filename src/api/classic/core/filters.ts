import { type Constraint, matchesAny } from '../../../base/constraint.js';
import type { Claims, HostPort } from '../wire/claims.js';
import { expressionText } from './expressions.js';
import type { ClassicContainer, ClassicNode } from './node.js';
import { findContainer } from './references.js';

/** What a new container asks of a node. */
export interface Wish extends Claims {
  readonly image: string;
  readonly constraints: readonly Constraint[];
  readonly affinities: readonly Constraint[];
  /** It has the node's own network, so that what it exposes is the node's. */
  readonly isOnHostNetwork: boolean;
  /** Containers that must be on the same node, and how each was asked for: `--link=db:db`. */
  readonly dependencies: readonly { readonly ref: string; readonly text: string }[];
}

/** As `docker info` lists them; they are asked in this order. */
export const FILTERS = 'affinity, health, constraint, port, dependency';

/** Characters of an id that stand for it. */
const SHORT_ID_CHARS = 12;

type Outcome<Node> = readonly Node[] | string;

/**
 * The nodes that will do, in the order in which they came.
 *
 * @param isSoft Wishes (`==~`) count as demands.
 * @returns Why there are none, in the classic Swarm's words.
 */
export function filterNodes<Node extends ClassicNode>(
  nodes: readonly Node[],
  wish: Wish,
  isSoft: boolean,
): Outcome<Node> {
  const steps = [byAffinity, byHealth, byConstraint, byPort, byDependency];
  let left = nodes;
  for (const step of steps) {
    const outcome = step(left, wish, isSoft);
    if (typeof outcome === 'string') return outcome;
    left = outcome as readonly Node[];
  }
  return left;
}

function byExpressions(
  nodes: readonly ClassicNode[],
  expressions: readonly Constraint[],
  isSoft: boolean,
  subjectsOf: (node: ClassicNode, key: string) => readonly string[],
): Outcome<ClassicNode> {
  let left = nodes;
  for (const one of expressions) {
    if (one.isSoft && !isSoft) continue;
    left = left.filter((node) => matchesAny(one, subjectsOf(node, one.key)));
    if (left.length === 0) return `unable to find a node that satisfies ${expressionText(one)}`;
  }
  return left;
}

function byAffinity(nodes: readonly ClassicNode[], { affinities }: Wish, isSoft: boolean) {
  return byExpressions(nodes, affinities, isSoft, (node, key) => {
    if (key === 'image') return node.images.flatMap(({ id, tags }) => [id, ...tags.flatMap(names)]);
    if (key === 'container')
      return node.containers.flatMap(({ id, names: own }) => [
        id,
        id.slice(0, SHORT_ID_CHARS),
        ...own,
        ...own.map((name) => `${node.name}/${name}`),
      ]);
    return node.containers.flatMap(({ labels }) =>
      Object.hasOwn(labels, key) ? [labels[key] ?? ''] : [],
    );
  });
}

/** `busybox:1` and `busybox`. A colon before a slash is a registry's port. */
function names(tag: string): readonly string[] {
  const at = tag.lastIndexOf(':');
  return at > tag.lastIndexOf('/') ? [tag, tag.slice(0, at)] : [tag];
}

function byHealth(nodes: readonly ClassicNode[]): Outcome<ClassicNode> {
  const healthy = nodes.filter(({ trouble, isActive }) => trouble === undefined && isActive);
  if (healthy.length === 0) return 'No healthy node available in the cluster';
  const withEngine = healthy.filter(({ hasEngine }) => hasEngine);
  if (withEngine.length > 0) return withEngine;
  return 'no healthy node of the cluster has a container engine: start one beside an agent (--engine-socket), or run commands of the hosts with docker service create … host';
}

function byConstraint(nodes: readonly ClassicNode[], { constraints }: Wish, isSoft: boolean) {
  return byExpressions(nodes, constraints, isSoft, ({ id, name, labels }, key) => {
    if (key === 'node') return [id, name];
    return [Object.hasOwn(labels, key) ? (labels[key] ?? '') : ''];
  });
}

function byPort(nodes: readonly ClassicNode[], wish: Wish): Outcome<ClassicNode> {
  let left = nodes;
  for (const wanted of wish.ports) {
    left = left.filter(({ containers }) => !containers.some((one) => holds(one, wanted)));
    if (left.length > 0) continue;
    return wish.isOnHostNetwork
      ? `unable to find a node with port ${wanted.port}/${wanted.protocol} available in the Host mode`
      : `unable to find a node with port ${wanted.port} available`;
  }
  return left;
}

const isEverywhere = (ip: string) => ip === '' || ip === '0.0.0.0' || ip === '::';

function holds({ ports }: ClassicContainer, wanted: HostPort): boolean {
  return ports.some(
    ({ port, protocol, ip }) =>
      port === wanted.port &&
      protocol === wanted.protocol &&
      (ip === wanted.ip || isEverywhere(ip) || isEverywhere(wanted.ip)),
  );
}

function byDependency(nodes: readonly ClassicNode[], { dependencies }: Wish): Outcome<ClassicNode> {
  const left = nodes.filter((node) =>
    dependencies.every(({ ref }) => findContainer([node], ref) !== undefined),
  );
  if (left.length > 0) return left;
  const texts = dependencies.map(({ text }) => text).join(' ');
  return `Unable to find a node fulfilling all dependencies: ${texts}`;
}
