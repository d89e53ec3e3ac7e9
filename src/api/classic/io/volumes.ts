import { randomBytes } from 'node:crypto';
import { json } from '../../io/call.js';
import { ApiError } from '../../wire/errors.js';
import { splitNodeName } from '../core/references.js';
import { listOf, objectOf, textOf } from '../wire/json.js';
import { clusterVolumes } from '../wire/lists.js';
import type { ClassicCluster } from './cluster.js';
import { PRUNE_MS_MAX, refuseAsAll, summed } from './containers.js';
import { type ClassicRoute, withQuery } from './route.js';

/** `/volumes` of the cluster: those of an engine's own disk are `node/name`. */
export function volumeRoutes(cluster: ClassicCluster): ClassicRoute[] {
  const splitName = (ref: string) => splitNodeName(ref, cluster.members());
  const list = async (query: URLSearchParams) => {
    const answers = await cluster.askAll({ path: withQuery('/volumes', query) });
    refuseAsAll(answers);
    const good = answers.filter(({ status }) => status === 200);
    return good.map(({ origin, json: value }) => ({ origin, value }));
  };
  return [
    {
      methods: ['GET'],
      path: /^\/volumes$/,
      handle: async ({ query }) =>
        json({ Volumes: clusterVolumes(await list(query)), Warnings: null }),
    },
    {
      methods: ['POST'],
      path: /^\/volumes\/create$/,
      handle: async ({ body }) => {
        const asked = objectOf(await body());
        // One name for all nodes, also where the engines would have made one up.
        const { node, name } = splitName(textOf(asked['Name']) || randomBytes(32).toString('hex'));
        const question = {
          method: 'POST',
          path: '/volumes/create',
          json: { ...asked, Name: name },
        };
        const answers = await cluster.askAll(question, undefined, node);
        const withEngine = answers.filter(({ status }) => status !== 501);
        refuseAsAll(withEngine.length > 0 ? withEngine : answers);
        const made = withEngine.find(({ status }) => status < 400);
        return json(made?.json ?? null, 201);
      },
    },
    {
      methods: ['POST'],
      path: /^\/volumes\/prune$/,
      handle: async ({ query }) => {
        const path = withQuery('/volumes/prune', query);
        const answers = await cluster.askAll({ method: 'POST', path }, PRUNE_MS_MAX);
        return json(summed(answers, 'VolumesDeleted'));
      },
    },
    {
      methods: ['GET'],
      path: /^\/volumes\/(?<ref>.+)$/,
      handle: async ({ ref }) => {
        const { node, name } = splitName(ref);
        for (const { origin, value } of await list(new URLSearchParams())) {
          if (node !== undefined && origin.name !== node) continue;
          const found = listOf(objectOf(value)['Volumes']).find(
            (one) => objectOf(one)['Name'] === name,
          );
          if (found !== undefined) return json(found);
        }
        throw noVolume(ref);
      },
    },
    {
      methods: ['DELETE'],
      path: /^\/volumes\/(?<ref>.+)$/,
      handle: async ({ ref, query }) => {
        const { node, name } = splitName(ref);
        const question = { method: 'DELETE', path: withQuery(`/volumes/${name}`, query) };
        const answers = await cluster.askAll(question, undefined, node);
        const owners = answers.filter(({ status }) => status !== 404 && status !== 501);
        if (owners.length === 0) throw noVolume(ref);
        const refused = owners.filter(({ status }) => status >= 400);
        if (refused.length > 0) refuseAsAll(refused);
        return { kind: 'empty', status: 204 };
      },
    },
  ];
}

const noVolume = (ref: string) => new ApiError({ code: 'API_NOT_FOUND' }, `No such volume: ${ref}`);
