import type { ContainerSpec, TaskObject } from '../base/service-model.js';
import type { ConfigId, SecretId } from '../base/swarm-model.js';
import {
  during,
  fillIn,
  type NodeFacts,
  type TemplateFunctions,
  templateContext,
} from '../base/templates.js';

/** A secret or a config as the managers gave it. */
export interface Blob {
  readonly templating?: { readonly name: string };
  readonly data: Uint8Array;
}

export interface Blobs {
  readonly secrets: ReadonlyMap<SecretId, Blob>;
  readonly configs: ReadonlyMap<ConfigId, Blob>;
}

/** Bytes that a filled in secret or config has at most: as many as one that is not. */
const PAYLOAD_BYTES_MAX = 1_024_000;

/**
 * The contents that a task refers to, filled in where their templating is `golang`.
 *
 * @throws Error that names what is missing, or wrong in a template.
 */
export function expandBlobs(
  task: TaskObject,
  container: ContainerSpec,
  node: NodeFacts,
  blobs: Blobs,
): { readonly secrets: Map<SecretId, Uint8Array>; readonly configs: Map<ConfigId, Uint8Array> } {
  const context = templateContext(task, node);
  const { secrets = [], configs = [], env = [] } = container;
  const functions: TemplateFunctions = new Map([
    [
      'secret',
      (name) =>
        textNamed(
          'secret',
          name,
          secrets.map((s) => [s.file?.name, blobs.secrets.get(s.secretId)]),
        ),
    ],
    [
      'config',
      (name) =>
        textNamed(
          'config',
          name,
          configs.map((c) => [c.file?.name, blobs.configs.get(c.configId)]),
        ),
    ],
    ['env', (name) => env.find((e) => e.startsWith(`${name}=`))?.slice(name.length + 1) ?? ''],
  ]);
  const expand = (kind: string, name: string, blob: Blob | undefined): Uint8Array => {
    if (blob === undefined) throw new Error(`${kind} ${name} is not here`);
    const { templating, data } = blob;
    if (templating === undefined || templating.name === '') return data;
    if (templating.name !== 'golang')
      throw new Error(`${kind} ${name}: no such template driver: ${templating.name}`);
    return during(`failed to expand templated ${kind} ${name}`, () => {
      const bytes = Buffer.from(fillIn(Buffer.from(data).toString('utf8'), context, functions));
      if (bytes.length > PAYLOAD_BYTES_MAX)
        throw new Error(`it has more than ${PAYLOAD_BYTES_MAX} bytes`);
      return new Uint8Array(bytes);
    });
  };
  return {
    secrets: new Map(
      secrets.map((s) => [
        s.secretId,
        expand('secret', s.secretName, blobs.secrets.get(s.secretId)),
      ]),
    ),
    configs: new Map(
      configs.map((c) => [
        c.configId,
        expand('config', c.configName, blobs.configs.get(c.configId)),
      ]),
    ),
  };
}

/** The contents under a file's name; not filled in themselves, so that there is an end to it. */
function textNamed(
  kind: string,
  name: string,
  files: readonly (readonly [string | undefined, Blob | undefined])[],
): string {
  const found = files.find(([file]) => file === name)?.[1];
  if (found === undefined) throw new Error(`${kind} target ${name} not found`);
  return Buffer.from(found.data).toString('utf8');
}
