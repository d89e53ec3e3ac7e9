import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { until } from './support/process.js';

/** What `dig` sees of the resolver in a namespace of an overlay, and what is reached by that. */

const skip = skipUnless('docker', 'dig', 'curl');
/** Too many for a datagram of 512 bytes. */
const MANY = 40;
const SERVER = `require('http').createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(process.env.SLOT + '\\n');
}).listen(80)`;

t.test('names of services as tools ask for them', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 2 });
  await lab.createNetwork('mesh');
  const Config = [{ Subnet: '10.77.0.0/24' }, { Subnet: 'fd77::/64' }];
  await lab.createNetwork('six', { EnableIPv6: true, IPAM: { Config } });
  await lab.createNetwork('inner', { Internal: true });
  const create = (name: string, replicas: number, ...rest: readonly string[]) =>
    lab.dockerMust(
      'node1',
      ...['service', 'create', '--detach', '--name', name, '--replicas', String(replicas), ...rest],
    );
  await create(
    'many',
    MANY,
    '--network',
    'mesh',
    '--endpoint-mode',
    'dnsrr',
    'host',
    'sleep',
    'inf',
  );
  const web = ['--network', 'name=mesh,alias=www', '--network', 'six', '--publish', '8080:80'];
  const server = ['--env', 'SLOT={{.Task.Slot}}', 'host', process.execPath, '-e', SERVER];
  await create('web', 3, ...web, ...server);
  const [four, both, inner] = [await Netns.make(t), await Netns.make(t), await Netns.make(t)];
  await lab.attach('node2', 'mesh', four, { name: 'four' });
  await lab.attach('node2', 'mesh', both, { name: 'both' });
  await lab.attach('node2', 'six', both, { name: 'both' });
  await lab.attach('node2', 'inner', inner, { name: 'inner' });

  const dig = async (from: Netns, ...question: readonly string[]) =>
    from.must(['dig', '@127.0.0.11', '+tries=3', ...question]);
  const short = async (from: Netns, ...question: readonly string[]) =>
    (await dig(from, '+short', ...question)).split('\n').filter(Boolean).sort();
  await until('all tasks have names', 60_000, async () => {
    const found = [await short(four, 'many'), await short(four, 'tasks.web')];
    return found[0]?.length === MANY && found[1]?.length === 3;
  });

  await t.test('many addresses come whole, by TCP where a datagram is too small', async (t) => {
    t.equal((await short(four, '+tcp', 'many')).length, MANY);
    const small = await dig(four, '+bufsize=512', '+ignore', 'many');
    t.match(small, /flags:.* tc /);
    t.ok(Number(/MSG SIZE +rcvd: (\d+)/.exec(small)?.[1]) <= 512);
    t.match(await dig(four, '+bufsize=512', 'many'), /retrying in TCP mode(.|\n)*ANSWER: 40,/);
    t.match(await dig(four, '+noedns', 'many'), /retrying in TCP mode(.|\n)*ANSWER: 40,/);
    const firsts = new Set<string>();
    await until('they are shuffled', 10_000, async () => {
      firsts.add((await dig(four, '+short', 'many')).split('\n', 1)[0] ?? '');
      return firsts.size > 2;
    });
    const ttls = (await dig(four, '+noall', '+answer', 'many')).match(/(?<=\t)\d+(?=\tIN)/g) ?? [];
    t.ok(ttls.length === MANY && ttls.every((ttl) => Number(ttl) <= 5));
  });

  await t.test('a name in every form is the same', async (t) => {
    const [vip = ''] = await short(four, 'web');
    for (const name of ['web.', 'WEB', 'web.mesh', 'Web.MESH.', 'www', 'www.mesh'])
      t.strictSame(await short(four, name), [vip], name);
    const tasks = await short(four, 'tasks.web');
    t.strictSame(await short(four, 'TASKS.www.mesh.'), tasks);
    const places = await Promise.all([1, 2, 3].map((slot) => short(four, `web.${slot}`)));
    t.strictSame(places.flat().sort(), tasks);
    t.match(await dig(four, 'web.9'), /status: NXDOMAIN/, 'nobody has that place');
    t.strictSame(await short(four, '-x', vip), ['web.mesh.']);
    const [name = ''] = await short(four, '-x', tasks[0] ?? '');
    t.match(name, /^web\.\d\.\w{25}\.mesh\.$/);
    t.strictSame(await short(four, name), [tasks[0]], 'and back');
    const targets = await short(four, 'SRV', '_80._tcp.web');
    t.equal(targets.length, 3);
    for (const target of targets) t.match(target, /^0 0 80 web\.\d\.\w{25}\.mesh\.$/);
  });

  await t.test('what has no such record exists all the same', async (t) => {
    for (const type of ['AAAA', 'MX', 'TXT', 'HTTPS', 'CNAME'])
      t.match(await dig(four, type, 'web'), /status: NOERROR(.|\n)*ANSWER: 0,/, type);
  });

  await t.test('by IPv6 a service has a name, a VIP and tasks too', async (t) => {
    t.equal((await short(both, 'A', 'web')).length, 2, 'a VIP on each network');
    const [vip = ''] = await short(both, 'AAAA', 'web');
    t.match(vip, /^fd77::/);
    t.strictSame(await short(both, '-x', vip), ['web.six.']);
    t.equal((await short(both, 'AAAA', 'tasks.web')).length, 3);
    t.equal((await short(both, 'A', 'web.six')).length, 1);
    await until('three connections reach three tasks', 20_000, async () => {
      const url = `http://[${vip}]/?[1-3]`;
      const { stdout } = await both.run(['curl', '-sS', '--max-time', '5', url]);
      return stdout.trim().split('\n').sort().join() === '1,2,3';
    });
  });

  await t.test('one network’s names are not another’s, nor told to anybody', async (t) => {
    t.match(await dig(inner, 'web'), /status: NXDOMAIN/, 'unknown there, and nobody else is asked');
    t.strictSame(await short(four, 'web.six'), []);
    t.equal((await short(inner, 'inner')).length, 1);
  });
});
