import { unreachable } from '../../../base/assert.js';
import {
  type CommandOf,
  change,
  checkVersion,
  type Decision,
  newMeta,
  touched,
} from './decision.js';
import { invalid, precondition, refuse } from './refuse.js';
import type { ServiceRow, ServiceSpecRow, TaskRow } from './rows.js';
import type { ReadonlyState } from './state.js';

const SERVICES_MAX = 4_096;
const TASKS_MAX = 65_536;
/** Of one service, or of one task, as JSON. */
const BODY_CHARS_MAX = 262_144;

type ServiceCommand = CommandOf<'service_create' | 'service_update' | 'service_remove'>;
type TaskCommand = CommandOf<'task_create' | 'task_update' | 'task_remove'>;

/** Names, references and versions only: what a service is to do is its orchestrator's to judge. */
export function decideService(state: ReadonlyState, command: ServiceCommand): Decision {
  switch (command.kind) {
    case 'service_create':
      return createService(state, command);
    case 'service_update': {
      const row = serviceOf(state, command.id);
      checkVersion(row, command.version);
      if (command.spec.name !== row.spec.name)
        throw precondition('renaming services is not supported');
      checkReferences(state, command.spec);
      const after = { ...touched(state, row, command.atMs), spec: command.spec };
      return { id: row.id, changes: [change(state, 'service', row.id, after)] };
    }
    case 'service_remove': {
      const row = serviceOf(state, command.id);
      return { id: row.id, changes: [change(state, 'service', row.id, undefined)] };
    }
    default:
      return unreachable(command);
  }
}

function createService(state: ReadonlyState, command: CommandOf<'service_create'>): Decision {
  const { id, spec } = command;
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
  checkReferences(state, spec);
  const row: ServiceRow = { id, ...newMeta(state, command.atMs), spec };
  return { id, changes: [change(state, 'service', id, row)] };
}

function checkReferences(state: ReadonlyState, spec: ServiceSpecRow): void {
  checkBody('service', spec);
  for (const ref of spec.secrets)
    if (state.row('secret', ref) === undefined)
      throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'secret', ref }, `secret ${ref} not found`);
  for (const ref of spec.configs)
    if (state.row('config', ref) === undefined)
      throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'config', ref }, `config ${ref} not found`);
}

function checkBody(kind: string, body: unknown): void {
  if (JSON.stringify(body).length > BODY_CHARS_MAX)
    throw invalid(`the description of the ${kind} is too large`);
}

function serviceOf(state: ReadonlyState, id: string): ServiceRow {
  const row = state.row('service', id);
  if (row === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'service', ref: id }, `service ${id} not found`);
  return row;
}

export function decideTask(state: ReadonlyState, command: TaskCommand): Decision {
  switch (command.kind) {
    case 'task_create':
      return createTask(state, command);
    case 'task_update':
      return updateTask(state, command);
    case 'task_remove': {
      const row = taskOf(state, command.id);
      return { id: row.id, changes: [change(state, 'task', row.id, undefined)] };
    }
    default:
      return unreachable(command);
  }
}

function createTask(state: ReadonlyState, command: CommandOf<'task_create'>): Decision {
  const { id, serviceId, nodeId, body } = command;
  if (state.row('task', id) !== undefined) throw precondition(`task ${id} already exists`);
  if (serviceId !== undefined) serviceOf(state, serviceId);
  if (state.size('task') >= TASKS_MAX)
    throw refuse(
      { code: 'SWARM_EXHAUSTED', what: 'task' },
      `the swarm has ${TASKS_MAX} tasks, and no room for more`,
    );
  checkBody('task', body);
  const row: TaskRow = {
    id,
    ...newMeta(state, command.atMs),
    ...(serviceId !== undefined && { serviceId }),
    ...(nodeId !== undefined && { nodeId }),
    body,
  };
  return { id, changes: [change(state, 'task', id, row)] };
}

function updateTask(state: ReadonlyState, command: CommandOf<'task_update'>): Decision {
  const row = taskOf(state, command.id);
  checkVersion(row, command.version);
  const { nodeId = row.nodeId } = command;
  if (row.nodeId !== undefined && nodeId !== row.nodeId)
    throw precondition(`task ${row.id} is placed already: a task stays on its node`);
  checkBody('task', command.body);
  const after: TaskRow = {
    ...touched(state, row, command.atMs),
    ...(nodeId !== undefined && { nodeId }),
    body: command.body,
  };
  return { id: row.id, changes: [change(state, 'task', row.id, after)] };
}

function taskOf(state: ReadonlyState, id: string): TaskRow {
  const row = state.row('task', id);
  if (row === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'task', ref: id }, `task ${id} not found`);
  return row;
}
