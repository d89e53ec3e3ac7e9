import fc from 'fast-check';
import t from 'tap';
import {
  decodeEndpointRecord,
  type EndpointRecord,
  encodeEndpointRecord,
} from '../../../../src/dataplane/overlay/wire/endpoint-record.js';
import { fuzzRuns } from '../../../support/fuzz.js';

const record: EndpointRecord = {
  version: 1,
  networkId: 'k8s0w3p0ag1e60nyrg1b9z6z5',
  vni: 4097,
  mac: '02:42:0a:00:01:05',
  addresses: ['10.0.1.5/24', 'fd00::5/64'],
  name: 'web.1',
  aliases: ['web'],
  vtepAddress: '192.0.2.1',
  vtepPort: 4789,
  createdAtMs: 1_795_000_000_000,
};

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

t.test('a record survives the wire', async (t) => {
  t.strictSame(decodeEndpointRecord(encodeEndpointRecord(record)), record);
});

t.test('a task says whose it is, and whether it may be asked', async (t) => {
  const service = { id: 'jf2y8ocb4rtjwe8k0g1vvbxs3', name: 'web', taskId: 'x'.repeat(25), slot: 3 };
  for (const state of ['starting', 'ready', 'draining'] as const) {
    const ofTask: EndpointRecord = { ...record, service, state };
    t.strictSame(decodeEndpointRecord(encodeEndpointRecord(ofTask)), ofTask, state);
  }
  t.equal(
    decodeEndpointRecord(encode({ ...record, service: { ...service, slot: -1 } })),
    undefined,
  );
  t.equal(decodeEndpointRecord(encode({ ...record, service: 'web' })), undefined);
  t.equal(decodeEndpointRecord(encode({ ...record, state: 'asleep' })), undefined);
});

t.test('fields that a newer version adds are ignored', async (t) => {
  t.strictSame(decodeEndpointRecord(encode({ ...record, colour: 'blue' })), record);
});

t.test('anything odd is no record', async (t) => {
  const cases: readonly (readonly [string, Record<string, unknown>])[] = [
    ['another version', { version: 2 }],
    ['VNI of 25 bits', { vni: 0x100_0000 }],
    ['fractional VNI', { vni: 1.5 }],
    ['group MAC', { mac: '01:00:5e:00:00:01' }],
    ['zero MAC', { mac: '00:00:00:00:00:00' }],
    ['MAC in capitals, which would not compare equal', { mac: '02:42:0A:00:01:05' }],
    ['no prefix', { addresses: ['10.0.1.5'] }],
    ['prefix too long', { addresses: ['10.0.1.5/33'] }],
    ['address not canonical', { addresses: ['fd00:0::5/64'] }],
    ['mapped address', { addresses: ['::ffff:10.0.1.5/120'] }],
    ['too many addresses', { addresses: Array.from({ length: 9 }, (_, i) => `10.0.1.${i}/24`) }],
    ['host name as VTEP', { vtepAddress: 'example' }],
    ['port 0', { vtepPort: 0 }],
    ['empty name', { name: '' }],
    ['name is missing', { name: undefined }],
    ['negative time', { createdAtMs: -1 }],
    ['too large', { aliases: Array.from({ length: 32 }, () => 'x'.repeat(200)) }],
  ];
  for (const [name, change] of cases)
    t.equal(decodeEndpointRecord(encode({ ...record, ...change })), undefined, name);
  for (const text of ['', '{', '[]', 'null', '1', '{"version":1}'])
    t.equal(decodeEndpointRecord(Buffer.from(text)), undefined, text);
  t.equal(decodeEndpointRecord(Buffer.from([0xff, 0xfe, 0x7b])), undefined, 'no UTF-8');
});

t.test('an invalid record of our own is a bug', async (t) => {
  t.throws(() => encodeEndpointRecord({ ...record, vni: -1 }));
  t.throws(() => encodeEndpointRecord({ ...record, aliases: Array(32).fill('x'.repeat(200)) }));
});

t.test('decode returns on any bytes and on any JSON', async () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.json().map((j) => Buffer.from(j)),
      ),
      (data) => {
        decodeEndpointRecord(data);
        return true;
      },
    ),
    { numRuns: fuzzRuns(500) },
  );
});
