import { ApiError, badRequest } from '../../wire/errors.js';
import { type Found, findContainer } from '../core/references.js';
import type { ClassicCluster, SeenNode } from './cluster.js';

/** Ids whose node is remembered, so that what follows goes straight there. */
const PLACES_MAX = 8_192;
const FULL_ID = /^[0-9a-f]{64}$/;

export interface Place {
  readonly nodeId: string;
  /** The container's full id. */
  readonly id: string;
}

/** Which node has a container, or a command in one. */
export class Places {
  readonly #cluster: ClassicCluster;
  /** By ids of containers and of commands, the oldest first: neither moves. */
  readonly #nodes = new Map<string, string>();

  constructor(cluster: ClassicCluster) {
    this.#cluster = cluster;
  }

  /** @throws ApiError API_NOT_FOUND, API_BAD_REQUEST, API_UNAVAILABLE */
  async ofContainer(ref: string): Promise<Place> {
    const known = FULL_ID.test(ref) ? this.#nodes.get(ref) : undefined;
    if (known !== undefined) return { nodeId: known, id: ref };
    const { node, container } = mustFind(await this.#cluster.look(), ref);
    if (node.trouble !== undefined)
      throw new ApiError(
        { code: 'API_REFUSED' },
        `Container ${ref} running on unhealthy node ${node.name}`,
      );
    this.remember(container.id, node.id);
    return { nodeId: node.id, id: container.id };
  }

  ofExec(id: string): string | undefined {
    return this.#nodes.get(id);
  }

  remember(id: string, nodeId: string): void {
    this.#nodes.delete(id);
    this.#nodes.set(id, nodeId);
    const [oldest] = this.#nodes.keys();
    if (this.#nodes.size > PLACES_MAX && oldest !== undefined) this.#nodes.delete(oldest);
  }
}

/** @throws ApiError API_NOT_FOUND, API_BAD_REQUEST */
export function mustFind(nodes: readonly SeenNode[], ref: string): Found<SeenNode> {
  const found = findContainer(nodes, ref);
  if (typeof found === 'object') return found;
  if (found === undefined)
    throw new ApiError({ code: 'API_NOT_FOUND' }, `No such container: ${ref}`);
  throw badRequest(
    `${ref} is the name of ${found} containers: say which by node/name or by its id`,
  );
}
