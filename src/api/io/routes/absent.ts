import { ApiError } from '../../wire/errors.js';
import { json, type Method, type Reply, type Route } from '../call.js';

/**
 * What Docker has and Shoal has not yet: containers, images, volumes and what belongs to them. Lists are empty and look-ups find nothing, so that commands which only ask go on
 * (`docker inspect` walks all kinds until one answers); verbs that would do something say 501.
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

export function absentRoutes(): Route[] {
  return [
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
