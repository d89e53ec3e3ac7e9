import { randomInt } from 'node:crypto';
import {
  PREDEFINED_NETWORKS,
  type ServiceObject,
  type ServiceSpec,
} from '../../../base/service-model.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { Backend } from '../../core/backend.js';
import { parseFilters } from '../../core/filters.js';
import { flagOf, versionOf } from '../../core/parameters.js';
import { resolve } from '../../core/references.js';
import { requireManager } from '../../core/selection.js';
import type { ServiceUpdate } from '../../core/service-backend.js';
import { withDefaults } from '../../core/service-defaults.js';
import { randomName } from '../../core/service-names.js';
import { checkServiceSpec } from '../../core/service-rules.js';
import { countTasks, SERVICE_FILTERS, selectServices } from '../../core/service-selection.js';
import { adjustForVersion } from '../../core/service-versions.js';
import { badRequest } from '../../wire/errors.js';
import { serviceJson } from '../../wire/service-json.js';
import { readServiceSpec } from '../../wire/service-requests.js';
import { type Call, empty, json, type Reply, type Route, readingSwarm } from '../call.js';
import { JsonTexts, jsonList } from '../json-texts.js';
import type { LogStreams } from '../logs.js';

/** Names that are made up until one is free. */
const NAME_ATTEMPTS_MAX = 8;

export function serviceRoutes(backend: Backend, logs: LogStreams): Route[] {
  const texts = new JsonTexts<ServiceObject>(serviceJson);
  const find = (ref: string): ServiceObject => findService(backend, ref);

  function list(call: Call): Reply {
    const filters = parseFilters(call.query.get('filters'), SERVICE_FILTERS);
    requireManager(backend.swarm());
    const services = selectServices(backend.services(), filters);
    if (!flagOf(call.query, 'status')) return listed(services.map((service) => texts.of(service)));
    return listed(
      services.map((service) => {
        const counts = countTasks(service, backend.tasksOfService(service.id));
        const status = {
          RunningTasks: counts.running,
          DesiredTasks: counts.desired,
          CompletedTasks: counts.completed,
        };
        return `${texts.of(service).slice(0, -1)},"ServiceStatus":${JSON.stringify(status)}}`;
      }),
    );
  }

  function inspect(call: Call): Reply {
    const inserted = call.query.get('insertDefaults') ?? '';
    if (!['', '0', 'f', 'false', '1', 't', 'true'].includes(inserted.toLowerCase()))
      throw badRequest(`invalid value for insertDefaults: ${inserted}`);
    const service = find(call.param('id'));
    if (['1', 't', 'true'].includes(inserted.toLowerCase()))
      return json(serviceJson(withDefaults(service)));
    return { kind: 'json-text', text: texts.of(service) };
  }

  /** Reads and judges a spec, and makes ids of the names of its networks. */
  async function specOf(call: Call): Promise<ServiceSpec> {
    const spec = adjustForVersion(readServiceSpec(await call.body()), call.version);
    requireManager(backend.swarm());
    return withNetworkIds(backend, spec);
  }

  async function create(call: Call): Promise<Reply> {
    const spec = await specOf(call);
    const encoded = call.header('x-registry-auth');
    const auth = encoded === '' ? {} : { encoded };
    for (let attempt = 1; ; attempt++) {
      const named = spec.name === '' ? { ...spec, name: randomName(randomInt) } : spec;
      checkServiceSpec(named);
      try {
        const { id, warnings } = await backend.createService(named, auth);
        return json({ ID: id, Warnings: warnings.length === 0 ? null : warnings }, 201);
      } catch (error) {
        const isTaken = error instanceof SwarmError && error.code === 'SWARM_NAME_TAKEN';
        if (!isTaken || spec.name !== '' || attempt >= NAME_ATTEMPTS_MAX) throw error;
      }
    }
  }

  async function update(call: Call): Promise<Reply> {
    const spec = await specOf(call);
    const version = versionOf(call.query, 'service');
    const service = find(call.param('id'));
    const change = updateOf(call, spec, service);
    checkServiceSpec(spec);
    const { warnings } = await backend.updateService(service.id, version, change);
    return json({ Warnings: warnings.length === 0 ? null : warnings });
  }

  const refusalContext = () => ({ judgedByControl: true, ofService: true });
  return [
    { method: 'POST', path: '/services/create', handle: create, refusalContext, readsSwarm: true },
    ...readingSwarm([
      { method: 'GET', path: '/services', handle: list },
      { method: 'GET', path: '/services/:id', handle: inspect },
      { method: 'POST', path: '/services/:id/update', handle: update, refusalContext },
      {
        method: 'DELETE',
        path: '/services/:id',
        handle: async (call) => {
          await backend.removeService(find(call.param('id')).id);
          return empty();
        },
        refusalContext,
      },
      {
        method: 'GET',
        path: '/services/:id/logs',
        handle: (call) => {
          const service = find(call.param('id'));
          const isTty = service.spec.task.container.tty === true;
          return logs.reply(call, { serviceId: service.id }, isTty);
        },
      },
    ]),
  ];
}

const listed = (texts: readonly string[]): Reply => ({ kind: 'json-text', text: jsonList(texts) });

/** Throws SWARM_NOT_FOUND and the like. */
export function findService(backend: Backend, ref: string): ServiceObject {
  requireManager(backend.swarm());
  return (
    backend.service(ref) ?? resolve('service', ref, backend.services(), ({ spec }) => [spec.name])
  );
}

function withNetworkIds(backend: Backend, spec: ServiceSpec): ServiceSpec {
  const { networks } = spec.task;
  if (networks === undefined) return spec;
  const known = backend.networks();
  const targets = networks.map((network) => {
    const isNamed = known.some(({ spec: { name } }) => name === network.target);
    // The node's own networks are no objects of the swarm.
    if (!isNamed && PREDEFINED_NETWORKS.has(network.target)) return network;
    return {
      ...network,
      target: resolve('network', network.target, known, (one) => [one.spec.name]).id,
    };
  });
  return { ...spec, task: { ...spec.task, networks: targets } };
}

function updateOf(call: Call, spec: ServiceSpec, service: ServiceObject): ServiceUpdate {
  const authFrom = call.query.get('registryAuthFrom') ?? '';
  if (!['', 'spec', 'previous-spec'].includes(authFrom))
    throw badRequest(`invalid registryAuthFrom '${authFrom}'`);
  if (authFrom === 'previous-spec' && service.previousSpec === undefined)
    throw badRequest('service does not have a previous spec');
  const rollback = call.query.get('rollback') ?? '';
  if (!['', 'none', 'previous'].includes(rollback))
    throw badRequest(`unrecognized rollback option ${rollback}`);
  const encoded = call.header('x-registry-auth');
  return {
    spec,
    rollback: rollback === 'previous',
    auth: encoded === '' ? {} : { encoded },
    authFrom: authFrom === 'previous-spec' ? 'previous-spec' : 'spec',
  };
}
