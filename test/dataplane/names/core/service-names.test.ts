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
};
const task = (slot: number, state: NamedEndpoint['state'] = 'ready'): NamedEndpoint => ({
  name: `web.${slot}.task${slot}`,
  aliases: ['www', 'Web', `box${slot}`],
  addresses: [`10.0.1.1${slot}`, `fd00::1${slot}`],
  state,
  service: { id: 's1', name: 'web', slot },
});
const indexOf = (services: readonly NamedService[], endpoints: readonly NamedEndpoint[]) => {
  const index = new NameIndex([serviceNames('mesh', services, endpoints)]);
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
  t.equal(names.v4('web.1'), undefined);
  t.strictSame(names.v4('web.2.task2'), ['10.0.1.12'], 'its own name stays');
  t.strictSame(names.v4('web'), ['10.0.1.2'], 'and so does the VIP');
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
