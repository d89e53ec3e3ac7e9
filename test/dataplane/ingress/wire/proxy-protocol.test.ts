import fc from 'fast-check';
import t from 'tap';
import { proxyHeader } from '../../../../src/dataplane/ingress/wire/proxy-protocol.js';

const V2 = '0d0a0d0a000d0a515549540a';

t.test('version 1 is a line of text', async (t) => {
  const line = (from: string, to: string) =>
    proxyHeader('v1', 'tcp', { address: from, port: 56324 }, { address: to, port: 443 }).toString();
  t.equal(line('192.0.2.1', '198.51.100.7'), 'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n');
  t.equal(
    line('::ffff:192.0.2.1', '::ffff:198.51.100.7'),
    'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n',
    'as dual-stack sockets tell it',
  );
  t.equal(
    line('2001:db8::1', '2001:db8::2'),
    'PROXY TCP6 2001:db8:0:0:0:0:0:1 2001:db8:0:0:0:0:0:2 56324 443\r\n',
  );
  t.equal(
    line('fe80::1%eth0', 'fe80::2'),
    'PROXY TCP6 fe80:0:0:0:0:0:0:1 fe80:0:0:0:0:0:0:2 56324 443\r\n',
  );
  t.equal(line('', '198.51.100.7'), 'PROXY UNKNOWN\r\n');
});

t.test('version 2 is bytes', async (t) => {
  const bytes = (transport: 'tcp' | 'udp', from: string, to: string) =>
    proxyHeader(
      'v2',
      transport,
      { address: from, port: 0x1234 },
      { address: to, port: 80 },
    ).toString('hex');
  t.equal(bytes('tcp', '192.0.2.1', '198.51.100.7'), `${V2}2111000cc0000201c633640712340050`);
  t.equal(bytes('udp', '192.0.2.1', '198.51.100.7'), `${V2}2112000cc0000201c633640712340050`);
  t.equal(
    bytes('tcp', '2001:db8::1', '2001:db8::2'),
    `${V2}2121002420010db800000000000000000000000120010db800000000000000000000000212340050`,
  );
  t.equal(bytes('tcp', '192.0.2.1', '2001:db8::2'), `${V2}21000000`, 'families that differ');
});

t.test('any text for an address is survived, and a line stays within its 107 bytes', async () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.ipV4(), fc.ipV6()),
      fc.oneof(fc.string(), fc.ipV4(), fc.ipV6()),
      fc.nat(65_535),
      (from, to, port) => {
        const ends = [
          { address: from, port },
          { address: to, port },
        ] as const;
        const line = proxyHeader('v1', 'tcp', ...ends);
        const bytes = proxyHeader('v2', 'udp', ...ends);
        return (
          line.length <= 107 && line.at(-1) === 10 && bytes.length === 16 + bytes.readUInt16BE(14)
        );
      },
    ),
  );
});
