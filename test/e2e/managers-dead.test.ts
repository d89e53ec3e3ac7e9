import t from 'tap';
import { checkedService, Given, untilGiven } from './support/given.js';
import { hostOf, skipUnless } from './support/lab.js';
import { ALL_REACHABLE, MANAGERS, managersUp, SOON_MS, untilManagers } from './support/managers.js';
import { lostOf, Netns, sentOf } from './support/netns.js';
import { until } from './support/process.js';

/** What goes on without any manager. */

const skip = skipUnless('docker', 'dig', 'curl');
const WORKERS = ['node4', 'node5', 'node6'] as const;

t.test('with all managers dead the overlay goes on, and nothing is lost', { skip }, async (t) => {
  const lab = await managersUp(t);
  // The agents of workers carry the traffic: a killed agent takes its own data path along.
  await lab.lab.up({ nodes: 6 });
  await lab.createNetwork('mesh');
  const [a, b] = [await Netns.make(t), await Netns.make(t)];
  await lab.attach('node4', 'mesh', a, { name: 'alpha' });
  const { addresses } = await lab.attach('node5', 'mesh', b, { name: 'beta' });
  const beta = hostOf(addresses[0]);
  await until('they reach each other', SOON_MS, async () => (await a.ping(beta)) === 1);
  await lab.dockerMust('node2', 'config', 'create', 'kept', '/etc/hostname');
  const configs = await lab.dockerMust('node3', 'config', 'ls', '-q');
  const options = [
    '--network',
    'mesh',
    '--publish',
    '8080:80',
    '--constraint',
    'node.role==worker',
  ];
  // Long enough to be seen.
  await lab.dockerMust('node1', ...checkedService('web', ...options, '--restart-delay', '6s'));
  const given = new Given(lab, a);
  const ways = (at: readonly string[] = WORKERS) => ({
    ...Object.fromEntries(at.map((node) => [`port at ${node}`, given.byPort(node, 8080, 3)])),
    VIP: given.byVip('web', 3),
    'tasks.web': given.byName('tasks.web', 'web'),
  });
  await untilGiven('123', ways);
  const format = '{{.Node}} {{.Name}}';
  const placed = await lab.dockerMust('node1', 'service', 'ps', '--format', format, 'web');
  const slotOn = (node: string) => new RegExp(`^${node} web\\.(\\d)$`, 'm').exec(placed)?.[1] ?? '';
  const without = (node: string) => '123'.replace(slotOn(node), '');

  const pings = a.start(t, a.pingArgv(beta, { count: 8000, intervalMs: 20 }));
  for (const node of MANAGERS) await lab.lab.signalAgent(node, 'SIGKILL');
  await until('the workers notice', 2 * SOON_MS, async () => {
    const views = await Promise.all(WORKERS.map((node) => lab.status(node)));
    return views.every(({ managerReachable }) => !managerReachable);
  });

  await t.test('names resolve, ports and VIPs answer', async (t) => {
    t.strictSame(await given.dig('beta'), [beta]);
    t.equal(await a.ping(beta, { count: 5, intervalMs: 50 }), 5);
    await untilGiven('123', ways);
  });

  await t.test('who fails its checks is passed over, and comes back', async (t) => {
    const place = `web.${slotOn('node5')}`;
    await given.tell(place, '/ill');
    t.pass(`passed over after ${await untilGiven(without('node5'), ways)} ms`);
    await given.tell(place, '/well');
    t.pass(`back after ${await untilGiven('123', ways)} ms`);
  });

  await t.test('who dies is given to nobody, and is started again', async (t) => {
    const place = `web.${slotOn('node4')}`;
    const run = await given.tell(place, '/');
    await given.tell(place, '/die');
    t.pass(`gone after ${await untilGiven(without('node4'), ways)} ms`);
    t.pass(`back after ${await untilGiven('123', ways)} ms`);
    const now = await given.tell(place, '/');
    t.equal(now.split(' ')[0], slotOn('node4'));
    t.not(now, run, 'it is another run');
  });

  await t.test('tasks of a node that is lost are given to nobody, until it is back', async (t) => {
    await lab.lab.signalAgent('node6', 'SIGKILL');
    const left = () => ways(['node4', 'node5']);
    t.pass(`gone after ${await untilGiven(without('node6'), left)} ms`);
    await lab.lab.startAgent('node6');
    t.pass(`back after ${await untilGiven('123', ways)} ms`);
  });

  for (const node of MANAGERS) await lab.lab.startAgent(node);
  await untilManagers(lab, 'node1', ['', '', '', ...ALL_REACHABLE]);
  t.equal(await lab.dockerMust('node1', 'config', 'ls', '-q'), configs, 'nothing is lost');
  for (const node of WORKERS)
    await until(`${node} is back`, SOON_MS, async () => (await lab.status(node)).managerReachable);
  const { stdout } = await pings.stop('SIGINT');
  t.same(lostOf(stdout), [], `not one ping is lost: ${sentOf(stdout)}`);
  await untilGiven('123', ways);
});
