import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import t from 'tap';
import { OPEN_ACCESS, rangesInclude, readAccess } from '../../src/base/access-labels.js';

function wordsOf(text: string): Int32Array {
  const address = ipaddr.parse(text);
  const v6 = address instanceof ipaddr.IPv4 ? address.toIPv4MappedAddress() : address;
  const view = new DataView(Uint8Array.from(v6.toByteArray()).buffer);
  return Int32Array.from([0, 4, 8, 12].map((at) => view.getInt32(at)));
}

function admits(list: string, client: string): boolean {
  const { allowFrom } = readAccess({ 'shoal.allow-from': list }).access;
  return allowFrom === undefined || rangesInclude(allowFrom, wordsOf(client));
}

t.test('without labels all are let in', async (t) => {
  const open = { access: OPEN_ACCESS, bind: undefined, problems: [] };
  t.strictSame(readAccess({ other: 'x' }), open);
});

t.test('labels are read, and what is none is told', async (t) => {
  for (const [name, text, isValid] of [
    ['shoal.allow-from', '10.0.0.1', true],
    ['shoal.allow-from', ' 10.0.0.1/8 , ::1/128', true],
    ['shoal.allow-from', '0.0.0.0/0', true],
    ['shoal.allow-from', '', false],
    ['shoal.allow-from', '10.0.0.0/8,', false],
    ['shoal.allow-from', '10.0.0.0/33', false],
    ['shoal.allow-from', '10.0.0.0/-1', false],
    ['shoal.allow-from', '10.0.0.0/8/8', false],
    ['shoal.allow-from', '10.0.0', false],
    ['shoal.allow-from', '0x0a.0.0.1', false],
    ['shoal.allow-from', 'fe80::1%eth0', false],
    ['shoal.allow-from', '::/129', false],
    ['shoal.allow-from', 'example.org', false],
    ['shoal.allow-from', Array(256).fill('10.0.0.1').join(','), true],
    ['shoal.allow-from', Array(257).fill('10.0.0.1').join(','), false],
    ['shoal.connections-max', '100', true],
    ['shoal.connections-max', '0', false],
    ['shoal.connections-max', '1000000', false],
    ['shoal.connections-max', 'many', false],
    ['shoal.rate', '5/s', true],
    ['shoal.rate', '0/s', false],
    ['shoal.rate', '5/m', false],
    ['shoal.rate', '0.5/s', false],
  ] as const) {
    const { problems } = readAccess({ [name]: text });
    t.equal(problems.length, isValid ? 0 : 1, `${name}=${text.slice(0, 40)}`);
  }
  t.match(readAccess({ 'shoal.connections-max': '7', 'shoal.rate': '9/s' }).access, {
    mostOpen: 7,
    perSecond: 9,
  });
});

t.test('a list lets in what it names, and nobody if it is none', async (t) => {
  for (const [list, client, want] of [
    ['10.0.0.0/8', '10.255.0.1', true],
    ['10.0.0.0/8', '11.0.0.1', false],
    ['10.0.0.9/8', '10.0.0.1', true],
    ['0.0.0.0/0', '255.1.2.3', true],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['::/0', '2001:db8::1', true],
    ['::/0', '10.0.0.1', false],
    ['::ffff:10.0.0.0/104', '10.1.1.1', true],
    ['2001:db8::/33', '2001:db8:7fff::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
    ['2001:db8::1', '2001:db8::2', false],
    ['nonsense', '10.0.0.1', false],
  ] as const)
    t.equal(admits(list, client), want, `${list} ${client}`);
});

t.test('as a library for addresses says', async () => {
  const octets = fc.tuple(...Array.from({ length: 4 }, () => fc.integer({ min: 8, max: 11 })));
  const v4 = octets.map((each) => each.join('.'));
  fc.assert(
    fc.property(v4, fc.integer({ min: 0, max: 32 }), v4, (net, bits, client) => {
      const want = ipaddr.IPv4.parse(client).match(ipaddr.IPv4.parse(net), bits);
      return admits(`${net}/${bits}`, client) === want;
    }),
  );
});

t.test('any text is survived', async () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const name of ['allow-from', 'bind', 'rate', 'connections-max'])
        readAccess({ [`shoal.${name}`]: text });
    }),
    { examples: [['toString'], ['__proto__']] },
  );
});

t.test('where ports listen: addresses, networks and names of interfaces', async (t) => {
  const { bind, problems } = readAccess({ 'shoal.bind': 'eth0, 127.0.0.1, br-a.1, ::1' });
  t.strictSame(problems, []);
  t.strictSame([...(bind?.interfaces ?? [])], ['eth0', 'br-a.1']);
  t.equal(bind?.ranges.length, 2);
  t.equal(readAccess({}).bind, undefined);
  for (const text of [
    '',
    '10.0.0',
    '10.0.0.0/40',
    'a b',
    'eth0,',
    'fe80::1%eth0',
    'much-too-long-a-name',
  ]) {
    const read = readAccess({ 'shoal.bind': text });
    t.strictSame(read.bind, { ranges: [], interfaces: new Set() }, 'nowhere');
    t.match(read.problems, [
      /^label shoal\.bind=.* is not valid: it must be 1 to 256 addresses, CIDRs/,
    ]);
  }
});
