import t from 'tap';
import { NameIndex } from '../../../../src/dataplane/names/core/name-table.js';
import {
  type NamedEndpoint,
  type NamedService,
  serviceNames,
} from '../../../../src/dataplane/names/core/service-names.js';

const web: NamedService = {
  id: 's1',
  name: 'web',
  aliases: ['www'],
  vips: ['10.0.1.2', 'fd00::2'],
  ports: [
    { name: 'Http', protocol: 'tcp', port: 8080 },
    { protocol: 'udp', port: 53 },
  ],
  ceiling: 0.5,
};
const task = (slot: number, state: NamedEndpoint['state'] = 'ready'): NamedEndpoint => ({
  name: `web.${slot}.task${slot}`,
  aliases: ['www', 'Web', `box${slot}`],
  addresses: [`10.0.1.1${slot}`, `fd00::1${slot}`],
  state,
  service: { id: 's1', name: 'web', slot },
});
const failing = (slot: number): NamedEndpoint => ({ ...task(slot), isFailing: true });
const indexOf = (
  services: readonly NamedService[],
  endpoints: readonly NamedEndpoint[],
  orderSeed = 1,
) => {
  const index = new NameIndex([serviceNames('mesh', services, endpoints, orderSeed)]);
  return {
    v4: (name: string) => index.lookup(name)?.v4.toSorted(),
    v6: (name: string) => index.lookup(name)?.v6.toSorted(),
    places: (name: string) =>
      index
        .lookupPlaces(name)
        ?.map(({ target, port }) => `${target}:${port}`)
        .sort(),
    pointer: (name: string) => index.lookupPointer(name),
  };
};

t.test('a service’s name and aliases are its VIP, `tasks.` its tasks', async (t) => {
  const names = indexOf([web], [task(1), task(2)]);
  for (const name of ['web', 'WWW', 'web.mesh']) {
    t.strictSame(names.v4(name), ['10.0.1.2'], name);
    t.strictSame(names.v6(name), ['fd00:0:0:0:0:0:0:2'], name);
  }
  for (const name of ['tasks.web', 'tasks.www', 'tasks.web.mesh'])
    t.strictSame(names.v4(name), ['10.0.1.11', '10.0.1.12'], name);
  t.strictSame(names.v4('web.2'), ['10.0.1.12']);
  t.strictSame(names.v4('2.web'), ['10.0.1.12']);
  t.strictSame(names.v6('web.1.task1'), ['fd00:0:0:0:0:0:0:11']);
  t.strictSame(names.v4('box1'), ['10.0.1.11'], 'an alias of the task alone');
});

t.test('a service’s ports are at its ready tasks', async (t) => {
  const names = indexOf([web], [task(1), task(2), task(3, 'draining')]);
  const http = ['web.1.task1.mesh:8080', 'web.2.task2.mesh:8080'];
  const dns = ['web.1.task1.mesh:53', 'web.2.task2.mesh:53'];
  for (const [name, want] of [
    ['web', [...http, ...dns].sort()],
    ['tasks.www.mesh', [...http, ...dns].sort()],
    ['_http._tcp.web', http],
    ['_HTTP._TCP.Web.mesh.', http],
    ['_8080._tcp.www', http],
    ['_53._udp.tasks.web', dns],
    ['_53._tcp.web', []],
    ['_http._tcp.db', undefined],
    ['web.1', undefined],
  ] as const)
    t.strictSame(names.places(name), want, name);
  for (const target of ['web.1.task1.mesh', 'web.2.task2.mesh'])
    t.equal(names.v4(target)?.length, 1, 'each is a name');
  const many = Array.from({ length: 600 }, (_, i) => task(i + 1));
  t.equal(indexOf([web], many).places('web')?.length, 1024);
});

t.test('without a VIP the name is all ready tasks', async (t) => {
  const names = indexOf([{ ...web, vips: [] }], [task(1), task(2), task(3, 'starting')]);
  t.strictSame(names.v4('web'), ['10.0.1.11', '10.0.1.12']);
});

t.test('only what is ready is behind a service', async (t) => {
  const names = indexOf([web], [task(1, 'draining'), task(2, 'starting')]);
  t.strictSame(names.v4('tasks.web'), [], 'known, and nobody there');
  t.strictSame(names.v4('web.2.task2'), ['10.0.1.12'], 'its own name stays');
  t.strictSame(names.v4('web'), ['10.0.1.2'], 'and so does the VIP');
});

t.test('who fails its checks is behind no name that others are behind too', async (t) => {
  const tasks = [task(1), failing(2), task(3)];
  const [vip, dnsrr] = [indexOf([web], tasks), indexOf([{ ...web, vips: [] }], tasks)];
  const healthy = ['10.0.1.11', '10.0.1.13'];
  t.strictSame(vip.v4('web'), ['10.0.1.2'], 'the VIP passes it over itself');
  for (const name of ['tasks.web', 'tasks.www', 'tasks.web.mesh'])
    t.strictSame(vip.v4(name), healthy, name);
  for (const name of ['web', 'www', 'web.mesh', 'tasks.web'])
    t.strictSame(dnsrr.v4(name), healthy, `${name} without a VIP`);
  t.equal(dnsrr.v6('web')?.length, 2, 'nor by IPv6');
  t.strictSame(vip.places('_http._tcp.web'), ['web.1.task1.mesh:8080', 'web.3.task3.mesh:8080']);
  for (const name of ['web.2', '2.web', 'web.2.task2', 'box2'])
    t.strictSame(vip.v4(name), ['10.0.1.12'], `${name} is nobody else`);
});

t.test('no more are left out than the ceiling allows, and never all', async (t) => {
  const given = (ceiling: number, orderSeed: number, ...tasks: NamedEndpoint[]) =>
    indexOf([{ ...web, ceiling }], tasks, orderSeed).v4('tasks.web') ?? [];
  t.equal(given(0.5, 1, failing(1)).length, 1, 'the only one');
  t.strictSame(given(0.5, 1, failing(1), task(2)), ['10.0.1.12']);
  t.equal(given(0.5, 1, failing(1), failing(2)).length, 1, 'one of two, though both fail');
  t.equal(given(0.5, 1, task(1), failing(2), failing(3)).length, 2, 'one of three');
  t.equal(given(0, 1, failing(1), task(2)).length, 2, 'none, if so wished');
  t.strictSame(given(1, 1, failing(1), failing(2), task(3)), ['10.0.1.13']);
  t.equal(given(1, 1, failing(1), failing(2)).length, 2, 'all are better than none');
  const starting = { ...task(3, 'starting'), isFailing: true };
  t.equal(
    given(0.5, 1, failing(1), failing(2), starting).length,
    1,
    'what is not ready is no part',
  );

  const several = [failing(1), failing(2), failing(3), failing(4)];
  const byNode = Array.from({ length: 20 }, (_, seed) => given(0.5, seed, ...several).join());
  t.ok(new Set(byNode).size > 1, 'nodes do not all keep the same ones');
  t.equal(given(0.5, 7, ...several).join(), given(0.5, 7, ...several.toReversed()).join());
});

t.test('in one place the better task is given', async (t) => {
  const at = (name: string, what: Partial<NamedEndpoint>): NamedEndpoint => ({
    ...task(2),
    name: `web.2.${name}`,
    addresses: [`10.0.2.${name}`],
    ...what,
  });
  const given = (...tasks: NamedEndpoint[]) => indexOf([web], tasks).v4('web.2');
  const [ready, fails, starts, drains] = [
    at('1', {}),
    at('2', { isFailing: true }),
    at('3', { state: 'starting' }),
    at('4', { state: 'draining' }),
  ];
  t.strictSame(given(drains, starts, fails, ready), ['10.0.2.1']);
  t.strictSame(given(starts, fails), ['10.0.2.2']);
  t.strictSame(given(drains, starts), ['10.0.2.3'], 'so peers find each other that start');
  t.strictSame(given(drains), [], 'known, and nobody there');
  t.strictSame(given(ready, at('5', {})), ['10.0.2.1', '10.0.2.5']);
  t.equal(given(task(1)), undefined);
});

t.test('an address is named after its task, a VIP after its service', async (t) => {
  const names = indexOf([web], [task(1)]);
  t.equal(names.pointer('11.1.0.10.in-addr.arpa'), 'web.1.task1.mesh');
  t.equal(names.pointer('2.1.0.10.in-addr.arpa'), 'web.mesh');
});

t.test('what belongs to no service keeps all of its aliases', async (t) => {
  const names = indexOf([], [{ ...task(1), service: undefined }]);
  t.strictSame(names.v4('www'), ['10.0.1.11']);
  t.equal(names.v4('web.1'), undefined);
});
