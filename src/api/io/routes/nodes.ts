import type { NodeView } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { parseFilters } from '../../core/filters.js';
import { flagOf, versionOf } from '../../core/parameters.js';
import { resolve } from '../../core/references.js';
import { NODE_FILTERS, requireManager, selectNodes } from '../../core/selection.js';
import { nodeJson } from '../../wire/node-json.js';
import { readNodeSpec } from '../../wire/swarm-requests.js';
import { empty, json, type Route, readingSwarm } from '../call.js';

export function nodeRoutes(backend: Backend): Route[] {
  const find = (ref: string): NodeView => findNode(backend, ref);
  return readingSwarm([
    {
      method: 'GET',
      path: '/nodes',
      handle: (call) => {
        const filters = parseFilters(call.query.get('filters'), NODE_FILTERS);
        requireManager(backend.swarm());
        return json(selectNodes(backend.nodes(), filters).map(nodeJson));
      },
    },
    {
      method: 'GET',
      path: '/nodes/:id',
      handle: (call) => json(nodeJson(find(call.param('id')))),
    },
    {
      method: 'DELETE',
      path: '/nodes/:id',
      handle: async (call) => {
        await backend.removeNode(find(call.param('id')).id, flagOf(call.query, 'force'));
        return empty();
      },
    },
    {
      method: 'POST',
      path: '/nodes/:id/update',
      handle: async (call) => {
        const spec = readNodeSpec(await call.body());
        const version = versionOf(call.query, 'node');
        await backend.updateNode(find(call.param('id')).id, version, spec);
        return empty();
      },
      refusalContext: () => ({ judgedByControl: true }),
    },
  ]);
}

/** Throws SWARM_NOT_FOUND and the like. */
export function findNode(backend: Backend, ref: string): NodeView {
  const local = backend.swarm();
  requireManager(local);
  return resolve('node', ref === 'self' ? local.nodeId : ref, backend.nodes(), (node) => [
    node.description.hostname,
    ...(node.spec.name === '' ? [] : [node.spec.name]),
  ]);
}
