import type { NetworkInterfaceInfo } from 'node:os';
import t from 'tap';
import { hostAddresses, INGRESS_IFNAME } from '../../src/agent/facts.js';

const at = (address: string): NetworkInterfaceInfo => ({
  address,
  family: 'IPv4',
  internal: address.startsWith('127.'),
  netmask: '255.255.255.0',
  mac: '02:42:0a:00:00:02',
  cidr: `${address}/24`,
});

t.test("the agent's own interfaces are no way to this host", async (t) => {
  const host = hostAddresses({
    lo: [at('127.0.0.1')],
    eth0: [at('192.0.2.1')],
    [INGRESS_IFNAME]: [at('10.0.0.2')],
    'shoal-out': [at('172.31.0.1')],
  });
  t.same(host, [
    { interfaceName: 'lo', address: '127.0.0.1', family: 'IPv4', loopback: true },
    { interfaceName: 'eth0', address: '192.0.2.1', family: 'IPv4', loopback: false },
  ]);
});
