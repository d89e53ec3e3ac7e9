import { SwarmError } from '../../../base/swarm-error.js';
import type { ClusterObject } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { flagOf, versionOf } from '../../core/parameters.js';
import { countManagers, requireManager } from '../../core/selection.js';
import { clusterJson } from '../../wire/cluster-json.js';
import { ApiError } from '../../wire/errors.js';
import { readClusterSpec, readInit, readJoin } from '../../wire/swarm-requests.js';
import { empty, json, type Route } from '../call.js';

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
    { method: 'GET', path: '/swarm', handle: () => json(clusterJson(clusterHere())) },
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
      path: '/swarm/update',
      handle: async (call) => {
        const body = await call.body();
        const version = versionOf(call.query, 'swarm');
        const { spec, rootCa } = readClusterSpec(body, clusterHere().spec);
        await backend.updateCluster(version, spec, {
          workerToken: flagOf(call.query, 'rotateWorkerToken'),
          managerToken: flagOf(call.query, 'rotateManagerToken'),
          managerUnlockKey: flagOf(call.query, 'rotateManagerUnlockKey'),
          rootCa,
        });
        return empty();
      },
    },
    {
      method: 'GET',
      path: '/swarm/unlockkey',
      handle: () => {
        clusterHere();
        // An empty key tells the CLI that autolock is off.
        return json({ UnlockKey: '' });
      },
    },
    {
      method: 'POST',
      path: '/swarm/unlock',
      handle: () => {
        if (backend.swarm().state === 'locked') {
          throw new ApiError({ code: 'API_UNSUPPORTED' }, 'shoal does not lock managers yet');
        }
        throw new ApiError({ code: 'API_CONFLICT' }, 'swarm is not locked');
      },
    },
  ];
}
