import { mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import t from 'tap';
import type { ContainerSpec } from '../../../src/base/service-model.js';
import type { TaskId } from '../../../src/base/swarm-model.js';
import { EngineRuntime } from '../../../src/runtime/engine/index.js';
import type { RuntimeEvent, RuntimeTask } from '../../../src/runtime/index.js';
import { Dockerd, TEST_IMAGE, whyNoDockerd } from '../../support/dockerd.js';

const never = new AbortController().signal;
const log = { info: () => undefined, warn: () => undefined };

function taskOf(
  id: string,
  container: Partial<ContainerSpec>,
  more: Partial<RuntimeTask> = {},
): RuntimeTask {
  return {
    id: id as TaskId,
    name: `web.1.${id}`,
    container: { image: TEST_IMAGE, ...container },
    labels: { 'com.docker.swarm.task.id': id },
    secrets: new Map(),
    configs: new Map(),
    network: 'resolver',
    hosts: [{ address: '10.0.9.3', name: 'me' }],
    ...more,
  };
}

const shell = (script: string) => ({ command: ['sh', '-c'], args: [script] });

const skip = whyNoDockerd() ?? false;

t.test('tasks in a real engine', { skip, timeout: 180_000 }, async (t) => {
  const engine = await Dockerd.raise();
  t.teardown(() => engine.remove());
  // In memory, and seen by the engine, whose mount namespace is another.
  const filesDir = mkdtempSync('/dev/shm/shoal-files-');
  t.teardown(() => rmSync(filesDir, { recursive: true, force: true }));
  const config = { socketPath: engine.socket, owner: 'o1', filesDir, prefersLocalImages: true };
  let runtime = new EngineRuntime(config, log);
  t.teardown(() => runtime.close());
  const events: RuntimeEvent[] = [];
  runtime.onEvent((event) => events.push(event));
  const eventOf = async (id: string, kind: RuntimeEvent['kind']) => {
    for (let tries = 0; tries < 400; tries++) {
      const event = events.find((one) => one.id === id && one.kind === kind);
      if (event !== undefined) return event;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    return undefined;
  };
  const linesOf = async (id: string) => {
    const lines: string[] = [];
    const query = { stdout: true, stderr: true, follow: false };
    for await (const { stream, data } of runtime.logs(id as TaskId, query, never))
      lines.push(`${stream}: ${Buffer.from(data)}`);
    return lines;
  };

  await t.test('a task from its namespace to its end', async (t) => {
    const id = 'life' as TaskId;
    const task = taskOf(id, {
      ...shell('hostname; cat /etc/hosts /etc/resolv.conf; echo oops >&2; exit 3'),
      hostname: 'shell7',
      hosts: ['10.9.9.9 db database'],
      dns: { search: ['corp.example'] },
    });
    const prepared = await runtime.prepare(task, never);
    t.match(prepared.netns, /^\/proc\/\d+\/ns\/net$/);
    t.not(readlinkSync(prepared.netns ?? ''), readlinkSync('/proc/self/ns/net'));
    t.strictSame(await runtime.prepare(task, never), prepared, 'twice is harmless');
    t.match(await runtime.list(), [{ id, state: 'prepared', netns: prepared.netns }]);
    const running = await runtime.start(id);
    t.equal(running.containerId, prepared.containerId);
    t.match(await eventOf(id, 'exited'), { exitCode: 3 });
    const lines = await linesOf(id);
    t.ok(lines.includes('stdout: shell7\n'));
    t.ok(lines.includes('stderr: oops\n'));
    for (const line of [
      '10.0.9.3\tme',
      '10.9.9.9\tdb',
      '10.9.9.9\tdatabase',
      'nameserver 127.0.0.11',
      'search corp.example',
    ])
      t.ok(lines.includes(`stdout: ${line}\n`), line);
    t.match(await runtime.list(), [{ id, state: 'exited', exitCode: 3 }]);
    await runtime.stop(id, { graceMs: 0 });
    t.equal(events.filter((event) => event.id === id && event.kind === 'exited').length, 1);

    await runtime.start(id);
    t.equal(
      (await linesOf(id)).filter((line) => line === 'stderr: oops\n').length >= 1,
      true,
      'once more',
    );
    await runtime.remove(id);
    await runtime.remove(id);
    t.strictSame(await runtime.list(), []);
    t.equal(engine.docker('ps', '-aq'), '');
  });

  await t.test('secrets and configs are files in memory, with their modes', async (t) => {
    const id = 'files' as TaskId;
    const file = (name: string) => ({ name, uid: '65534', gid: '7', mode: 0o440 });
    const task = taskOf(
      id,
      {
        ...shell(
          'cat /run/secrets/pw /etc/app.conf; stat -c "%u %g %a" /run/secrets/pw; echo x > /run/secrets/pw',
        ),
        secrets: [{ secretId: 's' as never, secretName: 'pw', file: file('pw') }],
        configs: [{ configId: 'c' as never, configName: 'conf', file: file('/etc/app.conf') }],
      },
      {
        secrets: new Map([['s' as never, Buffer.from('geheim\n')]]),
        configs: new Map([['c' as never, Buffer.from('port = 1\n')]]),
      },
    );
    await runtime.prepare(task, never);
    await runtime.start(id);
    t.match(await eventOf(id, 'exited'), { exitCode: 1 });
    const lines = await linesOf(id);
    const written = lines.filter((line) => line.startsWith('stdout'));
    t.strictSame(written, ['stdout: geheim\n', 'stdout: port = 1\n', 'stdout: 65534 7 440\n']);
    t.ok(lines.some((line) => /^stderr: .*Read-only/.test(line)));
    await runtime.remove(id);
    t.throws(() => readlinkSync(`${filesDir}/${id}`), { code: 'ENOENT' });
  });

  await t.test('a signal, a grace, and then the end', async (t) => {
    const id = 'stubborn' as TaskId;
    await runtime.prepare(
      taskOf(id, shell('trap "echo no" TERM; while :; do sleep 0.1; done')),
      never,
    );
    const { pid } = await runtime.start(id);
    t.ok(pid > 0);
    const startedMs = performance.now();
    await runtime.stop(id, { graceMs: 700 });
    const tookMs = performance.now() - startedMs;
    t.ok(tookMs >= 700 && tookMs < 10_000, `${tookMs} ms`);
    t.match(
      events.find((event) => event.id === id && event.kind === 'exited'),
      { exitCode: 137 },
      'told before stop resolves',
    );
    await runtime.remove(id);

    const polite = 'polite' as TaskId;
    await runtime.prepare(
      taskOf(polite, {
        ...shell('trap "exit 5" USR1; while :; do sleep 0.1; done'),
        stopSignal: 'SIGUSR1',
      }),
      never,
    );
    await runtime.start(polite);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await runtime.stop(polite, { graceMs: 20_000 });
    t.match(
      events.find((event) => event.id === polite),
      { exitCode: 5 },
    );
    await runtime.remove(polite);
  });

  await t.test('health is told as it changes', async (t) => {
    const id = 'health' as TaskId;
    const health = {
      test: ['CMD-SHELL', 'echo seen; test -e /tmp/ok'],
      intervalMs: 200,
      retries: 2,
    };
    await runtime.prepare(
      taskOf(id, { ...shell('sleep 1; touch /tmp/ok; sleep 1000'), health }),
      never,
    );
    t.match(await runtime.start(id), { health: 'starting' });
    for (let tries = 0; tries < 200; tries++) {
      if (
        events.some(
          (event) => event.id === id && event.kind === 'health' && event.health === 'healthy',
        )
      )
        break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const healths = events.flatMap((event) =>
      event.id === id && event.kind === 'health' ? [event.health] : [],
    );
    t.equal(healths.at(-1), 'healthy');
    t.match(
      events.findLast((event) => event.id === id),
      { output: 'seen\n' },
    );
    await runtime.remove(id);
  });

  await t.test('what cannot be is said in the words of the engine', async (t) => {
    const noImage = taskOf('noimage', { image: 'registry.invalid/none:1' });
    await t.rejects(runtime.prepare(noImage, never), { code: 'RUNTIME_FAILED' });
    const badMount = taskOf('badmount', {
      mounts: [{ type: 'bind', source: '/no/such/place', target: '/x' }],
    });
    await t.rejects(runtime.prepare(badMount, never), {
      code: 'RUNTIME_REJECTED',
      message: /bind source path does not exist/,
    });
    await runtime.remove('badmount' as TaskId);
    const noProgram = taskOf('noprogram', { command: ['/no/such/program'] });
    await runtime.prepare(noProgram, never);
    await t.rejects(runtime.start('noprogram' as TaskId), {
      code: 'RUNTIME_FAILED',
      message: /no such file|not found/,
    });
    t.match(await runtime.list(), [{ id: 'noprogram', state: 'exited', exitCode: 127 }]);
    t.strictSame(
      events.filter((event) => event.id === 'noprogram'),
      [],
    );
    await runtime.remove('noprogram' as TaskId);
    await t.rejects(runtime.start('nobody' as TaskId), { code: 'RUNTIME_NOT_FOUND' });
    await runtime.stop('nobody' as TaskId, { graceMs: 0 });
  });

  await t.test('limits hold, and who breaks them is told of', async (t) => {
    const id = 'oom' as TaskId;
    const memoryBytes = 16 << 20;
    await runtime.prepare(
      taskOf(id, shell('tail /dev/zero'), {
        resources: { limits: { memoryBytes, nanoCpus: 5e8, pids: 20 } },
      }),
      never,
    );
    const limits = engine.docker(
      'inspect',
      `web.1.${id}`,
      '--format',
      '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}',
    );
    t.equal(limits, `${memoryBytes} 500000000 20`);
    await runtime.start(id);
    t.match(await eventOf(id, 'exited'), { exitCode: 137, oomKilled: true });
    await runtime.remove(id);
  });

  await t.test('a terminal, the host network, and logs that are followed', async (t) => {
    const id = 'tty' as TaskId;
    await runtime.prepare(
      taskOf(
        id,
        { ...shell('test -t 1 && echo terminal; sleep 1; echo more; sleep 1000'), tty: true },
        { network: 'host' },
      ),
      never,
    );
    t.match(await runtime.prepare(taskOf(id, {}, { network: 'host' }), never), {
      netns: undefined,
    });
    await runtime.start(id);
    const lines: string[] = [];
    for await (const record of runtime.logs(
      id,
      { stdout: true, stderr: true, follow: true },
      never,
    )) {
      lines.push(String(Buffer.from(record.data)));
      t.ok(record.atNs > 1_700_000_000_000_000_000n);
      if (lines.length === 2) break;
    }
    t.strictSame(lines, ['terminal\r\n', 'more\r\n']);
    await runtime.remove(id);
  });

  await t.test(
    'tasks are found again by the next agent, and by this one when the engine was away',
    async (t) => {
      const id = 'stays' as TaskId;
      const { netns } = await runtime.prepare(taskOf(id, shell('sleep 1000')), never);
      const { pid } = await runtime.start(id);
      await runtime.close();
      runtime = new EngineRuntime(config, log);
      runtime.onEvent((event) => events.push(event));
      t.match(await runtime.list(), [
        { id, state: 'running', pid, netns, labels: { 'com.docker.swarm.task.id': id } },
      ]);
      t.match(await runtime.describe(), { name: 'docker', engineSocket: engine.socket });
      const other = new EngineRuntime({ ...config, owner: 'o2' }, log);
      t.strictSame(await other.list(), [], 'those of another agent are not');
      await other.close();

      await engine.stop();
      await t.rejects(runtime.list(), { code: 'RUNTIME_FAILED', message: /cannot be reached/ });
      await engine.start();
      t.match(await eventOf(id, 'exited'), { exitCode: 137 }, 'what happened in between is told');
      await runtime.remove(id);
      t.equal(engine.docker('ps', '-aq'), '');
    },
  );
});
