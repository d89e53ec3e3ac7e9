import { PREDEFINED_NETWORKS } from '../../../base/service-model.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { NetworkObject } from '../../../base/swarm-model.js';
import type { Backend } from '../../core/backend.js';
import { parseFilters } from '../../core/filters.js';
import { flagOf, momentMs } from '../../core/parameters.js';
import { resolve } from '../../core/references.js';
import {
  NETWORK_FILTERS,
  PRUNE_FILTERS,
  prunable,
  requireManager,
  selectNetworks,
  visibleNetworks,
} from '../../core/selection.js';
import { badRequest } from '../../wire/errors.js';
import { networkInspectJson, networkJson, predefinedNetworkJson } from '../../wire/network-json.js';
import { readNetworkSpec } from '../../wire/network-requests.js';
import { type Call, empty, json, type Reply, type Route, readingSwarm } from '../call.js';

export function networkRoutes(backend: Backend): Route[] {
  const localIds = () =>
    new Set<string>(backend.localAttachments().map(({ networkId }) => networkId));
  const visible = () =>
    visibleNetworks(backend.networks(), backend.swarm().controlAvailable, localIds());
  const find = (ref: string): NetworkObject =>
    resolve('network', ref, visible(), ({ spec }) => [spec.name]);

  /** A network of each node, unless the swarm has one of that name. */
  const isPredefined = (ref: string) =>
    PREDEFINED_NETWORKS.has(ref) && !visible().some(({ spec }) => spec.name === ref);

  function inspect(call: Call): Reply {
    const ref = call.param('id');
    const scope = call.query.get('scope') ?? '';
    if (scope === 'swarm' && isPredefined(ref)) return json(predefinedNetworkJson(ref));
    const network =
      scope === '' || scope === 'swarm' ? find(ref) : resolve('network', ref, [], () => []);
    const around = {
      local: backend.localAttachments().filter(({ networkId }) => networkId === network.id),
      attachments: backend.attachments().filter(({ networkId }) => networkId === network.id),
      nodes: backend.nodes(),
      ...servicesOn(backend, network),
    };
    return json(networkInspectJson(network, around, flagOf(call.query, 'verbose')));
  }

  async function prune(call: Call): Promise<Reply> {
    const filters = parseFilters(call.query.get('filters'), PRUNE_FILTERS);
    const untilTexts = filters.get('until') ?? [];
    if (untilTexts.length > 1) throw badRequest('more than one until filter specified');
    const untilMs = untilTexts[0] === undefined ? call.nowMs : momentMs(untilTexts[0], call.nowMs);
    if (untilMs === undefined) {
      throw badRequest(
        `invalid until: ${untilTexts[0]} is neither a time in seconds nor a duration`,
      );
    }
    const deleted: string[] = [];
    // A worker has no say about the swarm's networks, and none of its own to prune.
    const candidates = backend.swarm().controlAvailable
      ? prunable(backend.networks(), backend.attachments(), filters, untilMs)
      : [];
    for (const { id, spec } of candidates) {
      try {
        await backend.removeNetwork(id);
        deleted.push(spec.name);
      } catch (error) {
        // Somebody was faster, either to use it or to remove it.
        const code = error instanceof SwarmError ? error.code : '';
        if (code !== 'SWARM_IN_USE' && code !== 'SWARM_NOT_FOUND') throw error;
      }
    }
    return json({ NetworksDeleted: deleted.length === 0 ? null : deleted });
  }

  return [
    {
      method: 'POST',
      path: '/networks/create',
      handle: async (call) => {
        const spec = readNetworkSpec(await call.body());
        requireManager(backend.swarm());
        const { id } = await backend.createNetwork(spec);
        return json({ Id: id, Warning: '' }, 201);
      },
      refusalContext: () => ({ creatingNetwork: true }),
    },
    ...readingSwarm([
      {
        method: 'GET',
        path: '/networks',
        handle: (call) => {
          const filters = parseFilters(call.query.get('filters'), NETWORK_FILTERS);
          const used = new Set<string>(backend.attachments().map(({ networkId }) => networkId));
          for (const id of localIds()) used.add(id);
          return json(selectNetworks(visible(), used, filters).map(networkJson));
        },
      },
      { method: 'GET', path: '/networks/:id', handle: inspect },
      {
        method: 'DELETE',
        path: '/networks/:id',
        handle: async (call) => {
          const { id } = find(call.param('id'));
          requireManager(backend.swarm());
          await backend.removeNetwork(id);
          return empty(204);
        },
      },
      { method: 'POST', path: '/networks/prune', handle: prune },
    ]),
  ];
}

function servicesOn(backend: Backend, { id, spec }: NetworkObject) {
  const services = backend
    .services()
    .filter(({ endpoint, spec: { task } }) =>
      spec.ingress
        ? endpoint.ports.some(({ publishMode }) => publishMode === 'ingress')
        : task.networks?.some(({ target }) => target === id),
    );
  const tasks = services
    .flatMap((service) => backend.tasksOfService(service.id))
    .filter(({ status }) => status.state === 'running' || status.state === 'starting');
  return { services, tasks };
}
