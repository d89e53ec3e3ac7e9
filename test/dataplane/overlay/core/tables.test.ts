import t from 'tap';
import {
  collectEndpoints,
  deriveTables,
  type OverlayInputs,
} from '../../../../src/dataplane/overlay/core/derive.js';
import {
  diffTables,
  fullUpdate,
  NOTHING_PUBLISHED,
} from '../../../../src/dataplane/overlay/core/diff.js';
import { ingressAddress6 } from '../../../../src/dataplane/overlay/core/ingress-places.js';
import { overlayMtuBytes } from '../../../../src/dataplane/overlay/core/mtu.js';
import { NO_TABLES, tablesDigest } from '../../../../src/dataplane/overlay/core/tables.js';
import { encodeEndpointRecord } from '../../../../src/dataplane/overlay/wire/endpoint-record.js';
import { parseMac } from '../../../../src/dataplane/wire/ethernet.js';
import { endpointOf, inputsOf, macOfEndpoint, portOf } from '../../../support/overlay.js';

const mac = (n: number) => parseMac(macOfEndpoint(n)) ?? 0;

t.test('encapsulation costs 50 bytes over IPv4 and 70 over IPv6, and 28 if sealed', async (t) => {
  const cases = [
    [1500, 'ipv4', 1450],
    [1500, 'ipv6', 1430],
    [9000, 'ipv4', 8950],
    [1330, 'ipv4', 1280],
    [1329, 'ipv4', undefined],
    [1350, 'ipv6', 1280],
    [1349, 'ipv6', undefined],
    [0, 'ipv4', undefined],
    [1500, 'ipv4', 1422, true],
    [1500, 'ipv6', 1402, true],
    [1357, 'ipv4', undefined, true],
  ] as const;
  for (const [underlay, family, want, isSealed = false] of cases)
    t.equal(overlayMtuBytes(underlay, family, isSealed), want, `${underlay} ${family}`);
});

t.test(
  'places on an ingress network of IPv4 have IPv6 addresses of its own, others have not',
  async (t) => {
    const subnets = [{ subnet: '10.0.1.0/24' }];
    const ofNetwork = (networkId: string) => ingressAddress6(networkId, subnets, ['10.0.1.2/24']);
    const [own = '', foreign = ''] = [ofNetwork('n1'), ofNetwork('n2')];
    const neighborsOf = (ingress: boolean, ...addresses: readonly string[]) => {
      const { tables, stats } = deriveTables(
        inputsOf({
          networks: [{ id: 'n1', vni: 4097, subnets, spec: { ingress } }],
          endpoints: [
            endpointOf('b', 2, { networkId: 'n1', addresses: ['10.0.1.2/24', ...addresses] }),
          ],
        }),
      );
      const { neighbors } = tables.segments.get(4097) ?? {};
      return [[...(neighbors?.keys() ?? [])], stats.addressInvalid];
    };
    t.strictSame(neighborsOf(true, own), [['10.0.1.2', own.replace('/64', '')], 0]);
    t.strictSame(neighborsOf(true), [['10.0.1.2'], 0], 'as nodes of other versions tell them');
    t.strictSame(neighborsOf(true, foreign), [['10.0.1.2'], 1], 'of another network');
    t.strictSame(neighborsOf(false, own), [['10.0.1.2'], 1]);
  },
);

t.test('who shares a sealed network with us has keys, and no foreign VTEP is in it', async (t) => {
  const [plain] = inputsOf({}).networks;
  const sealed = { id: 'sealed', vni: 4098, subnets: [{ subnet: '10.0.2.0/24' }], isSealed: true };
  const { tables, stats } = deriveTables(
    inputsOf({
      networks: [plain as never, sealed],
      endpoints: [
        endpointOf('b', 2),
        endpointOf('c', 3, { networkId: 'sealed', vni: 4098, addresses: ['10.0.2.3/24'] }),
      ],
      staticVteps: [
        { vni: 4098, address: '203.0.113.1', udpPort: 4789, macs: [macOfEndpoint(9)], flood: true },
      ],
    }),
  );
  t.strictSame([...tables.sealPeers], [['192.0.2.99 4789', 'c']]);
  t.equal(tables.segments.get(4098)?.isSealed, true);
  t.equal(tables.segments.get(4098)?.mtuBytes, 1422);
  t.strictSame(tables.segments.get(4098)?.floodList, ['192.0.2.99 4789']);
  t.equal(tables.segments.get(4097)?.isSealed, false);
  t.equal(stats.staticUnsealed, 1);
});

t.test('an endpoint of another node is behind its VTEP, one of ours at its port', async (t) => {
  const { tables, stats } = deriveTables(
    inputsOf({ ports: [portOf(1)], endpoints: [endpointOf('b', 2), endpointOf('c', 3)] }),
  );
  const segment = tables.segments.get(4097);
  t.strictSame(segment?.fdb.get(mac(1) as never), {
    vtep: '192.0.2.1 4789',
    port: 'port-1',
    isStatic: false,
  });
  t.equal(segment?.fdb.get(mac(2) as never)?.vtep, '192.0.2.98 4789');
  t.equal(segment?.neighbors.get('10.0.1.2'), mac(2));
  t.equal(segment?.neighbors.get('fd00:1::3'), mac(3));
  t.strictSame(segment?.floodList, ['192.0.2.98 4789', '192.0.2.99 4789']);
  t.strictSame(segment?.senders, ['192.0.2.98', '192.0.2.99']);
  t.equal(segment?.mtuBytes, 1450);
  t.ok(Object.values(stats).every((count) => count === 0));
});

t.test('what is left out is counted by its reason', async (t) => {
  const cases: readonly (readonly [
    string,
    Partial<OverlayInputs>,
    keyof ReturnType<typeof deriveTables>['stats'],
  ])[] = [
    ['owner is dead', { members: [{ id: 'b', state: 'dead' }] }, 'suspended'],
    ['owner has left', { members: [{ id: 'b', state: 'left' }] }, 'suspended'],
    ['owner is no member', { members: [] }, 'ownerUnknown'],
    ['network is not ours', { networks: [] }, 'networkUnknown'],
    ["VNI is not the network's", { endpoints: [endpointOf('b', 2, { vni: 5000 })] }, 'vniMismatch'],
    [
      'our VTEP is claimed',
      { endpoints: [endpointOf('b', 2, { vtepAddress: '192.0.2.1' })] },
      'vtepClaimed',
    ],
    ['underlay is too narrow', { underlayMtuBytes: 1000 }, 'refused'],
  ];
  for (const [name, change, reason] of cases) {
    const { tables, stats } = deriveTables(
      inputsOf({ endpoints: [endpointOf('b', 2)], ...change }),
    );
    t.equal(stats[reason], 1, name);
    t.equal(tables.segments.get(4097)?.fdb.size ?? 0, 0, name);
  }
});

t.test('a suspect owner still counts, since suspicion is no verdict', async (t) => {
  const { tables } = deriveTables(
    inputsOf({ members: [{ id: 'b', state: 'suspect' }], endpoints: [endpointOf('b', 2)] }),
  );
  t.equal(tables.segments.get(4097)?.fdb.size, 1);
});

t.test("an address outside of the network's subnets is nobody's", async (t) => {
  const addresses = ['10.0.1.2/24', '10.9.9.9/24', 'fd99::1/64'];
  const { tables, stats } = deriveTables(
    inputsOf({ endpoints: [endpointOf('b', 2, { addresses })] }),
  );
  t.strictSame([...(tables.segments.get(4097)?.neighbors.keys() ?? [])], ['10.0.1.2']);
  t.equal(stats.addressInvalid, 2);
});

t.test('of two claims the older wins, then the smaller owner, on every node', async (t) => {
  const older = endpointOf('c', 2, { createdAtMs: 1 });
  const younger = endpointOf('b', 2, { createdAtMs: 2 });
  const level = endpointOf('b', 2, { createdAtMs: 1 });
  const owner = (endpoints: OverlayInputs['endpoints']) => {
    const { tables, stats } = deriveTables(inputsOf({ endpoints }));
    t.equal(stats.macConflicts, 1);
    return tables.segments.get(4097)?.fdb.get(mac(2) as never)?.vtep;
  };
  t.equal(owner([older, younger]), '192.0.2.99 4789');
  t.equal(owner([younger, older]), '192.0.2.99 4789');
  t.equal(owner([older, level]), '192.0.2.98 4789');
  t.equal(owner([level, older]), '192.0.2.98 4789');
});

t.test('who loses an address keeps its MAC; who loses its MAC loses all', async (t) => {
  const first = endpointOf('b', 2, { createdAtMs: 1 });
  const sameAddress = endpointOf('c', 3, { createdAtMs: 2, addresses: ['10.0.1.2/24'] });
  const sameMac = endpointOf('c', 4, { createdAtMs: 3, mac: macOfEndpoint(2) });
  const { tables, stats } = deriveTables(inputsOf({ endpoints: [sameMac, sameAddress, first] }));
  const segment = tables.segments.get(4097);
  t.equal(segment?.neighbors.get('10.0.1.2'), mac(2));
  t.ok(segment?.fdb.has(mac(3) as never));
  t.notOk(segment?.neighbors.has('10.0.1.4'));
  t.equal(stats.addressConflicts, 1);
  t.equal(stats.macConflicts, 1);
});

t.test('a local port that loses its MAC to an older endpoint stays a port', async (t) => {
  const { tables } = deriveTables(
    inputsOf({ ports: [portOf(2)], endpoints: [endpointOf('b', 2, { createdAtMs: 0 })] }),
  );
  t.equal(tables.segments.get(4097)?.fdb.get(mac(2) as never)?.port, undefined);
  t.ok(tables.ports.has('port-2'));
});

t.test('a static VTEP may send, is flooded if asked, and takes only free MACs', async (t) => {
  const staticVteps = [
    {
      vni: 4097,
      address: '203.0.113.1',
      udpPort: 8472,
      macs: [macOfEndpoint(2), macOfEndpoint(9)],
      flood: true,
    },
    { vni: 4097, address: '203.0.113.2', udpPort: 4789, macs: [], flood: false },
    { vni: 9999, address: '203.0.113.3', udpPort: 4789, macs: [], flood: true },
  ];
  const { tables, stats } = deriveTables(
    inputsOf({ endpoints: [endpointOf('b', 2)], staticVteps }),
  );
  const segment = tables.segments.get(4097);
  t.equal(segment?.fdb.get(mac(2) as never)?.vtep, '192.0.2.98 4789');
  t.strictSame(segment?.fdb.get(mac(9) as never), {
    vtep: '203.0.113.1 8472',
    port: undefined,
    isStatic: true,
  });
  t.strictSame(segment?.floodList, ['192.0.2.98 4789', '203.0.113.1 8472']);
  t.strictSame(segment?.senders, ['192.0.2.98', '203.0.113.1', '203.0.113.2']);
  t.equal(stats.macConflicts, 1);
  t.equal(stats.networkUnknown, 1);
});

t.test('the digest is of what nodes must agree on, not of who asks', async (t) => {
  const networks = inputsOf({}).networks;
  const onA = deriveTables(
    inputsOf({ ports: [portOf(1)], endpoints: [endpointOf('b', 2)] }),
  ).tables;
  const onB = deriveTables({
    ...inputsOf({
      networks,
      endpoints: [endpointOf('a', 1, { vtepAddress: '192.0.2.1' })],
      ports: [portOf(2)],
    }),
    self: { id: 'b', vtep: { address: '192.0.2.98', udpPort: 4789 } },
  }).tables;
  t.equal(tablesDigest(onA, 4097), tablesDigest(onB, 4097));
  const withStatic = deriveTables(
    inputsOf({
      ports: [portOf(1)],
      endpoints: [endpointOf('b', 2)],
      staticVteps: [
        { vni: 4097, address: '203.0.113.1', udpPort: 1, macs: [macOfEndpoint(9)], flood: true },
      ],
    }),
  ).tables;
  t.equal(tablesDigest(withStatic, 4097), tablesDigest(onA, 4097));
  const another = deriveTables(inputsOf({ ports: [portOf(1)] })).tables;
  t.not(tablesDigest(another, 4097), tablesDigest(onA, 4097));
  t.match(tablesDigest(NO_TABLES, 1), /^[0-9a-f]{16}$/);
});

t.test('an update holds what changed, and nothing when nothing did', async (t) => {
  const before = deriveTables(
    inputsOf({ ports: [portOf(1)], endpoints: [endpointOf('b', 2)] }),
  ).tables;
  const first = diffTables(NOTHING_PUBLISHED, before);
  t.equal(first.update.fdbSet.length, 2);
  t.equal(first.update.neighborsSet.length, 4);
  t.strictSame(structuredClone(first.update), first.update, 'it can be posted');

  const again = diffTables(first.published, before).update;
  const isEmpty = Object.values(again).every((v) => v === undefined || v.length === 0);
  t.ok(isEmpty, 'nothing changed');

  const after = deriveTables(
    inputsOf({ ports: [portOf(1)], endpoints: [endpointOf('c', 3)] }),
  ).tables;
  const { update, published } = diffTables(first.published, after);
  t.strictSame(update.fdbRemoved, [{ vni: 4097, mac: mac(2) }]);
  t.strictSame(update.vtepsRemoved, [0]);
  t.strictSame(
    update.vtepsSet.map(({ index, address }) => [index, address]),
    [[1, '192.0.2.99']],
  );
  t.strictSame(update.segmentsSet, [
    { vni: 4097, mtuBytes: 1450, hasReturns: false, isSealed: false, floodList: [1] },
  ]);
  t.equal(update.portsSet.length, 0);
  t.equal(published.portIndexes.get('port-1'), 0);
});

t.test('indexes of what stays do not change, and free ones are used again, later', async (t) => {
  const tablesOf = (...owners: string[]) =>
    deriveTables(inputsOf({ endpoints: owners.map((owner, i) => endpointOf(owner, i + 2)) }))
      .tables;
  let published = diffTables(NOTHING_PUBLISHED, tablesOf('b', 'c')).published;
  t.strictSame([...published.vtepIndexes.values()], [0, 1]);
  published = diffTables(published, tablesOf('d', 'c')).published;
  t.equal(published.vtepIndexes.get('192.0.2.99 4789'), 1);
  t.equal(published.vtepIndexes.get('192.0.2.100 4789'), 2, 'index 0 rests for one update');
  published = diffTables(published, tablesOf('d', 'c', 'b')).published;
  t.equal(published.vtepIndexes.get('192.0.2.98 4789'), 0);
  const full = fullUpdate(published);
  t.strictSame(full.vtepsSet.map(({ index }) => index).sort(), [0, 1, 2]);
});

t.test('records that do not decode are counted', async (t) => {
  const { record } = endpointOf('b', 2);
  const { endpoints, malformed } = collectEndpoints([
    { owner: 'b', value: encodeEndpointRecord(record) },
    { owner: 'c', value: Buffer.from('nonsense') },
  ]);
  t.equal(malformed, 1);
  t.strictSame(endpoints, [{ owner: 'b', record }]);
});
