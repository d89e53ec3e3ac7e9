import { readAccess } from '../../base/access-labels.js';
import { readCheck } from '../../base/check-labels.js';
import { parseConstraints } from '../../base/constraint.js';
import type { ContainerSpec, ServiceSpec } from '../../base/service-model.js';
import { checkTemplates } from '../../base/templates.js';
import { controlRefusal } from '../wire/errors.js';

/**
 * What is wrong with a service's spec and concerns the engine's grammar alone. All else is judged by the
 * store, in the words of Docker's control plane as here.
 */
export function checkServiceSpec(spec: ServiceSpec): void {
  const { labels, task, update, rollback, endpoint } = spec;
  const { problems } = readCheck(
    labels,
    (endpoint?.ports ?? []).filter(({ publishMode: mode }) => mode !== 'host'),
  );
  const [problem] = [...readAccess(labels).problems, ...problems];
  if (problem !== undefined) throw controlRefusal('InvalidArgument', problem);
  const constraints = parseConstraints(task.placement?.constraints ?? []);
  if (typeof constraints === 'string') throw controlRefusal('Unknown', constraints);
  checkCredentialSpec(task.container);
  if ((update?.parallelism ?? 0) < 0 || (rollback?.parallelism ?? 0) < 0)
    throw controlRefusal('InvalidArgument', 'TaskSpec: update-parallelism cannot be negative');
  try {
    checkTemplates(spec);
  } catch (error) {
    throw controlRefusal('InvalidArgument', (error as Error).message);
  }
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
