import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { run, until } from './support/process.js';

/** Tasks of services on the nodes of a lab, with the image `host`. */

const skip = skipUnless('docker', 'python3');
const SOON_MS = 30_000;

interface Known {
  readonly state: string;
  readonly message: string;
  readonly container?: { readonly id: string; readonly pid: number };
}

/** What a node's agent remembers of its tasks. */
function journal(lab: TestLab, node: string): Map<string, Known> {
  try {
    const text = readFileSync(join(lab.lab.dir, node, 'tasks.json'), 'utf8');
    return new Map(Object.entries((JSON.parse(text) as { tasks: Record<string, Known> }).tasks));
  } catch {
    return new Map();
  }
}

const runningOn = (lab: TestLab, node: string) =>
  [...journal(lab, node)].filter(([, { state }]) => state === 'running');

async function states(lab: TestLab, service: string): Promise<string[]> {
  const format = '{{.DesiredState}} {{.CurrentState}} {{.Error}}';
  const text = await lab.dockerMust(
    'node1',
    'service',
    'ps',
    '--no-trunc',
    '--format',
    format,
    service,
  );
  return text
    .split('\n')
    .map((line) => line.replace(/ \S+ (seconds?|minutes?|about a minute)? ?ago/, ''));
}

/** Runs a program inside of a task. */
const inside = (pid: number, ...argv: string[]) =>
  run(['nsenter', '-t', `${pid}`, '-m', '-n', '-u', '--', ...argv]);

const FETCH = "import urllib.request as u; print(u.urlopen('http://web/', timeout=3).status)";

t.test(
  'tasks run with network and names, and go on without their agent and managers',
  { skip },
  async (t) => {
    const lab = await TestLab.up(t, { nodes: 3 });
    await lab.dockerMust('node1', 'network', 'create', '-d', 'overlay', 'mesh');
    await lab.dockerMust(
      'node1',
      'service',
      'create',
      '-d',
      '--name',
      'web',
      '--mode',
      'global',
      '--network',
      'mesh',
      '--restart-delay',
      '1s',
      'host',
      'python3',
      '-m',
      'http.server',
      '80',
    );
    for (const node of ['node1', 'node2', 'node3'])
      await until(`a task runs on ${node}`, SOON_MS, async () => runningOn(lab, node).length === 1);
    await until('the manager knows', SOON_MS, async () =>
      (await states(lab, 'web')).every((line) => line.startsWith('Running Running')),
    );

    const [[id, before] = ['', undefined]] = runningOn(lab, 'node2');
    const pid = before?.container?.pid ?? 0;
    await t.test('a task reaches the others by the name of their service', async (t) => {
      await until(
        'an answer',
        SOON_MS,
        async () => (await inside(pid, 'python3', '-c', FETCH)).code === 0,
      );
      t.match((await inside(pid, 'ip', '-br', 'address')).stdout, /eth0 .* 10\.0\.1\.\d+\/24/);
    });

    await t.test(
      'its agent is killed and comes back: the same task, the same process',
      async (t) => {
        // With the manager, which would replace the tasks of a node that it has found down.
        await lab.lab.signalAgent('node1', 'SIGKILL');
        await lab.lab.signalAgent('node2', 'SIGKILL');
        process.kill(pid, 0);
        await lab.lab.startAgent('node2');
        await until(
          'an answer',
          SOON_MS,
          async () => (await inside(pid, 'python3', '-c', FETCH)).code === 0,
        );
        await lab.lab.startAgent('node1');
        await until('the manager knows', SOON_MS, async () => {
          // It is none before its log is open.
          const seen = await states(lab, 'web').catch(() => ['']);
          return seen.every((line) => line.startsWith('Running Running'));
        });
        t.match(journal(lab, 'node2').get(id), before ?? {});
      },
    );

    await t.test('without a manager a task that ends is started again in its place', async (t) => {
      await lab.lab.signalAgent('node1', 'SIGKILL');
      process.kill(pid, 'SIGKILL');
      await until('it runs again', SOON_MS, async () => {
        const now = journal(lab, 'node2').get(id);
        return now?.state === 'running' && now.container?.pid !== pid;
      });
      t.equal(
        journal(lab, 'node2').get(id)?.message,
        'started again, once, while no manager was heard',
      );
      await lab.lab.startAgent('node1');
    });

    await t.test('a service that is removed leaves nothing behind', async () => {
      await until(
        'a manager answers',
        SOON_MS,
        async () => (await lab.docker('node1', 'service', 'rm', 'web')).code === 0,
      );
      for (const node of ['node1', 'node2', 'node3'])
        await until(`nothing on ${node}`, SOON_MS, async () => journal(lab, node).size === 0);
    });
  },
);

t.test('what goes wrong is told in the words of Docker', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 1 });
  const create = (name: string, ...rest: string[]) =>
    lab.dockerMust(
      'node1',
      'service',
      'create',
      '-d',
      '--name',
      name,
      '--restart-condition',
      'none',
      ...rest,
    );
  await create('bad', 'host', 'false');
  await create('none', 'host', '/no/such/program');
  await create('image', 'nginx:1');
  const shown = async (service: string) => (await states(lab, service)).join();
  for (const [service, words] of [
    ['bad', /Failed.*task: non-zero exit \(1\)/],
    ['none', /Failed.*starting container failed: exec: "\/no\/such\/program"/],
    ['image', /Pending.*no suitable node \(no container engine on \d nodes?/],
  ] as const) {
    await until(`${service} is told`, SOON_MS, async () => words.test(await shown(service)));
    t.match(await shown(service), words);
  }
});
