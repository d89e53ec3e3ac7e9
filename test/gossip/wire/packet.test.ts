import fc from 'fast-check';
import t from 'tap';
import type { Claim, Incarnation, MemberId } from '../../../src/gossip/wire/claim.js';
import { canonicalAddress, type Endpoint } from '../../../src/gossip/wire/endpoint.js';
import {
  DIGEST_BUCKETS,
  decodePacket,
  encodePacket,
  type Message,
  messageBytes,
  type Packet,
  packetBytes,
} from '../../../src/gossip/wire/packet.js';

const FUZZ = Number(process.env['FUZZ_FACTOR'] ?? 1);

const u32 = fc.nat({ max: 0xffff_ffff });
const printable = fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code));
const memberId = fc
  .string({ unit: printable, minLength: 1, maxLength: 64 })
  .map((text) => text as MemberId);
const address = fc
  .oneof(fc.ipV4(), fc.ipV6())
  .map(canonicalAddress)
  .filter((text) => text !== undefined && text !== '0.0.0.0' && text !== '::');
const endpoint: fc.Arbitrary<Endpoint> = fc.record({
  address: address as fc.Arbitrary<string>,
  port: fc.integer({ min: 1, max: 65_535 }),
});
const claim: fc.Arbitrary<Claim> = fc.record(
  {
    member: memberId,
    state: fc.constantFrom('alive', 'suspect', 'dead', 'left'),
    incarnation: u32.map((n) => n as Incarnation),
    endpoint,
    reporter: memberId,
    gone: fc.constant(true),
    ageSeconds: u32,
  },
  { requiredKeys: ['member', 'state', 'incarnation', 'endpoint'], noNullPrototype: true },
);
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    kind: fc.constant('ping' as const),
    seq: u32,
    target: fc.option(memberId, { nil: undefined }),
  }),
  fc.record({ kind: fc.constantFrom('ack' as const, 'nack' as const), seq: u32 }),
  fc.record({
    kind: fc.constant('pingRequest' as const),
    seq: u32,
    target: memberId,
    endpoint,
  }),
  fc.record({ kind: fc.constant('claim' as const), claim }),
  fc.record({
    kind: fc.constant('digest' as const),
    wantsReply: fc.boolean(),
    busy: fc.boolean(),
    buckets: fc.array(u32, { minLength: DIGEST_BUCKETS, maxLength: DIGEST_BUCKETS }),
  }),
);
const packet: fc.Arbitrary<Packet> = fc.record({
  from: memberId,
  incarnation: u32.map((n) => n as Incarnation),
  messages: fc.array(message, { maxLength: 12 }),
});

const plain = (value: unknown) => JSON.parse(JSON.stringify(value));
const decoded = (hex: string) => decodePacket(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

t.test('decode after encode is the same packet, of the predicted length', async (t) => {
  fc.assert(
    fc.property(packet, (given) => {
      const bytes = encodePacket(given);
      if (bytes.length !== packetBytes(given)) return false;
      const result = decodePacket(bytes);
      if (typeof result === 'string') return false;
      return JSON.stringify(plain(result.packet)) === JSON.stringify(plain(given));
    }),
    { numRuns: 300 * FUZZ },
  );
  t.pass('held');
});

t.test('any bytes are answered with a packet or a reason', async (t) => {
  const reasons = new Set(['packet_truncated', 'packet_version', 'packet_malformed']);
  const isAnswer = (bytes: Uint8Array) => {
    const result = decodePacket(Buffer.from(bytes));
    return typeof result !== 'string' || reasons.has(result);
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), isAnswer), { numRuns: 1_000 * FUZZ });
  // Close to the truth: real packets with a few bytes changed, or cut.
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 4 });
  fc.assert(
    fc.property(packet, edits, fc.nat(), (given, changes, cut) => {
      const bytes = encodePacket(given);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return isAnswer(bytes) && isAnswer(bytes.subarray(0, cut % bytes.length));
    }),
    { numRuns: 1_000 * FUZZ },
  );
  t.pass('held');
});

t.test('literal bytes', async (t) => {
  const head = '01 01 61 00000007';
  const from = { from: 'a', incarnation: 7 };
  const endpointOfB = { address: '10.0.0.2', port: 7946 };
  const cases = [
    { name: 'no messages', hex: head, want: { ...from, messages: [] } },
    {
      name: 'ping of b',
      hex: `${head} 01 0006 00000102 01 62`,
      want: { ...from, messages: [{ kind: 'ping', seq: 258, target: 'b' }] },
    },
    {
      name: 'ack with bytes of a newer version behind its fields',
      hex: `${head} 02 0006 00000102 ffff`,
      want: { ...from, messages: [{ kind: 'ack', seq: 258 }] },
    },
    {
      name: 'a message of an unknown type is skipped',
      hex: `${head} 77 0003 010203 03 0004 00000009`,
      want: { ...from, messages: [{ kind: 'nack', seq: 9 }] },
    },
    {
      name: 'claim: b is suspect, says c, who found it gone',
      hex: `${head} 05 0010 0d 00000003 01 62 04 0a000002 1f0a 01 63`,
      want: {
        ...from,
        messages: [
          {
            kind: 'claim',
            claim: {
              member: 'b',
              state: 'suspect',
              incarnation: 3,
              endpoint: endpointOfB,
              reporter: 'c',
              gone: true,
            },
          },
        ],
      },
    },
    { name: 'empty', hex: '', want: 'packet_truncated' },
    { name: 'another version', hex: '02 01 61 00000007', want: 'packet_version' },
    { name: 'cut in the sender', hex: '01 05 6161', want: 'packet_truncated' },
    { name: 'sender without a name', hex: '01 00 00000007', want: 'packet_malformed' },
    { name: 'sender with a blank', hex: '01 01 20 00000007', want: 'packet_malformed' },
    {
      name: 'message longer than the packet',
      hex: `${head} 02 0005 00000102`,
      want: 'packet_truncated',
    },
    { name: 'ack too short', hex: `${head} 02 0003 000102`, want: 'packet_malformed' },
    {
      name: 'claim with an address of five bytes',
      hex: `${head} 05 000f 00 00000003 01 62 05 0a00000200 1f0a`,
      want: 'packet_malformed',
    },
    {
      name: 'claim at port 0',
      hex: `${head} 05 000e 00 00000003 01 62 04 0a000002 0000`,
      want: 'packet_malformed',
    },
    {
      name: 'claim at no address',
      hex: `${head} 05 000e 00 00000003 01 62 04 00000000 1f0a`,
      want: 'packet_malformed',
    },
  ];
  for (const { name, hex, want } of cases) {
    const result = decoded(hex);
    t.strictSame(typeof result === 'string' ? result : plain(result.packet), want, name);
  }
});

t.test('a claim with the ids of a swarm is small enough for thirty in a packet', async (t) => {
  const id = 'x'.repeat(25) as MemberId;
  const claimed: Claim = {
    member: id,
    state: 'alive',
    incarnation: 1 as Incarnation,
    endpoint: { address: '10.0.0.1', port: 7946 },
  };
  t.equal(messageBytes({ kind: 'claim', claim: claimed }), 41);
});

t.test('one address has one text', async (t) => {
  const cases = [
    ['10.0.0.1', '10.0.0.1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['FD00:0:0::1', 'fd00::1'],
    ['fd00::0001', 'fd00::1'],
    ['010.0.0.1', undefined],
    ['10.1', undefined],
    ['host', undefined],
    ['', undefined],
    ['1:2', undefined],
  ] as const;
  for (const [text, want] of cases) t.equal(canonicalAddress(text), want, text);
});
