import type { Json, Stack, StackService } from '../compose/convert.js';
import { composeError } from '../compose/error.js';
import type { Variables } from '../compose/interpolate.js';
import type { ServiceJson, StackApi } from './api.js';
import { type BlobIds, deployBlobs, removeOldBlobs } from './blobs.js';
import { type Patience, waitConverged, waitDependency } from './wait.js';

const IMAGE_LABEL = 'com.docker.stack.image';

export interface DeployOptions {
  readonly variables: Variables;
  /** Services that the file does not have any more go. */
  readonly prune: boolean;
  /** Returns when all that was deployed runs. */
  readonly wait: boolean;
  readonly patience: Patience;
  readonly say: (line: string) => void;
}

/**
 * Brings the swarm in line with the stack: networks, secrets and configs first, then services in the
 * order of what they depend on, each when what it waits for is there.
 *
 * @throws CliError the first refusal; what was done until then stays, and deploying again goes on.
 */
export async function deployStack(
  api: StackApi,
  stack: Stack,
  options: DeployOptions,
): Promise<void> {
  const { variables, say } = options;
  await deployNetworks(api, stack, say);
  const secrets = await deployBlobs(api, 'secrets', stack.name, stack.secrets, variables, say);
  const configs = await deployBlobs(api, 'configs', stack.name, stack.configs, variables, say);
  const present = new Map((await api.services(stack.name)).map((one) => [one.Spec.Name, one]));
  if (options.prune) await prune(api, stack, present, say);
  for (const service of stack.services) {
    for (const dependency of service.dependsOn)
      await waitDependency(api, service.name, dependency, options.patience);
    await deployService(api, service, present.get(service.name), { secrets, configs }, say);
  }
  if (options.wait)
    for (const { name } of stack.services) await waitConverged(api, name, options.patience);
  await removeOldBlobs(api, 'secrets', stack.name, secrets);
  await removeOldBlobs(api, 'configs', stack.name, configs);
}

async function deployNetworks(
  api: StackApi,
  stack: Stack,
  say: (line: string) => void,
): Promise<void> {
  const present = new Set((await api.networks(stack.name)).map(({ Name }) => Name));
  for (const { name, external, body } of stack.networks) {
    if (external) {
      const outside = await api.network(name);
      if (outside === undefined)
        throw composeError(
          'networks',
          `the external network ${name} is not there: create it first`,
        );
      if (outside.Scope !== 'swarm')
        throw composeError(
          'networks',
          `the network ${name} is of this host only, not of the swarm`,
        );
    } else if (!present.has(name)) {
      say(`Creating network ${name}`);
      await api.createNetwork(body);
    }
  }
}

async function prune(
  api: StackApi,
  stack: Stack,
  present: ReadonlyMap<string, ServiceJson>,
  say: (line: string) => void,
): Promise<void> {
  const wanted = new Set(stack.services.map(({ name }) => name));
  for (const [name, { ID }] of present) {
    if (wanted.has(name)) continue;
    say(`Removing service ${name}`);
    await api.remove('services', ID);
  }
}

interface Blobs {
  readonly secrets: BlobIds;
  readonly configs: BlobIds;
}

async function deployService(
  api: StackApi,
  { name, spec }: StackService,
  present: ServiceJson | undefined,
  blobs: Blobs,
  say: (line: string) => void,
): Promise<void> {
  const resolved = resolveBlobs(spec, blobs);
  if (present === undefined) {
    say(`Creating service ${name}`);
    await api.createService(resolved);
    return;
  }
  say(`Updating service ${name} (id: ${present.ID})`);
  await api.updateService(present, carriedOver(resolved, present));
}

/** Names become what the store knows; a new version of a secret stays under its name in the task. */
function resolveBlobs(spec: Json, { secrets, configs }: Blobs): Json {
  const template = spec['TaskTemplate'] as Json;
  const container = template['ContainerSpec'] as Json;
  const all = (key: string, ids: BlobIds, idKey: string, nameKey: string) => {
    const references = container[key] as readonly Json[] | undefined;
    return (
      references && {
        [key]: references.map((reference) => {
          const found = ids.get(String(reference[nameKey]));
          return { ...reference, [idKey]: found?.id, [nameKey]: found?.name };
        }),
      }
    );
  };
  return {
    ...spec,
    TaskTemplate: {
      ...template,
      ContainerSpec: {
        ...container,
        ...all('Secrets', secrets, 'SecretID', 'SecretName'),
        ...all('Configs', configs, 'ConfigID', 'ConfigName'),
      },
    },
  };
}

/** What deploying must not undo: forced updates, and the digest that an unchanged image was found by. */
function carriedOver(spec: Json, { Spec: before }: ServiceJson): Json {
  const template = spec['TaskTemplate'] as Json;
  const container = template['ContainerSpec'] as Json;
  const sameImage = before.Labels?.[IMAGE_LABEL] === container['Image'];
  return {
    ...spec,
    TaskTemplate: {
      ...template,
      ForceUpdate: before.TaskTemplate.ForceUpdate ?? 0,
      ContainerSpec: {
        ...container,
        ...(sameImage && { Image: before.TaskTemplate.ContainerSpec.Image }),
      },
    },
  };
}
