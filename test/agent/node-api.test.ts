import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { openLog } from '../../src/agent/log.js';
import { encodeLogFrame, type LogFrame, LogFrameReader } from '../../src/agent/log-frames.js';
import { NodeApi, type NodeTasks } from '../../src/agent/node-api.js';
import type { LogQuery, LogRecord } from '../../src/runtime/index.js';
import { Planes } from '../gossip/records/io/planes.js';
import { fuzzRuns } from '../support/fuzz.js';

const never = new AbortController().signal;
const QUERY: LogQuery = { stdout: true, stderr: true, follow: false };
const log = openLog({ logLevel: 'silent' } as never);

const record = (text: string, atNs = 1n): LogRecord => ({
  stream: 'stdout',
  atNs,
  data: Buffer.from(text),
});

/** Two nodes of which `a` is a manager. */
async function twoNodes(t: Test, tasks: NodeTasks) {
  const planes = new Planes();
  t.teardown(() => planes.close());
  await planes.add('a', 'b');
  planes.tell();
  const managers = new Set(['a']);
  const open = (self: string) => {
    const { tunnels } = planes.get(self);
    const api = new NodeApi({
      gossip: {
        openTunnel: (member, signal) => tunnels.open(member, signal),
        onTunnel: (handler) => tunnels.onTunnel(handler),
      },
      self,
      isManager: (id) => managers.has(id),
      tasks,
      log,
    });
    t.teardown(() => api.close());
    return api;
  };
  return { a: open('a'), b: open('b'), managers, planes };
}

async function linesOf(api: NodeApi, node: string, tasks: string[], query = QUERY) {
  const lines: string[] = [];
  for await (const item of api.logs(node, tasks, query, never)) {
    lines.push(
      'record' in item ? `${item.taskId}: ${item.record.data}` : `${item.taskId}! ${item.failed}`,
    );
  }
  return lines;
}

t.test('a manager reads the logs of another node, as of its own', async (t) => {
  const { a } = await twoNodes(t, {
    async *logs(id, query) {
      if (id === 'bad') throw new Error('no such log');
      yield record(`tail ${query.tail}`);
      for (let i = 0; i < 500; i++) yield record(`${i} ${'x'.repeat(2_000)}`, BigInt(i));
    },
  });
  const [own, other] = [
    await linesOf(a, 'a', ['t1', 'bad'], { ...QUERY, tail: 7 }),
    await linesOf(a, 'b', ['t1', 'bad'], { ...QUERY, tail: 7 }),
  ];
  t.equal(other.length, 502);
  t.strictSame([...other].sort(), [...own].sort());
  t.ok(other.includes('bad! no such log'));
  const numbers = other.flatMap((line) => /^t1: (\d+) x/.exec(line)?.[1] ?? []);
  t.strictSame(
    numbers,
    numbers.map((_, i) => String(i)),
    'in order',
  );
});

t.test('who is no manager is refused, and so is whatever is not offered', async (t) => {
  const { a, b, managers } = await twoNodes(t, { async *logs() {} });
  await t.rejects(linesOf(b, 'a', ['t1']), /refuses to show logs: 403/);
  const status = async (api: NodeApi, node: string, path: string) => {
    const asked = (await api.ask(node, { method: 'GET', path }, never)).end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.resume();
    return answer.statusCode;
  };
  t.equal(await status(a, 'b', '/else'), 404);
  t.equal(await status(a, 'b', '/docker/containers/x/json'), 404, 'there is no such API here');
  t.strictSame(await linesOf(a, 'b', ['t1']), []);
  managers.clear();
  await t.rejects(linesOf(a, 'b', ['t1']), /403/, 'the role counts as it is now');
});

t.test('following ends on the other node when nobody listens any more', async (t) => {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const { a } = await twoNodes(t, {
    async *logs(_id, _query, signal) {
      try {
        yield record('first');
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      } finally {
        end();
      }
    },
  });
  for await (const item of a.logs('b', ['t1'], { ...QUERY, follow: true }, never)) {
    t.match(item, { taskId: 't1' });
    break;
  }
  await ended;
});

t.test('a node that goes away is an error and not an end', async (t) => {
  const { a, planes } = await twoNodes(t, {
    async *logs(_id, _query, signal) {
      yield record('first');
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    },
  });
  const lines = a.logs('b', ['t1'], { ...QUERY, follow: true }, never)[Symbol.asyncIterator]();
  t.match(await lines.next(), { done: false });
  const broken = t.rejects(lines.next());
  await planes.get('b').close();
  await broken;
});

t.test('frames come out as they went in, however they are cut', async (t) => {
  const frame: fc.Arbitrary<LogFrame> = fc.oneof(
    fc.constant({ kind: 'beat' as const }),
    fc.record({
      kind: fc.constant('failed' as const),
      task: fc.nat(0xffff),
      reason: fc.string(),
    }),
    fc.record({
      kind: fc.constant('record' as const),
      task: fc.nat(0xffff),
      record: fc.record({
        stream: fc.constantFrom('stdout' as const, 'stderr' as const),
        atNs: fc.bigInt(0n, 2n ** 63n),
        data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      }),
    }),
  );
  fc.assert(
    fc.property(fc.array(frame), fc.integer({ min: 1, max: 50 }), (frames, step) => {
      const bytes = Buffer.concat(frames.map(encodeLogFrame));
      const reader = new LogFrameReader();
      const out: LogFrame[] = [];
      for (let at = 0; at < bytes.length; at += step)
        out.push(...(reader.push(bytes.subarray(at, at + step)) ?? []));
      return t.same(out, frames);
    }),
    { numRuns: fuzzRuns(60) },
  );
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => void new LogFrameReader().push(bytes)),
    { numRuns: fuzzRuns(200) },
  );
  t.equal(new LogFrameReader().push(Buffer.from('ffffffff00', 'hex')), undefined, 'too large');
});

t.test('every member is told what a node has made of its records', async (t) => {
  const planes = new Planes();
  t.teardown(() => planes.close());
  await planes.add('a', 'b');
  planes.tell();
  const apis = (['a', 'b'] as const).map((self) => {
    const { tunnels } = planes.get(self);
    const api = new NodeApi({
      gossip: {
        openTunnel: (member, signal) => tunnels.open(member, signal),
        onTunnel: (handler) => tunnels.onTunnel(handler),
      },
      self,
      isManager: () => false,
      tasks: { async *logs() {} },
      facts: {
        answer: async (asker, facts) => facts.filter((fact) => fact === `${asker} is known`),
      },
      log,
    });
    t.teardown(() => api.close());
    return api;
  });
  const [a] = apis as [NodeApi, NodeApi];
  t.strictSame(await a.askFacts('b', ['a is known', 'c is known'], never), ['a is known']);
  const tooMany = Array.from({ length: 257 }, (_, i) => `${i}`);
  await t.rejects(a.askFacts('b', tooMany, never), /it refuses: 400/);
});
