import type { ContainerSpec, ServiceSpec } from '../../base/service-model.js';
import { controlRefusal } from '../wire/errors.js';

/**
 * What is wrong with a service's spec and concerns the engine's grammar alone. All else is judged by the
 * store, in the words of Docker's control plane as here.
 */
export function checkServiceSpec({ task, update, rollback }: ServiceSpec): void {
  for (const constraint of task.placement?.constraints ?? []) checkConstraint(constraint);
  checkCredentialSpec(task.container);
  if ((update?.parallelism ?? 0) < 0 || (rollback?.parallelism ?? 0) < 0)
    throw controlRefusal('InvalidArgument', 'TaskSpec: update-parallelism cannot be negative');
}

const KEY = /^[a-z_][a-z0-9\-_.]+$/i;
const VALUE = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;

/** Besides Docker's `==` and `!=` there are `==~` and `!=~`, wishes that may stay unfulfilled. */
function checkConstraint(constraint: string): void {
  const refuse = (message: string) => controlRefusal('Unknown', message);
  const operator = ['==', '!='].find((one) => constraint.includes(one));
  if (operator === undefined) throw refuse('constraint expected one operator from ==, !=');
  const at = constraint.indexOf(operator);
  const key = constraint.slice(0, at).trim();
  const value = constraint
    .slice(at + operator.length)
    .replace(/^~/, '')
    .trim();
  if (!KEY.test(key)) throw refuse(`key '${key}' is invalid`);
  if (!VALUE.test(value)) throw refuse(`value '${value}' is invalid`);
}

function checkCredentialSpec({ configs = [], privileges }: ContainerSpec): void {
  const { CredentialSpec: source } = (privileges ?? {}) as {
    readonly CredentialSpec?: { readonly Config?: string } | null;
  };
  const config = source?.Config ?? '';
  if (config === '' || configs.some(({ configId, runtime }) => runtime && configId === config))
    return;
  throw controlRefusal(
    'InvalidArgument',
    `CredentialSpec references config '${config}', but that config isn't in config references with RuntimeTarget`,
  );
}
