import t from 'tap';
import {
  partCreate,
  shownInList,
  shownInspect,
  userPorts,
  userSandboxJson,
} from '../../../src/runtime/engine/wire/user-container.js';

type Json = Readonly<Record<string, unknown>>;
const isOverlay = (ref: string) => ref === 'mesh';

const BODY = {
  Image: 'web:1',
  Cmd: ['serve'],
  Hostname: 'box',
  ExposedPorts: { '80/tcp': {} },
  Labels: { a: 'b' },
  HostConfig: {
    NetworkMode: 'mesh',
    AutoRemove: true,
    PortBindings: { '80/tcp': [{ HostIp: '', HostPort: '8080' }] },
    Dns: ['10.0.0.1'],
    ExtraHosts: ['db:10.0.0.9'],
    Sysctls: { 'net.core.somaxconn': '9', 'kernel.msgmax': '1' },
  },
  NetworkingConfig: { EndpointsConfig: { mesh: { Aliases: ['cc'] }, local: { Aliases: ['l'] } } },
};

t.test('a container is parted between itself and the sandbox that it joins', async (t) => {
  const { container, said, endpoints } = partCreate(BODY, 'sb', isOverlay);
  t.strictSame(container, {
    Image: 'web:1',
    Cmd: ['serve'],
    Labels: { a: 'b' },
    HostConfig: {
      AutoRemove: true,
      NetworkMode: 'container:sb',
      Sysctls: { 'kernel.msgmax': '1' },
    },
  });
  t.strictSame(endpoints, { local: { Aliases: ['l'] } }, "what is the engine's");
  const id = 'e2624ded07f9a11922b53ef7bc7981a8';
  t.match(userSandboxJson(said, { id, owner: 'o', image: 'pause:1' }), {
    Image: 'pause:1',
    Cmd: [id],
    Hostname: 'box',
    Labels: { 'com.docker.shoal.sandbox': id },
    HostConfig: {
      NetworkMode: 'none',
      Dns: ['127.0.0.11', '10.0.0.1'],
      DnsOptions: ['ndots:0'],
      ExtraHosts: ['db:10.0.0.9'],
      Sysctls: { 'net.core.somaxconn': '9' },
    },
  });
  const bare = partCreate({ HostConfig: { NetworkMode: 'mesh' } }, 'sb', isOverlay);
  t.match(userSandboxJson(bare.said, { id, owner: 'o', image: 'p' }), { Hostname: 'e2624ded07f9' });
  for (const nonsense of [undefined, null, 7, 'x', [], { HostConfig: [] }])
    t.match(partCreate(nonsense, 'sb', isOverlay).container, {
      HostConfig: { NetworkMode: 'container:sb' },
    });
});

t.test('ports: which the node offers, and what cannot be', async (t) => {
  const of = (host: Json, config: Json = {}) => userPorts({ host, config });
  const port = (targetPort: number, publishedPort: number, protocol = 'tcp') => ({
    protocol,
    targetPort,
    publishedPort,
  });
  const both = [
    { HostIp: '0.0.0.0', HostPort: '8080' },
    { HostIp: '::', HostPort: '8080' },
  ];
  t.strictSame(of({}), []);
  t.strictSame(of({ PortBindings: { '80/tcp': both, '53/udp': [{ HostPort: '' }] } }), [
    port(80, 8080),
    port(53, 0, 'udp'),
  ]);
  t.strictSame(of({ PublishAllPorts: true }, { ExposedPorts: { '80/tcp': {} } }), [port(80, 0)]);
  t.match(of({ PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '1' }] } }), /alone$/);
  t.match(of({ PortBindings: { '80/sctp': [{ HostPort: '1' }] } }), /only tcp and udp/);
  t.match(of({ PortBindings: { '80/tcp': [{ HostPort: '1-5' }] } }), /no single port/);
});

t.test('users are shown what they asked for, and where it is', async (t) => {
  const { said } = partCreate(BODY, 'sb', isOverlay);
  const endpoint = {
    id: 'at1',
    mac: '02:42:0a:00:01:19',
    addresses: ['10.0.1.25/24', 'fd00::9/64'],
  };
  const place = { networkId: 'n1', networkName: 'mesh', aliases: ['cc', 'e2624ded07f9'], endpoint };
  const container = {
    said,
    places: [place],
    ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080 }],
  } as const;
  const mesh = {
    IPAMConfig: { IPv4Address: '10.0.1.25' },
    Aliases: ['cc', 'e2624ded07f9'],
    NetworkID: 'n1',
    EndpointID: 'at1',
    IPAddress: '10.0.1.25',
    IPPrefixLen: 24,
    GlobalIPv6Address: 'fd00::9',
    GlobalIPv6PrefixLen: 64,
    MacAddress: '02:42:0a:00:01:19',
  };
  const inspected = {
    Id: 'c',
    Config: { Image: 'web:1', Hostname: 'x' },
    HostConfig: { NetworkMode: 'container:sb', AutoRemove: true },
    NetworkSettings: { Networks: {} },
  };
  const sandbox = { SandboxKey: 'k', Networks: { none: {}, bridge: { NetworkID: 'b' } } };
  const shown = shownInspect(inspected, container, sandbox) as typeof inspected;
  t.match(shown, {
    Id: 'c',
    Config: { Image: 'web:1', Hostname: 'box', ExposedPorts: { '80/tcp': {} } },
    HostConfig: { NetworkMode: 'mesh', AutoRemove: true, Dns: ['10.0.0.1'] },
    NetworkSettings: {
      SandboxKey: 'k',
      Ports: { '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }, { HostIp: '::' }] },
      Networks: { bridge: { NetworkID: 'b' }, mesh },
    },
  });
  t.notOk('none' in shown.NetworkSettings.Networks);
  t.match(shownInList({ Id: 'c', HostConfig: { NetworkMode: 'container:sb' } }, container), {
    Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' }, { IP: '::' }],
    HostConfig: { NetworkMode: 'mesh' },
    NetworkSettings: { Networks: { mesh } },
  });
  const waiting = { places: [{ ...place, ip: '10.0.1.7', endpoint: undefined }], ports: [] };
  t.match(shownInspect(inspected, waiting, undefined), {
    HostConfig: { NetworkMode: 'container:sb' },
    NetworkSettings: {
      Networks: {
        mesh: { IPAMConfig: { IPv4Address: '10.0.1.7' }, IPAddress: '', EndpointID: '' },
      },
    },
  });
});
