import type { Prng } from '../../../base/prng.js';
import { filterNodes, type Wish } from './filters.js';
import { type ClassicNode, reservedOf } from './node.js';

export const CLASSIC_STRATEGIES = ['spread', 'binpack', 'random'] as const;
export type ClassicStrategy = (typeof CLASSIC_STRATEGIES)[number];

/** Of processors and of memory each, where nothing of it is asked for. */
const SCORE_UNASKED = 100;
/** All of a node. */
const SCORE_FULL = 100;

interface Ranked<Node> {
  readonly node: Node;
  readonly weight: number;
  /** Among those that are otherwise alike. */
  readonly lot: number;
}

/**
 * The node for a new container: filters first, with its wishes if that leaves any node; then the strategy.
 *
 * @returns Why there is none, in the classic Swarm's words.
 */
export function chooseNode<Node extends ClassicNode>(
  nodes: readonly Node[],
  wish: Wish,
  strategy: ClassicStrategy,
  prng: Prng,
): Node | string {
  if (nodes.length === 0) return 'No nodes available in the cluster';
  const hopeful = chooseAmong(filterNodes(nodes, wish, true), wish, strategy, prng);
  if (typeof hopeful !== 'string') return hopeful;
  return chooseAmong(filterNodes(nodes, wish, false), wish, strategy, prng);
}

function chooseAmong<Node extends ClassicNode>(
  nodes: readonly Node[] | string,
  wish: Wish,
  strategy: ClassicStrategy,
  prng: Prng,
): Node | string {
  if (typeof nodes === 'string') return nodes;
  // Filters leave at least one, or say why.
  if (strategy === 'random') return nodes[prng.nextBelow(nodes.length)] as Node;
  const ranked: Ranked<Node>[] = [];
  for (const node of nodes) {
    const weight = weightOf(node, wish);
    if (weight !== undefined) ranked.push({ node, weight, lot: prng.nextFloat() });
  }
  const direction = strategy === 'binpack' ? -1 : 1;
  const [best] = ranked.sort(
    (a, b) =>
      direction * (a.weight - b.weight) ||
      direction * (a.node.containers.length - b.node.containers.length) ||
      a.lot - b.lot,
  );
  return best?.node ?? 'no resources available to schedule container';
}

/** How full the node would be; `undefined`: there is not so much room on it. */
function weightOf(node: ClassicNode, wish: Wish): number | undefined {
  const reserved = reservedOf(node);
  const cpu = scoreOf(wish.cpus, reserved.cpus, node.cpus);
  const memory = scoreOf(wish.memoryBytes, reserved.memoryBytes, node.memoryBytes);
  return cpu > SCORE_FULL || memory > SCORE_FULL ? undefined : cpu + memory;
}

function scoreOf(asked: number, reserved: number, all: number): number {
  if (asked <= 0) return SCORE_UNASKED;
  return all <= 0 ? Number.POSITIVE_INFINITY : ((reserved + asked) * 100) / all;
}
