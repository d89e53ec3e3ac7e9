import fc from 'fast-check';
import t from 'tap';
import { parseBindTo } from '../../../../src/base/access-labels.js';
import { PLACES_MAX, placesOf } from '../../../../src/dataplane/ingress/core/bind.js';

const OWN = [
  { address: '127.0.0.1', ifname: 'lo' },
  { address: '::1', ifname: 'lo' },
  { address: '192.0.2.1', ifname: 'eth0' },
  { address: '2001:db8::1', ifname: 'eth0' },
  { address: 'fe80::1%eth0', ifname: 'eth0' },
  { address: '10.1.2.3', ifname: 'eth1' },
  { address: '10.1.2.3', ifname: 'eth2' },
];

t.test('a port is bound to the addresses that the node has of those that are named', async (t) => {
  for (const [text, want] of [
    ['127.0.0.1', ['127.0.0.1']],
    ['10.0.0.0/8', ['10.1.2.3']],
    ['eth0', ['192.0.2.1', '2001:db8::1', 'fe80::1%eth0']],
    ['eth2,::1', ['10.1.2.3', '::1']],
    ['fe80::/10', ['fe80::1%eth0']],
    ['0.0.0.0', ['10.1.2.3', '127.0.0.1', '192.0.2.1']],
    ['::', ['2001:db8::1', '::1', 'fe80::1%eth0']],
    ['198.51.100.0/24,eth9', []],
  ] as const)
    t.strictSame(placesOf(parseBindTo(text), OWN), { places: want, leftOut: 0 }, text);
  t.strictSame(placesOf(undefined, OWN), { places: ['::'], leftOut: 0 });
});

t.test('there are at most so many, the same ones whatever the order', async () => {
  const all = Array.from({ length: 200 }, (_, i) => ({ address: `10.0.0.${i}`, ifname: 'eth0' }));
  const inOrder = placesOf(parseBindTo('eth0'), all);
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: 200 }), (own) => {
      const { places, leftOut } = placesOf(parseBindTo('10.0.0.0/24'), own);
      return (
        places.length === PLACES_MAX &&
        leftOut === 200 - PLACES_MAX &&
        places.join() === inOrder.places.join()
      );
    }),
  );
});
