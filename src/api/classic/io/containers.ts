import { type Filters, parseFilters } from '../../core/filters.js';
import { flagOf } from '../../core/parameters.js';
import { json, type Reply } from '../../io/call.js';
import { askUpstream, forward, type Upstream } from '../../io/upstream.js';
import { ApiError, badRequest } from '../../wire/errors.js';
import { splitNodeName } from '../core/references.js';
import { type Json, numberOf, objectOf, textOf } from '../wire/json.js';
import { byCreation, clusterContainer, clusterInspect, lostContainer } from '../wire/lists.js';
import type { ClassicCluster, FanAnswer } from './cluster.js';
import type { ClassicPlacer } from './placer.js';
import { mustFind, type Places } from './places.js';
import type { PullHeaders } from './pull.js';
import type { Rescheduler } from './rescheduler.js';
import { type ClassicCall, type ClassicRoute, withQuery } from './route.js';

/** Names of a list's filters that are the cluster's own; the others are the engines'. */
const CLUSTER_FILTERS = ['node', 'before', 'since', 'name'] as const;
const ENGINE_FILTERS = [
  ...['ancestor', 'exited', 'expose', 'health', 'id', 'isolation', 'is-task', 'label'],
  ...['network', 'publish', 'status', 'volume'],
];

/** After which a container may be in another state. */
const CHANGES = new Set(['start', 'stop', 'restart', 'kill', 'pause', 'unpause', 'rename']);

export interface ContainerParts {
  readonly cluster: ClassicCluster;
  readonly placer: ClassicPlacer;
  readonly places: Places;
  readonly rescheduler: Rescheduler;
}

/** `/containers`, `/exec` and `/commit` of the cluster. */
export function containerRoutes({
  cluster,
  placer,
  places,
  rescheduler,
}: ContainerParts): ClassicRoute[] {
  /** The request, as it is, to the node of the container that is called so. */
  const passOn = async (call: ClassicCall): Promise<Reply> => {
    const { nodeId, id } = await places.ofContainer(call.ref);
    const tail = call.verb === '' ? '' : `/${call.verb}`;
    const passed = passTo(cluster.upstream(nodeId), call, `/containers/${id}${tail}`);
    if (!CHANGES.has(call.verb)) return passed;
    return {
      kind: 'raw',
      serve: async (request, response) => {
        await passed.serve(request, response);
        rescheduler.noteChange(id);
      },
    };
  };
  return [
    {
      methods: ['GET'],
      path: /^\/containers\/(?:json|ps)$/,
      handle: async ({ query }) => json(await listContainers(cluster, query)),
    },
    {
      methods: ['POST'],
      path: /^\/containers\/create$/,
      handle: async ({ body, query, request, gone }) => {
        const auth = request.headers['x-registry-auth'];
        const headers: PullHeaders = auth === undefined ? {} : { 'x-registry-auth': String(auth) };
        const made = await placer.create(await body(), query, headers, gone);
        const id = textOf(objectOf(made.json)['Id']);
        if (id !== '') places.remember(id, made.nodeId);
        if (made.hasPolicy) rescheduler.lookSoon();
        return json(made.json, made.status);
      },
    },
    {
      methods: ['POST'],
      path: /^\/containers\/prune$/,
      handle: async ({ query }) => {
        const path = withQuery('/containers/prune', query);
        const answers = await cluster.askAll({ method: 'POST', path }, PRUNE_MS_MAX);
        return json(summed(answers, 'ContainersDeleted'));
      },
    },
    {
      methods: ['GET'],
      path: /^\/containers\/(?<ref>.+)\/json$/,
      handle: async ({ ref, query }) => {
        const { nodeId, id } = await places.ofContainer(ref);
        const path = withQuery(`/containers/${id}/json`, query);
        const answer = await askUpstream(cluster.upstream(nodeId), { path });
        const origin = cluster.origin(nodeId);
        if (answer.status !== 200 || origin === undefined) return json(answer.json, answer.status);
        return json(clusterInspect(answer.json, origin));
      },
    },
    {
      methods: ['POST'],
      path: /^\/containers\/(?<ref>.+)\/exec$/,
      handle: async ({ ref, body }) => {
        const { nodeId, id } = await places.ofContainer(ref);
        const answer = await askUpstream(cluster.upstream(nodeId), {
          method: 'POST',
          path: `/containers/${id}/exec`,
          json: await body(),
        });
        const exec = textOf(objectOf(answer.json)['Id']);
        if (exec !== '') places.remember(exec, nodeId);
        return json(answer.json, answer.status);
      },
    },
    {
      methods: ['POST'],
      path: /^\/containers\/(?<ref>.+)\/(?<verb>rename)$/,
      handle: async (call) => {
        const name = splitNodeName(call.query.get('name') ?? '', cluster.members()).name;
        placer.requireFreeName(name, await cluster.look());
        return passOn(call);
      },
    },
    {
      methods: ['POST'],
      path: /^\/containers\/(?<ref>.+)\/(?<verb>update)$/,
      handle: async (call) => {
        const { nodeId, id } = await places.ofContainer(call.ref);
        cluster.forgetClaims(nodeId, id);
        return passTo(cluster.upstream(nodeId), call, `/containers/${id}/update`);
      },
    },
    { methods: ['DELETE'], path: /^\/containers\/(?<ref>.+)$/, handle: passOn },
    {
      methods: ['GET', 'HEAD', 'POST', 'PUT'],
      path: /^\/containers\/(?<ref>.+)\/(?<verb>[a-z]+(?:\/ws)?)$/,
      handle: passOn,
    },
    {
      methods: ['GET', 'POST'],
      path: /^\/exec\/(?<ref>[^/]+)\/(?<verb>[a-z]+)$/,
      handle: async (call) => {
        const nodeId = places.ofExec(call.ref);
        if (nodeId === undefined) return undefined;
        return passTo(cluster.upstream(nodeId), call, `/exec/${call.ref}/${call.verb}`);
      },
    },
    {
      methods: ['POST'],
      path: /^\/commit$/,
      handle: async (call) => {
        const { nodeId, id } = await places.ofContainer(call.query.get('container') ?? '');
        call.query.set('container', id);
        return passTo(cluster.upstream(nodeId), call, '/commit');
      },
    },
  ];
}

/** Until an engine has removed what is not used. */
export const PRUNE_MS_MAX = 120_000;

/** The client's request goes on to the node, under this path. */
export function passTo(
  upstream: Upstream,
  call: ClassicCall,
  path: string,
): Extract<Reply, { readonly kind: 'raw' }> {
  return {
    kind: 'raw',
    serve: async (request, response) => {
      request.url = call.version + withQuery(path, call.query);
      await forward(upstream, request, response);
    },
  };
}

/** The answers of `prune` as one. @throws ApiError The refusal of all. */
export function summed(answers: readonly FanAnswer[], key: string): Json {
  refuseAsAll(answers);
  const good = answers.filter(({ status }) => status < 400).map(({ json: one }) => objectOf(one));
  const deleted = good.flatMap((one) => (Array.isArray(one[key]) ? (one[key] as unknown[]) : []));
  const space = good.reduce((sum, one) => sum + numberOf(one['SpaceReclaimed']), 0);
  return { [key]: deleted.length === 0 ? null : deleted, SpaceReclaimed: space };
}

/** What every one of them refuses is refused, in the words of the first. */
export function refuseAsAll(answers: readonly FanAnswer[]): void {
  const [first] = answers;
  if (first === undefined || answers.some(({ status }) => status < 400)) return;
  const message = textOf(objectOf(first.json)['message']) || `status ${first.status}`;
  if (first.status === 404) throw new ApiError({ code: 'API_NOT_FOUND' }, message);
  if (first.status === 409) throw new ApiError({ code: 'API_CONFLICT' }, message);
  if (first.status < 500) throw badRequest(message);
  throw new ApiError({ code: 'API_REFUSED' }, message);
}

async function listContainers(cluster: ClassicCluster, query: URLSearchParams): Promise<Json[]> {
  const known = [...CLUSTER_FILTERS, ...ENGINE_FILTERS];
  const filters = parseFilters(query.get('filters'), known);
  const limit = Number(query.get('limit') ?? 0);
  const all = flagOf(query, 'all') || limit > 0;
  const asked = new URLSearchParams(all ? { all: '1' } : {});
  if (flagOf(query, 'size')) asked.set('size', '1');
  const engineFilters = [...filters].filter(([key]) => ENGINE_FILTERS.includes(key));
  if (engineFilters.length > 0) asked.set('filters', filtersText(engineFilters));
  const answers = await cluster.askAll({ path: withQuery('/containers/json', asked) });
  refuseAsAll(answers);
  const here = answers.flatMap(({ origin, status, json: list }) =>
    status === 200 && Array.isArray(list)
      ? list.map((one) => ({ node: origin.name, one: clusterContainer(one, origin) }))
      : [],
  );
  const answered = new Set(answers.map(({ origin }) => origin.id));
  const away = all && engineFilters.length === 0 ? cluster.lost(answered) : [];
  const lost = away.map(({ origin, one }) => ({
    node: origin.name,
    one: lostContainer(clusterContainer(one, origin)),
  }));
  const list = await ownFilters(cluster, filters, [...here, ...lost]);
  list.sort(byCreation);
  return limit > 0 ? list.slice(0, limit) : list;
}

async function ownFilters(
  cluster: ClassicCluster,
  filters: Filters,
  all: readonly { readonly node: string; readonly one: Json }[],
): Promise<Json[]> {
  const nodes = filters.get('node');
  const names = filters.get('name')?.map((text) => text.replace(/^\//, ''));
  let list = all
    .filter(({ node }) => nodes?.includes(node) ?? true)
    .filter(({ one }) => names?.some((text) => namesOf(one).some(has(text))) ?? true)
    .map(({ one }) => one);
  for (const key of ['before', 'since'] as const) {
    const [ref] = filters.get(key) ?? [];
    if (ref === undefined) continue;
    const { container, node } = mustFind(await cluster.look(), ref);
    const at = numberOf(node.list.find((one) => one['Id'] === container.id)?.['Created']);
    list = list.filter((one) => {
      if (one['Id'] === container.id) return false;
      const created = numberOf(one['Created']);
      return key === 'before' ? created <= at : created >= at;
    });
  }
  return list;
}

const namesOf = (one: Json) => (one['Names'] as readonly string[]).map((name) => name.slice(1));

/** As an engine does it: a regular expression, or where that is none, a part of the name. */
function has(text: string): (name: string) => boolean {
  const anchored = /^\^?([\w./-]*)(\$?)$/.exec(text);
  // `^web$` is about the name without its node.
  if (anchored === null) return (name) => name.includes(text);
  const [, part = '', end] = anchored;
  const isStart = text.startsWith('^');
  return (name) => {
    const own = part.includes('/') ? name : name.slice(name.indexOf('/') + 1);
    if (isStart && end === '$') return own === part;
    if (isStart) return own.startsWith(part);
    return end === '$' ? own.endsWith(part) : name.includes(part);
  };
}

const filtersText = (filters: readonly (readonly [string, readonly string[]])[]) =>
  JSON.stringify(
    Object.fromEntries(
      filters.map(([key, values]) => [
        key,
        Object.fromEntries(values.map((value) => [value, true])),
      ]),
    ),
  );
