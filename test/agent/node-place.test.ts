import t from 'tap';
import type { HostAddress } from '../../src/agent/addresses.js';
import { readdressed, resolveAddresses } from '../../src/agent/node-place.js';

const host = (...addresses: readonly string[]): HostAddress[] =>
  addresses.map((address) => ({
    interfaceName: 'eth0',
    address,
    family: address.includes(':') ? 'IPv6' : 'IPv4',
    loopback: false,
  }));

const NOTHING_SAID = { listenAddress: '', advertiseAddress: '', dataPathAddress: '' };
const savedOf = (wishes: Partial<typeof NOTHING_SAID>, at: readonly HostAddress[]) => ({
  ...resolveAddresses({ ...NOTHING_SAID, ...wishes }, at),
  managers: [],
  manager: true,
});

t.test('without a word, a node takes the only address of its host', async (t) => {
  t.strictSame(resolveAddresses(NOTHING_SAID, host('192.0.2.1')), {
    listen: { address: '0.0.0.0', port: 2377 },
    advertise: { address: '192.0.2.1', port: 2377 },
    dataPathAddress: '192.0.2.1',
  });
  t.match(resolveAddresses(NOTHING_SAID, host('2001:db8::1')), {
    listen: { address: '::' },
    advertise: { address: '2001:db8::1' },
  });
  t.throws(() => resolveAddresses(NOTHING_SAID, host('192.0.2.1', '192.0.2.2')), {
    code: 'SWARM_AMBIGUOUS_ADDRESS',
  });
});

t.test('a host that has moved gives its node the new address', async (t) => {
  const saved = savedOf({}, host('192.0.2.1'));
  t.equal(readdressed(saved, host('192.0.2.1')), saved, 'nothing has changed');
  t.match(readdressed(saved, host('192.0.2.9')), {
    advertise: { address: '192.0.2.9', port: 2377 },
    dataPathAddress: '192.0.2.9',
  });
  t.equal(readdressed(saved, host('192.0.2.8', '192.0.2.9')), saved, 'which of them?');
  t.equal(readdressed(saved, []), saved, 'the network is not up yet');
});

t.test('an address that was given and is here follows the host, too', async (t) => {
  const saved = savedOf({ advertiseAddress: '192.0.2.1:5000' }, host('192.0.2.1', '192.0.2.2'));
  t.match(readdressed(saved, host('192.0.2.9')), {
    advertise: { address: '192.0.2.9', port: 5_000 },
  });
});

t.test('an address that leads here from elsewhere stays', async (t) => {
  const saved = savedOf({ advertiseAddress: '203.0.113.5' }, host('192.0.2.1'));
  t.equal(saved.advertiseGiven, true);
  t.equal(readdressed(saved, host('192.0.2.1')), saved);
  t.equal(readdressed(saved, host('192.0.2.9')), saved);
});
