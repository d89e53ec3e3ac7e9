import fc from 'fast-check';
import t from 'tap';
import {
  EXPRESSIONS_MAX,
  localBody,
  parseCreate,
} from '../../../../src/api/classic/core/create-request.js';
import { clusterInfo, sizeText, systemStatus } from '../../../../src/api/classic/core/info.js';
import { isImage, pullQuery } from '../../../../src/api/classic/wire/image-name.js';
import {
  clusterContainer,
  clusterEvent,
  clusterInspect,
  clusterVolumes,
  localNetworks,
  mergeImages,
} from '../../../../src/api/classic/wire/lists.js';
import { discoveryLabel, parseDiscovery } from '../../../../src/api/classic/wire/token.js';
import { containerOf, nodeOf } from '../core/nodes.js';

const TOKEN = '0123456789abcdef0123456789abcdef';
const ORIGIN = {
  id: 'i1',
  name: 'node1',
  ip: '10.0.0.1',
  address: '10.0.0.1:2376',
  cpus: 2,
  memoryBytes: 100,
  labels: { storage: 'ssd' },
};

t.test('what is meant for the cluster does not reach the environment', async (t) => {
  const parsed = parseCreate({
    Image: 'busybox',
    Env: ['A=constraint:x==y', 'constraint:storage==ssd', 'affinity:container!=~web', 'B=1'],
    Labels: { 'com.docker.swarm.constraints': '["node==node1"]', mine: 'yes' },
  });
  if (typeof parsed === 'string') throw new Error(parsed);
  t.match(parsed.body, {
    Env: ['A=constraint:x==y', 'B=1'],
    Labels: {
      mine: 'yes',
      'com.docker.swarm.constraints': '["node==node1","storage==ssd"]',
      'com.docker.swarm.affinities': '["container!=~web"]',
    },
  });
  t.match(parsed.wish.constraints, [{ key: 'node' }, { key: 'storage' }]);
  t.match(parsed.wish.affinities, [{ key: 'container', isEqual: false, isSoft: true }]);
});

t.test('what is no expression is refused in the classic Swarm’s words', async (t) => {
  const refusal = (...Env: string[]) => parseCreate({ Env });
  t.equal(refusal('constraint:storage=ssd'), 'One of operator ==, != is expected');
  t.equal(refusal('constraint:s==ssd'), "Key 's' is invalid");
  t.equal(refusal('affinity:container==a{b'), "Value 'a{b' is invalid");
  t.equal(refusal('reschedule:sometimes'), 'invalid reschedule policy: sometimes');
  t.equal(refusal('reschedule:off', 'reschedule:off'), 'too many reschedule policies');
  t.type(refusal('reschedule:off'), 'object');
  const many = Array.from({ length: EXPRESSIONS_MAX + 1 }, () => 'constraint:node==a1');
  t.match(refusal(...many), /more than 64/);
});

t.test('any body is read without throwing', async () => {
  fc.assert(
    fc.property(fc.anything(), (body) => {
      parseCreate(body);
      parseCreate({ HostConfig: body, Env: body, Labels: body });
    }),
  );
});

t.test('an engine gets its own names', async (t) => {
  const localName = (ref: string) => ref.replace(/^node1\//, '');
  const body = localBody(
    {
      HostConfig: {
        Links: ['node1/db:db'],
        VolumesFrom: ['node1/data:ro'],
        NetworkMode: 'container:node1/db',
      },
      NetworkingConfig: { EndpointsConfig: { 'node1/net': { Aliases: ['x'] } } },
    },
    localName,
  );
  t.strictSame(body, {
    HostConfig: { Links: ['db:db'], VolumesFrom: ['data:ro'], NetworkMode: 'container:db' },
    NetworkingConfig: { EndpointsConfig: { net: { Aliases: ['x'] } } },
  });
});

t.test('docker info shows the tree', async (t) => {
  const nodes = [
    nodeOf('swarm-node', { address: '10.0.0.2:2376', trouble: 'i/o timeout' }),
    nodeOf('swarm-master', {
      address: '10.0.0.1:2376',
      cpus: 1,
      memoryBytes: 1_097_358_704,
      labels: { storagedriver: 'aufs', executiondriver: 'native-0.2' },
      containers: [containerOf('a', { cpus: 0.5, memoryBytes: 1 << 20 }), containerOf('b')],
      images: [{ id: 'x', tags: [] }],
    }),
  ];
  const rows = systemStatus(nodes, 'spread', 'primary');
  t.strictSame(rows.slice(0, 9), [
    ['Role', 'primary'],
    ['Strategy', 'spread'],
    ['Filters', 'affinity, health, constraint, port, dependency'],
    ['Nodes', '2'],
    [' swarm-master', '10.0.0.1:2376'],
    ['  └ Containers', '2'],
    ['  └ Reserved CPUs', '0.5 / 1'],
    ['  └ Reserved Memory', '1 MiB / 1.022 GiB'],
    ['  └ Labels', 'executiondriver=native-0.2, storagedriver=aufs'],
  ]);
  t.strictSame(rows.slice(9, 11), [
    [' swarm-node', '10.0.0.2:2376'],
    ['  └ Status', 'Unhealthy'],
  ]);
  t.strictSame(rows.at(-1), ['  └ Error', 'i/o timeout']);
  const facts = {
    ...{ id: 'i', name: 'm', version: 'swarm/1', kernelVersion: '', operatingSystem: '' },
    ...{ architecture: '', swarm: {}, time: '' },
  };
  const info = clusterInfo(nodes, rows, facts);
  t.match(info, {
    Containers: 2,
    ContainersRunning: 2,
    Images: 1,
    NCPU: 5,
    MemTotal: 1_097_366_704,
  });
});

t.test('sizes have four digits', async (t) => {
  const cases = [
    [0, '0 B'],
    [1_023, '1023 B'],
    [1_024, '1 KiB'],
    [536_870_912, '512 MiB'],
    [1_097_358_704, '1.022 GiB'],
  ] as const;
  for (const [bytes, want] of cases) t.equal(sizeText(bytes), want);
});

t.test('lists of engines become lists of the cluster', async (t) => {
  const one = clusterContainer(
    {
      Names: ['/web', '/front/db'],
      Ports: [{ IP: '0.0.0.0', PublicPort: 80 }, { PrivatePort: 81 }, { IP: '127.0.0.1' }],
    },
    ORIGIN,
  );
  t.strictSame(one['Names'], ['/node1/web', '/node1/front/db']);
  t.strictSame(one['Ports'], [
    { IP: '10.0.0.1', PublicPort: 80 },
    { PrivatePort: 81 },
    { IP: '127.0.0.1' },
  ]);
  const inspected = clusterInspect(
    { Name: '/web', NetworkSettings: { Ports: { '80/tcp': [{ HostIp: '' }], '81/tcp': null } } },
    ORIGIN,
  );
  t.match(inspected, {
    Name: '/web',
    Node: { ID: 'i1', IP: '10.0.0.1', Addr: '10.0.0.1:2376', Name: 'node1', Cpus: 2 },
    NetworkSettings: { Ports: { '80/tcp': [{ HostIp: '10.0.0.1' }], '81/tcp': null } },
  });
  t.match(
    mergeImages([
      [{ Id: 'a', RepoTags: ['x:1'], Created: 1 }],
      [
        { Id: 'a', RepoTags: ['x:1', 'y:1'], Created: 1 },
        { Id: 'b', Created: 2 },
      ],
    ]),
    [{ Id: 'b' }, { Id: 'a', RepoTags: ['x:1', 'y:1'] }],
  );
  const value = {
    Volumes: [
      { Name: 'v', Driver: 'local' },
      { Name: 'nfs', Driver: 'other' },
    ],
  };
  const other = { ...ORIGIN, name: 'node2' };
  const volumes = clusterVolumes([
    { origin: ORIGIN, value },
    { origin: other, value },
  ]);
  t.strictSame(
    volumes.map(({ Name }) => Name),
    ['node1/v', 'nfs', 'node2/v'],
  );
  t.strictSame(
    localNetworks(
      [
        { Name: 'bridge', Scope: 'local' },
        { Name: 'mesh', Scope: 'swarm' },
      ],
      ORIGIN,
    ),
    [{ Name: 'node1/bridge', Scope: 'local' }],
  );
});

t.test('events name their node', async (t) => {
  const line = JSON.stringify({ from: 'busybox', Actor: { Attributes: { name: 'web' } } });
  t.match(JSON.parse(clusterEvent(line, ORIGIN) ?? ''), {
    from: 'busybox node:node1',
    node: { Name: 'node1', Ip: '10.0.0.1' },
    Actor: { Attributes: { name: 'web', 'node.name': 'node1' } },
  });
  t.equal(clusterEvent('{"scope":"swarm"}', ORIGIN), undefined);
  t.equal(clusterEvent('{', ORIGIN), undefined);
});

t.test('discovery is by token, inside the cluster', async (t) => {
  t.strictSame(parseDiscovery(`token://${TOKEN}`), { token: TOKEN });
  t.strictSame(parseDiscovery(`token://discovery.example/v1/${TOKEN}`), { token: TOKEN });
  t.strictSame(parseDiscovery(TOKEN), { token: TOKEN });
  t.match(parseDiscovery('token://abc'), /is no discovery token/);
  t.match(parseDiscovery('consul://10.0.0.1:8500/x'), /discovery by consul:\/\/ is not there/);
  t.equal(discoveryLabel(TOKEN), `com.docker.shoal.discovery.${TOKEN}`);
});

t.test('names of images', async (t) => {
  t.equal(pullQuery('busybox'), 'fromImage=busybox&tag=latest');
  t.equal(pullQuery('h:5000/a/b:1'), 'fromImage=h%3A5000%2Fa%2Fb&tag=1');
  t.equal(pullQuery('a@sha256:ab'), 'fromImage=a%40sha256%3Aab');
  const image = { id: 'sha256:abcdef', tags: ['busybox:latest', 'h:5000/a:1'] };
  for (const ref of ['busybox', 'busybox:latest', 'h:5000/a:1', 'abcd', 'sha256:abcdef'])
    t.ok(isImage(ref, image), ref);
  for (const ref of ['busy', 'busybox:1', 'h:5000/a', 'ab']) t.notOk(isImage(ref, image), ref);
});
