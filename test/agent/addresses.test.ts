import t from 'tap';
import {
  defaultAdvertiseAddress,
  formatHostPort,
  type HostAddress,
  localAddressOf,
  parseRemote,
  resolveAddress,
} from '../../src/agent/addresses.js';

const HOST: readonly HostAddress[] = [
  { interfaceName: 'lo', address: '127.0.0.1', family: 'IPv4', loopback: true },
  { interfaceName: 'eth0', address: '10.1.0.5', family: 'IPv4', loopback: false },
  { interfaceName: 'eth0', address: 'fe80::1', family: 'IPv6', loopback: false },
  { interfaceName: 'six0', address: 'fd00::5', family: 'IPv6', loopback: false },
  { interfaceName: 'two0', address: '10.2.0.5', family: 'IPv4', loopback: false },
  { interfaceName: 'two0', address: '10.2.0.6', family: 'IPv4', loopback: false },
];

t.test('every form of an address option is read', async (t) => {
  const cases = [
    ['10.1.0.5', '10.1.0.5:2377'],
    ['10.1.0.5:2400', '10.1.0.5:2400'],
    ['eth0', '10.1.0.5:2377'],
    ['eth0:2400', '10.1.0.5:2400'],
    ['six0', '[fd00::5]:2377'],
    ['fd00::5', '[fd00::5]:2377'],
    ['[fd00:0::5]:2400', '[fd00::5]:2400'],
    ['1.2.3.4', '1.2.3.4:2377'],
  ] as const;
  for (const [text, want] of cases) {
    t.equal(formatHostPort(resolveAddress(text, 'advertise', 2377, HOST)), want, text);
  }
});

t.test('what is no address is refused by its kind', async (t) => {
  for (const text of [
    '',
    'eth9',
    '0.0.0.0',
    '::',
    '10.1.0.5:0',
    '10.1.0.5:x',
    '10.1.0.5:70000',
    '300.1.1.1',
    '10.1',
  ]) {
    t.throws(
      () => resolveAddress(text, 'advertise', 2377, HOST),
      { code: 'SWARM_BAD_ADDRESS' },
      `'${text}'`,
    );
  }
  t.throws(() => resolveAddress('two0', 'advertise', 2377, HOST), {
    code: 'SWARM_AMBIGUOUS_ADDRESS',
  });
  t.equal(
    resolveAddress('0.0.0.0', 'listen', 2377, HOST).address,
    '0.0.0.0',
    'listening everywhere is fine',
  );
});

t.test('the only address is advertised, and a choice is asked for', async (t) => {
  const everywhere = { address: '0.0.0.0', port: 2377 };
  t.equal(defaultAdvertiseAddress(everywhere, HOST.slice(0, 4)), '10.1.0.5', 'IPv4 before IPv6');
  t.equal(defaultAdvertiseAddress(everywhere, HOST.slice(3, 4)), 'fd00::5');
  t.equal(defaultAdvertiseAddress({ address: '10.2.0.6', port: 1 }, HOST), '10.2.0.6');
  t.throws(() => defaultAdvertiseAddress(everywhere, HOST), { code: 'SWARM_AMBIGUOUS_ADDRESS' });
  t.throws(() => defaultAdvertiseAddress(everywhere, HOST.slice(0, 1)), {
    code: 'SWARM_AMBIGUOUS_ADDRESS',
  });
});

t.test('a manager is named by address or host name, with the port defaulted', async (t) => {
  t.strictSame(parseRemote('10.1.0.5'), { address: '10.1.0.5', port: 2377 });
  t.strictSame(parseRemote('manager.example:2400'), { address: 'manager.example', port: 2400 });
  t.throws(() => parseRemote('10.1.0.5:x'), { code: 'SWARM_BAD_ADDRESS' });
});

t.test('a host reaches its own listener on loopback, or where it listens', async (t) => {
  const cases = [
    ['0.0.0.0', '127.0.0.1'],
    ['::', '::1'],
    ['10.1.0.5', '10.1.0.5'],
  ] as const;
  for (const [address, want] of cases)
    t.strictSame(localAddressOf({ address, port: 4000 }), { address: want, port: 4000 });
});
