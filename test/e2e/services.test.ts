import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { scratch, skipUnless, TestLab } from './support/lab.js';
import { until } from './support/process.js';

/** Services of host commands on three nodes, by the real docker CLI. */

const skip = skipUnless('docker', 'python3');
const SOON_MS = 30_000;
/** Says who it is, then waits; ends at once when asked to. */
const TALK = 'trap "exit 0" TERM; echo hello from $0; while :; do sleep 0.1; done';

/** Columns of a table, which are apart by two blanks or more. */
const rowsOf = (stdout: string) =>
  stdout
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => line.trimEnd().split(/ {2,}/));

async function replicas(lab: TestLab, name: string): Promise<string | undefined> {
  const table = rowsOf(await lab.dockerMust('node1', 'service', 'ls'));
  return table.find((row) => row[1] === name)?.[3];
}

const untilReplicas = (lab: TestLab, name: string, wanted: string) =>
  until(`${name} has ${wanted}`, SOON_MS, async () => (await replicas(lab, name)) === wanted);

t.test('services live as on a real swarm', { skip, timeout: 240_000 }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3, managers: 1 });
  const docker = (...args: readonly string[]) => lab.docker('node1', ...args);
  const must = (...args: readonly string[]) => lab.dockerMust('node1', ...args);

  await t.test('create waits until all tasks run', async (t) => {
    await must('network', 'create', '-d', 'overlay', '--attachable', 'mesh');
    const made = await docker(
      ...['service', 'create', '--name', 'web', '--replicas', '3', '--network', 'mesh'],
      ...['--env', 'WHO={{.Task.Name}}', '--label', 'a=b', '--update-delay', '0s'],
      ...['--update-monitor', '500ms', '--restart-delay', '100ms', 'host', 'sh', '-c', TALK],
    );
    t.equal(made.code, 0, made.stderr);
    t.match(made.stdout, /overall progress: 3 out of 3 tasks/);
    t.match(made.stdout, /verify: Service \S+ converged/);
    t.equal(made.stderr, '', 'no warning about a registry');
    t.equal(await replicas(lab, 'web'), '3/3');
  });

  await t.test('ps, node ps and inspect show the tasks', async (t) => {
    const rows = rowsOf(await must('service', 'ps', 'web'));
    t.strictSame(rows.map((row) => row[1]).sort(), ['web.1', 'web.2', 'web.3']);
    for (const row of rows)
      t.match(row.slice(2), ['host:latest', /^node\d$/, 'Running', /^Running/]);
    t.strictSame(new Set(rows.map((row) => row[3])).size, 3, 'on a node each');
    const onNode = rowsOf(await must('node', 'ps', 'node2'));
    t.equal(onNode.length, 1);
    const [service] = JSON.parse(await must('inspect', 'web'));
    t.match(service, {
      Spec: { Name: 'web', Labels: { a: 'b' } },
      Endpoint: { Spec: { Mode: 'vip' } },
    });
    t.match(service.Endpoint.VirtualIPs, [{ Addr: /^10\.0\.\d+\.\d+\/24$/ }]);
    const [network] = JSON.parse(await must('network', 'inspect', '-v', 'mesh'));
    t.equal(network.Services.web.Tasks.length, 3);
    const [task] = JSON.parse(await must('inspect', '--type', 'task', rows[0]?.[0] ?? ''));
    t.match(task, { Status: { State: 'running', ContainerStatus: { PID: Number } } });
  });

  await t.test('logs come from all nodes, with the names of the tasks', async (t) => {
    const lines = () => must('service', 'logs', 'web');
    await until('all have spoken', SOON_MS, async () => (await lines()).split('\n').length >= 3);
    const said = (await lines()).split('\n');
    for (const slot of [1, 2, 3])
      t.ok(
        said.some((line) =>
          new RegExp(`^web\\.${slot}\\.\\w{12}@node\\d +\\| hello from`).test(line),
        ),
        `slot ${slot}`,
      );
    const raw = await must('service', 'logs', '--raw', '-t', '--tail', '1', 'web');
    t.match(raw, /^\d{4}-\d\d-\d\dT\S+Z hello from/);
  });

  await t.test('scale, update and rollback converge', async (t) => {
    const scaled = await docker('service', 'scale', 'web=4');
    t.equal(scaled.code, 0, scaled.stderr);
    t.match(scaled.stdout, /web scaled to 4/);
    const before = rowsOf(await must('service', 'ps', '-f', 'desired-state=running', 'web'));
    const updated = await docker(
      'service',
      'update',
      '--env-add',
      'X=1',
      '--label-add',
      'c=d',
      'web',
    );
    t.equal(updated.code, 0, updated.stderr);
    t.match(updated.stdout, /converged/);
    const after = rowsOf(await must('service', 'ps', '-f', 'desired-state=running', 'web'));
    const ids = new Set(before.map((row) => row[0]));
    t.equal(after.filter((row) => ids.has(row[0] ?? '')).length, 0, 'all tasks are new');
    const [service] = JSON.parse(await must('service', 'inspect', 'web'));
    t.match(service, {
      UpdateStatus: { State: 'completed' },
      PreviousSpec: { Name: 'web' },
      Spec: { Labels: { a: 'b', c: 'd' } },
    });
    t.ok(service.Spec.TaskTemplate.ContainerSpec.Env.includes('X=1'));
    t.match(await must('service', 'ps', 'web'), / \\_ web\.\d/, 'the ones before are below');
    const back = await docker('service', 'rollback', 'web');
    t.equal(back.code, 0, back.stderr);
    const [rolled] = JSON.parse(await must('service', 'inspect', 'web'));
    t.notOk(rolled.Spec.TaskTemplate.ContainerSpec.Env.includes('X=1'));
    await until(
      'the last of the new tasks is watched to the end',
      SOON_MS,
      async () =>
        JSON.parse(await must('service', 'inspect', 'web'))[0].UpdateStatus.State ===
        'rollback_completed',
    );
    t.match(await must('service', 'inspect', '--pretty', 'web'), /Service Mode:\s+Replicated/);
  });

  await t.test('global services and jobs', async (t) => {
    const global = await docker(
      'service',
      'create',
      '--name',
      'each',
      '--mode',
      'global',
      'host',
      'sh',
      '-c',
      TALK,
    );
    t.equal(global.code, 0, global.stderr);
    t.equal(await replicas(lab, 'each'), '3/3');
    const job = await docker(
      ...['service', 'create', '--name', 'job', '--mode', 'replicated-job', '--replicas', '3'],
      ...['--max-concurrent', '2', 'host', 'sh', '-c', 'echo done'],
    );
    t.equal(job.code, 0, job.stderr);
    t.match(job.stdout, /job complete/);
    t.match(await replicas(lab, 'job'), /^0\/2 \(3\/3 completed\)/);
  });

  await t.test('what cannot be is refused in the words of a real swarm', async (t) => {
    const refused = async (words: string | RegExp, ...args: readonly string[]) => {
      const { code, stderr } = await docker('service', 'create', '-d', ...args);
      t.equal(code, 1, args.join(' '));
      t.match(stderr, words);
    };
    await must('service', 'create', '-d', '--name', 'port', '-p', '8088:80', 'host', 'sleep', '99');
    await refused(
      'name conflicts with an existing object: service web already exists',
      ...['--name', 'web', 'host'],
    );
    await refused(
      /InvalidArgument desc = port '8088' is already in use by service 'port' \(\w{25}\) as an ingress port/,
      ...['-p', '8088:80', 'host'],
    );
    await refused('network nope not found', '--network', 'nope', 'host');
    await refused('secret not found: nope', '--secret', 'nope', 'host');
    await refused('desc = name must be valid as a DNS name component', '--name', 'a b', 'host');
    await refused('constraint expected one operator from ==, !=', '--constraint', 'x', 'host');
    await refused('Must be at least 4MiB', '--limit-memory', '1', 'host');
    const used = await docker('network', 'rm', 'mesh');
    t.match(used.stderr, /desc = network \w{25} is in use by (service|task) \w{25}/);
    const worker = await lab.docker('node2', 'service', 'ls');
    t.match(worker.stderr, /This node is not a swarm manager\. Worker nodes can't be used/);
    const nowhere = await must(
      ...[
        'service',
        'create',
        '-d',
        '--name',
        'mars',
        '--constraint',
        'node.labels.zone==mars',
        'host',
      ],
    );
    await until('it says why it waits', SOON_MS, async () =>
      /no suitable node \(scheduling constraints not satisfied on 3 nodes\)/.test(
        await must('service', 'ps', '--no-trunc', nowhere),
      ),
    );
    t.equal(await must('service', 'rm', 'port', 'mars', 'job', 'each'), 'port\nmars\njob\neach');
  });

  await t.test('a stack comes, is shown and goes', async (t) => {
    const folder = scratch(t);
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'stack.yml');
    const stack = (count: number) => `
services:
  talk:
    image: host
    command: ["sh", "-c", "cat /run/secrets/word; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    networks: [back]
    secrets: [word]
    configs: [{ source: conf, target: /conf }]
    deploy: { replicas: ${count} }
networks: { back: {} }
secrets: { word: { file: ./word } }
configs: { conf: { file: ./word } }
`;
    writeFileSync(join(folder, 'word'), 'hush\n');
    writeFileSync(file, stack(2));
    const deployed = await docker('stack', 'deploy', '-c', file, '--detach=true', 'st');
    t.equal(deployed.code, 0, deployed.stderr);
    t.match(
      deployed.stdout,
      /Creating network st_back\n.*Creating secret st_word\n.*Creating config st_conf\n.*Creating service st_talk/s,
    );
    await untilReplicas(lab, 'st_talk', '2/2');
    t.match(await must('stack', 'ls'), /^st +1/m);
    t.match(rowsOf(await must('stack', 'services', 'st')), [
      [String, 'st_talk', 'replicated', '2/2', 'host:latest'],
    ]);
    t.equal(rowsOf(await must('stack', 'ps', 'st')).length, 2);
    await until('the secret was there', SOON_MS, async () =>
      /\| hush/.test(await must('service', 'logs', 'st_talk')),
    );
    writeFileSync(file, stack(3));
    const again = await docker('stack', 'deploy', '-c', file, '--detach=true', 'st');
    t.match(again.stdout, /Updating service st_talk \(id: \w{25}\)/);
    await untilReplicas(lab, 'st_talk', '3/3');
    const gone = await docker('stack', 'rm', 'st');
    t.equal(gone.code, 0, gone.stderr);
    t.match(
      gone.stdout,
      /Removing service st_talk\nRemoving secret st_word\nRemoving config st_conf\nRemoving network st_back/,
    );
    t.notMatch(await must('network', 'ls'), /st_back/);
  });

  await t.test('a removed service leaves no task and no name', async (t) => {
    t.equal(await must('service', 'rm', 'web'), 'web');
    t.match((await docker('service', 'inspect', 'web')).stderr, /no such service: web/i);
    await until(
      'its network is free',
      SOON_MS,
      async () => (await docker('network', 'rm', 'mesh')).code === 0,
    );
    await until(
      'no task is left',
      SOON_MS,
      async () => (await must('node', 'ps', '-q', 'node1', 'node2', 'node3')) === '',
    );
    const events = await must(
      'events',
      '--since',
      '10m',
      '--until',
      '0s',
      '--filter',
      'type=service',
    );
    t.match(events, /service create \w{25} \(name=web\)/);
    t.match(events, /service update \w{25} \(name=web, replicas\.new=4, replicas\.old=3\)/);
    t.match(events, /service remove \w{25} \(name=web\)/);
  });
});
