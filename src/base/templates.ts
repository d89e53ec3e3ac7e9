import {
  type ContainerSpec,
  type Mount,
  type ServiceSpec,
  type TaskObject,
  taskName,
} from './service-model.js';
import type { NodeId, ServiceId, TaskId } from './swarm-model.js';

/** What templates may ask about the node. */
export interface NodeFacts {
  readonly id: string;
  readonly hostname: string;
  readonly os: string;
  readonly architecture: string;
}

/** What templates may ask about the task. */
export type TemplatedTask = Pick<
  TaskObject,
  'id' | 'serviceId' | 'serviceName' | 'serviceLabels' | 'slot' | 'nodeId'
> & { readonly spec: Pick<TaskObject['spec'], 'container'> };

export type TemplateValue =
  | string
  | Readonly<Record<string, string>>
  | { readonly [name: string]: TemplateValue };
/** By name; each of one text. */
export type TemplateFunctions = ReadonlyMap<string, (name: string) => string>;

/** `{{ … }}` with Go's marks that take away the space beside it. */
const ACTION = /(?:\s*\{\{-\s|\{\{)(?<body>[\s\S]*?)(?:\s-\}\}\s*|\}\})/g;
const COMMENT = /^\/\*[\s\S]*\*\/$/;
const FIELDS = /^(?:\.[A-Za-z_]\w*)+$/;
const INDEX = /^index\s+(?<fields>(?:\.[A-Za-z_]\w*)+)\s+(?<key>"(?:[^"\\]|\\.)*"|`[^`]*`)$/;
const CALL = /^(?<name>[a-z]+)\s+(?<argument>"(?:[^"\\]|\\.)*"|`[^`]*`)$/;
const LITERAL = /^(?:"(?:[^"\\]|\\.)*"|`[^`]*`)$/;

/** The values behind `.Service`, `.Node` and `.Task`, with Docker's names. */
export function templateContext(task: TemplatedTask, node: NodeFacts): TemplateValue {
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
export function fillIn(text: string, context: TemplateValue, functions: TemplateFunctions): string {
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

function evaluate(body: string, context: TemplateValue, functions: TemplateFunctions): string {
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
  if (quoted.startsWith('`')) return quoted.slice(1, -1);
  try {
    return JSON.parse(quoted) as string;
  } catch {
    throw new Error(`the text ${quoted} is not understood: \`…\` takes all characters as they are`);
  }
}

function fieldOf(context: TemplateValue, path: string): TemplateValue {
  let value = context;
  const names = path.slice(1).split('.');
  for (const [at, name] of names.entries()) {
    if (typeof value !== 'string' && Object.hasOwn(value, name)) {
      value = (value as { readonly [name: string]: TemplateValue })[name] ?? '';
    } else if (names[at - 1] === 'Labels') {
      // A label that is not there is empty, as in Go.
      return '';
    } else throw new Error(`there is no field ${path}`);
  }
  return value;
}

/** A map as Go prints it. */
function print(value: TemplateValue): string {
  if (typeof value === 'string') return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([key, one]) => `${key}:${print(one)}`).join(' ')}]`;
}

export function during<Result>(what: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws Error in Docker's words, with what is wrong in a template. */
export function expandContainer(task: TemplatedTask, node: NodeFacts): ContainerSpec {
  const { container } = task.spec;
  const context = templateContext(task, node);
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
 * As far as it can be told before there is a task: whether all templates are understood.
 *
 * @throws Error in Docker's words, with what is wrong in a template.
 */
export function checkTemplates(spec: ServiceSpec): void {
  expandContainer(
    {
      id: 'taskid' as TaskId,
      serviceId: 'serviceid' as ServiceId,
      serviceName: spec.name,
      serviceLabels: spec.labels,
      slot: 1,
      nodeId: 'nodeid' as NodeId,
      spec: spec.task,
    },
    { id: 'nodeid', hostname: 'hostname', os: 'os', architecture: 'architecture' },
  );
}
