import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { assert } from '../../src/base/assert.js';
import type { DescriptorLimits } from '../../src/base/descriptor-limits.js';
import type { ContainerSpec, Mount } from '../../src/base/service-model.js';
import type { ConfigId, SecretId, TaskId } from '../../src/base/swarm-model.js';
import type {
  ExecSpec,
  ExecStreams,
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
  /** Of `sleep` that is stopped: an engine's first process heeds no signal, and is killed. */
  readonly stoppedExitCode?: number;
  /** Tasks that are made at the same time: by default 20. */
  readonly atOnce?: number;
  /** What tasks have where they wish nothing. */
  readonly descriptors?: DescriptorLimits;
  /** What the machine under it lets it do. */
  readonly features: ReadonlySet<RuntimeFeature>;
}

export type RuntimeFeature =
  /** `netns` is told, for tasks with the network `isolated`. */
  | 'netns'
  /** Health commands. */
  | 'health'
  /** Limits of memory and processes hold. */
  | 'limits'
  /** Bind mounts of this machine's folders, named volumes. */
  | 'mounts'
  /** Terminals of tasks and of further commands. */
  | 'tty'
  /** `exec`, `stats` and `top`. */
  | 'exec';

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
  const { stoppedExitCode = 143, atOnce = 20 } = bed;
  // What heeds no signal would only be waited for.
  const graceMs = stoppedExitCode === 143 ? 10 * SECOND_MS : 200;
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
  setMaxListeners(0, never);

  const needs = (feature: RuntimeFeature) => ({
    skip: bed.features.has(feature) ? false : `no ${feature} here`,
  });

  /** Events from now on, and a way to wait for one. */
  const watch = (t: Test, runtime: Runtime) => {
    const events: RuntimeEvent[] = [];
    const waiting = new Set<() => void>();
    const stop = runtime.onEvent((event) => {
      events.push(event);
      for (const wake of waiting) wake();
      waiting.clear();
    });
    t.teardown(stop);
    const exitOf = async (id: TaskId) => {
      for (;;) {
        const found = events.find((event) => event.kind === 'exited' && event.id === id);
        if (found?.kind === 'exited') return found;
        await new Promise<void>((resolve) => waiting.add(resolve));
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

    // An engine says that it started what its own first process has yet to become.
    for await (const record of runtime.logs(task.id, EVERYTHING, never)) {
      t.equal(text(record.data), 'hello\n');
      break;
    }
    await runtime.stop(task.id, { graceMs });
    t.match(await exitOf(task.id), { exitCode: stoppedExitCode });
    t.match(await stateOf(runtime, task.id), { state: 'exited', exitCode: stoppedExitCode });

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
    await runtime.stop(task.id, { graceMs });
    await runtime.stop(task.id, { graceMs });
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

  t.test(
    'the network namespace is there before the first instruction',
    needs('netns'),
    async (t) => {
      const runtime = await bed.open(t);
      const task = sh('readlink /proc/self/ns/net');
      const { netns } = await runtime.prepare(task, never);
      const inode = readlinkSync(netns ?? '');
      t.not(inode, readlinkSync('/proc/self/ns/net'));
      await runtime.start(task.id);
      t.equal(text((await logsOf(runtime, task.id))[0]?.data ?? new Uint8Array()), `${inode}\n`);
    },
  );

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
    await second.stop(running.id, { graceMs });
    t.match(await events.exitOf(running.id), { exitCode: stoppedExitCode });
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

  /** Prepared, started, and its line `ready` seen. */
  const startReady = async (runtime: Runtime, task: RuntimeTask) => {
    await runtime.prepare(task, never);
    const running = await runtime.start(task.id);
    for await (const record of runtime.logs(task.id, EVERYTHING, never)) {
      if (text(record.data).startsWith('ready')) break;
    }
    return running;
  };

  t.test('logs: the last ones, since a time, one stream, and as they come', async (t) => {
    const runtime = await bed.open(t);
    const { exitOf } = watch(t, runtime);
    const task = sh(
      'for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.05; done; read x',
    );
    await runtime.prepare(task, never);
    await runtime.start(task.id);
    await exitOf(task.id);
    const all = await logsOf(runtime, task.id);
    t.equal(all.length, 10);
    const lines = (records: readonly LogRecord[]) => records.map((r) => text(r.data).trim());
    const query = { ...EVERYTHING, follow: false };
    t.strictSame(await logsOf(runtime, task.id, { ...query, tail: 3 }), all.slice(-3));
    t.strictSame(await logsOf(runtime, task.id, { ...query, tail: 0 }), []);
    t.strictSame(await logsOf(runtime, task.id, { ...query, tail: 1000 }), all);
    t.strictSame(
      lines(await logsOf(runtime, task.id, { ...query, stderr: false })),
      [1, 2, 3, 4, 5].map((i) => `out ${i}`),
    );
    const fourth = all.filter((r) => r.stream === 'stdout')[3];
    const sinceMs = Number((fourth?.atNs ?? 0n) / 1_000_000n);
    const late = lines(await logsOf(runtime, task.id, { ...query, stderr: false, sinceMs }));
    t.ok(late.length === 2 || late.length === 3, 'from the millisecond on');
    t.strictSame(late.slice(-2), ['out 4', 'out 5']);
    const until = lines(
      await logsOf(runtime, task.id, { ...query, stderr: false, untilMs: sinceMs - 20 }),
    );
    t.strictSame(until, ['out 1', 'out 2', 'out 3']);
  });

  t.test('a reader that follows sees each line before the task ends, and its end', async (t) => {
    const runtime = await bed.open(t);
    const task = sh('echo ready; exec sleep 60');
    await startReady(runtime, task);
    const follower = runtime.logs(task.id, { ...EVERYTHING, tail: 0 }, never);
    const next = follower[Symbol.asyncIterator]().next();
    await runtime.stop(task.id, { graceMs });
    t.match(await next, { done: true });

    const given = sh('echo ready; sleep 60');
    await startReady(runtime, given);
    const stop = new AbortController();
    const left = runtime.logs(given.id, { ...EVERYTHING, tail: 0 }, stop.signal);
    const pending = left[Symbol.asyncIterator]().next();
    stop.abort();
    t.match(await pending.catch(() => ({ done: true })), { done: true }, 'and when it is told to');
  });

  t.test('a reader that is slow loses nothing, though much is printed', async (t) => {
    const runtime = await bed.open(t);
    const lines = 20_000;
    const task = sh(`i=0; while [ $i -lt ${lines} ]; do echo line $i; i=$((i+1)); done`);
    await runtime.prepare(task, never);
    await runtime.start(task.id);
    let count = 0;
    let isInOrder = true;
    for await (const { data } of runtime.logs(task.id, EVERYTHING, never)) {
      isInOrder &&= text(data) === `line ${count}\n`;
      count++;
      if (count % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    t.equal(count, lines);
    t.ok(isInOrder, 'in the order of printing');
  });

  t.test('a very long line comes in parts that make it up', async (t) => {
    const runtime = await bed.open(t);
    const script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo short";
    const { records } = await run(t, runtime, sh(script));
    t.ok(records.length > 2, 'in parts');
    t.ok(
      records.every(({ data }) => data.length <= 20_000),
      'none of which is large',
    );
    const whole = Buffer.concat(records.map((r) => r.data)).toString();
    t.equal(whole, `${'x'.repeat(100_000)}\nshort\n`);
  });

  t.test('a reader of a task that is not there is told', async (t) => {
    const runtime = await bed.open(t);
    const error = await logsOf(runtime, newTaskId()).catch((e: unknown) => e);
    t.match(error, { detail: { code: 'RUNTIME_NOT_FOUND' } });
  });

  t.test('what can never work is rejected, in one sentence', async (t) => {
    const runtime = await bed.open(t);
    const cases: readonly (readonly [string, Partial<ContainerSpec>])[] = [
      ['a mount without a way', { mounts: [{ type: 'tmpfs', target: 'relative' }] }],
      ['an unknown signal', { stopSignal: 'SIGNOTHING' }],
    ];
    for (const [name, container] of cases) {
      const task = taskOf(['true'], { container });
      const error = await runtime.prepare(task, never).catch((e: unknown) => e);
      t.ok(error instanceof RuntimeError, name);
      t.match(error, { detail: { code: 'RUNTIME_REJECTED' } }, name);
      t.equal(String(error).split('\n').length, 1, 'one line');
      await runtime.remove(task.id);
      t.equal(await stateOf(runtime, task.id), undefined, 'nothing is left');
    }
  });

  t.test('a preparation that is given up leaves nothing', async (t) => {
    const runtime = await bed.open(t);
    const task = taskOf(['sleep', '60']);
    const given = new AbortController();
    const preparing = runtime.prepare(task, given.signal);
    given.abort();
    await preparing.catch(() => {});
    await runtime.remove(task.id);
    t.equal(await stateOf(runtime, task.id), undefined);
  });

  t.test('the service’s stop signal is the one that is sent', async (t) => {
    const runtime = await bed.open(t);
    const { exitOf } = watch(t, runtime);
    const script = "trap 'echo got usr1; exit 9' USR1; echo ready; while :; do sleep 0.1; done";
    const task = sh(script, { container: { stopSignal: 'SIGUSR1' } });
    await startReady(runtime, task);
    await runtime.stop(task.id, { graceMs: 10 * SECOND_MS });
    t.match(await exitOf(task.id), { exitCode: 9 });

    const other = sh("trap 'exit 8' HUP; echo ready; while :; do sleep 0.1; done");
    await startReady(runtime, other);
    await runtime.stop(other.id, { signal: 'HUP', graceMs: 10 * SECOND_MS });
    t.match(await exitOf(other.id), { exitCode: 8 }, 'unless another is asked for');
  });

  t.test(
    'mounts: a folder, a volume that stays, a file system in memory',
    needs('mounts'),
    async (t) => {
      const runtime = await bed.open(t);
      const folder = mkdtempSync(join(tmpdir(), 'shl-mount-'));
      t.teardown(() => rmSync(folder, { recursive: true }));
      writeFileSync(join(folder, 'given'), 'from outside\n');
      const volume = `suite${randomBytes(6).toString('hex')}`;
      const mounts: Mount[] = [
        { type: 'bind', source: folder, target: '/suite/bound' },
        { type: 'bind', source: folder, target: '/suite/fixed', readOnly: true },
        { type: 'volume', source: volume, target: '/suite/volume' },
        { type: 'tmpfs', target: '/suite/memory', tmpfs: { sizeBytes: 1_048_576, mode: 0o700 } },
      ];
      const script = [
        'cat /suite/bound/given; echo written > /suite/bound/made',
        'touch /suite/fixed/no 2>/dev/null || echo fixed',
        'cat /suite/volume/kept 2>/dev/null; echo kept > /suite/volume/kept',
        'stat -c %a /suite/memory; head -c 2000000 /dev/zero 2>/dev/null > /suite/memory/big || echo full',
      ].join('; ');
      const first = await run(t, runtime, sh(script, { container: { mounts } }));
      t.equal(first.stdout, 'from outside\nfixed\n700\nfull\n');
      t.equal(readFileSync(join(folder, 'made'), 'utf8'), 'written\n');
      const second = await run(t, runtime, sh(script, { container: { mounts } }));
      t.equal(second.stdout, 'from outside\nfixed\nkept\n700\nfull\n', 'the volume stayed');
      const gone = sh('true', {
        container: { mounts: [{ type: 'bind', source: `${folder}/none`, target: '/suite/x' }] },
      });
      const error = await runtime.prepare(gone, never).catch((e: unknown) => e);
      t.match(error, { detail: { code: 'RUNTIME_REJECTED' } });
      t.match(String(error), /bind source path does not exist/);
      t.notOk(existsSync('/suite'), 'nothing was made on this machine');
    },
  );

  t.test('user, groups and capabilities', async (t) => {
    const runtime = await bed.open(t);
    const script = 'id -u; id -g; id -G; grep CapEff /proc/self/status';
    const container = { user: '1234:2345', groups: ['3456'] };
    const named = await run(t, runtime, sh(script, { container }));
    t.match(named.stdout, /^1234\n2345\n2345 3456\nCapEff:\t0+\n$/);
    const root = await run(t, runtime, sh('grep CapEff /proc/self/status'));
    t.equal(root.stdout, 'CapEff:\t00000000a80425fb\n', 'as docker leaves them to root');
    const changed = { capabilityAdd: ['NET_ADMIN'], capabilityDrop: ['CAP_MKNOD', 'chown'] };
    const other = await run(
      t,
      runtime,
      sh('grep CapEff /proc/self/status', { container: changed }),
    );
    t.equal(other.stdout, 'CapEff:\t00000000a00435fa\n');
  });

  t.test('limits of descriptors', async (t) => {
    const runtime = await bed.open(t);
    const script = 'echo $(ulimit -Sn) $(ulimit -Hn)';
    const wished = { ulimits: [{ name: 'nofile', soft: 500, hard: 600 }] };
    t.equal((await run(t, runtime, sh(script, { container: wished }))).stdout, '500 600\n');
    if (bed.descriptors === undefined) return;
    const { soft, hard } = bed.descriptors;
    const { stdout } = await run(t, runtime, sh(script));
    t.equal(stdout, `${soft} ${hard}\n`, 'not those that the agent has taken for itself');
  });

  t.test(
    'limits of memory and of processes hold; out of memory is told',
    needs('limits'),
    async (t) => {
      const runtime = await bed.open(t);
      const resources = { limits: { memoryBytes: 50_000_000, pids: 30 }, swapBytes: 0 };
      // The shell doubles a string until there is no more.
      const greedy = sh('x=0123456789; while :; do x=$x$x; done', { task: { resources } });
      const { exit } = await run(t, runtime, greedy);
      t.match(exit, { exitCode: 137, oomKilled: true });
      t.match(await stateOf(runtime, greedy.id), { state: 'exited', oomKilled: true });

      // The shell itself reads what the refused fork says: a reader beside it would have to be forked too.
      const many = 'i=0; while [ $i -lt 100 ]; do sleep 5 >/dev/null 2>&1 & i=$((i+1)); done';
      const forking = sh(
        `said=$( (${many}) 2>&1 ); case $said in *fork*) echo limited;; esac; kill 0`,
        { task: { resources } },
      );
      t.match((await run(t, runtime, forking)).stdout, /limited/);
    },
  );

  t.test('a terminal', needs('tty'), async (t) => {
    const runtime = await bed.open(t);
    const task = sh('test -t 1 && tty && echo both >&2', { container: { tty: true } });
    const { records } = await run(t, runtime, task);
    t.ok(
      records.every(({ stream }) => stream === 'stdout'),
      'all its output is one stream',
    );
    t.match(records.map((r) => text(r.data)).join(''), /^\/dev\/(pts\/\d+|console)\r\nboth\r\n$/);
  });

  t.test('health: starting, healthy, unhealthy, and healthy again', needs('health'), async (t) => {
    const runtime = await bed.open(t);
    const seen: string[] = [];
    let wake = () => {};
    t.teardown(
      runtime.onEvent((event) => {
        if (event.kind === 'health') seen.push(event.health);
        wake();
      }),
    );
    const until = async (count: number) => {
      while (seen.length < count) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    const flag = `/tmp/shl-health-${randomBytes(6).toString('hex')}`;
    t.teardown(() => rmSync(flag, { force: true }));
    const container = {
      mounts: [{ type: 'bind' as const, source: tmpdir(), target: '/tmp' }],
      health: { test: ['CMD-SHELL', `test -e ${flag}`], intervalMs: 50, retries: 2 },
    };
    const task = sh('sleep 60', { container });
    writeFileSync(flag, '');
    await runtime.prepare(task, never);
    t.match(await runtime.start(task.id), { health: 'starting' });
    await until(1);
    t.match(await stateOf(runtime, task.id), { health: 'healthy' });
    rmSync(flag);
    await until(2);
    writeFileSync(flag, '');
    await until(3);
    t.strictSame(seen.slice(0, 3), ['healthy', 'unhealthy', 'healthy']);
    await runtime.stop(task.id, { graceMs });
  });

  t.test('further commands inside a task', needs('exec'), async (t) => {
    const runtime = await bed.open(t);
    const ulimits = [{ name: 'nofile', soft: 500, hard: 600 }];
    const container = { env: ['OWN=1'], hostname: 'box', ulimits };
    const task = sh('echo ready; sleep 60', { container });
    await startReady(runtime, task);
    const exec = async (
      command: readonly string[],
      spec: Partial<ExecSpec> = {},
      input?: string,
    ) => {
      const output = { stdout: '', stderr: '' };
      const streams: ExecStreams = {
        ...(input === undefined ? {} : { stdin: once(input) }),
        output: (stream, data) => {
          output[stream] += text(data);
        },
      };
      assert(runtime.exec !== undefined, 'the runtime has it');
      const process = await runtime.exec(
        task.id,
        { command, tty: false, ...spec },
        streams,
        AbortSignal.timeout(30 * SECOND_MS),
      );
      return { code: await process.exited, ...output };
    };
    t.match(
      await exec(['sh', '-c', 'echo $OWN $MORE $(hostname) $(pwd); echo err >&2; exit 3'], {
        env: ['MORE=2'],
        dir: '/usr',
      }),
      { code: 3, stdout: '1 2 box /usr\n', stderr: 'err\n' },
    );
    t.match(await exec(['cat'], {}, 'through\n'), { code: 0, stdout: 'through\n' });
    t.match(await exec(['wc', '-c'], {}, 'x'.repeat(1_000_000)), { stdout: /^1000000\n/ });
    const large = await exec(['sh', '-c', 'head -c 1000000 /dev/zero']);
    t.equal(large.stdout.length, 1_000_000);
    t.match(await exec(['id', '-u'], { user: '1234' }), { stdout: '1234\n' });
    t.match(await exec(['sh', '-c', 'kill -TERM $$']), { code: 143 });
    t.match(await exec(['shoal-no-such-command']), { code: 127 });
    t.match(await exec(['/etc/passwd']), { code: 126 });
    const limits = await exec(['sh', '-c', 'echo $(ulimit -Sn) $(ulimit -Hn)']);
    t.equal(limits.stdout, '500 600\n', 'with the limits of the task');
    if (bed.features.has('tty')) {
      const tty = await exec(['sh', '-c', 'test -t 0 && stty size; echo err >&2'], {
        tty: true,
        size: { rows: 11, columns: 22 },
      });
      t.match(tty, { code: 0, stdout: '11 22\r\nerr\r\n', stderr: '' });
    }
    await runtime.stop(task.id, { graceMs: 10 * SECOND_MS });
    const error = await exec(['true']).catch((e: unknown) => e);
    t.match(error, { detail: { code: 'RUNTIME_FAILED' } }, 'not in one that has ended');
  });

  t.test('what a task uses, and its processes', needs('exec'), async (t) => {
    const runtime = await bed.open(t);
    const task = sh(
      'sleep 61 & sleep 62 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; wait',
    );
    await startReady(runtime, task);
    const processes = await runtime.top?.(task.id);
    const commands = processes?.map(({ command }) => command) ?? [];
    t.ok(commands.includes('sleep 61') && commands.includes('sleep 62'), String(commands));
    t.ok(
      processes?.every(
        ({ pid, startedAtMs }) => pid > 1 && Math.abs(Date.now() - startedAtMs) < 60_000,
      ),
      'each with its start',
    );
    if (bed.features.has('limits')) {
      const stats = await runtime.stats?.(task.id);
      t.ok((stats?.cpuNs ?? 0n) > 0n, 'processor time');
      t.ok((stats?.memoryBytes ?? 0) > 0, 'memory');
      t.ok((stats?.pids ?? 0) >= 3, 'processes');
    }
  });

  t.test('many at a time', async (t) => {
    const runtime = await bed.open(t);
    const { exitOf } = watch(t, runtime);
    const tasks = Array.from({ length: atOnce }, (_, i) => sh(`echo number ${i}; exit ${i}`));
    await Promise.all(tasks.map((task) => runtime.prepare(task, never)));
    await Promise.all(tasks.map((task) => runtime.start(task.id)));
    const codes = await Promise.all(tasks.map(async ({ id }) => (await exitOf(id)).exitCode));
    t.strictSame(
      codes,
      tasks.map((_, i) => i),
    );
    await Promise.all(tasks.map(({ id }) => runtime.remove(id)));
    t.strictSame(await runtime.list(), []);
  });
}

async function* once(input: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(input);
}
