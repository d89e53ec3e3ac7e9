import { SwarmError } from '../../../base/swarm-error.js';
import type { ClusterObject } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { flagOf, versionOf } from '../../core/parameters.js';
import { countManagers, requireManager } from '../../core/selection.js';
import { readUnlock } from '../../wire/blob-requests.js';
import { clusterJson } from '../../wire/cluster-json.js';
import { readClusterSpec, readInit, readJoin } from '../../wire/swarm-requests.js';
import { empty, json, type Route, readingSwarm } from '../call.js';

export function swarmRoutes(backend: Backend): Route[] {
  const clusterHere = (): ClusterObject => {
    const local = backend.swarm();
    requireManager(local);
    if (local.cluster === undefined) {
      throw new SwarmError({ code: 'SWARM_NO_MANAGER' }, 'the cluster is not known yet');
    }
    return local.cluster;
  };
  return [
    ...readingSwarm([
      { method: 'GET', path: '/swarm', handle: () => json(clusterJson(clusterHere())) },
      {
        method: 'POST',
        path: '/swarm/update',
        handle: async (call) => {
          const body = await call.body();
          const version = versionOf(call.query, 'swarm');
          const { spec, root } = readClusterSpec(body, clusterHere().spec);
          await backend.updateCluster(version, spec, {
            workerToken: flagOf(call.query, 'rotateWorkerToken'),
            managerToken: flagOf(call.query, 'rotateManagerToken'),
            managerUnlockKey: flagOf(call.query, 'rotateManagerUnlockKey'),
            ...root,
          });
          return empty();
        },
        refusalContext: () => ({ judgedByControl: true }),
      },
      {
        method: 'GET',
        path: '/swarm/unlockkey',
        handle: async () => {
          clusterHere();
          // An empty key tells the CLI that autolock is off.
          return json({ UnlockKey: await backend.unlockKey() });
        },
      },
    ]),
    {
      method: 'POST',
      path: '/swarm/init',
      handle: async (call) => json(await backend.init(readInit(await call.body()))),
    },
    {
      method: 'POST',
      path: '/swarm/join',
      handle: async (call) => {
        await backend.join(readJoin(await call.body()));
        return empty();
      },
    },
    {
      method: 'POST',
      path: '/swarm/leave',
      handle: async (call) => {
        await backend.leave(flagOf(call.query, 'force'));
        return empty();
      },
      refusalContext: () => ({ managers: countManagers(backend.nodes()) }),
    },
    {
      method: 'POST',
      path: '/swarm/unlock',
      handle: async (call) => {
        const body = await call.body();
        const local = backend.swarm();
        if (local.state !== 'locked') {
          requireManager(local);
          throw new SwarmError({ code: 'SWARM_NOT_LOCKED' }, 'the swarm is not locked');
        }
        await backend.unlock(readUnlock(body));
        return empty();
      },
    },
  ];
}
