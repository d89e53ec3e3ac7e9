import type { ServerResponse } from 'node:http';
import { parseFilters } from '../../core/filters.js';
import { json, type Reply } from '../../io/call.js';
import { ApiError } from '../../wire/errors.js';
import { isImage } from '../wire/image-name.js';
import { listOf } from '../wire/json.js';
import { mergeImages } from '../wire/lists.js';
import type { ClassicCluster, SeenNode } from './cluster.js';
import { PRUNE_MS_MAX, passTo, refuseAsAll, summed } from './containers.js';
import { type PullHeaders, pull } from './pull.js';
import { type ClassicRoute, withQuery } from './route.js';

const LIST_FILTERS = ['before', 'dangling', 'label', 'reference', 'since', 'until'];

/** `/images` of the cluster: each engine has its own. */
export function imageRoutes(cluster: ClassicCluster): ClassicRoute[] {
  return [
    {
      methods: ['GET'],
      path: /^\/images\/json$/,
      handle: async ({ query }) => json(await listImages(cluster, query)),
    },
    {
      methods: ['POST'],
      path: /^\/images\/create$/,
      handle: async ({ query, request }) => {
        const image = imageOf(query);
        if (image === '') throw oneEngineOnly('import');
        const auth = request.headers['x-registry-auth'];
        const headers: PullHeaders = auth === undefined ? {} : { 'x-registry-auth': String(auth) };
        return pullEverywhere(cluster, image, headers);
      },
    },
    {
      methods: ['POST'],
      path: /^\/images\/load$/,
      handle: async () => {
        throw oneEngineOnly('load');
      },
    },
    {
      methods: ['POST'],
      path: /^\/images\/prune$/,
      handle: async ({ query }) => {
        const path = withQuery('/images/prune', query);
        const answers = await cluster.askAll({ method: 'POST', path }, PRUNE_MS_MAX);
        return json(summed(answers, 'ImagesDeleted'));
      },
    },
    {
      methods: ['GET'],
      path: /^\/images\/get$/,
      handle: async (call) => {
        const names = call.query.getAll('names');
        const nodes = (await cluster.look()).filter(
          (node) => node.trouble === undefined && names.every((name) => hasImage(node, name)),
        );
        const [node] = nodes;
        if (node === undefined)
          throw new ApiError(
            { code: 'API_NOT_FOUND' },
            `Unable to find a healthy engine containing all images: ${names.join(', ')}`,
          );
        return passTo(cluster.upstream(node.id), call, '/images/get');
      },
    },
    {
      methods: ['POST'],
      path: /^\/images\/(?<ref>.+)\/(?<verb>tag)$/,
      handle: async ({ ref, query }) => {
        const question = { method: 'POST', path: withQuery(`/images/${ref}/tag`, query) };
        const answers = await cluster.askAll(question);
        refuseAsAll(answers);
        return json(null, 201);
      },
    },
    {
      methods: ['GET', 'POST'],
      path: /^\/images\/(?<ref>.+)\/(?<verb>json|history|get|push)$/,
      handle: async (call) => {
        const nodes = await cluster.look();
        const node = nodes.find((one) => one.trouble === undefined && hasImage(one, call.ref));
        if (node === undefined)
          throw new ApiError({ code: 'API_NOT_FOUND' }, `No such image: ${call.ref}`);
        return passTo(cluster.upstream(node.id), call, `/images/${call.ref}/${call.verb}`);
      },
    },
    {
      methods: ['DELETE'],
      path: /^\/images\/(?<ref>.+)$/,
      handle: async ({ ref, query }) => {
        const question = { method: 'DELETE', path: withQuery(`/images/${ref}`, query) };
        const answers = await cluster.askAll(question, PRUNE_MS_MAX);
        // What any engine refuses is told, but for those that do not have it.
        const refused = answers.filter(({ status }) => status >= 400 && status !== 404);
        if (refused.length > 0) refuseAsAll(refused);
        refuseAsAll(answers);
        const gone = answers.flatMap(({ status, json: list }) =>
          status === 200 ? listOf(list) : [],
        );
        return json([...new Map(gone.map((one) => [JSON.stringify(one), one])).values()]);
      },
    },
  ];
}

async function listImages(cluster: ClassicCluster, query: URLSearchParams) {
  const filters = parseFilters(query.get('filters'), ['node', ...LIST_FILTERS]);
  const nodes = filters.get('node');
  const asked = new URLSearchParams(query);
  if (nodes !== undefined) {
    const rest = [...filters].filter(([key]) => key !== 'node');
    asked.set('filters', JSON.stringify(Object.fromEntries(rest)));
  }
  const answers = await cluster.askAll({ path: withQuery('/images/json', asked) });
  refuseAsAll(answers);
  const wanted = answers.filter(
    ({ status, origin }) => status === 200 && (nodes?.includes(origin.name) ?? true),
  );
  return mergeImages(wanted.map(({ json: list }) => list));
}

const hasImage = ({ images }: SeenNode, ref: string) => images.some((one) => isImage(ref, one));

function imageOf(query: URLSearchParams): string {
  const image = query.get('fromImage') ?? '';
  const tag = query.get('tag') ?? '';
  if (image === '' || tag === '') return image;
  return tag.includes(':') ? `${image}@${tag}` : `${image}:${tag}`;
}

const oneEngineOnly = (verb: string) =>
  new ApiError(
    { code: 'API_UNSUPPORTED' },
    `images are of one engine each: docker ${verb} is asked of a node's own socket`,
  );

/** Every node tells how far it is, as the classic Swarm told it. */
function pullEverywhere(cluster: ClassicCluster, image: string, headers: PullHeaders): Reply {
  const nodes = cluster.members().filter(({ trouble }) => trouble === undefined);
  return {
    kind: 'stream',
    open: (response, closing) => {
      const gone = new AbortController();
      const signal = AbortSignal.any([gone.signal, closing]);
      response.once('close', () => gone.abort());
      response.writeHead(200, { 'Content-Type': 'application/json' });
      const one = async ({ id, name }: (typeof nodes)[number]) => {
        tell(response, name, `Pulling ${image}...`);
        let refusal: string | undefined;
        try {
          refusal = await pull(cluster.upstream(id), image, headers, signal);
        } catch (error) {
          refusal = (error as Error).message;
        }
        tell(response, name, `Pulling ${image}... : ${refusal ?? 'downloaded'}`);
        return refusal;
      };
      void Promise.all(nodes.map(one)).then((refusals) => {
        const [error] = refusals.filter((refusal) => refusal !== undefined);
        if (error !== undefined && response.writable)
          response.write(`${JSON.stringify({ error, errorDetail: { message: error } })}\n`);
        response.end();
      });
    },
  };
}

function tell(response: ServerResponse, id: string, status: string): void {
  if (response.writable) response.write(`${JSON.stringify({ status, id })}\n`);
}
