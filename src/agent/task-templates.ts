import {
  type ContainerSpec,
  type Mount,
  type TaskObject,
  taskName,
} from '../base/service-model.js';
import type { ConfigId, SecretId } from '../base/swarm-model.js';

/** What templates may ask about the node. */
export interface NodeFacts {
  readonly id: string;
  readonly hostname: string;
  readonly os: string;
  readonly architecture: string;
}

/** A secret or a config as the managers gave it. */
export interface Blob {
  readonly templating?: { readonly name: string };
  readonly data: Uint8Array;
}

export interface Blobs {
  readonly secrets: ReadonlyMap<SecretId, Blob>;
  readonly configs: ReadonlyMap<ConfigId, Blob>;
}

type Value = string | Readonly<Record<string, string>> | { readonly [name: string]: Value };
type Functions = ReadonlyMap<string, (name: string) => string>;

/** Bytes that a filled in secret or config has at most: as many as one that is not. */
const PAYLOAD_BYTES_MAX = 1_024_000;

/** `{{ … }}` with Go's marks that take away the space beside it. */
const ACTION = /(?:\s*\{\{-\s|\{\{)(?<body>[\s\S]*?)(?:\s-\}\}\s*|\}\})/g;
const COMMENT = /^\/\*[\s\S]*\*\/$/;
const FIELDS = /^(?:\.[A-Za-z_]\w*)+$/;
const INDEX = /^index\s+(?<fields>(?:\.[A-Za-z_]\w*)+)\s+(?<key>"(?:[^"\\]|\\.)*"|`[^`]*`)$/;
const CALL = /^(?<name>[a-z]+)\s+(?<argument>"(?:[^"\\]|\\.)*"|`[^`]*`)$/;
const LITERAL = /^(?:"(?:[^"\\]|\\.)*"|`[^`]*`)$/;

/** The values behind `.Service`, `.Node` and `.Task`, with Docker's names. */
function contextOf(task: TaskObject, node: NodeFacts): Value {
  return {
    Service: { ID: task.serviceId, Name: task.serviceName, Labels: task.serviceLabels },
    Node: {
      ID: node.id,
      Hostname: node.hostname,
      Platform: { Architecture: node.architecture, OS: node.os },
    },
    Task: {
      ID: task.id,
      Name: taskName(task),
      Slot: task.slot > 0 ? `${task.slot}` : node.id,
    },
  };
}

/**
 * Fills in the part of Go's templates that is of use in a service: fields, `index`, texts and the functions
 * that are given. Whatever else stands between braces is refused, rather than left as it is.
 *
 * @throws Error that names what is not understood.
 */
function fillIn(text: string, context: Value, functions: Functions): string {
  if (!text.includes('{{')) return text;
  let rest = 0;
  const filled = text.replace(ACTION, (all: string, ...found: unknown[]) => {
    const { body } = found.at(-1) as { readonly body: string };
    rest = (found.at(-3) as number) + all.length;
    return evaluate(body.trim(), context, functions);
  });
  if (text.indexOf('{{', rest) >= 0) throw new Error('{{ is never closed by }}');
  return filled;
}

function evaluate(body: string, context: Value, functions: Functions): string {
  if (COMMENT.test(body)) return '';
  if (LITERAL.test(body)) return literal(body);
  if (FIELDS.test(body)) return print(fieldOf(context, body));
  const index = INDEX.exec(body)?.groups;
  if (index !== undefined) {
    const table = fieldOf(context, index['fields'] ?? '');
    if (typeof table === 'string') throw new Error(`{{${body}}}: that has no entries`);
    return print(
      Object.hasOwn(table, literal(index['key'] ?? ''))
        ? (table[literal(index['key'] ?? '')] ?? '')
        : '',
    );
  }
  const call = CALL.exec(body)?.groups;
  const known = functions.get(call?.['name'] ?? '');
  if (known !== undefined) return known(literal(call?.['argument'] ?? ''));
  throw new Error(
    `{{${body}}} is not understood: fields such as {{.Task.Slot}} and {{index .Service.Labels "key"}} are`,
  );
}

function literal(quoted: string): string {
  return quoted.startsWith('`') ? quoted.slice(1, -1) : (JSON.parse(quoted) as string);
}

function fieldOf(context: Value, path: string): Value {
  let value = context;
  const names = path.slice(1).split('.');
  for (const [at, name] of names.entries()) {
    if (typeof value !== 'string' && Object.hasOwn(value, name)) {
      value = (value as { readonly [name: string]: Value })[name] ?? '';
    } else if (names[at - 1] === 'Labels') {
      // A label that is not there is empty, as in Go.
      return '';
    } else throw new Error(`there is no field ${path}`);
  }
  return value;
}

/** A map as Go prints it. */
function print(value: Value): string {
  if (typeof value === 'string') return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([key, one]) => `${key}:${print(one)}`).join(' ')}]`;
}

function during<Result>(what: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws Error in Docker's words, with what is wrong in a template. */
export function expandContainer(task: TaskObject, node: NodeFacts): ContainerSpec {
  const { container } = task.spec;
  const context = contextOf(task, node);
  const expand = (text: string) => fillIn(text, context, new Map());
  const { env, mounts, hostname } = container;
  return {
    ...container,
    ...(env !== undefined && {
      env: during('expanding env failed', () => env.map((one) => expandVariable(one, expand))),
    }),
    ...(mounts !== undefined && {
      mounts: during('expanding mounts failed', () =>
        mounts.map((one) => expandMount(one, expand)),
      ),
    }),
    ...(hostname !== undefined && {
      hostname: during('expanding hostname failed', () => expand(hostname)),
    }),
  };
}

/** Only the value is a template. */
function expandVariable(entry: string, expand: (text: string) => string): string {
  const at = entry.indexOf('=');
  return at < 0 ? entry : `${entry.slice(0, at)}=${expand(entry.slice(at + 1))}`;
}

function expandMount(mount: Mount, expand: (text: string) => string): Mount {
  const { source, target, volume } = mount;
  const expandAll = (labels: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, expand(value)]));
  return {
    ...mount,
    target: expand(target),
    ...(source !== undefined && { source: expand(source) }),
    ...(volume && {
      volume: {
        ...volume,
        ...(volume.labels && { labels: expandAll(volume.labels) }),
        ...(volume.driver && {
          driver: {
            ...volume.driver,
            ...(volume.driver.options && { options: expandAll(volume.driver.options) }),
          },
        }),
      },
    }),
  };
}

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
  const context = contextOf(task, node);
  const { secrets = [], configs = [], env = [] } = container;
  const functions: Functions = new Map([
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
