import { unreachable } from '../../../base/assert.js';
import {
  type ConfigReference,
  PREDEFINED_NETWORKS,
  type SecretReference,
  type ServiceEndpoint,
  type ServiceObject,
  type ServiceSpec,
  type UpdateStatus,
  type VirtualIp,
} from '../../../base/service-model.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { NetworkObject } from '../../../base/swarm-model.js';
import { AddressPlan } from './address-plan.js';
import {
  type CommandOf,
  change,
  checkVersion,
  type Decision,
  newMeta,
  touched,
} from './decision.js';
import { allocatePorts } from './ports.js';
import { invalid, precondition, refuse, unsupported } from './refuse.js';
import { checkServiceSpec, isJob, networksOf } from './service-spec.js';
import type { Change, ReadonlyState } from './state.js';
import { ingressOf } from './task-places.js';

const SERVICES_MAX = 4_096;
/** Base64 of what a registry wants to be shown. */
const REGISTRY_AUTH_CHARS_MAX = 65_536;
const EMPTY: Decision = { id: '', changes: [] };

type ServiceCommand = CommandOf<
  | 'service_create'
  | 'service_update'
  | 'service_remove'
  | 'service_purge'
  | 'service_status'
  | 'service_rollback'
>;

export function decideService(state: ReadonlyState, command: ServiceCommand): Decision {
  switch (command.kind) {
    case 'service_create':
      return create(state, command);
    case 'service_update':
      return update(state, command);
    case 'service_remove':
      return remove(state, command);
    case 'service_purge':
      return purge(state, command);
    case 'service_status':
      return setStatus(state, command);
    case 'service_rollback':
      return rollBack(state, command);
    default:
      return unreachable(command);
  }
}

function create(state: ReadonlyState, command: CommandOf<'service_create'>): Decision {
  const { id, spec, registryAuth, atMs } = command;
  checkServiceSpec(spec);
  checkNetworks(state, spec);
  checkAuth(registryAuth);
  const ports = allocatePorts(state, spec, undefined);
  checkSecretsAndConfigs(state, spec);
  if (state.serviceByName(spec.name) !== undefined)
    throw refuse(
      { code: 'SWARM_NAME_TAKEN', kind: 'service', name: spec.name },
      `service ${spec.name} already exists`,
    );
  if (state.size('service') >= SERVICES_MAX)
    throw refuse(
      { code: 'SWARM_EXHAUSTED', what: 'service' },
      `the swarm has ${SERVICES_MAX} services, and no room for more`,
    );
  const meta = newMeta(state, atMs);
  const { endpoint, changes } = endpointOf(state, spec, ports, undefined);
  const row: ServiceObject = {
    id,
    ...meta,
    spec,
    specVersion: meta.version,
    endpoint,
    ...(isJob(spec.mode) && { job: { iteration: 0, lastExecutionMs: atMs } }),
    ...(registryAuth !== undefined && { registryAuth }),
  };
  return { id, changes: [...changes, change(state, 'service', id, row)] };
}

interface Endpoint {
  readonly endpoint: ServiceEndpoint;
  readonly changes: readonly Change[];
}

/**
 * Ports with their numbers, and addresses on every network of the service; what it has it keeps.
 * @throws SwarmError `SWARM_PRECONDITION`, `SWARM_EXHAUSTED`.
 */
function endpointOf(
  state: ReadonlyState,
  spec: ServiceSpec,
  ports: ServiceEndpoint['ports'],
  before: ServiceObject | undefined,
): Endpoint {
  const endpoint = spec.endpoint ?? { mode: 'vip' };
  const plan = new AddressPlan(state);
  const held = before?.endpoint.virtualIps ?? [];
  const virtualIps = placesFor(state, spec, ports).flatMap((network): readonly VirtualIp[] => {
    const { id: networkId } = network;
    if (endpoint.mode === 'dnsrr') return [{ networkId }];
    const own = held.flatMap((vip) => (vip.networkId === networkId ? (vip.address ?? []) : []));
    return plan.virtual(network, own).map((address) => ({ networkId, address }));
  });
  return { endpoint: { spec: endpoint, ports, virtualIps }, changes: plan.changes() };
}

/** The ingress network first, if the service is published there. */
function placesFor(
  state: ReadonlyState,
  spec: ServiceSpec,
  ports: ServiceEndpoint['ports'],
): readonly NetworkObject[] {
  const networks = networksOf(spec).flatMap(({ target }) => state.row('network', target) ?? []);
  if (!ports.some(({ publishMode }) => publishMode === 'ingress')) return networks;
  const ingress = ingressOf(state);
  if (ingress === undefined)
    throw precondition('service needs ingress network, but no ingress network is present');
  return [ingress, ...networks];
}

/** In swarmkit's order: what is wrong with the wish, then with what it is about, then its age. */
function update(state: ReadonlyState, command: CommandOf<'service_update'>): Decision {
  const { id, version, registryAuth, atMs } = command;
  if (command.spec !== undefined) {
    checkServiceSpec(command.spec);
    checkNetworks(state, command.spec);
  }
  checkAuth(registryAuth);
  const row = serviceOf(state, id);
  const spec = command.spec ?? previousOf(row);
  const ports = allocatePorts(state, spec, row);
  if (command.spec !== undefined) checkChange(row, command.spec);
  checkSecretsAndConfigs(state, spec);
  checkVersion(row, version);
  const {
    updateStatus: _,
    registryAuth: __,
    previousRegistryAuth: ___,
    ...rest
  } = touched(state, row, atMs);
  const { endpoint, changes } = endpointOf(state, spec, ports, row);
  const after = command.spec === undefined ? exchanged(rest) : replaced(rest, spec);
  const settledRow: ServiceObject = {
    ...after,
    ...authAfter(row, command),
    endpoint,
    ...(row.job && { job: { iteration: row.job.iteration + 1, lastExecutionMs: atMs } }),
    ...(command.spec === undefined && {
      updateStatus: {
        state: 'rollback_started',
        startedAtMs: atMs,
        message: 'manually requested rollback',
      },
    }),
  };
  return settled(state, settledRow, changes);
}

function previousOf(row: ServiceObject): ServiceSpec {
  if (row.previousSpec === undefined)
    throw precondition(`service ${row.id} does not have a previous spec`);
  return row.previousSpec;
}

function replaced(row: ServiceObject, spec: ServiceSpec): ServiceObject {
  return {
    ...row,
    spec,
    specVersion: row.version,
    previousSpec: row.spec,
    previousSpecVersion: row.specVersion,
  };
}

/** The spec before takes the place of the present one, which is the one before from then on. */
function exchanged(row: ServiceObject): ServiceObject {
  return {
    ...row,
    spec: previousOf(row),
    specVersion: row.previousSpecVersion ?? row.version,
    previousSpec: row.spec,
    previousSpecVersion: row.specVersion,
  };
}

/** Credentials belong to a spec, and go with it. */
function authAfter(
  row: ServiceObject,
  command: CommandOf<'service_update'>,
): Pick<ServiceObject, 'registryAuth' | 'previousRegistryAuth'> {
  if (command.authFrom === 'previous-spec' && row.previousSpec === undefined)
    throw invalid('service does not have a previous spec');
  const fromPrevious = command.spec === undefined || command.authFrom === 'previous-spec';
  const kept = fromPrevious ? row.previousRegistryAuth : row.registryAuth;
  const registryAuth = command.registryAuth ?? kept;
  return {
    ...(registryAuth !== undefined && { registryAuth }),
    ...(row.registryAuth !== undefined && { previousRegistryAuth: row.registryAuth }),
  };
}

function checkChange({ spec: before }: ServiceObject, spec: ServiceSpec): void {
  const differs = (a: unknown, b: unknown) => JSON.stringify(a ?? []) !== JSON.stringify(b ?? []);
  if (differs(spec.networks, before.networks) && !differs(spec.task.networks, before.task.networks))
    throw unsupported('networks must be migrated to TaskSpec before being changed');
  if (before.mode.kind !== spec.mode.kind) throw unsupported('service mode change is not allowed');
  if (before.name !== spec.name) throw unsupported('renaming services is not supported');
}

function checkAuth(registryAuth: string | undefined): void {
  if ((registryAuth?.length ?? 0) > REGISTRY_AUTH_CHARS_MAX)
    throw invalid('the credentials for the registry are too large');
}

function checkNetworks(state: ReadonlyState, spec: ServiceSpec): void {
  for (const { target } of networksOf(spec)) {
    if (PREDEFINED_NETWORKS.has(target)) continue;
    const network = state.row('network', target);
    if (network === undefined)
      throw refuse(
        { code: 'SWARM_NOT_FOUND', kind: 'network', ref: target },
        `network ${target} not found`,
      );
    if (network.spec.ingress)
      throw invalid(
        `Service cannot be explicitly attached to the ingress network ${JSON.stringify(network.spec.name)}`,
      );
  }
}

function checkSecretsAndConfigs(state: ReadonlyState, { task }: ServiceSpec): void {
  const { secrets = [], configs = [] } = task.container;
  const secretIsThere = ({ secretId, secretName }: SecretReference) =>
    state.row('secret', secretId)?.spec.name === secretName;
  const configIsThere = ({ configId, configName }: ConfigReference) =>
    state.row('config', configId)?.spec.name === configName;
  const missing = [
    ['secret', secrets.filter((one) => !secretIsThere(one)).map((one) => one.secretName)],
    ['config', configs.filter((one) => !configIsThere(one)).map((one) => one.configName)],
  ] as const;
  for (const [kind, names] of missing)
    if (names.length > 0)
      throw invalid(`${kind}${names.length === 1 ? '' : 's'} not found: ${names.join(', ')}`);
}

/** Its name and its ports are free at once; the row stays until its tasks have ended. */
function remove(state: ReadonlyState, command: CommandOf<'service_remove'>): Decision {
  const row = { ...serviceOf(state, command.id), pendingDelete: true };
  return settled(state, touched(state, row, command.atMs));
}

/** What is left of a service whose tasks are gone; with it go those that nobody has looked after. */
function purge(state: ReadonlyState, { id }: CommandOf<'service_purge'>): Decision {
  const row = state.row('service', id);
  if (row?.pendingDelete !== true || state.tasksOfService(id).size > 0) return { ...EMPTY, id };
  return { id, changes: [change(state, 'service', id, undefined)] };
}

/** A word about another spec than the present one comes too late. */
function setStatus(state: ReadonlyState, command: CommandOf<'service_status'>): Decision {
  const { id, specVersion, updateStatus, atMs } = command;
  const row = state.row('service', id);
  const isLate = row === undefined || row.specVersion !== specVersion;
  if (isLate || JSON.stringify(row.updateStatus) === JSON.stringify(updateStatus))
    return { ...EMPTY, id };
  return settled(state, { ...touched(state, row, atMs), updateStatus });
}

/**
 * The updater's own: there is nothing to go back to afterwards. Where that is not possible any more, since
 * others have its ports or a secret is gone, the update stands still and says so: no user is there to be
 * refused.
 */
function rollBack(state: ReadonlyState, command: CommandOf<'service_rollback'>): Decision {
  const { id, specVersion, updateStatus, atMs } = command;
  const row = state.row('service', id);
  if (row?.previousSpec === undefined || row.specVersion !== specVersion) return { ...EMPTY, id };
  try {
    return goneBack(state, row, row.previousSpec, command);
  } catch (error) {
    if (!(error instanceof SwarmError)) throw error;
    const paused: UpdateStatus = {
      ...updateStatus,
      state: 'paused',
      message: `the spec before cannot be used any more: ${error.message}`,
    };
    return settled(state, { ...touched(state, row, atMs), updateStatus: paused });
  }
}

function goneBack(
  state: ReadonlyState,
  row: ServiceObject,
  spec: ServiceSpec,
  { updateStatus, atMs }: CommandOf<'service_rollback'>,
): Decision {
  checkNetworks(state, spec);
  const ports = allocatePorts(state, spec, row);
  checkSecretsAndConfigs(state, spec);
  const { endpoint, changes } = endpointOf(state, spec, ports, row);
  const {
    previousSpec: _,
    previousSpecVersion,
    registryAuth: __,
    previousRegistryAuth,
    ...rest
  } = touched(state, row, atMs);
  const after: ServiceObject = {
    ...rest,
    spec,
    specVersion: previousSpecVersion ?? row.version,
    endpoint,
    updateStatus,
    ...(previousRegistryAuth !== undefined && { registryAuth: previousRegistryAuth }),
  };
  return settled(state, after, changes);
}

function settled(state: ReadonlyState, row: ServiceObject, more: readonly Change[] = []): Decision {
  return { id: row.id, changes: [...more, change(state, 'service', row.id, row)] };
}

/** One that is not being removed. @throws SwarmError `SWARM_NOT_FOUND`. */
function serviceOf(state: ReadonlyState, id: string): ServiceObject {
  const row = state.row('service', id);
  if (row === undefined || row.pendingDelete === true)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'service', ref: id }, `service ${id} not found`);
  return row;
}
