import type { ClassicContainer, ClassicNode } from './node.js';

/** Of an id, to stand for it. */
const HEX = /^[0-9a-f]+$/;

export interface Found<Node> {
  readonly node: Node;
  readonly container: ClassicContainer;
}

/**
 * A container by its id, by `node/name`, by its name, or by the beginning of its id, in this order.
 *
 * @returns The number of those that it could be, where it is more than one.
 */
export function findContainer<Node extends Pick<ClassicNode, 'name' | 'containers'>>(
  nodes: readonly Node[],
  ref: string,
): Found<Node> | number | undefined {
  const name = ref.replace(/^\/+/, '');
  const all = nodes.flatMap((node) => node.containers.map((container) => ({ node, container })));
  const passes: ((one: Found<Node>) => boolean)[] = [
    ({ container }) => container.id === name,
    ({ node, container }) => container.names.some((own) => `${node.name}/${own}` === name),
    ({ container }) => container.names.includes(name),
    ({ container }) => HEX.test(name) && container.id.startsWith(name),
  ];
  for (const isMeant of passes) {
    const matches = all.filter(isMeant);
    if (matches.length > 1) return matches.length;
    if (matches[0] !== undefined) return matches[0];
  }
  return undefined;
}

/** `node1/web` as the node itself knows it: `web`. Anything else stays as it is. */
export function splitNodeName(
  ref: string,
  nodes: readonly Pick<ClassicNode, 'name'>[],
): { readonly node?: string; readonly name: string } {
  const text = ref.replace(/^\//, '');
  const at = text.indexOf('/');
  const node = text.slice(0, at);
  if (at <= 0 || !nodes.some(({ name }) => name === node)) return { name: ref };
  return { node, name: text.slice(at + 1) };
}
