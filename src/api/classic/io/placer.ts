import type { Prng } from '../../../base/prng.js';
import { askUpstream } from '../../io/upstream.js';
import { ApiError } from '../../wire/errors.js';
import {
  type CreateRequest,
  localBody,
  onlyWithImage,
  parseCreate,
  preferringNode,
} from '../core/create-request.js';
import type { Wish } from '../core/filters.js';
import type { ClassicContainer } from '../core/node.js';
import { splitNodeName } from '../core/references.js';
import { hasPolicy } from '../core/reschedule.js';
import { type ClassicStrategy, chooseNode } from '../core/scheduler.js';
import { isImage } from '../wire/image-name.js';
import { labelsOf, listOf, objectOf, textOf } from '../wire/json.js';
import type { ClassicCluster, SeenNode } from './cluster.js';
import { type PullHeaders, pull } from './pull.js';

/** For an engine to make a container. */
const CREATE_MS_MAX = 120_000;

export interface Created {
  readonly status: number;
  readonly json: unknown;
  readonly nodeId: string;
  /** It is to run elsewhere when its node fails. */
  readonly hasPolicy: boolean;
}

interface Pending {
  readonly nodeId: string;
  readonly container: ClassicContainer;
}

/** `docker create` and `run` of the cluster: one after the other gets its node, then all make theirs. */
export class ClassicPlacer {
  readonly #cluster: ClassicCluster;
  readonly #strategy: ClassicStrategy;
  readonly #prng: Prng;
  /** Placed and not made yet: the next one is to see them. */
  readonly #pending = new Set<Pending>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(cluster: ClassicCluster, strategy: ClassicStrategy, prng: Prng) {
    this.#cluster = cluster;
    this.#strategy = strategy;
    this.#prng = prng;
  }

  /**
   * @param replaced Id of the container whose place it takes, and whose name.
   * @throws ApiError in the classic Swarm's words.
   */
  async create(
    body: unknown,
    query: URLSearchParams,
    headers: PullHeaders,
    signal: AbortSignal,
    replaced?: string,
  ): Promise<Created> {
    const parsed = parseCreate(body);
    if (typeof parsed === 'string') throw refused(parsed);
    if (/^host(?::|$)/.test(parsed.wish.image)) throw refused(HOST_IMAGE_TEXT);
    const request = await this.#nearNetwork(parsed);
    const first = await this.#tryOne(request, query, replaced);
    if (!lacksImage(first)) return first;
    const { image } = request.wish;
    const refusal = await pull(this.#cluster.upstream(first.nodeId), image, headers, signal);
    if (refusal === undefined) return this.#tryOne(nailed(request, first.nodeId), query, replaced);
    // Nobody gives the image; but a node may have it already.
    const nodes = await this.#cluster.look();
    if (!nodes.some(({ images }) => images.some((one) => isImage(image, one)))) {
      throw refused(refusal);
    }
    return this.#tryOne(onlyWithImage(request), query, replaced);
  }

  /** A node for what is no container. @throws ApiError */
  async anyNode(): Promise<SeenNode> {
    return this.#choose(await this.#cluster.look(), NO_WISH);
  }

  /** @throws ApiError API_CONFLICT: some container of the cluster is called so. */
  requireFreeName(name: string, nodes: readonly SeenNode[]): void {
    const isTaken =
      nodes.some(({ containers }) => containers.some(({ names }) => names.includes(name))) ||
      [...this.#pending].some(({ container }) => container.names.includes(name));
    if (isTaken)
      throw new ApiError(
        { code: 'API_CONFLICT' },
        `Conflict: The name ${name} is already assigned. You have to delete (or rename) that container to be able to assign ${name} to a container again.`,
      );
  }

  async #tryOne(
    request: CreateRequest,
    query: URLSearchParams,
    replaced: string | undefined,
  ): Promise<Created> {
    const { node, nodes, pending } = await this.#queue(() => this.#place(request, query, replaced));
    try {
      const localName = (ref: string) => splitNodeName(ref, nodes).name;
      const asked = new URLSearchParams(query).toString();
      const answer = await askUpstream(this.#cluster.upstream(node.id), {
        method: 'POST',
        path: `/containers/create${asked === '' ? '' : `?${asked}`}`,
        json: localBody(request.body, localName),
        timeoutMs: CREATE_MS_MAX,
      });
      const labels = labelsOf(request.body['Labels']);
      return { ...answer, nodeId: node.id, hasPolicy: hasPolicy({ labels }) };
    } finally {
      this.#pending.delete(pending);
    }
  }

  async #place(request: CreateRequest, query: URLSearchParams, replaced: string | undefined) {
    const nodes = (await this.#cluster.look()).map((node) => ({
      ...node,
      containers: [
        ...node.containers.filter(({ id }) => id !== replaced),
        ...this.#pendingOn(node.id),
      ],
    }));
    const name = query.get('name') ?? '';
    if (name !== '') this.requireFreeName(name, nodes);
    const node = this.#choose(nodes, request.wish);
    const { ports, cpus, memoryBytes } = request.wish;
    const names = name === '' ? [] : [name];
    const container = { id: '', names, labels: {}, state: 'created', ports, cpus, memoryBytes };
    const pending = { nodeId: node.id, container };
    this.#pending.add(pending);
    return { node, nodes, pending };
  }

  #choose(nodes: readonly SeenNode[], wish: Wish): SeenNode {
    const chosen = chooseNode(nodes, wish, this.#strategy, this.#prng);
    if (typeof chosen === 'string') throw refused(chosen);
    return chosen;
  }

  *#pendingOn(nodeId: string): Iterable<ClassicContainer> {
    for (const one of this.#pending) if (one.nodeId === nodeId) yield one.container;
  }

  /** A network that only one engine has draws its containers there. */
  async #nearNetwork(request: CreateRequest): Promise<CreateRequest> {
    if (request.network === '') return request;
    const answers = await this.#cluster.askAll({ path: '/networks' });
    // The swarm's are on every node.
    if (answers.some(({ json }) => isOverlay(json, request.network))) return request;
    const { node, name } = splitNodeName(
      request.network,
      answers.map(({ origin }) => origin),
    );
    const owner = answers.find(
      ({ origin, json }) =>
        (node === undefined || origin.name === node) &&
        listOf(json).some((one) => {
          const { Name, Id, Scope } = objectOf(one);
          return Scope === 'local' && (Name === name || textOf(Id) === name);
        }),
    );
    return owner === undefined ? request : preferringNode(request, owner.origin.name);
  }

  #queue<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

const HOST_IMAGE_TEXT =
  'the image host stands for commands of the hosts, which are run as services: docker service create … host COMMAND, with --constraint node.hostname==NODE for one node';

const NO_WISH: Wish = {
  image: '',
  constraints: [],
  affinities: [],
  isOnHostNetwork: false,
  dependencies: [],
  ports: [],
  cpus: 0,
  memoryBytes: 0,
};

const refused = (message: string) => new ApiError({ code: 'API_REFUSED' }, message);

/** The same once more, on the node that has got the image for it. */
function nailed(request: CreateRequest, nodeId: string): CreateRequest {
  const here = { key: 'node', isEqual: true, isSoft: false, value: nodeId };
  return {
    ...request,
    wish: { ...request.wish, constraints: [...request.wish.constraints, here] },
  };
}

function isOverlay(networks: unknown, ref: string): boolean {
  return listOf(networks).some((one) => {
    const { Name, Id, Scope } = objectOf(one);
    return Scope === 'swarm' && (Name === ref || Id === ref);
  });
}

function lacksImage({ status, json }: Created): boolean {
  return status === 404 && /no such image/i.test(textOf(objectOf(json)['message']));
}
