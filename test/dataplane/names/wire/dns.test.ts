import { decode, encode } from 'dns-packet';
import fc from 'fast-check';
import t from 'tap';
import {
  decodeRequest,
  encodeRefusal,
  encodeReply,
  isResponseTo,
  questionEnd,
} from '../../../../src/dataplane/names/wire/dns.js';

const runs = 500 * Number(process.env['FUZZ_FACTOR'] ?? 1);
const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');

const WEB_A = '03 776562 00 0001 0001';
const cases = [
  { name: 'plain', hex: `1234 0100 0001 0000 0000 0000 ${WEB_A}`, want: 'query' },
  { name: 'empty', hex: '', want: 'dns_truncated' },
  { name: 'one byte short of a header', hex: '1234 0100 0001 0000 0000 00', want: 'dns_truncated' },
  { name: 'a response', hex: `1234 8100 0001 0000 0000 0000 ${WEB_A}`, want: 'dns_not_a_query' },
  { name: 'an update, RFC 2136', hex: `1234 2800 0001 0000 0000 0000 ${WEB_A}`, want: 'NOTIMP' },
  { name: 'no question', hex: '1234 0100 0000 0000 0000 0000', want: 'FORMERR' },
  {
    name: 'two questions',
    hex: `1234 0100 0002 0000 0000 0000 ${WEB_A} ${WEB_A}`,
    want: 'FORMERR',
  },
  { name: 'name without end', hex: '1234 0100 0001 0000 0000 0000 03 776562', want: 'FORMERR' },
  {
    name: 'question that points to itself',
    hex: '1234 0100 0001 0000 0000 0000 c00c 0001 0001',
    want: 'FORMERR',
  },
  {
    name: 'more records than bytes',
    hex: `1234 0100 0001 0000 0000 0001 ${WEB_A} 00 0029 1000 00000000 00`,
    want: 'FORMERR',
  },
  {
    name: 'as many as there are bytes',
    hex: `1234 0100 0001 0000 0000 0001 ${WEB_A} 00 0029 1000 00000000 0000`,
    want: 'query',
  },
  { name: 'label of 64', hex: `1234 0100 0001 0000 0000 0000 40 ${WEB_A}`, want: 'FORMERR' },
] as const;

t.test('what a message announces costs nothing', async (t) => {
  const announcing = bytes(`1234 0100 0001 ffff ffff ffff ${WEB_A}`);
  // One in which nothing is collected tells.
  const costs = Array.from({ length: 8 }, () => {
    const before = process.memoryUsage().heapUsed;
    decodeRequest(announcing);
    return process.memoryUsage().heapUsed - before;
  });
  t.ok(Math.max(...costs) < 500_000, 'no room is made for 196,605 records');
});

t.test('each message is answered, refused or dropped as the RFC says', async (t) => {
  for (const { name, hex, want } of cases) {
    const request = decodeRequest(bytes(hex));
    const got =
      request.kind === 'query'
        ? request.kind
        : request.kind === 'drop'
          ? request.reason
          : request.refusal.rcode;
    t.equal(got, want, name);
  }
});

t.test('no bytes make the decoder throw, and every refusal can be sent', async (t) => {
  const anyBytes = fc.uint8Array({ maxLength: 600 });
  const nearlyQueries = fc
    .tuple(anyBytes, fc.uint8Array({ maxLength: 80 }))
    .map(([head, tail]) => Buffer.concat([bytes('1234 0100 0001 0000 0000 0001'), tail, head]));
  fc.assert(
    fc.property(fc.oneof(anyBytes, nearlyQueries), (message) => {
      const buffer = Buffer.from(message);
      const request = decodeRequest(buffer);
      if (request.kind === 'refusal') {
        const refusal = encodeRefusal(request.refusal);
        if (refusal.length !== 12 || refusal.readUInt16BE(0) !== buffer.readUInt16BE(0))
          return false;
      }
      if (request.kind === 'query') {
        const reply = encodeReply(request.query, 'SERVFAIL', [], 0, 512);
        if (!isResponseTo(reply, buffer)) return false;
      }
      isResponseTo(buffer, bytes(`1234 0100 0001 0000 0000 0000 ${WEB_A}`));
      return true;
    }),
    { numRuns: runs },
  );
  t.pass(`${runs} messages`);
});

t.test('mutated real queries never throw either', async (t) => {
  const real = encode({
    type: 'query',
    id: 1,
    questions: [{ type: 'A', name: 'web.mesh', class: 'IN' }],
    additionals: [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: 1232,
        flags: 0,
        extendedRcode: 0,
        ednsVersion: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(real.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.nat(real.length),
      (changes, cut) => {
        const message = Buffer.from(real.subarray(0, cut));
        for (const [at, value] of changes) if (at < message.length) message[at] = value;
        decodeRequest(message);
        questionEnd(message);
      },
    ),
    { numRuns: runs },
  );
  t.pass(`${runs} mutations`);
});

function queryOf(name: string, edns?: number) {
  const request = decodeRequest(
    encode({
      type: 'query',
      id: 7,
      flags: 0x0100,
      questions: [{ type: 'A', name, class: 'IN' }],
      additionals:
        edns === undefined
          ? []
          : [
              {
                type: 'OPT',
                name: '.',
                udpPayloadSize: edns,
                flags: 0,
                extendedRcode: 0,
                ednsVersion: 0,
                flag_do: false,
                options: [],
              },
            ],
    }),
  );
  if (request.kind !== 'query') throw new Error('a query was made');
  return request.query;
}

t.test('another decoder reads what we write', async (t) => {
  const reply = decode(
    encodeReply(
      queryOf('Web', 1232),
      'NOERROR',
      [
        { type: 'A', address: '10.0.0.2' },
        { type: 'AAAA', address: 'fd00::2' },
        { type: 'PTR', target: 'web.mesh' },
      ],
      2,
      512,
    ),
  );
  t.match(reply, { id: 7, type: 'response', rcode: 'NOERROR' });
  t.match(reply.questions, [{ name: 'Web', type: 'A' }], 'the case of the question is kept');
  t.match(reply.answers, [
    { name: 'Web', type: 'A', ttl: 2, data: '10.0.0.2' },
    { name: 'Web', type: 'AAAA', data: 'fd00::2' },
    { name: 'Web', type: 'PTR', data: 'web.mesh' },
  ]);
  t.match(reply.additionals, [{ type: 'OPT', udpPayloadSize: 4096 }]);
});

t.test('what does not fit is left out and TC says so', async (t) => {
  const records = Array.from({ length: 60 }, (_, i) => ({
    type: 'A' as const,
    address: `10.0.0.${i + 1}`,
  }));
  const small = encodeReply(queryOf('web'), 'NOERROR', records, 2, 512);
  t.ok(small.length <= 512 && small.length > 480, 'the room is used');
  t.ok(decode(small).flag_tc);
  t.ok((decode(small).answers?.length ?? 0) >= 29);
  const large = decode(encodeReply(queryOf('web', 4096), 'NOERROR', records, 2, 4096));
  t.notOk(large.flag_tc);
  t.equal(large.answers?.length, 60);
});

t.test('a response under another id or question is not ours', async (t) => {
  const asked = bytes(`1234 0100 0001 0000 0000 0000 ${WEB_A}`);
  const answer = encodeReply(queryOf('web'), 'NXDOMAIN', [], 0, 512);
  answer.writeUInt16BE(0x1234, 0);
  t.ok(isResponseTo(answer, asked));
  const otherId = Buffer.from(answer);
  otherId.writeUInt16BE(0x1235, 0);
  t.notOk(isResponseTo(otherId, asked));
  t.notOk(isResponseTo(asked, asked), 'a query is no response');
  const otherName = Buffer.from(answer);
  otherName[13] = 0x78;
  t.notOk(isResponseTo(otherName, asked));
});
