import t from 'tap';
import { hostOf, skipUnless } from './support/lab.js';
import { ALL_REACHABLE, MANAGERS, managersUp, SOON_MS, untilManagers } from './support/managers.js';
import { lostOf, Netns, sentOf } from './support/netns.js';
import { until } from './support/process.js';

/** What goes on without any manager. */

const skip = skipUnless('docker', 'dig');

t.test('with all managers dead the overlay goes on, and nothing is lost', { skip }, async (t) => {
  const lab = await managersUp(t);
  // The agents of two workers carry the traffic: a killed agent takes its own data path along.
  await lab.lab.up({ nodes: 5 });
  await lab.createNetwork('mesh');
  const [a, b] = [await Netns.make(t), await Netns.make(t)];
  await lab.attach('node4', 'mesh', a, { name: 'alpha' });
  const { addresses } = await lab.attach('node5', 'mesh', b, { name: 'beta' });
  const beta = hostOf(addresses[0]);
  await until('they reach each other', SOON_MS, async () => (await a.ping(beta)) === 1);
  await lab.dockerMust('node2', 'config', 'create', 'kept', '/etc/hostname');
  const configs = await lab.dockerMust('node3', 'config', 'ls', '-q');

  const pings = a.start(t, a.pingArgv(beta, { count: 4000, intervalMs: 20 }));
  for (const node of MANAGERS) await lab.lab.signalAgent(node, 'SIGKILL');
  await until('the workers notice', 2 * SOON_MS, async () => {
    const { managerReachable } = await lab.status('node4');
    return !managerReachable;
  });
  const dig = ['dig', '@127.0.0.11', '+short', 'beta'];
  t.equal((await a.must(dig)).trim(), beta, 'names go on');
  t.equal(await a.ping(beta, { count: 5, intervalMs: 50 }), 5);

  for (const node of MANAGERS) await lab.lab.startAgent(node);
  await untilManagers(lab, 'node1', ['', '', ...ALL_REACHABLE]);
  t.equal(await lab.dockerMust('node1', 'config', 'ls', '-q'), configs, 'nothing is lost');
  await until(
    'the workers are back',
    SOON_MS,
    async () => (await lab.status('node5')).managerReachable,
  );
  const { stdout } = await pings.stop('SIGINT');
  t.same(lostOf(stdout), [], `not one ping is lost: ${sentOf(stdout)}`);
  t.equal((await a.must(dig)).trim(), beta);
});
