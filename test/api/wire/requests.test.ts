import t from 'tap';
import { readAttach, readDetach } from '../../../src/api/wire/attach-requests.js';
import { readNetworkSpec } from '../../../src/api/wire/network-requests.js';
import {
  readClusterSpec,
  readInit,
  readJoin,
  readNodeSpec,
} from '../../../src/api/wire/swarm-requests.js';
import { DEFAULT_CLUSTER_SPEC } from '../../../src/base/swarm-defaults.js';
import type { NodeSpec } from '../../../src/base/swarm-model.js';

const refuses = (
  t: {
    fail(m: string): void;
    equal(a: unknown, b: unknown): void;
    match(a: string, b: RegExp): void;
  },
  read: () => unknown,
  words: string | RegExp,
) => {
  try {
    t.fail(`read ${JSON.stringify(read())}`);
  } catch (error) {
    const { message } = error as Error;
    if (typeof words === 'string') t.equal(message, words);
    else t.match(message, words);
  }
};

t.test('an init without wishes is filled with defaults', async (t) => {
  const wanted = {
    listenAddress: '0.0.0.0:2377',
    advertiseAddress: '',
    dataPathAddress: '',
    dataPathPort: 4789,
    defaultAddressPool: [],
    subnetSize: 24,
    forceNewCluster: false,
    autolock: false,
    availability: 'active',
    spec: DEFAULT_CLUSTER_SPEC,
  };
  t.same(readInit({}), wanted);
  const sent = {
    ListenAddr: '0.0.0.0:2377',
    Spec: {
      Labels: null,
      Orchestration: {},
      Raft: { ElectionTick: 0, HeartbeatTick: 0 },
      Dispatcher: {},
      CAConfig: {},
      TaskDefaults: {},
      EncryptionConfig: { AutoLockManagers: false },
    },
    DefaultAddrPool: [],
    SubnetSize: 24,
    SomethingNew: 1,
  };
  t.same(readInit(sent), wanted, 'as the CLI sends it');
});

t.test('an init keeps every wish', async (t) => {
  const init = readInit({
    ListenAddr: 'eth0:2400',
    AdvertiseAddr: 'eth0',
    DataPathAddr: '10.1.0.1',
    DataPathPort: 5000,
    DefaultAddrPool: ['10.20.0.0/16', 'fd00::/48'],
    SubnetSize: 26,
    ForceNewCluster: true,
    AutoLockManagers: true,
    Availability: 'drain',
    Spec: {
      Name: 'x',
      Labels: { a: 'b' },
      Orchestration: { TaskHistoryRetentionLimit: 0 },
      Raft: { SnapshotInterval: 7, KeepOldSnapshots: 1, ElectionTick: 20, HeartbeatTick: 2 },
      Dispatcher: { HeartbeatPeriod: 1_000_000_000 },
      CAConfig: { NodeCertExpiry: 315_360_000_000_000_000 },
    },
  });
  t.equal(init.dataPathPort, 5000);
  t.equal(init.availability, 'drain');
  t.same(init.defaultAddressPool, ['10.20.0.0/16', 'fd00::/48']);
  t.ok(init.autolock && init.spec.autolock && init.forceNewCluster);
  t.same(init.spec, {
    name: 'x',
    labels: { a: 'b' },
    taskHistoryRetentionLimit: 0,
    raft: {
      snapshotInterval: 7,
      keepOldSnapshots: 1,
      logEntriesForSlowFollowers: 500,
      electionTick: 20,
      heartbeatTick: 2,
    },
    dispatcherHeartbeatMs: 1000,
    nodeCertExpiryMs: 3650 * 86_400_000,
    ca: { forceRotate: 0, externalCas: [] },
    autolock: true,
  });
});

t.test('a malformed body is refused in one sentence that names the place', async (t) => {
  const cases: readonly (readonly [() => unknown, string | RegExp])[] = [
    [() => readInit([]), /^invalid request body: expected object, received array$/],
    [() => readInit('x'), /^invalid request body: expected object, received string$/],
    [() => readInit({ Spec: { Labels: 'x' } }), /^invalid value of Spec\.Labels: expected record/],
    [
      () => readInit({ Spec: { Raft: { ElectionTick: 1.5 } } }),
      'invalid value of Spec.Raft.ElectionTick: expected a whole number',
    ],
    [
      () => readInit({ DataPathPort: 80 }),
      'invalid value of DataPathPort: expected a port from 1024 to 49151',
    ],
    [
      () => readInit({ DefaultAddrPool: ['x'] }),
      /^invalid value of DefaultAddrPool\.0: expected an/,
    ],
    [() => readInit({ Availability: 'lazy' }), 'invalid Availability: "lazy"'],
    [
      () => readInit({ Spec: { CAConfig: { ExternalCAs: ['x'] } } }),
      /^invalid value of Spec\.CAConfig\.ExternalCAs\.0: expected object/,
    ],
    [() => readJoin({ RemoteAddrs: [] }), 'at least 1 RemoteAddr is required to join'],
    [() => readNodeSpec({ Role: 'king' }), 'invalid Role: "king"'],
    [() => readNodeSpec({}), 'invalid Role: ""'],
    [() => readNetworkSpec({}), /^invalid value of Name/],
    [() => readNetworkSpec({ Name: '' }), 'invalid value of Name: a network needs a name'],
    [() => readNetworkSpec({ Name: 'x', Driver: 'bridge' }), /overlay networks only, not "bridge"/],
    [() => readNetworkSpec({ Name: 'x', Scope: 'local' }), /scope swarm only/],
    [() => readNetworkSpec({ Name: 'x', ConfigOnly: true }), /configuration-only/],
    [
      () => readNetworkSpec({ Name: 'x', IPAM: { Config: [{ Subnet: '10.0.0.0/33' }] } }),
      'invalid subnet 10.0.0.0/33: not an address block in CIDR notation',
    ],
    [
      () =>
        readNetworkSpec({ Name: 'x', IPAM: { Config: [{ Subnet: '10.0.0.0/8', Gateway: 'g' }] } }),
      'invalid gateway g: not an IP address',
    ],
    [
      () => readAttach({ network: 'n', target: { kind: 'moon' } }),
      /^invalid value of target\.kind/,
    ],
    [
      () => readAttach({ network: 'n', target: { kind: 'host' }, ifname: 'a-name-that-is-long' }),
      'invalid value of ifname: expected an interface name of 1 to 15 bytes',
    ],
    [
      () => readAttach({ network: 'n', target: { kind: 'netns', path: 'relative' } }),
      'invalid value of target.path: expected an absolute path',
    ],
    [() => readDetach({}), /^say what to detach/],
    [() => readDetach({ host: false }), /^say what to detach/],
  ];
  for (const [read, words] of cases) refuses(t, read, words);
});

t.test('an update keeps what it does not name', async (t) => {
  const base = { ...DEFAULT_CLUSTER_SPEC, dispatcherHeartbeatMs: 7000, autolock: true };
  t.same(readClusterSpec({}, base), {
    spec: { ...base, labels: {} },
    root: { rootCa: false },
  });
  const update = readClusterSpec(
    {
      Orchestration: { TaskHistoryRetentionLimit: 3 },
      CAConfig: { ForceRotate: 1 },
      EncryptionConfig: { AutoLockManagers: false },
    },
    base,
  );
  t.same(update.root, { rootCa: true });
  t.equal(update.spec.ca?.forceRotate, 1);
  t.same(readClusterSpec({ CAConfig: {} }, update.spec).root, { rootCa: false });
  t.equal(readClusterSpec({}, update.spec).spec.ca?.forceRotate, 1, 'the counter is kept');
  t.equal(update.spec.taskHistoryRetentionLimit, 3);
  t.equal(update.spec.autolock, false);
  t.equal(update.spec.dispatcherHeartbeatMs, 7000);
});

t.test('a network keeps its options, its labels and its subnets', async (t) => {
  const spec = readNetworkSpec({
    Name: 'ov2',
    Driver: 'overlay',
    Internal: true,
    ConfigFrom: null,
    EnableIPv6: null,
    Options: { encrypted: '' },
    Labels: { a: 'b' },
    IPAM: {
      Driver: 'default',
      Options: {},
      Config: [
        {
          Subnet: '10.55.0.0/24',
          Gateway: '10.55.0.1',
          IPRange: '10.55.0.128/25',
          AuxiliaryAddresses: { router: '10.55.0.2' },
        },
        { Subnet: 'fd00::/64' },
      ],
    },
  });
  t.same(spec.ipam, [
    {
      subnet: '10.55.0.0/24',
      gateway: '10.55.0.1',
      ipRange: '10.55.0.128/25',
      auxAddresses: { router: '10.55.0.2' },
    },
    { subnet: 'fd00::/64' },
  ]);
  t.same(spec.driverOptions, { encrypted: '' });
  t.ok(spec.internal);
  t.notOk(spec.attachable);
  t.equal(readNetworkSpec({ Name: 'x', IPAM: null }).driver, 'overlay', 'without a driver');
});

t.test('nodes, attachments and detachments are read', async (t) => {
  const node: NodeSpec = {
    name: '',
    labels: { z: 'a' },
    role: 'worker',
    availability: 'drain',
  };
  t.same(readNodeSpec({ Labels: { z: 'a' }, Role: 'worker', Availability: 'drain' }), node);
  t.same(readAttach({ network: 'n', target: { kind: 'pid', pid: 1 }, ip: null }), {
    network: 'n',
    target: { kind: 'pid', pid: 1 },
    aliases: [],
  });
  t.same(readDetach({ network: 'n', netns: '/run/x', pid: null }), {
    network: 'n',
    netns: '/run/x',
  });
});

t.test('hostile member names stay members', async (t) => {
  const body = JSON.parse('{"Name":"x","Labels":{"__proto__":"1","constructor":"2"}}');
  const { labels } = readNetworkSpec(body);
  t.equal(Object.getPrototypeOf(labels), Object.getPrototypeOf({}));
  t.equal(labels['constructor'], '2');
});
