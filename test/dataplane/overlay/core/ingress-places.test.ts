import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import t from 'tap';
import {
  ingressAddress6,
  ingressSubnet6,
  ingressSubnets,
} from '../../../../src/dataplane/overlay/core/ingress-places.js';
import {
  decodeEndpointRecord,
  encodeEndpointRecord,
} from '../../../../src/dataplane/overlay/wire/endpoint-record.js';

const V4 = [{ subnet: '10.11.0.0/16' }];
const V6 = { subnet: 'fd00:1::/64' };

t.test(
  'a network without IPv6 gets a subnet of its own, and places in it end in their IPv4',
  async (t) => {
    const subnet = ingressSubnet6('n1', V4) ?? '';
    t.match(subnet, /^fd[0-9a-f:]+::\/64$/);
    t.equal(ingressSubnet6('n1', V4), subnet, 'every time');
    t.not(ingressSubnet6('n2', V4), subnet, 'another network has another');
    t.strictSame(ingressSubnets('n1', V4), ['10.11.0.0/16', subnet]);
    t.equal(ingressAddress6('n1', V4, ['10.11.0.5/16']), subnet.replace('::/64', '::a0b:5/64'));
    t.equal(ingressAddress6('n1', V4, []), undefined, 'without IPv4 there is nothing to end in');
  },
);

t.test('one with IPv6 gives its own addresses', async (t) => {
  t.equal(ingressSubnet6('n1', [...V4, V6]), undefined);
  t.strictSame(ingressSubnets('n1', [...V4, V6]), ['10.11.0.0/16', 'fd00:1::/64']);
  t.equal(ingressAddress6('n1', [...V4, V6], ['10.11.0.5/16', 'fd00:1::5/64']), undefined);
});

t.test(
  'addresses are valid in records, in their subnet, and those of two places differ',
  async (t) => {
    const id = fc.stringMatching(/^[a-z0-9]{1,25}$/);
    fc.assert(
      fc.property(id, fc.ipV4(), fc.ipV4(), (networkId, a, b) => {
        const place = (address: string) => ingressAddress6(networkId, V4, [`${address}/16`]) ?? '';
        const [[parsed], subnet] = [
          ipaddr.parseCIDR(place(a)),
          ipaddr.parseCIDR(ingressSubnet6(networkId, V4) ?? ''),
        ];
        const record = {
          version: 1 as const,
          networkId,
          vni: 1,
          mac: '02:42:0a:00:00:05',
          addresses: [`${a}/16`, place(a)],
          name: 'a',
          aliases: [],
          vtepAddress: '192.0.2.1',
          vtepPort: 4789,
          createdAtMs: 1,
          answersDatagrams: true,
          answersDatagrams6: true,
        };
        t.match(decodeEndpointRecord(encodeEndpointRecord(record)), record);
        return (
          parsed.range() === 'uniqueLocal' &&
          parsed.match(subnet as never) &&
          (place(a) === place(b)) === (a === b)
        );
      }),
    );
  },
);
