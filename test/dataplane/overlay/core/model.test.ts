import fc from 'fast-check';
import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import { PacketBatch, TO_PORT } from '../../../../src/dataplane/core/batch.js';
import {
  newOverlayCounters,
  readOverlayStats,
} from '../../../../src/dataplane/overlay/core/counters.js';
import { deriveTables, type OverlayInputs } from '../../../../src/dataplane/overlay/core/derive.js';
import {
  diffTables,
  NOTHING_PUBLISHED,
  type PublishedTables,
} from '../../../../src/dataplane/overlay/core/diff.js';
import type { Tables } from '../../../../src/dataplane/overlay/core/tables.js';
import { DEFAULT_SEGMENT_LIMITS, Vtep } from '../../../../src/dataplane/overlay/core/vtep.js';
import { parseAddress } from '../../../../src/dataplane/wire/address.js';
import { parseMac } from '../../../../src/dataplane/wire/ethernet.js';
import { ethernet } from '../../../support/frames.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import {
  endpointOf,
  inputsOf,
  macOfEndpoint,
  portOf,
  vtepAddressOf,
} from '../../../support/overlay.js';

const limits = { floodPerSecond: 1e9, floodBurst: 1e9, icmpPerSecond: 1e9, icmpBurst: 1e9 };
const PAYLOAD = Buffer.alloc(40);

/** Two networks, four nodes and eight endpoints, spread by chance. */
function randomInputs(prng: Prng): OverlayInputs {
  const networks = [
    { id: 'n0', vni: 100, subnets: [{ subnet: '10.0.1.0/24' }] },
    { id: 'n1', vni: 200, subnets: [{ subnet: '10.0.1.0/24' }] },
  ];
  const endpoints: { owner: string; record: ReturnType<typeof endpointOf>['record'] }[] = [];
  const ports: ReturnType<typeof portOf>[] = [];
  for (let n = 1; n <= 8; n++) {
    const network = prng.nextBelow(2);
    const createdAtMs = prng.nextBelow(3);
    const owner = ['a', 'b', 'c', 'd'][prng.nextBelow(4)] ?? 'a';
    // Now and then two endpoints have one MAC.
    const mac = macOfEndpoint(prng.chance(0.1) ? 1 : n);
    const networkId = `n${network}`;
    if (owner === 'a') ports.push(portOf(n, { networkId, createdAtMs, mac }));
    else
      endpoints.push(
        endpointOf(owner, n, { networkId, vni: network === 0 ? 100 : 200, createdAtMs, mac }),
      );
  }
  const staticVteps = prng.chance(0.5)
    ? [
        {
          vni: 100,
          address: '203.0.113.1',
          udpPort: 4789,
          macs: [macOfEndpoint(20)],
          flood: prng.chance(0.5),
        },
      ]
    : [];
  const members = ['a', 'b', 'c', 'd'].map((id) => ({
    id,
    state: prng.chance(0.2) ? ('dead' as const) : ('alive' as const),
  }));
  return inputsOf({
    networks: prng.chance(0.1) ? networks.slice(1) : networks,
    endpoints,
    ports,
    staticVteps,
    members,
  });
}

/** The rules again, slowly, over the tables as text. */
function modelEgress(
  tables: Tables,
  portId: string,
  from: string,
  to: string,
): readonly string[] | string {
  const port = tables.ports.get(portId);
  if (port === undefined) return 'port_unknown';
  const segment = tables.segments.get(port.vni);
  if (segment === undefined) return 'port_unknown';
  if (parseMac(from) !== port.mac) return 'mac_not_attached';
  const isGroup = (Number.parseInt(to.slice(0, 2), 16) & 1) === 1;
  const entry = isGroup ? undefined : segment.fdb.get(parseMac(to) as never);
  if (entry?.port !== undefined) return entry.port === portId ? 'hairpin' : [entry.port];
  if (entry !== undefined) return [entry.vtep];
  const others = [...tables.ports]
    .filter(([id, p]) => p.vni === port.vni && id !== portId)
    .map(([id]) => id);
  const copies = [...segment.floodList, ...others].sort();
  return copies.length === 0 ? 'flood_empty' : copies;
}

function modelIngress(
  tables: Tables,
  vni: number,
  sender: string,
  from: string,
  to: string,
): readonly string[] | string {
  const segment = tables.segments.get(vni);
  if (tables.ownAddresses.includes(sender)) return 'looped';
  if (segment === undefined) return 'vni_unknown';
  if (!segment.senders.includes(sender)) return 'vtep_unknown';
  if ((Number.parseInt(from.slice(0, 2), 16) & 1) === 1) return 'mac_invalid';
  const source = segment.fdb.get(parseMac(from) as never);
  if (source?.port !== undefined) return 'looped';
  if (source !== undefined && source.vtep.split(' ')[0] !== sender) return 'mac_spoofed';
  const ports = [...tables.ports]
    .filter(([, p]) => p.vni === vni)
    .map(([id]) => id)
    .sort();
  if ((Number.parseInt(to.slice(0, 2), 16) & 1) === 1)
    return ports.length === 0 ? 'flood_empty' : ports;
  const target = segment.fdb.get(parseMac(to) as never);
  if (target === undefined) return 'mac_unknown';
  return target.port === undefined ? 'mac_remote' : [target.port];
}

class Subject {
  readonly counters = newOverlayCounters(false);
  readonly vtep = new Vtep({ limits, hashSeed: 3, counters: this.counters }, { now: () => 0 });
  readonly batch = new PacketBatch(1 << 16);
  published: PublishedTables = NOTHING_PUBLISHED;

  use(tables: Tables): void {
    const { update, published } = diffTables(this.published, tables);
    this.vtep.apply(update);
    this.published = published;
  }

  verdict(
    direction: 'egress' | 'ingress',
    row: { port?: number; sender?: string; data: Buffer },
  ): readonly string[] | string {
    const { batch } = this;
    batch.clear();
    batch.arena.set(row.data, 64);
    batch.rowOffset[0] = 64;
    batch.rowLength[0] = row.data.length;
    batch.rowPort[0] = row.port ?? 0;
    batch.arena.set(parseAddress(row.sender ?? '::') ?? [], 0);
    batch.rowSender[0] = 0;
    batch.rowCount = 1;
    const before = readOverlayStats(this.counters).drops;
    this.vtep[direction](batch);
    const after = readOverlayStats(this.counters).drops;
    const dropped = Object.entries(after).filter(([name, n]) => n !== before[name as never]);
    if (dropped.length > 0) return dropped.map(([name]) => name).join();
    return Array.from({ length: batch.outCount }, (_, out) => {
      const indexes =
        batch.outKind[out] === TO_PORT ? this.published.portIndexes : this.published.vtepIndexes;
      return [...indexes].find(([, index]) => index === batch.outTarget[out])?.[0] ?? '?';
    }).sort();
  }
}

t.test('over random tables that change, verdicts are those of the naive model', async (t) => {
  const macs = [1, 2, 3, 4, 5, 6, 7, 8, 20, 99].map(macOfEndpoint);
  macs.push('ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01');
  const senders = ['a', 'b', 'c', 'd'].map(vtepAddressOf);
  senders.push('203.0.113.1', '203.0.113.9');
  for (let seed = 1; seed <= fuzzRuns(60); seed++) {
    const prng = new Prng(seed);
    const subject = new Subject();
    const pick = <T>(items: readonly T[]) => items[prng.nextBelow(items.length)] as T;
    for (let change = 0; change < 4; change++) {
      const { tables } = deriveTables(randomInputs(prng));
      subject.use(tables);
      for (let i = 0; i < 40; i++) {
        const from = pick(macs);
        const to = pick(macs);
        const frame = ethernet(to, from, 0x88b5, PAYLOAD);
        const [portId, index] = pick([...subject.published.portIndexes, ['none', 77] as const]);
        if ((Number.parseInt(from.slice(0, 2), 16) & 1) === 0) {
          const got = subject.verdict('egress', { port: index, data: frame });
          const want = modelEgress(tables, portId, from, to);
          if (JSON.stringify(got) !== JSON.stringify(want))
            t.fail(`seed ${seed}: egress ${portId} ${from} to ${to}: ${got}, not ${want}`);
        }
        const vni = pick([100, 200, 300]);
        const sender = pick(senders);
        const header = Buffer.from([8, 0, 0, 0, 0, 0, vni, 0]);
        header.writeUInt32BE(vni * 256, 4);
        const got = subject.verdict('ingress', { sender, data: Buffer.concat([header, frame]) });
        const want = modelIngress(tables, vni, sender, from, to);
        if (JSON.stringify(got) !== JSON.stringify(want))
          t.fail(
            `seed ${seed}: ingress ${vni} from ${sender} ${from} to ${to}: ${got}, not ${want}`,
          );
      }
    }
  }
  t.pass('compared');
});

t.test('random bytes never throw, and each is accounted for once', async () => {
  const subject = new Subject();
  subject.use(
    deriveTables(inputsOf({ ports: [portOf(1), portOf(2)], endpoints: [endpointOf('b', 3)] }))
      .tables,
  );
  const port = subject.published.portIndexes.get('port-1') ?? -1;
  const own = Buffer.from(macOfEndpoint(1).replaceAll(':', ''), 'hex');
  const prefixes = [
    Buffer.alloc(0),
    Buffer.concat([Buffer.alloc(6, 0xff), own]),
    Buffer.concat([Buffer.alloc(6, 0xff), own, Buffer.from('0806', 'hex')]),
    Buffer.concat([Buffer.alloc(6, 0xff), own, Buffer.from('0806000108000604', 'hex')]),
    Buffer.concat([
      Buffer.from('0242 0a00 0103'.replaceAll(' ', ''), 'hex'),
      own,
      Buffer.from('080045', 'hex'),
    ]),
    Buffer.concat([
      Buffer.from('333300000001', 'hex'),
      own,
      Buffer.from('86dd6000000000203aff', 'hex'),
    ]),
    Buffer.from('0800000000100100', 'hex'),
    Buffer.from('080000000010010002420a000101', 'hex'),
  ];
  const { batch } = subject;
  const total = () => {
    const { drops, replies } = readOverlayStats(subject.counters);
    return [...Object.values(drops), ...Object.values(replies)].reduce((sum, n) => sum + n, 0);
  };
  fc.assert(
    fc.property(
      fc.constantFrom(...prefixes),
      fc.uint8Array({ maxLength: 200 }),
      fc.boolean(),
      fc.constantFrom(0, 0, 0, 1, 4, 5, 7),
      fc.nat(3000),
      fc.constantFrom(0, 0, 0, 1500),
      (prefix, rest, isEgress, gsoType, gsoSize, padding) => {
        const data = Buffer.concat([prefix, rest, Buffer.alloc(padding)]);
        batch.clear();
        // Right before the scratch, so that reading on would read something else's bytes.
        const at = (1 << 16) - data.length;
        batch.arena.set(data, at);
        batch.rowOffset[0] = at;
        batch.rowLength[0] = data.length;
        batch.rowPort[0] = port;
        batch.rowGsoType[0] = gsoType;
        batch.rowGsoSize[0] = gsoSize;
        batch.arena.set(parseAddress('192.0.2.98') ?? [], 0);
        batch.rowSender[0] = 0;
        batch.rowCount = 1;
        const before = total();
        if (isEgress) subject.vtep.egress(batch);
        else subject.vtep.ingress(batch);
        const counted = total() - before;
        const isReply = batch.outCount === 1 && batch.outRow[0] === -1;
        return counted === (batch.outCount === 0 || isReply ? 1 : 0);
      },
    ),
    { numRuns: fuzzRuns(3_000) },
  );
});

t.test('default limits let a name service start, and stop a storm', async (t) => {
  t.ok(DEFAULT_SEGMENT_LIMITS.floodBurst >= 100);
  t.ok(DEFAULT_SEGMENT_LIMITS.floodPerSecond <= 10_000);
});
