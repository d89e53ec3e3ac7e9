import t from 'tap';
import type { ServiceObject, ServiceSpec, TaskObject } from '../../src/base/service-model.js';
import type { NetworkObject, NodeId, NodeView } from '../../src/base/swarm-model.js';
import { FakeBackend, nodeObject } from './fake-backend.js';
import { serve } from './harness.js';
import {
  inMilliseconds,
  type Json,
  networksOf,
  type RecordedExchange,
  recordings,
  serviceOf,
  taskOf,
} from './recorded.js';

/**
 * A real CLI's requests about services and tasks are put to this server, which holds what the real engine
 * held; its answers have to be the real engine's, to the last member. docs/differences.md names the
 * differences that are left.
 */

const objectsIn = ({ answer }: RecordedExchange): Json[] =>
  answer === undefined || typeof answer !== 'object' ? [] : [answer].flat();
const isList = (at: RecordedExchange, kind: string) =>
  at.method === 'GET' && at.status === 200 && new RegExp(`/${kind}(/[^/]+)?$`).test(at.path);

const everything = recordings.flatMap(({ exchanges }) => exchanges);
const serviceById = new Map<string, Json>();
const taskById = new Map<string, Json>();
for (const exchange of everything) {
  if (isList(exchange, 'services'))
    for (const one of objectsIn(exchange)) serviceById.set(one.ID, one);
  if (isList(exchange, 'tasks')) for (const one of objectsIn(exchange)) taskById.set(one.ID, one);
}
const networkByName = new Map<string, NetworkObject>();
for (const task of taskById.values())
  for (const network of networksOf(task)) networkByName.set(network.spec.name, network);

/** A service of which no answer is left: what its tasks tell of it. */
const GONE: ServiceSpec = {
  name: 'gone',
  labels: { 'com.docker.stack.namespace': 'st' },
  task: { container: { image: 'x' } },
  mode: { kind: 'global' },
};

const toTask = (json: Json): TaskObject => {
  const service = serviceById.get(json.ServiceID);
  return taskOf(json, service === undefined ? GONE : serviceOf(service).spec);
};

function node(id: string): NodeView {
  return { ...nodeObject('n', id === '' ? 'self' : `host-${id}`), id: id as NodeId };
}

const filtersOf = ({ query }: RecordedExchange): Record<string, Record<string, boolean>> =>
  JSON.parse(query?.['filters'] ?? '{}');

/** Puts in what the engine had, and, where a filter is to sort them out, others too. */
function prepare(backend: FakeBackend, exchange: RecordedExchange): void {
  const filters = filtersOf(exchange);
  const isFiltered = Object.keys(filters).length > 0;
  const answered = objectsIn(exchange);
  const ids = new Set(answered.map(({ ID }) => ID));
  if (isList(exchange, 'services')) {
    const others = isFiltered ? [...serviceById.values()].filter(({ ID }) => !ids.has(ID)) : [];
    backend.serviceObjects = [...answered, ...others.filter((one) => !fitsByChance(one, filters))]
      .map(serviceOf)
      .reverse();
    backend.taskObjects = exchange.query?.['status'] === 'true' ? countedTasks(answered) : [];
  }
  if (isList(exchange, 'tasks')) {
    const wanted = answered.map(toTask);
    const others = isFiltered
      ? [...taskById.values()].filter(({ ID }) => !ids.has(ID)).map(toTask)
      : [];
    const stale = 1;
    backend.taskObjects = [
      ...wanted,
      ...others
        .filter((task) => !fitsTaskByChance(task, filters))
        .map((task) => ({ ...task, specVersion: stale })),
    ].reverse();
    backend.networkObjects = [
      ...new Map(
        [...answered, ...taskById.values()].flatMap(networksOf).map((one) => [one.id, one]),
      ).values(),
    ];
    const latest = new Map(answered.flatMap(networksOf).map((one) => [one.id, one]));
    backend.networkObjects = backend.networkObjects.map((one) => latest.get(one.id) ?? one);
    backend.serviceObjects = [...serviceById.values()].map((one) => ({
      ...serviceOf(one),
      specVersion: 9,
    }));
    backend.nodeObjects = Object.keys(filters['node'] ?? {}).map(node);
  }
}

/** The same service as of another recording. */
function fitsByChance(one: Json, filters: Record<string, Record<string, boolean>>): boolean {
  const label = Object.keys(filters['label'] ?? {})[0] ?? '';
  const names = Object.keys(filters['name'] ?? {});
  return (
    names.some((name) => one.Spec.Name.startsWith(name)) ||
    Object.keys(filters['id'] ?? {}).some((id) => one.ID.startsWith(id)) ||
    (label !== '' && one.Spec.Labels['com.docker.stack.namespace'] !== undefined)
  );
}

/** Tasks of the same service or node as of another recording; those of `_up-to-date` are then stale. */
function fitsTaskByChance(
  task: TaskObject,
  filters: Record<string, Record<string, boolean>>,
): boolean {
  if (filters['_up-to-date'] !== undefined) return false;
  const isOf = (key: string, id: string | undefined) =>
    filters[key] !== undefined && id !== undefined && id in filters[key];
  return (
    isOf('service', task.serviceId) ||
    isOf('node', task.nodeId) ||
    (filters['label'] !== undefined && 'com.docker.stack.namespace' in task.serviceLabels)
  );
}

/** Tasks that make the recorded figures. */
function countedTasks(services: readonly Json[]): TaskObject[] {
  const [model] = taskById.values();
  return services.flatMap((json) => {
    const service = serviceOf(json);
    const { RunningTasks, DesiredTasks, CompletedTasks } = json.ServiceStatus;
    const isGlobal = service.spec.mode.kind === 'global';
    const count = isGlobal ? DesiredTasks : RunningTasks + CompletedTasks;
    return Array.from({ length: count }, (_, at): TaskObject => {
      const task = toTask(model);
      const state =
        at < RunningTasks ? 'running' : at < RunningTasks + CompletedTasks ? 'complete' : 'failed';
      return {
        ...task,
        serviceId: service.id,
        desiredState: 'running',
        status: { ...task.status, state },
        ...(service.job && { jobIteration: service.job.iteration }),
      };
    });
  });
}

/** What the recorded frames were made of. */
function linesOf(bytes: Buffer) {
  const lines = [];
  for (let at = 0; at < bytes.length; ) {
    const size = bytes.readUInt32BE(at + 4);
    const text = bytes.subarray(at + 8, at + 8 + size).toString();
    const [, stamp, details, data = ''] =
      /^(\d{4}-\S+Z )?(com\.docker\.\S+ )?(.*)$/s.exec(text) ?? [];
    const whose = Object.fromEntries(
      (details ?? '')
        .trim()
        .split(',')
        .map((pair) => pair.split('=')),
    );
    const fraction = /\.(\d+)Z/.exec(stamp ?? '')?.[1] ?? '0';
    const second = stamp === undefined ? 0 : Date.parse(stamp.trim().replace(/\.\d+Z/, 'Z')) / 1000;
    lines.push({
      nodeId: whose['com.docker.swarm.node.id'] ?? '',
      serviceId: whose['com.docker.swarm.service.id'] ?? '',
      taskId: whose['com.docker.swarm.task.id'] ?? '',
      stream: bytes.readUInt8(at) === 1 ? ('stdout' as const) : ('stderr' as const),
      atNs: BigInt(second) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0')),
      data: Buffer.from(data),
    });
    at += 8 + size;
  }
  return lines;
}

function withService(name: string, over: Partial<ServiceObject> = {}): FakeBackend {
  const backend = FakeBackend.manager();
  const [json] = [...serviceById.values()].filter((one) => one.Spec.Name === name);
  backend.serviceObjects = [{ ...serviceOf(json), ...over }];
  return backend;
}

/** What stands behind an answer that is no list and no object. */
function forVerb(recording: string, exchange: RecordedExchange): FakeBackend {
  const number = recording.slice(0, 3);
  const ref = /\/services\/([^/]+)/.exec(exchange.path)?.[1] ?? '';
  if (number === '079') return FakeBackend.worker();
  if (number === '074') return withService('web');
  const backend = FakeBackend.manager();
  backend.networkObjects = [...networkByName.values()];
  // What the store judges.
  if (/^(075|078|112)$/.test(number) && exchange.status === 400) {
    const message = exchange.answer.message.replace(/^.*desc = /, '');
    backend.refusal = { code: 'SWARM_INVALID' };
    backend.refusalWords = message;
  }
  const named = [...serviceById.values()].find(
    (one) => ref !== '' && (one.ID === ref || one.Spec.Name === ref),
  );
  const isGone = exchange.status === 404;
  if (named !== undefined && !isGone)
    backend.serviceObjects = [
      { ...serviceOf(named), version: Number(exchange.query?.['version'] ?? 1) },
    ];
  else if (ref !== '' && ref !== 'create' && !isGone)
    backend.serviceObjects = [
      {
        ...serviceOf([...serviceById.values()][0]),
        id: ref as never,
        spec: { ...GONE, name: ref },
      },
    ];
  return backend;
}

/**
 * The differences that are meant: lists are in the order of ids also where several values of a filter
 * match, and the network of a task always tells who gives out its addresses.
 */
function explained(answer: Json): Json {
  if (!Array.isArray(answer)) return answer;
  const withoutIpam = JSON.stringify(answer).replaceAll(
    '"IPAMOptions":{"Driver":{"Name":"default"}},"Scope"',
    '"Scope"',
  );
  return JSON.parse(withoutIpam).sort((a: Json, b: Json) => (a.ID < b.ID ? -1 : 1));
}

for (const { name, command, exchanges } of recordings) {
  t.test(`${name}: ${command} is answered as by the real engine`, async (t) => {
    for (const exchange of exchanges) {
      const { method, path, query, request, status, answer, type } = exchange;
      if (path.includes('/networks/')) continue;
      const isRead = isList(exchange, 'services') || isList(exchange, 'tasks');
      const backend = isRead ? FakeBackend.manager() : forVerb(name, exchange);
      if (isRead) prepare(backend, exchange);
      const isLogs = path.endsWith('/logs') && status === 200;
      const bytes = isLogs ? Buffer.from(answer?.base64 ?? '', 'base64') : Buffer.alloc(0);
      if (isLogs) {
        const [, kind, ref = ''] = /\/(services|tasks)\/([^/]+)\/logs$/.exec(path) ?? [];
        const model = toTask([...taskById.values()][0]);
        if (kind === 'tasks') backend.taskObjects = [{ ...model, id: ref as never }];
        const service = backend.serviceObjects[0];
        backend.logLines = linesOf(bytes).map((line) =>
          kind === 'tasks' || service === undefined
            ? line
            : { ...line, ...(line.serviceId === '' && { serviceId: service.id }) },
        );
        backend.followsEnd = true;
      }
      const { call } = await serve(t, backend);
      const search = new URLSearchParams(query);
      const url = search.size === 0 ? path : `${path}?${search}`;
      const got = await call(method, url, request);
      const what = `${method} ${url}`;
      t.equal(got.status, status, `${what}: ${got.text.slice(0, 300)}`);
      if (isLogs) {
        t.equal(got.headers['content-type'], type);
        t.ok(got.bytes.equals(bytes), `${what}: the same bytes`);
      } else if (status === 201) {
        t.match(got.body, { ID: /^\w{25}$/, Warnings: answer.Warnings });
      } else if (answer === undefined) {
        t.equal(got.text, '', what);
      } else {
        t.strictSame(explained(got.body), explained(inMilliseconds(answer)), what);
      }
    }
  });
}
