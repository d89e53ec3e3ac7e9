import fc from 'fast-check';
import t from 'tap';
import type { NetworkSpec, SubnetSpec } from '../../../../src/base/swarm-model.js';
import { macOf } from '../../../../src/control/store/core/addresses.js';
import {
  type Cidr,
  contains,
  networkOf,
  overlaps,
  parseAddress,
  parseCidr,
} from '../../../../src/control/store/core/ip.js';
import { Bench, clusterCreate, networkId, networkSpec, node, nodeId } from '../../support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

const create = (id: number, more: Partial<NetworkSpec>) =>
  ({ kind: 'network_create', id: networkId(id), spec: networkSpec(`net${id}`, more) }) as const;

t.test('VNIs and subnets are given out in order, the first ones to ingress', async (t) => {
  const bench = new Bench();
  bench.network(1, { ingress: true, attachable: false }, 'ingress');
  for (const id of [2, 3, 4]) bench.network(id);
  bench.do({ kind: 'network_remove', ref: networkId(3) });
  bench.network(5);
  const got = [...bench.state.rows('network')].map(({ spec, vni, subnets }) => [
    spec.name,
    vni,
    subnets[0]?.subnet,
    subnets[0]?.gateway,
  ]);
  t.strictSame(got, [
    ['ingress', 4096, '10.0.0.0/24', '10.0.0.1'],
    ['net2', 4097, '10.0.1.0/24', '10.0.1.1'],
    ['net4', 4099, '10.0.3.0/24', '10.0.3.1'],
    ['net5', 4098, '10.0.2.0/24', '10.0.2.1'],
  ]);
});

t.test('what a network asks for is judged in one sentence', async (t) => {
  const ipam = (...specs: SubnetSpec[]) => ({ ipam: specs });
  const option = (key: string, value: string) => ({ driverOptions: { [key]: value } });
  const mtu = 'com.docker.network.driver.mtu';
  const vnis = 'com.docker.network.driver.overlay.vxlanid_list';
  const cases: readonly (readonly [Partial<NetworkSpec>, string, RegExp])[] = [
    [
      ipam({ subnet: 'nonsense' }),
      'SWARM_INVALID',
      /^invalid subnet nonsense: invalid CIDR block notation$/,
    ],
    [ipam({ subnet: '10.9.0.0' }), 'SWARM_INVALID', /invalid CIDR/],
    [ipam({ subnet: '010.9.0.0/24' }), 'SWARM_INVALID', /invalid CIDR/],
    [ipam({ subnet: '10.9.0.0/33' }), 'SWARM_INVALID', /invalid CIDR/],
    [ipam({ subnet: '10.9.0.1/24' }), 'SWARM_INVALID', /it should be 10\.9\.0\.0\/24$/],
    [ipam({ subnet: '10.9.0.0/31' }), 'SWARM_INVALID', /too small/],
    [
      ipam({ subnet: '10.0.0.128/25' }),
      'SWARM_INVALID',
      /^Pool overlaps with other one on this address space$/,
    ],
    [ipam({ subnet: '10.0.0.0/16' }), 'SWARM_INVALID', /^Pool overlaps/],
    [ipam({ subnet: '10.9.0.0/24' }, { subnet: '10.9.0.0/25' }), 'SWARM_INVALID', /^Pool overlaps/],
    [
      ipam({ subnet: '10.9.0.0/24', gateway: '10.8.0.1' }),
      'SWARM_INVALID',
      /^no matching subnet for gateway 10\.8\.0\.1$/,
    ],
    [
      ipam({ subnet: '10.9.0.0/24', gateway: '10.9.0.255' }),
      'SWARM_INVALID',
      /network or broadcast/,
    ],
    [ipam({ subnet: '', gateway: '10.8.0.1' }), 'SWARM_INVALID', /^no matching subnet for gateway/],
    [
      ipam({ subnet: '10.9.0.0/24', ipRange: '10.8.0.0/25' }),
      'SWARM_INVALID',
      /^no matching subnet for range 10\.8\.0\.0\/25$/,
    ],
    [
      ipam({ subnet: '10.9.0.0/24', ipRange: '10.9.0.0/16' }),
      'SWARM_INVALID',
      /^no matching subnet for range/,
    ],
    [
      ipam({ subnet: '10.9.0.0/24', auxAddresses: { a: '10.8.0.9' } }),
      'SWARM_INVALID',
      /^no matching subnet for aux-address/,
    ],
    [
      ipam({ subnet: '10.9.0.0/24', gateway: '10.9.0.9', auxAddresses: { a: '10.9.0.9' } }),
      'SWARM_INVALID',
      /is the gateway/,
    ],
    [ipam({ subnet: 'fd00::/64' }), 'SWARM_INVALID', /--ipv6$/],
    [option(mtu, '67'), 'SWARM_INVALID', /68 to 65535$/],
    [option(mtu, '65536'), 'SWARM_INVALID', /invalid MTU/],
    [option(mtu, '1400.5'), 'SWARM_INVALID', /invalid MTU/],
    [option(mtu, ''), 'SWARM_INVALID', /invalid MTU/],
    [option('encrypted', 'yes'), 'SWARM_INVALID', /^invalid value yes of option encrypted/],
    [option(vnis, '4096'), 'SWARM_INVALID', /already used by network net1/],
    [option(vnis, '0'), 'SWARM_INVALID', /1 to 16777215/],
    [option(vnis, '16777216'), 'SWARM_INVALID', /1 to 16777215/],
    [option(vnis, '5,6'), 'SWARM_UNSUPPORTED', /one VNI/],
    [{ driver: 'macvlan' }, 'SWARM_INVALID', /driver macvlan/],
    [{ ipamDriver: 'dhcp' }, 'SWARM_INVALID', /IPAM driver dhcp/],
    [
      { ingress: true, attachable: false },
      'SWARM_INVALID',
      /^ingress network \(0+1\) is already present$/,
    ],
    [{ ingress: true }, 'SWARM_INVALID', /cannot be attachable/],
    [{ labels: { a: 'x'.repeat(70_000) } }, 'SWARM_INVALID', /too large/],
    [{ name: '' }, 'SWARM_INVALID', /name must be provided/],
    [{ name: '-a' }, 'SWARM_INVALID', /DNS name component/],
    [{ name: `${'a'.repeat(60)}!` }, 'SWARM_INVALID', /DNS name component/],
    [{ name: 'a'.repeat(64) }, 'SWARM_INVALID', /63 characters/],
    [{ name: 'net1' }, 'SWARM_NAME_TAKEN', /^network with name net1 already exists$/],
  ];
  const bench = new Bench();
  bench.network(1, { ingress: true, attachable: false });
  for (const [more, code, message] of cases) {
    const refusal = bench.refusal(create(2, more));
    t.equal(refusal?.code, code, JSON.stringify(more));
    t.match(refusal?.message, message);
  }
});

t.test('what is allowed is kept as asked', async (t) => {
  const bench = new Bench();
  bench.network(1, {
    ipv6: true,
    ipam: [
      { subnet: 'fd00:1::/64' },
      {
        subnet: '10.9.0.0/24',
        gateway: '10.9.0.254',
        ipRange: '10.9.0.64/28',
        auxAddresses: { a: '10.9.0.65' },
      },
      { subnet: '10.8.0.0/24' },
    ],
    driverOptions: {
      'com.docker.network.driver.mtu': '1400',
      'com.docker.network.driver.overlay.vxlanid_list': '256',
      encrypted: 'false',
    },
  });
  const network = bench.state.row('network', networkId(1));
  t.equal(network?.vni, 256);
  t.equal(network?.mtuBytes, 1400);
  t.strictSame(
    network?.subnets.map((one) => [one.subnet, one.gateway]),
    [
      ['10.9.0.0/24', '10.9.0.254'],
      ['10.8.0.0/24', '10.8.0.1'],
      ['fd00:1::/64', 'fd00:1::1'],
    ],
  );
  bench.network(2, { ipv6: true });
  bench.network(3, { ipv6: true });
  t.equal(bench.state.row('network', networkId(2))?.subnets[1]?.subnet, 'fd12:3456:789a::/64');
  t.equal(bench.state.row('network', networkId(3))?.subnets[1]?.subnet, 'fd12:3456:789a:1::/64');
});

t.test('addresses: next fit inside the range, reserved ones never, wishes checked', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'node_create', node: node(nodeId(1)) });
  bench.network(1, {
    ipv6: true,
    ipam: [{ subnet: '10.9.0.0/29', auxAddresses: { router: '10.9.0.3' } }],
  });
  const addresses = (id: string) => bench.state.row('attachment', id)?.addresses;
  const a = bench.attach('a', 'net1');
  t.strictSame(addresses(a), ['10.9.0.2/29', 'fd12:3456:789a::2/64']);
  t.equal(bench.state.row('attachment', a)?.mac, '02:42:0a:09:00:02');
  const b = bench.attach('b', 'net1');
  t.equal(addresses(b)?.[0], '10.9.0.4/29', 'the auxiliary address is skipped');
  bench.do({ kind: 'attachment_remove', id: a as never });
  t.equal(addresses(bench.attach('c', 'net1'))?.[0], '10.9.0.5/29', 'not the one just released');
  t.equal(addresses(bench.attach('d', 'net1'))?.[0], '10.9.0.6/29');
  t.equal(addresses(bench.attach('e', 'net1'))?.[0], '10.9.0.2/29', 'from the lowest again');

  const wish = (address: string) => {
    try {
      bench.attach('f', 'net1', { addresses: [address] });
      return undefined;
    } catch (error) {
      return (error as Error).message;
    }
  };
  t.match(wish(''), /no available IPv4 address|invalid address/);
  t.equal(wish('10.1.1.1'), 'address 10.1.1.1 is not in a subnet of network net1');
  t.equal(wish('10.9.0.7'), 'address 10.9.0.7 is not in a subnet of network net1', 'broadcast');
  t.equal(wish('10.9.0.1'), 'address 10.9.0.1 is the gateway of network net1');
  t.equal(wish('10.9.0.3'), 'address 10.9.0.3 is the auxiliary address router of network net1');
  t.match(wish('10.9.0.4'), /^address 10\.9\.0\.4 is already in use by task 0+b \(nb\)$/);
  const full = t.throws(() => bench.attach('g', 'net1')) as unknown as Error;
  t.match(full.message, /no available IPv4 address is left on network net1/);
  bench.network(2);
  const held = bench.attach('h', 'net2', { addresses: ['10.0.0.77'] });
  t.strictSame(addresses(held), ['10.0.0.77/24']);
  t.strictSame(addresses(bench.attach('i', 'net2')), ['10.0.0.2/24'], 'a wish moves no cursor');
});

t.test('a MAC comes from the address', async (t) => {
  t.equal(macOf('255.254.1.2'), '02:42:ff:fe:01:02');
  t.match(macOf('fd00::1'), /^02:42(:[0-9a-f]{2}){4}$/);
  t.not(macOf('fd00::1'), macOf('fd00::2'));
  t.not(macOf('fd00::1'), macOf('fd00::1', 1));
});

t.test('pools run out with a clear word', async (t) => {
  const bench = new Bench(clusterCreate(['10.1.0.0/30', '10.2.0.0/29'], 30));
  for (const id of [1, 2, 3]) bench.network(id);
  t.strictSame(
    [...bench.state.rows('network')].map((one) => one.subnets[0]?.subnet),
    ['10.1.0.0/30', '10.2.0.0/30', '10.2.0.4/30'],
  );
  t.equal(bench.refusal(create(4, {}))?.code, 'SWARM_EXHAUSTED');
});

const action = fc.oneof(
  fc.record({
    do: fc.constant('network' as const),
    ipv6: fc.boolean(),
    explicit: fc.option(fc.record({ third: fc.nat(15), prefix: fc.integer({ min: 20, max: 30 }) })),
  }),
  fc.record({ do: fc.constant('unnetwork' as const), pick: fc.nat() }),
  fc.record({ do: fc.constant('attach' as const), pick: fc.nat(), host: fc.option(fc.nat(300)) }),
  fc.record({ do: fc.constant('detach' as const), pick: fc.nat() }),
);

t.test('no two subnets, VNIs, addresses or MACs ever collide, whatever the order', async (t) => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      const bench = new Bench(clusterCreate(['10.0.0.0/21'], 28));
      bench.do({ kind: 'node_create', node: node(nodeId(1)) });
      let serial = 0;
      for (const step of actions) {
        serial++;
        const networks = [...bench.state.rows('network')];
        const attachments = [...bench.state.rows('attachment')];
        try {
          if (step.do === 'network') {
            const subnet = step.explicit && `10.0.${step.explicit.third}.0/${step.explicit.prefix}`;
            bench.network(serial, { ipv6: step.ipv6, ipam: subnet ? [{ subnet }] : [] });
          } else if (step.do === 'unnetwork' && networks.length > 0) {
            const { id } = networks[step.pick % networks.length]!;
            bench.do({ kind: 'network_remove', ref: id });
          } else if (step.do === 'attach' && networks.length > 0) {
            const { id, subnets } = networks[step.pick % networks.length]!;
            const base = subnets[0]!.subnet.split('.').slice(0, 3).join('.');
            const addresses = step.host === null ? [] : [`${base}.${step.host}`];
            bench.attach(serial, id, { addresses });
          } else if (step.do === 'detach' && attachments.length > 0) {
            bench.do({
              kind: 'attachment_remove',
              id: attachments[step.pick % attachments.length]!.id,
            });
          }
        } catch (error) {
          if (!String((error as { code?: string }).code).startsWith('SWARM_')) throw error;
        }
      }
      return isSound(bench);
    }),
    { numRuns: 60 * FUZZ_FACTOR },
  );
  t.pass('held');
});

function isSound(bench: Bench): boolean {
  const networks = [...bench.state.rows('network')];
  const blocks = networks.flatMap(({ subnets }) =>
    subnets.map((one) => parseCidr(one.subnet) as Cidr),
  );
  const disjoint = blocks.every((a, i) => blocks.every((b, j) => i === j || !overlaps(a, b)));
  const canonical = blocks.every((block) => networkOf(block).value === block.value);
  const vnis = new Set(networks.map(({ vni }) => vni)).size === networks.length;
  return (
    disjoint &&
    canonical &&
    vnis &&
    networks.every((network) => {
      const held = [...bench.state.rows('attachment')].filter(
        (one) => one.networkId === network.id,
      );
      const addresses = held.flatMap((one) =>
        one.addresses.map((text) => text.split('/')[0] ?? ''),
      );
      const inside = addresses.every((text) => {
        const address = parseAddress(text);
        return network.subnets.some(({ subnet, gateway }) => {
          const block = parseCidr(subnet);
          return (
            address !== undefined &&
            block !== undefined &&
            contains(block, address) &&
            text !== gateway
          );
        });
      });
      const indexed = bench.state.addressesOn(network.id).size === addresses.length;
      return (
        inside &&
        indexed &&
        new Set(addresses).size === addresses.length &&
        new Set(held.map((one) => one.mac)).size === held.length
      );
    })
  );
}
