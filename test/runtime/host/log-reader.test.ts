import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { LogQuery, LogRecord } from '../../../src/runtime/core/runtime.js';
import { type LogSource, readLogs } from '../../../src/runtime/host/io/log-reader.js';
import { parseLogRecord } from '../../../src/runtime/host/wire/log-record.js';

const never = new AbortController().signal;
const START_MS = Date.UTC(2026, 1, 28, 23, 59, 59);

interface Line {
  readonly stream: 'stdout' | 'stderr';
  readonly atMs: number;
  readonly isWhole: boolean;
  readonly text: Uint8Array;
}

const line = fc.record({
  stream: fc.constantFrom<'stdout' | 'stderr'>('stdout', 'stderr'),
  stepMs: fc.nat(3000),
  isWhole: fc.boolean(),
  // Anything but an end of line, now and then longer than what is read at once.
  text: fc.oneof(
    { weight: 9, arbitrary: fc.uint8Array({ maxLength: 40 }) },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 16_000, maxLength: 16_384 }) },
  ),
});

const log = fc
  .array(fc.array(line, { maxLength: 25 }), { minLength: 1, maxLength: 4 })
  .map((files) => {
    let atMs = START_MS;
    return files.map((lines) =>
      lines.map(({ stream, stepMs, isWhole, text }): Line => {
        atMs += stepMs;
        return { stream, atMs, isWhole, text: text.map((byte) => (byte === 10 ? 11 : byte)) };
      }),
    );
  });

const encode = ({ stream, atMs, isWhole, text }: Line) => {
  const stamp = `${new Date(atMs).toISOString().slice(0, -1)}000000Z`;
  return Buffer.concat([
    Buffer.from(`${stamp} ${stream} ${isWhole ? 'F' : 'P'} `),
    text,
    Buffer.from('\n'),
  ]);
};

const expected = ({ stream, atMs, isWhole, text }: Line) => ({
  stream,
  atNs: BigInt(atMs) * 1_000_000n,
  data: Buffer.concat([text, Buffer.from(isWhole ? '\n' : '')]).toString('hex'),
});

const seen = ({ stream, atNs, data }: LogRecord) => ({
  stream,
  atNs,
  data: Buffer.from(data).toString('hex'),
});

/** A task's folder that is written by the test itself. */
class Source implements LogSource {
  readonly folder: { readonly path: string };
  exit: object | undefined;
  readonly isClosed = false;
  readonly #listeners = new Set<() => void>();

  constructor(t: { teardown(work: () => void): unknown }) {
    this.folder = { path: mkdtempSync(join(tmpdir(), 'shl-log-')) };
    t.teardown(() => rmSync(this.folder.path, { recursive: true, force: true }));
  }

  file(number: number): string {
    return join(this.folder.path, `log.${number}`);
  }

  write(first: number, files: readonly (readonly Line[])[]): void {
    files.forEach((lines, i) => {
      writeFileSync(this.file(first + i), Buffer.concat(lines.map(encode)));
    });
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  end(): void {
    this.exit = {};
    for (const listener of this.#listeners) listener();
  }
}

async function read(source: Source, query: Partial<LogQuery> = {}) {
  const records = [];
  const whole = { stdout: true, stderr: true, follow: false, ...query };
  for await (const record of readLogs(source, whole, never)) records.push(seen(record));
  return records;
}

const property = async (t: Test, check: (source: Source, files: Line[][]) => Promise<void>) => {
  await fc.assert(
    fc.asyncProperty(log, fc.integer({ min: 1, max: 50 }), async (files, first) => {
      const cleanups: (() => void)[] = [];
      const source = new Source({ teardown: (work) => cleanups.push(work) });
      try {
        source.write(first, files);
        await check(source, files);
      } finally {
        for (const work of cleanups) work();
      }
    }),
    { numRuns: 40 },
  );
  t.pass('holds');
};

t.test('property: all records come back, over all files, in order', async (t) => {
  await property(t, async (source, files) => {
    t.strictSame(await read(source), files.flat().map(expected));
  });
});

t.test('property: the last n are the end of all, by stream too', async (t) => {
  await property(t, async (source, files) => {
    const all = files.flat();
    for (const tail of [0, 1, 2, 7, 30, 1000]) {
      const want = tail === 0 ? [] : all.slice(-tail).map(expected);
      t.strictSame(await read(source, { tail }), want, `tail ${tail}`);
      const errors = all.filter(({ stream }) => stream === 'stderr');
      const wantErrors = tail === 0 ? [] : errors.slice(-tail).map(expected);
      t.strictSame(await read(source, { tail, stdout: false }), wantErrors);
    }
  });
});

t.test('property: since and until cut by time', async (t) => {
  await property(t, async (source, files) => {
    const all = files.flat();
    const middle = all[Math.floor(all.length / 2)]?.atMs ?? START_MS;
    const since = all.filter(({ atMs }) => atMs >= middle).map(expected);
    t.strictSame(await read(source, { sinceMs: middle }), since);
    const until = all.filter(({ atMs }) => atMs <= middle).map(expected);
    t.strictSame(await read(source, { untilMs: middle }), until);
  });
});

t.test('property: a torn or foreign line is skipped, and nothing else', async (t) => {
  await property(t, async (source, files) => {
    const all = files.flat();
    // The last record loses its end, as when the machine goes down.
    const end = files.at(-1)?.at(-1);
    if (end === undefined) return;
    const names = readdirSync(source.folder.path);
    const path = join(source.folder.path, names.sort(byNumber).at(-1) ?? '');
    const size = Buffer.concat((files.at(-1) ?? []).map(encode)).length;
    truncateSync(path, size - 1);
    t.strictSame(await read(source), all.slice(0, -1).map(expected));
    appendFileSync(path, '\nno record at all\n');
    t.strictSame(await read(source), all.map(expected), 'its end came');
  });
});

const byNumber = (a: string, b: string) => Number(a.slice(4)) - Number(b.slice(4));

t.test('a follower sees what is written in pieces and rotated away under it', async (t) => {
  const source = new Source(t);
  const lines = Array.from(
    { length: 300 },
    (_, i): Line => ({
      stream: i % 3 === 0 ? 'stderr' : 'stdout',
      atMs: START_MS + i,
      isWhole: true,
      text: Buffer.from(`line ${i} ${'x'.repeat(i)}`),
    }),
  );
  source.write(1, [[]]);
  const records = read(source, { follow: true });
  let file = 1;
  for (const [i, item] of lines.entries()) {
    const bytes = encode(item);
    // In two writes, between which the reader may look.
    const half = Math.floor(bytes.length / 2);
    appendFileSync(source.file(file), bytes.subarray(0, half));
    if (i % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
    appendFileSync(source.file(file), bytes.subarray(half));
    if (i % 50 === 49) {
      file++;
      writeFileSync(source.file(file), '');
    }
  }
  source.end();
  t.strictSame(await records, lines.map(expected));
});

t.test('a follower that is far behind goes on with the oldest file that is left', async (t) => {
  const source = new Source(t);
  const item = (n: number): Line => ({
    stream: 'stdout',
    atMs: START_MS + n,
    isWhole: true,
    text: Buffer.from(`${n}`),
  });
  source.write(1, [[item(1)], [item(2)], [item(3)]]);
  const reader = readLogs(source, { stdout: true, stderr: true, follow: true }, never);
  t.equal((await reader.next()).value?.data.toString(), Buffer.from('1\n').join(','));
  rmSync(source.file(2));
  t.equal((await reader.next()).value?.data.toString(), Buffer.from('3\n').join(','));
  source.end();
  t.match(await reader.next(), { done: true });
});

t.test('a record by its bytes', async (t) => {
  const cases: readonly (readonly [string, string, bigint | undefined])[] = [
    ['the epoch', '1970-01-01T00:00:00.000000000Z stdout F a', 0n],
    ['a leap day', '2024-02-29T12:00:00.000000001Z stderr P b', 1_709_208_000_000_000_001n],
    ['the end of a year', '2026-12-31T23:59:59.999999999Z stdout F ', 1_798_761_599_999_999_999n],
    ['another stream', '2026-12-31T23:59:59.999999999Z stdxxx F a', undefined],
    ['a cut fraction', '2026-12-31T23:59:59.99Z stdout F abcdefgh', undefined],
    ['nothing', '', undefined],
  ];
  for (const [name, bytes, want] of cases) {
    t.equal(parseLogRecord(Buffer.from(bytes))?.atNs, want, name);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      parseLogRecord(bytes);
      return true;
    }),
  );
});
