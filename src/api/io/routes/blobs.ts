import type { ConfigObject, SecretObject } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { parseFilters } from '../../core/filters.js';
import { versionOf } from '../../core/parameters.js';
import { resolve } from '../../core/references.js';
import {
  CONFIG_FILTERS,
  requireManager,
  SECRET_FILTERS,
  selectBlobs,
} from '../../core/selection.js';
import { configJson, secretJson } from '../../wire/blob-json.js';
import { readBlob, readBlobUpdate } from '../../wire/blob-requests.js';
import { empty, json, type Route, readingSwarm } from '../call.js';

/** Secrets and configs: the same verbs, and contents that are shown or not. */
interface Kind<Blob extends SecretObject | ConfigObject> {
  readonly name: 'secret' | 'config';
  readonly filters: readonly string[];
  list(): readonly Blob[];
  show(blob: Blob): object;
  readonly create: Backend['createSecret'];
  readonly update: Backend['updateSecret'];
  readonly remove: Backend['removeSecret'];
}

export function blobRoutes(backend: Backend): Route[] {
  return [
    ...routesOf<SecretObject>(backend, {
      name: 'secret',
      filters: SECRET_FILTERS,
      list: () => backend.secrets(),
      show: secretJson,
      create: (spec, data) => backend.createSecret(spec, data),
      update: (id, version, update) => backend.updateSecret(id, version, update),
      remove: (id) => backend.removeSecret(id),
    }),
    ...routesOf<ConfigObject>(backend, {
      name: 'config',
      filters: CONFIG_FILTERS,
      list: () => backend.configs(),
      show: configJson,
      create: (spec, data) => backend.createConfig(spec, data),
      update: (id, version, update) => backend.updateConfig(id, version, update),
      remove: (id) => backend.removeConfig(id),
    }),
  ];
}

function routesOf<Blob extends SecretObject | ConfigObject>(
  backend: Backend,
  kind: Kind<Blob>,
): Route[] {
  const root = `/${kind.name}s`;
  const find = (ref: string): Blob => {
    requireManager(backend.swarm());
    return resolve(kind.name, ref, kind.list(), ({ spec }) => [spec.name]);
  };
  const refusalContext = () => ({ judgedByControl: true });
  return [
    {
      method: 'POST',
      path: `${root}/create`,
      handle: async (call) => {
        const { spec, data } = readBlob(await call.body());
        requireManager(backend.swarm());
        return json({ ID: await kind.create(spec, data) }, 201);
      },
      refusalContext,
    },
    ...readingSwarm([
      {
        method: 'GET',
        path: root,
        handle: (call) => {
          const filters = parseFilters(call.query.get('filters'), kind.filters);
          requireManager(backend.swarm());
          return json(selectBlobs(kind.list(), filters).map(kind.show));
        },
      },
      {
        method: 'GET',
        path: `${root}/:id`,
        handle: (call) => json(kind.show(find(call.param('id')))),
      },
      {
        method: 'POST',
        path: `${root}/:id/update`,
        handle: async (call) => {
          const update = readBlobUpdate(await call.body());
          const version = versionOf(call.query, kind.name);
          await kind.update(find(call.param('id')).id, version, update);
          return empty();
        },
        refusalContext,
      },
      {
        method: 'DELETE',
        path: `${root}/:id`,
        handle: async (call) => {
          await kind.remove(find(call.param('id')).id);
          return empty(204);
        },
        refusalContext,
      },
    ]),
  ];
}
