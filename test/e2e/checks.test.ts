import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { run, until } from './support/process.js';

/**
 * A task that fails its active checks and lives on: ports, VIP and names stop giving it, on every node, and
 * give it again when it has recovered.
 */

const skip = skipUnless('docker', 'curl', 'dig');
const SOON_MS = 20_000;
/** Often enough, and patient enough for a busy machine. */
const CHECK = [
  ...['--label', 'shoal.check=http', '--label', 'shoal.check.path=/health'],
  ...['--label', 'shoal.check.port=80', '--label', 'shoal.check.interval=300ms'],
  ...['--label', 'shoal.check.timeout=5s', '--label', 'shoal.check.fall=2'],
];
/** Says which task it is, also while it is ill; what its check is told is changed by those who ask. */
const SERVER = `let isIll = false;
require('http').createServer((request, response) => {
  if (request.url === '/ill' || request.url === '/well') isIll = request.url === '/ill';
  response.statusCode = request.url === '/health' && isIll ? 500 : 200;
  response.setHeader('Connection', 'close');
  response.end(process.env.SLOT + '\\n');
}).listen(80)`;

t.test('a task that fails its checks is given to nobody until it recovers', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3 });
  await lab.createNetwork('mesh');
  const create = (name: string, ...more: readonly string[]) =>
    lab.dockerMust(
      'node1',
      ...['service', 'create', '--detach', '--name', name, '--replicas', '3', '--network', 'mesh'],
      ...[
        '--env',
        'SLOT={{.Task.Slot}}',
        ...CHECK,
        ...more,
        'host',
        process.execPath,
        '-e',
        SERVER,
      ],
    );
  await create('web', '--publish', '8080:80');
  await create('db', '--endpoint-mode', 'dnsrr');
  const client = await Netns.make(t);
  await lab.attach('node2', 'mesh', client, { name: 'client' });

  const lines = (text: string) => text.split('\n').filter(Boolean);
  const dig = async (...question: readonly string[]) =>
    lines(await client.must(['dig', '@127.0.0.11', '+short', ...question])).sort();
  /** Who answers so many requests, one after the other. */
  const fetch = async (
    argv: (command: readonly string[]) => readonly string[],
    url: string,
    count: number,
  ) => {
    const { stdout } = await run(argv(['curl', '-sS', '--max-time', '5', `${url}?[1-${count}]`]));
    return lines(stdout);
  };
  const taskOf = async (name: string) => (await dig(name))[0] ?? '';
  /** What each way of coming gives, as slots: `123` is all three tasks. */
  const given = async (count: number): Promise<Readonly<Record<string, string>>> => {
    const slots = (answers: readonly string[]) => [...new Set(answers)].sort().join('');
    const ways: Record<string, string> = {};
    for (const { name } of lab.lab.nodes) {
      const here = (command: readonly string[]) => lab.lab.commandIn(name, command);
      ways[`port at ${name}`] = slots(await fetch(here, 'http://127.0.0.1:8080/', count));
    }
    const inside = (command: readonly string[]) => client.argv(command);
    ways['VIP'] = slots(await fetch(inside, `http://${await taskOf('web')}/`, count));
    for (const [way, service] of [
      ['tasks.web', 'web'],
      ['db', 'db'],
    ] as const) {
      const found = await dig(way);
      const places = await Promise.all([1, 2, 3].map((slot) => taskOf(`${service}.${slot}`)));
      ways[way] = slots(found.map((address) => String(places.indexOf(address) + 1)));
    }
    const targets = await dig('_80._tcp.web', 'SRV');
    ways['SRV'] = slots(targets.map((target) => / web\.(\d)\./.exec(target)?.[1] ?? target));
    return ways;
  };
  const untilGiven = async (want: string) => {
    const beganMs = performance.now();
    let last: Readonly<Record<string, string>> = {};
    await until(`each way gives ${want}`, SOON_MS, async () => {
      last = await given(3);
      return Object.values(last).every((slots) => slots === want);
    }).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(last)}`);
    });
    return performance.now() - beganMs;
  };
  const tell = async (path: string, slot: number) => {
    for (const service of ['web', 'db']) {
      const answer = await client.must([
        'curl',
        '-sS',
        `${await taskOf(`${service}.${slot}`)}${path}`,
      ]);
      t.equal(answer.trim(), `${slot}`, `${service}.${slot} is who is meant`);
    }
  };

  await untilGiven('123');
  await tell('/ill', 2);
  t.comment(`given by nobody after ${Math.round(await untilGiven('13'))} ms`);
  for (const [way, slots] of Object.entries(await given(12)))
    t.equal(slots, '13', `${way}, for good`);
  const { stdout } = await lab.docker(
    'node1',
    'service',
    'ps',
    '--format',
    '{{.CurrentState}}',
    'web',
  );
  t.equal(lines(stdout).filter((state) => state.startsWith('Running')).length, 3, 'it lives on');

  await tell('/well', 2);
  t.comment(`given again by all after ${Math.round(await untilGiven('123'))} ms`);

  await tell('/ill', 1);
  await tell('/ill', 2);
  await tell('/ill', 3);
  const left = await until('as many are passed over as may be', SOON_MS, async () => {
    const ways = Object.entries(await given(3));
    return ways.every(([, slots]) => slots.length === 2) ? ways : undefined;
  });
  t.equal(left.length, 7, 'where all fail, most are given');
});
