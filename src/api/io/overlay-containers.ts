import type { ContainerNetworks, EngineAnswer } from '../core/container-networks.js';
import { parseFilters } from '../core/filters.js';
import { askedNetworks, connectRequest } from '../wire/engine-json.js';
import { type Call, empty, json, type Method, type Reply } from './call.js';
import { askUpstream, type Upstream } from './upstream.js';

const CREATE = /^(?:\/v[\d.]+)?\/containers\/create(?:\?|$)/;
const CONTAINER = /^(?:\/v[\d.]+)?\/containers\/([^/?]+)\/(start|restart|json)(?:\?|$)/;
const NETWORK = /^(?:\/v[\d.]+)?\/networks\/([^/?]+)\/(connect|disconnect)(?:\?|$)/;
const LIST = /^(?:\/v[\d.]+)?\/containers\/json(?:\?|$)/;

/** Names of interfaces that an engine goes through until one is free. */
const NAMES_TRIED_MAX = 32;

/** An answer of the engine's as it is, and what was read of the request if it is to have it all the same. */
export type Served = Reply | { readonly kind: 'pass'; readonly body: unknown } | undefined;

/** Docker's verbs for containers of the engine, as far as the swarm's overlays have a part in them. */
export class OverlayContainers {
  readonly #networks: ContainerNetworks;

  constructor(networks: ContainerNetworks) {
    this.#networks = networks;
  }

  /** @returns `undefined`: it is the engine's alone. */
  async serve(method: Method, call: Call, engine: Upstream): Promise<Served> {
    if (method === 'POST' && CREATE.test(call.url)) return this.#create(call, engine);
    const [, network = '', change] = NETWORK.exec(call.url) ?? [];
    if (method === 'POST' && change !== undefined)
      return this.#change(decodeURIComponent(network), change === 'connect', call, engine);
    const [, ref = '', verb] = CONTAINER.exec(call.url) ?? [];
    if (verb === undefined) return undefined;
    if (verb === 'json') {
      return method === 'GET' && ref !== '' ? this.#inspect(call, engine) : undefined;
    }
    const id = await this.#networks.find(decodeURIComponent(ref));
    if (method !== 'POST' || id === undefined) return undefined;
    const path = call.url;
    return answered(
      await this.#networks.start(id, () => askUpstream(engine, { method: 'POST', path })),
    );
  }

  /** What the engine lists, with the overlays; of all, or of one network's. */
  async list(call: Call, engine: Upstream): Promise<EngineAnswer> {
    const filters = LIST.test(call.url) ? call.query.get('filters') : null;
    const wanted = filters === null ? undefined : networksOf(filters);
    const overlays = wanted?.refs.map((ref) => this.#networks.overlay(ref)?.name);
    if (wanted === undefined || overlays === undefined || overlays.includes(undefined)) {
      const { status, json: list } = await askUpstream(engine, { path: call.url });
      return { status, json: Array.isArray(list) ? this.#networks.shownInList(list) : list };
    }
    const query = new URLSearchParams(call.query);
    query.set('filters', JSON.stringify(wanted.others));
    const path = `${call.url.split('?')[0]}?${query}`;
    const { status, json: list } = await askUpstream(engine, { path });
    if (!Array.isArray(list)) return { status, json: list };
    const shown = this.#networks.shownInList(list).filter((one) => {
      const { NetworkSettings: settings } = one as ListedNetworks;
      return overlays.some((name) => settings?.Networks?.[name ?? ''] !== undefined);
    });
    return { status, json: shown };
  }

  async #create(call: Call, engine: Upstream): Promise<Served> {
    const body = await call.body();
    const plan = this.#networks.plan(body, askedNetworks(body));
    if (plan === undefined) return { kind: 'pass', body };
    const path = call.url;
    const answer = await askUpstream(engine, { method: 'POST', path, json: plan.body });
    const { Id: id } = (answer.json ?? {}) as { readonly Id?: unknown };
    if (answer.status === 201 && typeof id === 'string') await plan.made(id);
    return answered(answer);
  }

  async #inspect(call: Call, engine: Upstream): Promise<Served> {
    const { status, json: inspected } = await askUpstream(engine, { path: call.url });
    const shown = status === 200 ? await this.#networks.shown(inspected) : undefined;
    return shown === undefined ? undefined : json(shown);
  }

  async #change(
    network: string,
    isConnect: boolean,
    call: Call,
    engine: Upstream,
  ): Promise<Served> {
    const body = await call.body();
    const { container, endpoint } = connectRequest(body);
    const overlay = this.#networks.overlay(network);
    if (overlay !== undefined) {
      if (isConnect) await this.#networks.connect(container, overlay.id, endpoint);
      else await this.#networks.disconnect(container, overlay.id);
      return empty(200);
    }
    const id = await this.#networks.find(container);
    const sandbox = id === undefined ? undefined : this.#networks.sandboxOf(id);
    if (sandbox === undefined) return { kind: 'pass', body };
    // An engine has the namespace in the sandbox.
    const send = (path: string, name: string) =>
      askUpstream(engine, {
        method: 'POST',
        path: path.replace(/\/networks\/[^/]+\//, `/networks/${encodeURIComponent(name)}/`),
        json: { ...(body as object), Container: sandbox },
      });
    if (isConnect) await send(call.url.replace(/connect/, 'disconnect'), 'none');
    let answer = await send(call.url, network);
    // It counts its interfaces by itself, eth0 and so on, and does not see ours: the next may be free.
    for (let tries = 1; tries < NAMES_TRIED_MAX && isNameTaken(answer); tries++)
      answer = await send(call.url, network);
    return answered(answer);
  }
}

const isNameTaken = ({ status, json: value }: EngineAnswer) =>
  status >= 500 && /"eth\d+": file exists/.test(String((value as { message?: unknown })?.message));

interface ListedNetworks {
  readonly NetworkSettings?: { readonly Networks?: Readonly<Record<string, unknown>> };
}

const answered = ({ status, json: value }: EngineAnswer): Reply =>
  value === undefined ? empty(status) : json(value, status);

/** The filter `network` apart from the others; `undefined`: there is none. */
function networksOf(
  text: string,
): { readonly refs: readonly string[]; readonly others: object } | undefined {
  let filters: ReturnType<typeof parseFilters>;
  try {
    filters = parseFilters(text, FILTERS);
  } catch {
    // The engine says what is wrong with it.
    return undefined;
  }
  const refs = filters.get('network');
  if (refs === undefined || refs.length === 0) return undefined;
  const others = [...filters].filter(([name]) => name !== 'network');
  return { refs, others: Object.fromEntries(others) };
}

const FILTERS = [
  ...['ancestor', 'before', 'exited', 'expose', 'health', 'id', 'isolation', 'is-task', 'label'],
  ...['name', 'network', 'publish', 'since', 'status', 'volume'],
];
