import { ApiError } from '../../wire/errors.js';
import { json, type Method, type Reply, type Route } from '../call.js';

/**
 * What Docker has and Shoal has not without an engine: containers, images, volumes and what belongs to
 * them. Lists are empty, look-ups find nothing and there is nothing to prune, so that commands which ask
 * or tidy up go on (`docker inspect` walks all kinds until one answers); other verbs say 501.
 */

function unsupported(): Reply {
  throw new ApiError(
    { code: 'API_UNSUPPORTED' },
    'shoal does not do this without a container engine',
  );
}

const missing = (message: string): Reply => {
  throw new ApiError({ code: 'API_NOT_FOUND' }, message);
};

const VERBS: readonly Method[] = ['POST', 'PUT', 'DELETE', 'GET', 'HEAD'];

/** Every other path below `root`. */
const restOf = (root: string): Route[] =>
  VERBS.flatMap((method) => [
    { method, path: `${root}/*`, handle: unsupported },
    ...(method === 'POST' ? [{ method, path: root, handle: unsupported }] : []),
  ]);

const nothing = (path: string, value: object, method: Method = 'POST'): Route => ({
  method,
  path,
  handle: () => json(value),
});

const USAGE = { LayersSize: 0, Images: [], Containers: [], Volumes: [], BuildCache: [] };

export function absentRoutes(): Route[] {
  return [
    nothing('/system/df', USAGE, 'GET'),
    nothing('/containers/prune', { ContainersDeleted: null, SpaceReclaimed: 0 }),
    nothing('/images/prune', { ImagesDeleted: null, SpaceReclaimed: 0 }),
    nothing('/volumes/prune', { VolumesDeleted: null, SpaceReclaimed: 0 }),
    nothing('/build/prune', { CachesDeleted: null, SpaceReclaimed: 0 }),
    { method: 'GET', path: '/containers/json', handle: () => json([]) },
    {
      method: 'GET',
      path: '/containers/:id/json',
      handle: (call) => missing(`No such container: ${call.param('id')}`),
    },
    ...restOf('/containers'),
    ...restOf('/exec'),
    { method: 'GET', path: '/images/json', handle: () => json([]) },
    {
      method: 'GET',
      path: '/images/*',
      handle: (call) => {
        const [, name] = /^(.*)\/json$/s.exec(call.param('*')) ?? [];
        return name === undefined ? unsupported() : missing(`No such image: ${name}`);
      },
    },
    ...restOf('/images').filter(({ method }) => method !== 'GET'),
    { method: 'GET', path: '/volumes', handle: () => json({ Volumes: [], Warnings: null }) },
    {
      method: 'GET',
      path: '/volumes/:name',
      handle: (call) => missing(`get ${call.param('name')}: no such volume`),
    },
    ...restOf('/volumes'),
    { method: 'GET', path: '/plugins', handle: () => json([]) },
    {
      method: 'GET',
      path: '/plugins/:name/json',
      handle: (call) => missing(`plugin "${call.param('name')}" not found`),
    },
    { method: 'POST', path: '/networks/:id/connect', handle: unsupported },
    { method: 'POST', path: '/networks/:id/disconnect', handle: unsupported },
  ];
}
