import { json } from '../../io/call.js';
import { askUpstream } from '../../io/upstream.js';
import { formatTimeMs } from '../../wire/time.js';
import { clusterInfo, systemStatus } from '../core/info.js';
import type { ClassicStrategy } from '../core/scheduler.js';
import { type Json, listOf, numberOf, objectOf } from '../wire/json.js';
import type { ClassicBackend } from './backend.js';
import type { ClassicCluster } from './cluster.js';
import { PRUNE_MS_MAX } from './containers.js';
import { followCluster } from './events.js';
import { type ClassicRoute, withQuery } from './route.js';

/** What the cluster says of itself. */
export function systemRoutes(
  cluster: ClassicCluster,
  backend: ClassicBackend,
  strategy: ClassicStrategy,
): ClassicRoute[] {
  return [
    {
      methods: ['GET'],
      path: /^\/info$/,
      handle: async () => {
        const { role, ...facts } = backend.facts();
        const nodes = await cluster.look();
        const rows = systemStatus(nodes, strategy, role);
        return json(clusterInfo(nodes, rows, { ...facts, time: formatTimeMs(Date.now()) }));
      },
    },
    {
      methods: ['GET'],
      path: /^\/version$/,
      handle: async () => {
        const answer = await askUpstream(cluster.upstream(cluster.self), { path: '/version' });
        const version = objectOf(answer.json);
        const name = backend.facts().version;
        const [first, ...rest] = listOf(version['Components']).map(objectOf);
        const components = [{ ...first, Version: name }, ...rest];
        return json({ ...version, Version: name, Components: components }, answer.status);
      },
    },
    {
      methods: ['GET'],
      path: /^\/events$/,
      handle: async ({ query }) => ({
        kind: 'stream',
        open: (response, closing) =>
          followCluster(cluster, withQuery('/events', query), response, closing),
      }),
    },
    {
      methods: ['GET'],
      path: /^\/system\/df$/,
      handle: async ({ query }) => {
        const path = withQuery('/system/df', query);
        const answers = await cluster.askAll({ path }, PRUNE_MS_MAX);
        const usages = answers.filter(({ status }) => status === 200);
        return json(usageOf(usages.map((one) => objectOf(one.json))));
      },
    },
  ];
}

function usageOf(usages: readonly Json[]): Json {
  const lists = ['Images', 'Containers', 'Volumes', 'BuildCache'].map((key) => [
    key,
    usages.flatMap((one) => listOf(one[key])),
  ]);
  const size = usages.reduce((sum, one) => sum + numberOf(one['LayersSize']), 0);
  return { LayersSize: size, ...Object.fromEntries(lists) };
}
