import t from 'tap';
import { checkedService, Given, settle, untilGiven } from './support/given.js';
import { skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { until } from './support/process.js';

/**
 * A task that fails its active checks and lives on: ports, VIP and names stop giving it, on every node, and
 * give it again when it has recovered.
 */

const skip = skipUnless('docker', 'curl', 'dig');
const SOON_MS = 20_000;

t.test('a task that fails its checks is given to nobody until it recovers', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3 });
  await lab.createNetwork('mesh');
  const docker = (...args: readonly string[]) => lab.dockerMust('node1', ...args);
  await docker(...checkedService('web', '--network', 'mesh', '--publish', '8080:80'));
  await docker(...checkedService('db', '--network', 'mesh', '--endpoint-mode', 'dnsrr'));
  const client = await Netns.make(t);
  await lab.attach('node2', 'mesh', client, { name: 'client' });
  const given = new Given(lab, client);
  /** @param count Connections by each way that takes turns. */
  const ways = (count: number) => ({
    'port at node1': given.byPort('node1', 8080, count),
    'port at node2': given.byPort('node2', 8080, count),
    'port at node3': given.byPort('node3', 8080, count),
    VIP: given.byVip('web', count),
    'tasks.web': given.byName('tasks.web', 'web'),
    'db without a VIP': given.byName('db', 'db'),
    'SRV of web': given.bySrv('_80._tcp.web'),
  });
  const untilAll = (want: string) => untilGiven(want, () => ways(3));
  const tell = async (slot: number, path: string) => {
    for (const place of [`web.${slot}`, `db.${slot}`])
      t.match(await given.tell(place, path), new RegExp(`^${slot} `), `${place} is who is meant`);
  };

  await untilAll('123');
  await tell(2, '/ill');
  t.comment(`given by nobody after ${await untilAll('13')} ms`);
  for (const [way, slots] of Object.entries(await settle(ways(12))))
    t.equal(slots, '13', `${way}, for good`);
  const states = await docker('service', 'ps', '--format', '{{.CurrentState}}', 'web');
  t.equal(states.match(/^Running/gm)?.length, 3, 'it lives on');

  await tell(2, '/well');
  t.comment(`given again by all after ${await untilAll('123')} ms`);

  for (const slot of [1, 2, 3]) await tell(slot, '/ill');
  await until('of three that all fail one is passed over', SOON_MS, async () =>
    Object.values(await settle(ways(3))).every((slots) => slots.length === 2),
  );
});
