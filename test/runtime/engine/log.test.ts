import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { EngineClient } from '../../../src/runtime/engine/io/engine-client.js';
import { readLog } from '../../../src/runtime/engine/io/engine-log.js';
import { LogPlace, restQuery } from '../../../src/runtime/engine/wire/log-place.js';
import type { LogRecord } from '../../../src/runtime/index.js';
import { fuzzRuns } from '../../support/fuzz.js';

const EVERYTHING = { stdout: true, stderr: true, follow: true };
const START_NS = 1_795_745_937_000_000_000n;

/** A log as an engine writes it: each stream in the order of its times, which may be equal. */
const logs = fc
  .array(fc.record({ isError: fc.boolean(), afterNs: fc.constantFrom(0n, 0n, 1n, 900_000_000n) }), {
    maxLength: 40,
  })
  .map((steps) => {
    const atNs = { stdout: START_NS, stderr: START_NS };
    return steps.map(({ isError, afterNs }, index): LogRecord => {
      const stream = isError ? 'stderr' : 'stdout';
      const other = atNs[isError ? 'stdout' : 'stderr'];
      // Never more than a second behind the other stream.
      const least = other - 1_000_000_000n;
      atNs[stream] = (atNs[stream] > least ? atNs[stream] : least) + afterNs;
      return { stream, atNs: atNs[stream], data: Buffer.from(`${index}\n`) };
    });
  });

t.test('a second reading goes on exactly where the first was cut off', async (t) => {
  fc.assert(
    fc.property(logs, fc.nat(), (log, cut) => {
      const at = cut % (log.length + 1);
      const place = new LogPlace();
      for (const record of log.slice(0, at)) place.passed(record);
      const isUnseen = place.unseen();
      const since = place.sinceNs ?? 0n;
      const rest = log.filter(({ atNs }) => atNs >= since).filter(isUnseen);
      t.strictSame(rest, log.slice(at));
    }),
    { numRuns: fuzzRuns(200) },
  );
});

t.test('who saw nothing yet is given all that was asked for', async (t) => {
  const of = (tail?: number) =>
    restQuery({ ...EVERYTHING, ...(tail === undefined ? {} : { tail }) }, new LogPlace(), 1500);
  t.match(of(), { follow: '0', since: undefined });
  t.match(of(3), { follow: '0', tail: '3', since: undefined });
  t.match(of(0), { follow: '0', tail: undefined, since: '1.500000000' }, 'only what came since');
});

t.test('an engine that cuts off a reader loses it nothing', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-log-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const lines = Array.from({ length: 50 }, (_, i) => {
    const text = Buffer.from(`2026-11-27T02:18:57.${String(i >> 1).padStart(9, '0')}Z line ${i}\n`);
    const head = Buffer.alloc(8);
    head.writeUInt8(1, 0);
    head.writeUInt32BE(text.length, 4);
    return Buffer.concat([head, text]);
  });
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://engine');
    if (url.pathname.endsWith('/_ping')) return response.setHeader('api-version', '1.41').end();
    asked.push(url.searchParams.get('follow') ?? '');
    const isCut = url.searchParams.get('follow') === '1';
    if (url.pathname.includes('/gone/') && !isCut) response.statusCode = 404;
    else response.write(Buffer.concat(isCut ? lines.slice(0, 21) : lines));
    return response.end();
  });
  server.listen(join(dir, 'sock'));
  await once(server, 'listening');
  const client = new EngineClient(join(dir, 'sock'));
  t.teardown(() => {
    client.close();
    server.close();
  });
  const countOf = async (id: string, follow: boolean) => {
    const texts: string[] = [];
    const signal = new AbortController().signal;
    for await (const { data } of readLog(
      client,
      { id, isTerminal: false },
      { ...EVERYTHING, follow },
      signal,
    ))
      texts.push(Buffer.from(data).toString());
    t.ok(texts.every((text, i) => text === `line ${i}\n`));
    return texts.length;
  };
  t.equal(await countOf('there', true), 50);
  t.strictSame(asked, ['1', '0']);
  t.equal(await countOf('there', false), 50);
  t.strictSame(asked, ['1', '0', '0'], 'who does not follow reads once');
  t.equal(await countOf('gone', true), 21, 'a container that was removed has no more to tell');
});
