import {
  compareTaskStates,
  type ServiceObject,
  type TaskObject,
} from '../../../base/service-model.js';
import type {
  AttachmentId,
  ConfigId,
  SecretId,
  TaskId,
  Templating,
} from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import type {
  AssignedBlob,
  AssignedConfig,
  AssignedSecret,
  AssignedTask,
} from '../../wire/task-model.js';

/** What a node is told of its own; the same entry, by identity, where it says the same. */
export interface OwnAssignments {
  readonly attachments: ReadonlyMap<AttachmentId, KeyedAttachment>;
  /** `status` is as of when something else changed last: of that the node knows more itself. */
  readonly tasks: ReadonlyMap<TaskId, AssignedTask>;
  /** Those that tasks refer to which are to run. */
  readonly secrets: ReadonlyMap<SecretId, AssignedSecret>;
  readonly configs: ReadonlyMap<ConfigId, AssignedConfig>;
}

export const NOTHING_OWN: OwnAssignments = {
  attachments: new Map(),
  tasks: new Map(),
  secrets: new Map(),
  configs: new Map(),
};

interface BlobRow {
  readonly spec: { readonly name: string; readonly templating?: Templating };
  readonly data: string;
}

/** Where the assignments of one node are read. */
export interface OwnSource {
  readonly attachments: Iterable<KeyedAttachment>;
  /** All tasks that have the node, also those that are only meant for it. */
  readonly tasks: Iterable<TaskObject>;
  service(id: TaskObject['serviceId']): ServiceObject | undefined;
  secret(id: SecretId): BlobRow | undefined;
  config(id: ConfigId): BlobRow | undefined;
}

/** @param before What the node was told, whose entries are used again where they still hold. */
export function projectOwn(source: OwnSource, before: OwnAssignments): OwnAssignments {
  const tasks = new Map<TaskId, AssignedTask>();
  for (const task of source.tasks) {
    if (!isPlaced(task)) continue;
    const known = before.tasks.get(task.id);
    const holds = known !== undefined && !differsForNode(known, task);
    tasks.set(task.id, holds ? known : assignedTask(task, source.service(task.serviceId)));
  }
  const { secretIds, configIds } = referencesOf(tasks.values());
  return {
    attachments: new Map([...source.attachments].map((row) => [row.id, row])),
    tasks,
    secrets: blobsOf(secretIds, (id) => source.secret(id), before.secrets),
    configs: blobsOf(configIds, (id) => source.config(id), before.configs),
  };
}

function isPlaced({ status }: TaskObject): boolean {
  return compareTaskStates(status.state, 'assigned') >= 0;
}

/** Whether a node must hear of the difference: what it reported itself it knows. */
export function differsForNode(before: TaskObject, after: TaskObject): boolean {
  return (
    before.desiredState !== after.desiredState ||
    before.spec !== after.spec ||
    before.nodeId !== after.nodeId ||
    before.networks !== after.networks ||
    before.ports !== after.ports ||
    before.assignedResources !== after.assignedResources ||
    isPlaced(before) !== isPlaced(after)
  );
}

/** What it takes to pull an image is told only while that may be necessary. */
function assignedTask(task: TaskObject, service: ServiceObject | undefined): AssignedTask {
  const pulls = isToRun(task) && compareTaskStates(task.status.state, 'ready') < 0;
  if (!pulls || service === undefined) return task;
  const registryAuth =
    task.specVersion === service.specVersion ? service.registryAuth : service.previousRegistryAuth;
  return registryAuth === undefined ? task : { ...task, registryAuth };
}

function isToRun({ desiredState }: TaskObject): boolean {
  return compareTaskStates(desiredState, 'complete') <= 0;
}

/** Both ends know from the tasks alone which contents the node has. */
export function referencesOf(tasks: Iterable<TaskObject>): {
  readonly secretIds: ReadonlySet<SecretId>;
  readonly configIds: ReadonlySet<ConfigId>;
} {
  const secretIds = new Set<SecretId>();
  const configIds = new Set<ConfigId>();
  for (const task of tasks) {
    if (!isToRun(task)) continue;
    const { secrets = [], configs = [] } = task.spec.container;
    for (const { secretId } of secrets) secretIds.add(secretId);
    for (const { configId } of configs) configIds.add(configId);
  }
  return { secretIds, configIds };
}

function blobsOf<Id extends string>(
  ids: ReadonlySet<Id>,
  find: (id: Id) => BlobRow | undefined,
  before: ReadonlyMap<Id, AssignedBlob<Id>>,
): ReadonlyMap<Id, AssignedBlob<Id>> {
  const blobs = new Map<Id, AssignedBlob<Id>>();
  for (const id of ids) {
    const row = find(id);
    // The contents never change.
    const blob = before.get(id) ?? (row && blobOf(id, row));
    if (blob !== undefined) blobs.set(id, blob);
  }
  return blobs;
}

function blobOf<Id extends string>(id: Id, { spec, data }: BlobRow): AssignedBlob<Id> {
  const { name, templating } = spec;
  return { id, name, data, ...(templating !== undefined && { templating }) };
}
