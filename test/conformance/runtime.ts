import { randomBytes } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import type { Test } from 'tap';
import type { ContainerSpec } from '../../src/base/service-model.js';
import type { ConfigId, SecretId, TaskId } from '../../src/base/swarm-model.js';
import type {
  LogQuery,
  LogRecord,
  Runtime,
  RuntimeEvent,
  RuntimeTask,
} from '../../src/runtime/core/runtime.js';
import { RuntimeError } from '../../src/runtime/core/runtime-error.js';

/** What an implementation brings to the suite. */
export interface RuntimeBed {
  /** A runtime over what is left of those before it in this test; closed when the test ends, its tasks removed. */
  open(t: Test): Promise<Runtime>;
  /** How a command is said: which image, and where the command goes. */
  command(...words: string[]): Pick<ContainerSpec, 'image' | 'command' | 'args'>;
  /** What the machine under it lets it do. */
  readonly features: ReadonlySet<RuntimeFeature>;
}

export type RuntimeFeature =
  /** `netns` is told, for tasks with the network `isolated`. */
  'netns';

export interface TaskWishes {
  readonly id?: TaskId;
  readonly container?: Partial<ContainerSpec>;
  readonly task?: Partial<Omit<RuntimeTask, 'container'>>;
}

const SECOND_MS = 1000;
const EVERYTHING: LogQuery = { stdout: true, stderr: true, follow: true };

export const newTaskId = () => `t${randomBytes(12).toString('hex')}` as TaskId;
const text = (data: Uint8Array) => Buffer.from(data).toString();

export function runtimeConformance(t: Test, bed: RuntimeBed): void {
  const taskOf = (words: readonly string[], wishes: TaskWishes = {}): RuntimeTask => {
    const id = wishes.id ?? newTaskId();
    return {
      id,
      name: `suite.1.${id}`,
      labels: { 'com.docker.swarm.task.id': id },
      secrets: new Map(),
      configs: new Map(),
      network: 'isolated',
      hosts: [],
      ...wishes.task,
      container: { ...bed.command(...words), ...wishes.container },
    };
  };
  const sh = (script: string, wishes?: TaskWishes) => taskOf(['sh', '-c', script], wishes);
  const never = new AbortController().signal;

  /** Events from now on, and a way to wait for one. */
  const watch = (t: Test, runtime: Runtime) => {
    const events: RuntimeEvent[] = [];
    let wake = () => {};
    const stop = runtime.onEvent((event) => {
      events.push(event);
      wake();
    });
    t.teardown(stop);
    const exitOf = async (id: TaskId) => {
      for (;;) {
        const found = events.find((event) => event.kind === 'exited' && event.id === id);
        if (found?.kind === 'exited') return found;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    return { events, exitOf };
  };

  const logsOf = async (runtime: Runtime, id: TaskId, query: LogQuery = EVERYTHING) => {
    const records: LogRecord[] = [];
    for await (const record of runtime.logs(id, query, never)) records.push(record);
    return records;
  };

  /** Runs a task to its end. */
  const run = async (t: Test, runtime: Runtime, task: RuntimeTask) => {
    const { exitOf } = watch(t, runtime);
    await runtime.prepare(task, never);
    await runtime.start(task.id);
    const exit = await exitOf(task.id);
    const records = await logsOf(runtime, task.id);
    const of = (stream: string) =>
      records
        .filter((r) => r.stream === stream)
        .map((r) => text(r.data))
        .join('');
    return { exit, records, stdout: of('stdout'), stderr: of('stderr') };
  };

  const stateOf = async (runtime: Runtime, id: TaskId) =>
    (await runtime.list()).find((known) => known.id === id);

  t.test('a task goes from prepared to running to exited, and is gone when removed', async (t) => {
    const runtime = await bed.open(t);
    const { exitOf } = watch(t, runtime);
    const task = sh('echo hello; exec sleep 60');
    const prepared = await runtime.prepare(task, never);
    t.match(await stateOf(runtime, task.id), { state: 'prepared', labels: task.labels });

    const running = await runtime.start(task.id);
    t.equal(running.containerId, prepared.containerId);
    t.ok(running.pid > 1);
    t.match(await stateOf(runtime, task.id), { state: 'running', pid: running.pid });

    await runtime.stop(task.id, { graceMs: 10 * SECOND_MS });
    t.match(await exitOf(task.id), { exitCode: 143 });
    t.match(await stateOf(runtime, task.id), { state: 'exited', exitCode: 143 });

    await runtime.remove(task.id);
    t.equal(await stateOf(runtime, task.id), undefined);
  });

  t.test('what is done twice is harmless; what is not there is said', async (t) => {
    const runtime = await bed.open(t);
    const task = taskOf(['sleep', '60']);
    const first = await runtime.prepare(task, never);
    t.strictSame(await runtime.prepare(task, never), first);
    const running = await runtime.start(task.id);
    t.strictSame(await runtime.start(task.id), running);
    await runtime.stop(task.id, { graceMs: SECOND_MS });
    await runtime.stop(task.id, { graceMs: SECOND_MS });
    await runtime.remove(task.id);
    await runtime.remove(task.id);
    const unknown = newTaskId();
    await runtime.stop(unknown, { graceMs: 0 });
    await runtime.remove(unknown);
    const error = await runtime.start(unknown).catch((e: unknown) => e);
    t.match(error, { detail: { code: 'RUNTIME_NOT_FOUND' } });
  });

  t.test('nothing of the command runs before start', async (t) => {
    const runtime = await bed.open(t);
    const task = sh('echo ran');
    await runtime.prepare(task, never);
    t.strictSame(await logsOf(runtime, task.id, { ...EVERYTHING, follow: false }), []);
    await runtime.remove(task.id);
    t.equal(await stateOf(runtime, task.id), undefined);
  });

  t.test('output comes back line by line, with its stream and time', async (t) => {
    const runtime = await bed.open(t);
    const before = BigInt(Date.now()) * 1_000_000n;
    const { exit, records } = await run(t, runtime, sh('echo one; echo two >&2; printf three'));
    t.equal(exit.exitCode, 0);
    const outputs = records.map((r) => [r.stream, text(r.data)]);
    t.strictSame(
      outputs.filter(([stream]) => stream === 'stdout'),
      [
        ['stdout', 'one\n'],
        ['stdout', 'three'],
      ],
    );
    t.strictSame(
      outputs.filter(([stream]) => stream === 'stderr'),
      [['stderr', 'two\n']],
    );
    for (const { atNs } of records) {
      t.ok(atNs >= before && atNs < before + 600_000_000_000n, 'the time is that of the line');
    }
  });

  t.test('exit codes are those of docker', async (t) => {
    const runtime = await bed.open(t);
    const cases: readonly (readonly [string, string, number])[] = [
      ['success', 'exit 0', 0],
      ['its own', 'exit 7', 7],
      ['a signal', 'kill -TERM $$', 143],
      ['a signal that cannot be caught', 'kill -KILL $$', 137],
    ];
    for (const [name, script, want] of cases) {
      // In a child, since some runtimes make the command itself the first process, which ignores signals.
      const task = sh(`sh -c '${script}'; exit $?`);
      t.equal((await run(t, runtime, task)).exit.exitCode, want, name);
    }
  });

  t.test(
    'a command that is not there fails at its start, with 127; one that may not, 126',
    async (t) => {
      const runtime = await bed.open(t);
      for (const [command, want] of [
        ['shoal-no-such-command', 127],
        ['/etc/passwd', 126],
      ] as const) {
        const task = taskOf([command]);
        await runtime.prepare(task, never);
        const error = await runtime.start(task.id).then(
          () => undefined,
          (e: unknown) => e,
        );
        t.ok(error instanceof RuntimeError, command);
        t.match(error, { detail: { code: 'RUNTIME_FAILED', exitCode: want } });
        t.match(String(error), command, 'the error names it');
        t.match(await stateOf(runtime, task.id), { state: 'exited', exitCode: want });
        await runtime.remove(task.id);
      }
    },
  );

  t.test('a task that does not heed its signal is killed when the grace is over', async (t) => {
    const runtime = await bed.open(t);
    const { exitOf } = watch(t, runtime);
    const task = sh("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    await runtime.prepare(task, never);
    await runtime.start(task.id);
    for await (const record of runtime.logs(task.id, EVERYTHING, never)) {
      if (text(record.data) === 'ready\n') break;
    }
    await runtime.stop(task.id, { graceMs: 200 });
    t.match(await exitOf(task.id), { exitCode: 137 });
  });

  const netns = { skip: bed.features.has('netns') ? false : 'namespaces are not told here' };
  t.test('the network namespace is there before the first instruction', netns, async (t) => {
    const runtime = await bed.open(t);
    const task = sh('readlink /proc/self/ns/net');
    const { netns } = await runtime.prepare(task, never);
    const inode = readlinkSync(netns ?? '');
    t.not(inode, readlinkSync('/proc/self/ns/net'));
    await runtime.start(task.id);
    t.equal(text((await logsOf(runtime, task.id))[0]?.data ?? new Uint8Array()), `${inode}\n`);
  });

  t.test('tasks outlive whoever started them, and are found again', async (t) => {
    const first = await bed.open(t);
    const prepared = sh('exit 0');
    const running = taskOf(['sleep', '60']);
    const ending = sh('sleep 0.2; exit 5');
    const ended = sh('exit 4');
    const { exitOf } = watch(t, first);
    for (const task of [prepared, running, ending, ended]) await first.prepare(task, never);
    for (const task of [running, ending, ended]) await first.start(task.id);
    await exitOf(ended.id);
    const before = await stateOf(first, running.id);
    await first.close();

    const second = await bed.open(t);
    const events = watch(t, second);
    t.match(await stateOf(second, prepared.id), { state: 'prepared', labels: prepared.labels });
    t.strictSame(await stateOf(second, running.id), before);
    t.match(await stateOf(second, ended.id), { state: 'exited', exitCode: 4 });
    if ((await stateOf(second, ending.id))?.state !== 'exited') await events.exitOf(ending.id);
    t.match(await stateOf(second, ending.id), { state: 'exited', exitCode: 5 });
    await second.stop(running.id, { graceMs: 10 * SECOND_MS });
    t.match(await events.exitOf(running.id), { exitCode: 143 });
  });

  t.test(
    'a task that has ended runs once more, in the same namespaces, with the same log',
    async (t) => {
      const runtime = await bed.open(t);
      const { exitOf, events } = watch(t, runtime);
      const task = sh('readlink /proc/self/ns/net; test -n "$(ls /proc/self/fd)"; exit 6');
      const prepared = await runtime.prepare(task, never);
      await runtime.start(task.id);
      await exitOf(task.id);
      events.length = 0;
      await runtime.start(task.id);
      t.match(await exitOf(task.id), { exitCode: 6 });
      t.strictSame(await runtime.prepare(task, never), prepared);
      const lines = (await logsOf(runtime, task.id)).map((r) => text(r.data));
      t.equal(lines.length, 2);
      t.equal(lines[0], lines[1]);
      t.equal(events.length, 1, 'one event for each end');
    },
  );

  t.test('the environment, the folder and the name are the task’s', async (t) => {
    const runtime = await bed.open(t);
    const container = { env: ['GREETING=hello'], dir: '/usr', hostname: 'box' };
    const { stdout } = await run(
      t,
      runtime,
      sh('echo $GREETING $(pwd) $(hostname)', { container }),
    );
    t.equal(stdout, 'hello /usr box\n');
  });

  t.test('secrets and configs are files of the task', async (t) => {
    const runtime = await bed.open(t);
    const file = { uid: '0', gid: '0', mode: 0o400 };
    const container = {
      secrets: [
        { secretId: 's' as SecretId, secretName: 'pw', file: { ...file, name: 'password' } },
        { secretId: 's' as SecretId, secretName: 'pw', file: { ...file, name: '/suite/absolute' } },
      ],
      configs: [
        {
          configId: 'c' as ConfigId,
          configName: 'conf',
          file: { name: '/suite.conf', uid: '1', gid: '2', mode: 0o440 },
        },
      ],
    };
    const task = {
      secrets: new Map([['s' as SecretId, Buffer.from('top secret\n')]]),
      configs: new Map([['c' as ConfigId, Buffer.from('a = 1\n')]]),
    };
    const script =
      'cat /run/secrets/password /suite/absolute /suite.conf; stat -c "%a %u %g" /run/secrets/password /suite.conf';
    const { stdout, stderr } = await run(t, runtime, sh(script, { container, task }));
    t.equal(stderr, '');
    t.equal(stdout, 'top secret\ntop secret\na = 1\n400 0 0\n440 1 2\n');
  });
}
