import t from 'tap';
import { AntiEntropy } from '../../../src/gossip/core/anti-entropy.js';
import { RecordTable } from '../../../src/gossip/core/record-table.js';
import type { ExchangeMessage } from '../../../src/gossip/wire/record-exchange.js';
import { sha256 } from '../../sim/records-world.js';

const NET = 'net';

class Side {
  readonly table: RecordTable;
  readonly exchanges: AntiEntropy;

  constructor(self: string) {
    this.table = new RecordTable(self, 1_000, sha256);
    this.table.setAdmitted(new Set(['a', 'b']));
    this.table.subscribe(NET, 0);
    this.exchanges = new AntiEntropy(this.table, () => {});
  }

  fill(count: number, sizeBytes: number): void {
    for (let i = 0; i < count; i++) {
      this.table.publish(NET, `k${i}`, Buffer.alloc(sizeBytes, i), 0);
    }
  }
}

/** Runs one exchange that `a` starts. @returns What was sent, in order. */
function converse(a: Side, b: Side): string[] {
  const sent: string[] = [];
  a.exchanges.open(1, 'b', true, 0);
  b.exchanges.open(-1, 'a', false, 0);
  for (let moved = true; moved; ) {
    moved = false;
    for (const [from, to, exchange, name] of [
      [a, b, -1, 'a'],
      [b, a, 1, 'b'],
    ] as const) {
      for (const { message } of from.exchanges.takeReady().messages) {
        moved = true;
        sent.push(`${name}:${message.kind}`);
        to.exchanges.receive(exchange, message, 0);
      }
    }
  }
  return sent;
}

t.test('equal tables cost one message each way', async (t) => {
  const [a, b] = [new Side('a'), new Side('b')];
  converse(a, b);
  t.same(converse(a, b), ['a:digests', 'b:vectors']);
  t.equal(a.exchanges.activeCount + b.exchanges.activeCount, 0);
});

t.test('each side gets what it lacks, page by page', async (t) => {
  const [a, b] = [new Side('a'), new Side('b')];
  a.fill(300, 4_000);
  b.fill(3, 10);
  const sent = converse(a, b);
  t.equal(a.table.recordsDigest(NET), b.table.recordsDigest(NET));
  t.same(sent.slice(0, 4), ['a:digests', 'b:vectors', 'a:vectors', 'a:page']);
  const pages = sent.filter((kind) => kind === 'a:page').length;
  t.ok(pages >= 5 && pages <= 7, `${pages} pages of 256 KiB for 1.2 MB`);
  t.equal(sent.filter((kind) => kind === 'b:page').length, 1);
  t.equal(
    sent.filter((kind) => kind === 'b:more').length,
    pages - 1,
    'the next only when asked for',
  );
  a.table.publish(NET, 'k0', undefined, 0);
  t.equal(
    converse(a, b).filter((kind) => kind === 'a:page').length,
    1,
    'later only the difference',
  );
  t.equal(a.table.recordsDigest(NET), b.table.recordsDigest(NET));
});

t.test('a message out of turn ends the exchange', async (t) => {
  const empty: ExchangeMessage = { kind: 'page', parts: [], last: true };
  const cases: readonly (readonly [string, boolean, ExchangeMessage])[] = [
    ['digests to the initiator', true, { kind: 'digests', topics: [] }],
    ['a page before vectors', true, empty],
    ['more before vectors', true, { kind: 'more' }],
    ['vectors before digests', false, { kind: 'vectors', topics: [], partial: false }],
    ['a page at once', false, empty],
  ];
  for (const [what, initiator, message] of cases) {
    const side = new Side('a');
    side.exchanges.open(1, 'b', initiator, 0);
    t.equal(side.exchanges.receive(1, message, 0), 'b');
    const { ends } = side.exchanges.takeReady();
    t.same(
      ends.map(({ outcome }) => outcome),
      ['unexpected'],
      what,
    );
    t.equal(side.exchanges.receive(1, message, 0), undefined, 'late messages are ignored');
  }
});

t.test('an idle exchange times out; not if it is we who were held up', async (t) => {
  const side = new Side('a');
  side.exchanges.open(1, 'b', true, 0);
  t.equal(side.exchanges.nextDeadlineMs(), 5_000);
  side.exchanges.timeout(4_999);
  t.equal(side.exchanges.activeCount, 1);
  side.exchanges.timeout(9_000);
  t.equal(side.exchanges.activeCount, 1, 'its answer may be waiting behind this call');
  side.exchanges.timeout(10_000);
  t.same(
    side.exchanges.takeReady().ends.map(({ outcome }) => outcome),
    ['timeout'],
  );
});

t.test('only so many exchanges are answered at a time', async (t) => {
  const side = new Side('a');
  for (let i = 1; i <= 33; i++) side.exchanges.open(-i, `m${i}`, false, 0);
  const { ends } = side.exchanges.takeReady();
  t.same(
    ends.map(({ exchange, outcome }) => [exchange, outcome]),
    [[-33, 'refused']],
  );
  side.exchanges.closed(-1);
  side.exchanges.open(-34, 'm34', false, 0);
  t.equal(side.exchanges.activeCount, 32);
});
