import fc from 'fast-check';
import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import type { NameTable } from '../../../../src/dataplane/names/core/name-table.js';
import { addressOfPointer, NameIndex } from '../../../../src/dataplane/names/core/name-table.js';
import { Resolver } from '../../../../src/dataplane/names/core/resolver.js';
import { parseUpstreams } from '../../../../src/dataplane/names/core/upstreams.js';
import { type AnyRecordType, decode, encode } from './packets.js';

const TABLE: NameTable = [
  {
    network: 'mesh',
    entries: [
      { name: 'web', aliases: ['www', 'shop.local'], addresses: ['10.0.0.2', '10.0.0.3'] },
      { name: 'db', aliases: [], addresses: ['10.0.0.4', 'fd00:10::4'] },
      { name: 'both', aliases: [], addresses: ['10.0.0.9'] },
      {
        name: 'mail',
        aliases: [],
        addresses: ['10.0.0.7'],
        places: { targets: ['mail.1'], ports: [{ name: 'smtp', protocol: 'tcp', port: 25 }] },
      },
    ],
  },
  {
    network: 'Back',
    entries: [
      { name: 'Cache', aliases: ['www'], addresses: ['10.0.1.5'] },
      { name: 'both', aliases: [], addresses: ['10.0.1.9'] },
    ],
  },
];

function resolver(hasUpstreams = false, seed = 1): Resolver {
  const made = new Resolver(new Prng(seed), hasUpstreams);
  made.setNames(new NameIndex(TABLE));
  return made;
}

/** The outcome as text: the rcode and the sorted data, or what else happens. */
function ask(from: Resolver, name: string, type: AnyRecordType = 'A'): string {
  const outcome = from.resolve(encode(name, type), 'udp');
  if (outcome.kind === 'forward') return 'forward';
  if (outcome.kind === 'drop') return outcome.reason;
  const { rcode, answers } = decode(outcome.message);
  return [rcode, ...answers.sort()].join(' ');
}

const cases: readonly (readonly [string, AnyRecordType, string, string])[] = [
  ['web', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'a name'],
  ['web.', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'a dot at the end'],
  ['WeB', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'any case'],
  ['web.mesh', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'qualified by its network'],
  ['cache.back', 'A', 'NOERROR 10.0.1.5', 'qualified, names in the table in any case'],
  ['web.back', 'A', 'SERVFAIL', 'qualified by a network that has no such name'],
  ['both', 'A', 'NOERROR 10.0.0.9 10.0.1.9', 'a name on two networks has the addresses of both'],
  ['both.mesh', 'A', 'NOERROR 10.0.0.9', 'and of one when qualified'],
  ['www', 'A', 'NOERROR 10.0.0.2 10.0.0.3 10.0.1.5', 'an alias, shared'],
  ['shop.local', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'an alias with a dot'],
  ['shop.local.mesh', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'an alias, qualified'],
  ['tasks.web', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'tasks of a name'],
  ['tasks.web.mesh', 'A', 'NOERROR 10.0.0.2 10.0.0.3', 'tasks of a name, qualified'],
  ['web', 'AAAA', 'NOERROR', 'no IPv6 there: empty, not unknown'],
  ['db', 'AAAA', 'NOERROR fd00:10::4', 'IPv6'],
  ['db', 'A', 'NOERROR 10.0.0.4', 'IPv4 of a name with both'],
  ['_smtp._tcp.mail', 'SRV', 'NOERROR 0 0 25 mail.1.mesh', 'a port by its name'],
  ['mail', 'SRV', 'NOERROR 0 0 25 mail.1.mesh', 'all ports'],
  ['_imap._tcp.mail', 'SRV', 'NOERROR', 'no such port'],
  ['db', 'SRV', 'NOERROR', 'a name without ports'],
  ['db', 'ANY', 'NOERROR 10.0.0.4 fd00:10::4', 'both'],
  ['web', 'MX', 'NOERROR', 'a type that we do not hold'],
  ['4.0.0.10.in-addr.arpa', 'PTR', 'NOERROR db.mesh', 'a pointer'],
  [
    '4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.d.f.ip6.arpa',
    'PTR',
    'NOERROR db.mesh',
    'an IPv6 pointer',
  ],
  ['9.9.9.9.in-addr.arpa', 'PTR', 'SERVFAIL', 'a pointer to somebody else'],
  ['mail.9', 'A', 'NXDOMAIN', 'a place of a service that nobody has'],
  ['MAIL.9.mesh', 'AAAA', 'NXDOMAIN', 'the same, qualified'],
  ['web.9', 'A', 'SERVFAIL', 'no service'],
  ['mail.9.back', 'A', 'SERVFAIL', 'a place elsewhere'],
  ['nobody', 'A', 'NXDOMAIN', 'one label, unknown, and nobody to ask'],
  ['example.com', 'A', 'SERVFAIL', 'a name of the world, and nobody to ask'],
];

t.test('names of the own networks are answered, alone', async (t) => {
  for (const [name, type, want, why] of cases) t.equal(ask(resolver(), name, type), want, why);
});

t.test('with upstreams only what is not ours is forwarded', async (t) => {
  for (const [name, type, want, why] of cases) {
    const own = want.startsWith('NOERROR') || /^mail\.9(\.mesh)?$/i.test(name);
    t.equal(ask(resolver(true), name, type), own ? want : 'forward', why);
  }
});

t.test('several addresses come in an order that the seed decides', async (t) => {
  const orders = new Set<string>();
  const one = resolver(false, 5);
  for (let i = 0; i < 64; i++) {
    const outcome = one.resolve(encode('web', 'A'), 'udp');
    if (outcome.kind === 'reply') orders.add(decode(outcome.message).answers.join(' '));
  }
  t.strictSame([...orders].sort(), ['10.0.0.2 10.0.0.3', '10.0.0.3 10.0.0.2']);
});

t.test('a new table replaces the old one whole', async (t) => {
  const one = resolver();
  one.setNames(
    new NameIndex([
      { network: 'mesh', entries: [{ name: 'x', aliases: [], addresses: ['10.0.0.7'] }] },
    ]),
  );
  t.equal(ask(one, 'x'), 'NOERROR 10.0.0.7');
  t.equal(ask(one, 'web'), 'NXDOMAIN');
  t.equal(ask(one, '2.0.0.10.in-addr.arpa', 'PTR'), 'SERVFAIL');
});

t.test('names and addresses unfit for DNS are left out and counted', async (t) => {
  const index = new NameIndex([
    {
      network: 'mesh',
      entries: [
        { name: 'a'.repeat(64), aliases: [], addresses: ['10.0.0.2'] },
        { name: 'fine', aliases: ['two..dots', ''], addresses: ['10.0.0.3', 'nonsense'] },
      ],
    },
  ]);
  t.strictSame(index.lookup('fine'), { v4: ['10.0.0.3'], v6: [] });
  t.equal(index.lookup('two..dots'), undefined);
  t.equal(index.refusedCount, 2 + 4 + 1, 'bare and qualified, and one address');
});

t.test('an EDNS version that we do not know is refused, RFC 6891 §6.1.3', async (t) => {
  const outcome = resolver().resolve(encode('web', 'A', { ednsVersion: 1 }), 'udp');
  t.equal(outcome.kind === 'reply' && outcome.rcode, 'BADVERS');
});

t.test('pointer names that are none name nothing', async (t) => {
  for (const name of ['in-addr.arpa', '1.2.3.in-addr.arpa', '1.2.3.999.in-addr.arpa', 'x.ip6.arpa'])
    t.equal(addressOfPointer(name), undefined, name);
});

t.test('upstreams are those of the host, but never ourselves', async (t) => {
  const text = `# a comment
nameserver 127.0.0.11
search example.com
  nameserver 10.0.0.53
nameserver 10.0.0.53
nameserver not-an-address
nameserver fe80::1%eth0
nameserver 127.0.0.53 # stub
nameserver 9.9.9.9
`;
  t.strictSame(parseUpstreams(text), ['10.0.0.53', 'fe80::1%eth0', '127.0.0.53']);
  t.strictSame(parseUpstreams(''), []);
});

t.test('every name of any table is found in any case, and nothing else is', async (t) => {
  const label = fc.stringMatching(/^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?$/);
  const address = fc.tuple(fc.nat(255), fc.nat(255)).map(([a, b]) => `10.0.${a}.${b}`);
  const entry = fc.record({
    name: label,
    aliases: fc.array(label, { maxLength: 3 }),
    addresses: fc.array(address, { minLength: 1, maxLength: 5 }),
  });
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 8 }), label, (entries, other) => {
      const one = new Resolver(new Prng(3), true);
      one.setNames(new NameIndex([{ network: 'net', entries }]));
      const known = new Set(
        entries.flatMap((e) => [e.name, ...e.aliases].map((n) => n.toLowerCase())),
      );
      for (const e of entries) {
        for (const name of [e.name, ...e.aliases]) {
          const want = entries.filter((x) =>
            [x.name, ...x.aliases].some((n) => n.toLowerCase() === name.toLowerCase()),
          );
          const addresses = [...new Set(want.flatMap((x) => x.addresses))].sort();
          const got = ask(one, name.toUpperCase());
          if (got !== ['NOERROR', ...addresses].join(' ')) return false;
        }
      }
      return known.has(other.toLowerCase()) || ask(one, other) === 'forward';
    }),
    { numRuns: 100 * Number(process.env['FUZZ_FACTOR'] ?? 1) },
  );
  t.pass('held');
});
