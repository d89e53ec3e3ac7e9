import { isDeepStrictEqual } from 'node:util';
import type { Json } from '../compose/convert.js';
import { containerSpec, resourcesOf, restartOf, type ServiceFlags, updateOf } from './spec.js';
import { fileOf, mappingOf, mountOf, networkOf, numberOf, publishOf } from './values.js';

/** The flags of `service update` beside those that take a value's place. */
export interface UpdateFlags extends Omit<ServiceFlags, 'mode'> {
  readonly image?: string;
  readonly args?: string;
  readonly force?: boolean;
  readonly rollback?: boolean;
  readonly envAdd?: readonly string[];
  readonly envRm?: readonly string[];
  readonly labelAdd?: readonly string[];
  readonly labelRm?: readonly string[];
  readonly containerLabelAdd?: readonly string[];
  readonly containerLabelRm?: readonly string[];
  readonly publishAdd?: readonly string[];
  readonly publishRm?: readonly string[];
  readonly mountAdd?: readonly string[];
  readonly mountRm?: readonly string[];
  readonly networkAdd?: readonly string[];
  readonly networkRm?: readonly string[];
  readonly constraintAdd?: readonly string[];
  readonly constraintRm?: readonly string[];
  readonly secretAdd?: readonly string[];
  readonly secretRm?: readonly string[];
  readonly configAdd?: readonly string[];
  readonly configRm?: readonly string[];
}

const objectAt = (of: Json | undefined, key: string) => of?.[key] as Json | undefined;
const listAt = (of: Json | undefined, key: string) => (of?.[key] ?? []) as readonly Json[];
const textsAt = (of: Json | undefined, key: string) => (of?.[key] ?? []) as readonly string[];

/** Those before without the removed and the replaced, then the added. */
function changed<Item>(
  before: readonly Item[],
  remove: readonly string[] | undefined,
  add: readonly Item[],
  keyOf: (item: Item) => string,
): readonly Item[] {
  const gone = new Set([...(remove ?? []), ...add.map(keyOf)]);
  return [...before.filter((item) => !gone.has(keyOf(item))), ...add];
}

function labelsAfter(
  before: Json | undefined,
  add: readonly string[] | undefined,
  remove: readonly string[] | undefined,
): Json {
  const kept = Object.entries(before ?? {}).filter(([key]) => !remove?.includes(key));
  return { ...Object.fromEntries(kept), ...mappingOf(add) };
}

const portKey = (port: Json) => `${port['TargetPort']}/${port['Protocol'] ?? 'tcp'}`;

/** `80` is `80/tcp`, and `8080:80` names the same port by its target. */
function portRemovals(remove: readonly string[] | undefined): readonly string[] {
  return (remove ?? []).flatMap((value) => publishOf(value).map((port) => portKey({ ...port })));
}

/** Over what is there, only what was said. */
function over(before: Json | undefined, after: Json | undefined): Json | undefined {
  if (after === undefined) return before;
  const merged: Record<string, unknown> = { ...before };
  for (const [key, value] of Object.entries(after)) {
    const inner = merged[key];
    const isNested = isObject(value) && isObject(inner);
    merged[key] = isNested ? over(inner as Json, value as Json) : value;
  }
  return merged;
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The spec after what the flags say: what they do not speak of stays as it is. */
export function updatedSpec(
  spec: Json,
  flags: UpdateFlags,
  args: readonly string[] | undefined,
): Json {
  const template = objectAt(spec, 'TaskTemplate') ?? {};
  const endpoint = objectAt(spec, 'EndpointSpec');
  const ports = changed(
    listAt(endpoint, 'Ports'),
    portRemovals(flags.publishRm),
    (flags.publishAdd ?? []).flatMap((value) => publishOf(value).map((port) => ({ ...port }))),
    portKey,
  );
  const force = Number(template['ForceUpdate'] ?? 0) + (flags.force ? 1 : 0);
  const after: Json = {
    ...spec,
    Labels: labelsAfter(objectAt(spec, 'Labels'), flags.labelAdd, flags.labelRm),
    TaskTemplate: {
      ...template,
      ContainerSpec: containerAfter(objectAt(template, 'ContainerSpec') ?? {}, flags, args),
      Resources: over(objectAt(template, 'Resources'), resourcesOf(flags)),
      RestartPolicy: over(objectAt(template, 'RestartPolicy'), restartOf(flags)),
      Placement: placementAfter(objectAt(template, 'Placement'), flags),
      Networks: changed(
        listAt(template, 'Networks'),
        flags.networkRm,
        (flags.networkAdd ?? []).map(networkOf),
        ({ Target }) => String(Target),
      ),
      ForceUpdate: force,
    },
    UpdateConfig: over(objectAt(spec, 'UpdateConfig'), updateOver(flags, 'update')),
    RollbackConfig: over(objectAt(spec, 'RollbackConfig'), updateOver(flags, 'rollback')),
    EndpointSpec: {
      ...endpoint,
      ...(flags.endpointMode !== undefined && { Mode: flags.endpointMode }),
      Ports: ports,
    },
    Mode: modeAfter(objectAt(spec, 'Mode') ?? {}, flags.replicas),
  };
  return JSON.parse(JSON.stringify(after)) as Json;
}

/** Without the default that creating a service gives. */
function updateOver(flags: UpdateFlags, kind: 'update' | 'rollback'): Json | undefined {
  const given = updateOf(flags, kind);
  if (given === undefined || flags[`${kind}Parallelism`] !== undefined) return given;
  const { Parallelism: _, ...rest } = given;
  return rest;
}

function modeAfter(mode: Json, replicas: string | undefined): Json {
  if (replicas === undefined) return mode;
  return { Replicated: { Replicas: numberOf(replicas, 'replicas') } };
}

function placementAfter(placement: Json | undefined, flags: UpdateFlags): Json {
  const constraints = changed(
    textsAt(placement, 'Constraints'),
    flags.constraintRm,
    flags.constraintAdd ?? [],
    (one) => one.replaceAll(' ', ''),
  );
  const most = flags.replicasMaxPerNode;
  return {
    ...placement,
    Constraints: constraints,
    ...(most !== undefined && { MaxReplicas: Number(most) }),
  };
}

function containerAfter(
  container: Json,
  flags: UpdateFlags,
  args: readonly string[] | undefined,
): Json {
  const own = containerSpec(flags.image ?? String(container['Image'] ?? ''), [], flags);
  const nameOfFile = (key: string) => (one: Json) => String(one[key]);
  return {
    ...container,
    ...over(container, own),
    ...(args !== undefined && { Args: args }),
    Labels: labelsAfter(
      objectAt(container, 'Labels'),
      flags.containerLabelAdd,
      flags.containerLabelRm,
    ),
    Env: changed(
      textsAt(container, 'Env'),
      flags.envRm,
      flags.envAdd ?? [],
      (one) => one.split('=')[0] ?? '',
    ),
    Mounts: changed(
      listAt(container, 'Mounts'),
      flags.mountRm,
      (flags.mountAdd ?? []).map(mountOf),
      ({ Target }) => String(Target),
    ),
    Secrets: changed(
      listAt(container, 'Secrets'),
      flags.secretRm,
      (flags.secretAdd ?? []).map((one) => fileOf(one, 'secret')),
      nameOfFile('SecretName'),
    ),
    Configs: changed(
      listAt(container, 'Configs'),
      flags.configRm,
      (flags.configAdd ?? []).map((one) => fileOf(one, 'config')),
      nameOfFile('ConfigName'),
    ),
  };
}

/** Whether nothing would be different. */
export function isSame(before: Json, after: Json): boolean {
  return isDeepStrictEqual(JSON.parse(JSON.stringify(before)), after);
}
