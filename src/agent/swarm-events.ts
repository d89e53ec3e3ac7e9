import type { SwarmEvent } from '../api/index.js';
import type { ServiceObject } from '../base/service-model.js';
import type { NodeObject } from '../base/swarm-model.js';
import type { StoreChange } from '../control/index.js';

type Shown = Pick<SwarmEvent, 'kind' | 'id' | 'attributes'>;
type Attributes = Record<string, string>;

/**
 * What `docker events` tells of a change of the store; `undefined`: nothing. The attributes are those of a
 * real engine.
 */
export function eventOf(change: StoreChange, nowMs: number): SwarmEvent | undefined {
  const action = actionOf(change);
  const shown = action && shownOf(change);
  if (shown === undefined || action === undefined) return undefined;
  return { ...shown, action, atMs: momentOf(change, action, nowMs) };
}

function actionOf(change: StoreChange): 'create' | 'update' | 'remove' | undefined {
  const { table, before, after } = change;
  if (before === undefined) return 'create';
  if (after === undefined) {
    // The user has seen the service go when its tasks began to end.
    return table === 'service' && before.pendingDelete === true ? undefined : 'remove';
  }
  if (table === 'service' && after.pendingDelete === true)
    return change.before?.pendingDelete === true ? undefined : 'remove';
  return 'update';
}

function momentOf({ after }: StoreChange, action: SwarmEvent['action'], nowMs: number): number {
  if (after === undefined || action === 'remove' || !('updatedAtMs' in after)) return nowMs;
  return action === 'create' ? after.createdAtMs : after.updatedAtMs;
}

function shownOf(change: StoreChange): Shown | undefined {
  const { table, key: id } = change;
  switch (table) {
    case 'service':
      return { kind: table, id, attributes: ofService(change.before, change.after) };
    case 'node': {
      const attributes = ofNode(change.before, change.after);
      return attributes && { kind: table, id, attributes };
    }
    case 'network':
    case 'secret':
    case 'config': {
      const name = (change.after ?? change.before)?.spec.name ?? '';
      return { kind: table, id, attributes: { name } };
    }
    default:
      return undefined;
  }
}

/** `name.old` and `name.new`, where there is a difference. */
function told(name: string, before: string | undefined, after: string | undefined): Attributes {
  if (before === after) return {};
  return {
    ...(before !== undefined && { [`${name}.old`]: before }),
    ...(after !== undefined && { [`${name}.new`]: after }),
  };
}

function ofService(
  before: ServiceObject | undefined,
  after: ServiceObject | undefined,
): Attributes {
  const name = (after ?? before)?.spec.name ?? '';
  if (before === undefined || after === undefined) return { name };
  const replicasOf = ({ spec: { mode } }: ServiceObject) =>
    mode.kind === 'replicated' ? String(mode.replicas) : undefined;
  const stateOf = ({ updateStatus }: ServiceObject) => updateStatus?.state;
  return {
    name,
    ...told('image', before.spec.task.container.image, after.spec.task.container.image),
    ...told('replicas', replicasOf(before), replicasOf(after)),
    ...(after.updateStatus && told('updatestate', stateOf(before), stateOf(after))),
  };
}

/** `undefined`: nothing has changed that anybody is shown, such as which manager serves the node. */
function ofNode(
  before: NodeObject | undefined,
  after: NodeObject | undefined,
): Attributes | undefined {
  const { spec, description } = after ?? before ?? {};
  const name = spec?.name || (description?.hostname ?? '');
  if (before === undefined || after === undefined) return { name };
  const visible = ({ version: _, updatedAtMs: __, session: ___, ...node }: NodeObject) =>
    JSON.stringify(node);
  if (visible(before) === visible(after)) return undefined;
  const roleOf = (node: NodeObject) => node.observedRole ?? node.spec.role;
  return {
    name,
    ...told('availability', before.spec.availability, after.spec.availability),
    ...told('role', roleOf(before), roleOf(after)),
    ...told('state', before.state, after.state),
  };
}
