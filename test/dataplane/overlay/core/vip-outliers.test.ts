import t from 'tap';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import { endpointOf, macOfEndpoint, portOf } from '../../../support/overlay.js';
import { type Manner, type MannerAt, VipLoad } from '../../../support/vip-load.js';
import {
  ACK,
  FIN,
  frameOf,
  ofService,
  RST,
  readFrame,
  SYN,
  tcpPacket,
  toVip,
  VIP,
  VipBench,
  vipInputs,
} from '../../../support/vips.js';

const M = macOfEndpoint;
const always =
  (manner: Manner): MannerAt =>
  () =>
    manner;
const well = always(5);
const between =
  (fromMs: number, toMs: number, manner: Manner): MannerAt =>
  (nowMs) =>
    nowMs >= fromMs && nowMs < toMs ? manner : 5;
/** Every so many connections, by their ports. */
const mixed =
  (every: number, manner: Manner): MannerAt =>
  (_nowMs, port) =>
    // Ports follow the turns of `rr`, which must not decide.
    ((port * 2_654_435_761) >>> 8) % every === 0 ? manner : 5;
const all = (count: number, manner: MannerAt) => Array.from({ length: count }, () => manner);

t.test('a sick task gets its last connection within two seconds, and comes back', async (t) => {
  const FELL_MS = 12_000;
  const WELL_MS = 18_000;
  for (const [name, manner, count, rate] of [
    ['hangs', Infinity, 3, 50],
    ['hangs', Infinity, 6, 120],
    ['resets what it is asked', 'resets-asked', 3, 50],
    ['resets what it has taken', 'resets-taken', 2, 50],
    ['answers after 400 ms', 400, 2, 100],
    ['answers after 900 ms', 900, 3, 50],
  ] as const) {
    const tasks = [between(FELL_MS, WELL_MS, manner), ...all(count - 1, well)];
    const load = new VipLoad(tasks, { rate }).run(FELL_MS);
    t.equal(load.totals.vipEjections, 0, `${name}, one of ${count}: nobody before`);
    load.run(WELL_MS);
    const lastMs = (load.lastMs[0] as number) - FELL_MS;
    t.ok(lastMs < 2000, `${name}, one of ${count}: the last one ${lastMs} ms after it fell`);
    const before = load.given[0] as number;
    load.run(28_000);
    const share = ((load.given[0] as number) - before) / ((rate * 10) / count);
    t.ok(share > 0.2 && share < 0.9, `${name}, one of ${count}: back, with ${share} of its share`);
    t.equal(load.totals.vipEjections, 1, `${name}, one of ${count}: once`);
  }
});

t.test('it is tried by one connection after the other while it stays sick', async (t) => {
  const load = new VipLoad([between(1000, Infinity, Infinity), ...all(2, well)], { rate: 60 });
  load.run(11_000);
  const before = load.given[0] as number;
  load.run(40_000);
  const tried = (load.given[0] as number) - before;
  t.ok(tried >= 1 && tried <= 2, `${tried} in half a minute`);
  t.equal(load.totals.vipEjections, 1 + tried);
});

t.test('who is passed over is told once, and so is the end of it', async (t) => {
  const load = new VipLoad([between(0, 4000, Infinity), ...all(2, well)], { rate: 60 });
  const { vtep } = load.bench;
  t.equal(vtep.changedOutliers(), undefined);
  load.run(3000);
  const passedOver = ['task10'];
  const service = { vni: 4097, serviceId: 's1', ejections: 1 };
  t.strictSame(vtep.changedOutliers(), [{ ...service, passedOver }]);
  t.equal(vtep.changedOutliers(), undefined);
  load.run(16_000);
  t.strictSame(vtep.changedOutliers(), [{ ...service, passedOver: [] }]);
  load.bench.publish(vipInputs({ services: [] }));
  t.strictSame(vtep.changedOutliers(), []);
  t.equal(vtep.changedOutliers(), undefined);
});

t.test('services in which nobody is sicker than the others', async (t) => {
  for (const [name, manner] of [
    ['nobody answers, as a sink of logs', always(Infinity)],
    ['the task speaks first', always('greets')],
    ['the task ends them without a word', always('closes')],
    ['all are slow', always(700)],
    ['all are long polls', always(3000)],
    ['every fourth is a long poll', mixed(4, 3000)],
    ['every fourth gets no answer', mixed(4, Infinity)],
    ['all hang from now on', between(12_000, Infinity, Infinity)],
    ['all are slow from now on', between(12_000, Infinity, 600)],
  ] as const)
    for (const count of [2, 5]) {
      const load = new VipLoad(all(count, manner), { rate: 40 }).run(18_000);
      t.equal(load.totals.vipEjections, 0, `${name}, ${count} tasks`);
      t.equal(load.totals.vipFailures, 0, `${name}, ${count} tasks`);
      const [fewest, most] = [Math.min(...load.given), Math.max(...load.given)];
      t.ok(most - fewest <= 1, `${name}: ${fewest} to ${most} each`);
    }
});

t.test('with little load too, between packets', async (t) => {
  const tasks = [between(4000, Infinity, Infinity), well];
  const load = new VipLoad(tasks, { rate: 4, patienceMs: 20_000 }).run(12_000);
  t.equal(load.totals.vipEjections, 1);
  const lastMs = (load.lastMs[0] as number) - 4000;
  t.ok(lastMs < 4000, `the last one came after ${lastMs} ms`);
});

t.test('a sink of logs beside an API', async (t) => {
  const isSink = (port: number) => port % 8 !== 0;
  const manner: MannerAt = (nowMs, port) => (nowMs >= 3000 && isSink(port) ? Infinity : 5);
  // Where nothing is known of how usual silence is.
  const balance = { outlier: { ...DEFAULT_BALANCE.outlier, slowFactor: 0 } };
  const load = new VipLoad(all(2, manner), { rate: 40, patienceMs: 60_000, balance });
  load.portOf = (port) => (load.bench.nowMs >= 3000 && isSink(port) ? 514 : 80);
  load.run(8000);
  t.equal(load.totals.vipEjections, 0);
  t.ok(load.totals.vipSilences > 30, `${load.totals.vipSilences} were silent`);
});

t.test('labels turn it off', async (t) => {
  const outlier = { ...DEFAULT_BALANCE.outlier, failures: 0, slowFactor: 0 };
  const tasks = [always(Infinity), well, well];
  const load = new VipLoad(tasks, { rate: 60, balance: { outlier } }).run(8000);
  t.equal(load.totals.vipEjections, 0);
  t.ok(load.totals.vipSilences > 100, 'they are counted nevertheless');
});

/** One connection to task 3, packet by packet. */
class Talk {
  readonly bench = new VipBench(
    vipInputs({
      ports: [portOf(1)],
      endpoints: [endpointOf('b', 3, ofService(3))],
    }),
  );

  up(flags: number, sequence: number, payload = ''): void {
    const ends = { from: '10.0.1.1', to: VIP, fromPort: 4000, toPort: 80 };
    const packet = tcpPacket({ ...ends, flags, sequence: sequence >>> 0, payload });
    const [sent] = this.bench.egress('port-1', toVip(1, packet));
    if (sent?.to !== '192.0.2.98') throw new Error(`sent to ${sent?.to}`);
  }

  down(flags: number, sequence: number, payload = ''): void {
    const ends = { from: '10.0.1.3', to: '10.0.1.1', fromPort: 80, toPort: 4000 };
    const packet = tcpPacket({ ...ends, flags, sequence: sequence >>> 0, payload });
    const [sent] = this.bench.ingress('192.0.2.98', frameOf(M(3), M(1), packet, VIP));
    if (sent === undefined || readFrame(sent.frame).from !== VIP) throw new Error('no answer');
  }

  /** What is counted of it a second later. */
  get end(): { readonly failed: number; readonly silent: number } {
    this.bench.nowMs += 1000;
    this.bench.vtep.tick();
    const { vipFailures, vipSilences } = this.bench.stats.totals;
    return { failed: vipFailures, silent: vipSilences };
  }
}

type Line = readonly ['up' | 'down', flags: number, sequence: number, payload?: string];

const silent = { failed: 0, silent: 1 };
const failed = { failed: 1, silent: 0 };
const nothing = { failed: 0, silent: 0 };

t.test('what starts and ends the wait for an answer', async (t) => {
  const taken: readonly Line[] = [
    ['up', SYN, 99],
    ['down', SYN | ACK, 499],
    ['up', ACK, 100],
  ];
  const asked: Line = ['up', ACK, 100, 'abc'];
  const answer: Line = ['down', ACK, 500, 'xyz'];
  const cases: readonly [string, readonly Line[], { failed: number; silent: number }][] = [
    ['nothing is asked', [], nothing],
    ['asked', [asked], silent],
    ['answered', [asked, answer], nothing],
    ['asked twice before the answer', [asked, ['up', ACK, 103, 'def'], answer], nothing],
    ['an acknowledgement is no answer', [asked, ['down', ACK, 500]], silent],
    ['nor a question', [['up', ACK, 100]], nothing],
    ['a probe with a byte is no question', [['up', ACK, 99, 'x']], nothing],
    [
      'nor one without, and one after it',
      [
        ['up', ACK, 99],
        ['up', ACK, 99, 'x'],
      ],
      nothing,
    ],
    ['a probe of the task is no answer', [asked, ['down', ACK, 499, 'x']], silent],
    ['the task speaks first', [answer, asked], nothing],
    ['its first words once more are no answer', [answer, asked, answer], nothing],
    ['the end with the question', [['up', FIN | ACK, 100, 'abc']], silent],
    ['the client ends it, and waits', [asked, ['up', FIN | ACK, 103]], silent],
    ['the client resets it', [asked, ['up', RST, 103]], nothing],
    ['the task ends it', [asked, ['down', FIN | ACK, 500]], nothing],
    ['the task resets it', [asked, ['down', RST | ACK, 500]], failed],
    ['before it is asked', [['down', RST, 500]], failed],
    ['after its answer', [asked, answer, ['down', RST, 503]], nothing],
    ['after the client has ended it', [asked, ['up', FIN | ACK, 103], ['down', RST, 500]], nothing],
    ['after the client has reset it', [asked, ['up', RST, 103], ['down', RST, 500]], nothing],
  ];
  for (const [name, lines, want] of cases) {
    const talk = new Talk();
    for (const [way, ...rest] of [...taken, ...lines]) talk[way](...rest);
    t.strictSame(talk.end, want, name);
    t.strictSame(talk.end, want, `${name}: told once`);
  }
  const early = new Talk();
  early.up(SYN, 99, 'early');
  early.down(SYN | ACK, 499);
  t.strictSame(early.end, nothing, 'what a SYN carries is not looked at');
  early.up(ACK, 100, 'early');
  t.strictSame(early.end, silent, 'it comes again where it was not taken');
  const refused = new Talk();
  refused.up(SYN, 99);
  refused.down(RST | ACK, 0);
  t.strictSame(refused.end, failed, 'refused');
  const round = new Talk();
  round.up(SYN, -2);
  round.down(SYN | ACK, -1);
  round.up(ACK, -1, 'abc');
  round.down(ACK, 0, 'xyz');
  t.strictSame(round.end, nothing, 'sequence numbers begin anew at 2^32');
});

t.test(
  'an answer that comes late was silence, and what is removed waits for nothing',
  async (t) => {
    const talk = new Talk();
    talk.up(SYN, 99);
    talk.down(SYN | ACK, 499);
    talk.up(ACK, 100, 'abc');
    t.strictSame(talk.end, silent);
    talk.down(ACK, 500, 'xyz');
    talk.down(RST, 503);
    t.strictSame(talk.end, silent);

    const gone = new Talk();
    gone.up(SYN, 99);
    gone.down(SYN | ACK, 499);
    gone.up(ACK, 100, 'abc');
    gone.bench.publish(vipInputs({ ports: [portOf(1)], endpoints: [], services: [] }));
    t.strictSame(gone.end, nothing);
  },
);
