import t from 'tap';
import type { NodeLogItem } from '../../src/agent/node-api.js';
import { type TaskLogSources, taskLogs } from '../../src/agent/task-logs.js';
import type { TaskLogQuery, TaskLogRecord } from '../../src/api/index.js';
import type { TaskObject, TaskState } from '../../src/base/service-model.js';
import type { LogQuery } from '../../src/runtime/index.js';

interface TaskWords {
  readonly node?: string;
  readonly state?: TaskState;
  readonly desired?: TaskState;
}

function task(id: string, { node, state = 'running', desired = 'running' }: TaskWords): TaskObject {
  return {
    id,
    serviceId: 's1',
    serviceName: 'web',
    slot: 1,
    ...(node === undefined ? {} : { nodeId: node }),
    desiredState: desired,
    status: { state, atMs: 0, message: '' },
  } as unknown as TaskObject;
}

const line = (taskId: string, at: number, text = `${taskId}@${at}`): NodeLogItem => ({
  taskId,
  record: { stream: 'stdout', atNs: BigInt(at) * 1_000_000n, data: Buffer.from(`${text}\n`) },
});

const QUERY: TaskLogQuery = { serviceId: 's1', stdout: true, stderr: true, follow: false };

/** Nodes whose answers are written down, by node and by how often it was asked. */
class World implements TaskLogSources {
  all: TaskObject[] = [];
  readonly asked: { readonly node: string; readonly tasks: readonly string[]; query: LogQuery }[] =
    [];
  readonly #answers: Record<string, (() => AsyncIterable<NodeLogItem>)[]>;
  listener: () => void = () => undefined;

  constructor(answers: Record<string, (() => AsyncIterable<NodeLogItem>)[]>) {
    this.#answers = answers;
  }

  tasks(): readonly TaskObject[] {
    return this.all;
  }

  onTasks(listener: () => void) {
    this.listener = listener;
    return () => {
      this.listener = () => undefined;
    };
  }

  logs(node: string, tasks: readonly string[], query: LogQuery): AsyncIterable<NodeLogItem> {
    this.asked.push({ node, tasks, query });
    const answer = this.#answers[node]?.shift();
    if (answer === undefined) throw new Error(`node ${node} cannot be reached`);
    return answer();
  }
}

async function* items(...list: NodeLogItem[]): AsyncIterable<NodeLogItem> {
  yield* list;
}

const textOf = ({ data }: TaskLogRecord) => String(Buffer.from(data)).trimEnd();

async function textsOf(
  sources: TaskLogSources,
  query: TaskLogQuery,
  count = Number.POSITIVE_INFINITY,
): Promise<string[]> {
  const texts: string[] = [];
  for await (const record of taskLogs(sources, query, AbortSignal.timeout(20_000))) {
    texts.push(textOf(record));
    if (texts.length >= count) break;
  }
  return texts;
}

t.test('each node is asked once for all its tasks; those that never ran for nothing', async (t) => {
  const world = new World({
    n1: [() => items(line('a', 1), line('b', 1), line('a', 2))],
    n2: [() => items(line('c', 1))],
  });
  world.all = [
    task('a', { node: 'n1' }),
    task('b', { node: 'n1', state: 'failed' }),
    task('c', { node: 'n2' }),
    task('d', { state: 'pending' }),
    task('e', { node: 'n2', state: 'rejected' }),
    task('f', { node: 'n2', state: 'preparing' }),
  ];
  const texts = await textsOf(world, { ...QUERY, tail: 5, sinceMs: 7 });
  t.strictSame(
    texts.filter((text) => text.startsWith('a')),
    ['a@1', 'a@2'],
    'in order',
  );
  t.strictSame([...texts].sort(), ['a@1', 'a@2', 'b@1', 'c@1']);
  t.strictSame(
    world.asked.map(({ node, tasks }) => [node, ...tasks]),
    [
      ['n1', 'a', 'b'],
      ['n2', 'c'],
    ],
  );
  t.match(world.asked[0]?.query, { tail: 5, sinceMs: 7, follow: false });
});

t.test('a node that cannot be asked leaves a word, and holds nothing up', async (t) => {
  const world = new World({ n1: [() => items(line('a', 1))] });
  world.all = [task('a', { node: 'n1' }), task('b', { node: 'n2' })];
  const texts = await textsOf(world, QUERY);
  t.strictSame(texts.sort(), [
    'a@1',
    'warning: incomplete log of web.1.b: node n2 cannot be reached',
  ]);
});

t.test('what a node says of one task does not end the others', async (t) => {
  const world = new World({
    n1: [() => items({ taskId: 'a', failed: 'no log driver' }, line('b', 1))],
  });
  world.all = [task('a', { node: 'n1' }), task('b', { node: 'n1' })];
  t.strictSame(await textsOf(world, QUERY), [
    'warning: incomplete log of web.1.a: no log driver',
    'b@1',
  ]);
});

t.test('tasks that come later are followed from their first line', async (t) => {
  const world = new World({
    n1: [() => items(line('a', 1))],
    n2: [() => items(line('b', 2))],
  });
  world.all = [task('a', { node: 'n1' }), task('b', { node: 'n2', state: 'assigned' })];
  const records = taskLogs(world, { ...QUERY, follow: true, tail: 0 }, AbortSignal.timeout(20_000));
  t.equal(textOf((await records.next()).value as TaskLogRecord), 'a@1');
  world.all = [task('a', { node: 'n1' }), task('b', { node: 'n2' }), task('c', { node: 'n1' })];
  const next = records.next();
  world.listener();
  t.match(textOf((await next).value as TaskLogRecord), /b@2|warning: .*web\.1\.c/);
  await records.return();
  t.equal(world.asked[0]?.query.tail, 0);
  t.equal(
    world.asked.find(({ tasks }) => tasks.includes('c'))?.query.tail,
    undefined,
    'a new task has no lines from before',
  );
});

t.test('a node that breaks off is asked again, and no line comes twice', async (t) => {
  async function* breaking(): AsyncIterable<NodeLogItem> {
    yield line('a', 1);
    yield line('a', 2);
    throw new Error('gone');
  }
  const world = new World({ n1: [breaking, () => items(line('a', 2), line('a', 3))] });
  world.all = [task('a', { node: 'n1' })];
  const texts = await textsOf(world, { ...QUERY, follow: true, tail: 9 }, 4);
  t.strictSame(texts, ['a@1', 'a@2', 'warning: incomplete log of web.1.a: gone', 'a@3']);
  t.match(world.asked[1]?.query, { sinceMs: 2, tail: undefined });
});

t.test('following ends with the task, or when the service is gone, or when told', async (t) => {
  const one = new World({ n1: [() => items(line('a', 1))] });
  one.all = [task('a', { node: 'n1', state: 'failed', desired: 'shutdown' })];
  t.strictSame(await textsOf(one, { taskId: 'a', stdout: true, stderr: true, follow: true }), [
    'a@1',
  ]);

  const empty = new World({});
  t.strictSame(await textsOf(empty, { ...QUERY, follow: true }), []);

  const waiting = new World({});
  waiting.all = [task('a', { state: 'pending' })];
  const told = new AbortController();
  const records = taskLogs(waiting, { ...QUERY, follow: true }, told.signal);
  const next = records.next();
  told.abort();
  t.equal((await next).done, true);
});
