import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { whyNoDockerd } from '../support/dockerd.js';
import { skipUnless } from './support/lab.js';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/**
 * What the write-ups of Docker Swarm show, with the real docker CLI against three agents: each statement of
 * `scripts/conformance/statements.mjs` is an assertion here.
 */
t.test('the docker CLI finds a swarm', { skip: skipUnless('docker', 'curl') }, (t) =>
  allAsSaid(t, '--no-classic', 30),
);

const isFull = process.env['SHOAL_E2E_FULL'] === '1';

/** The same of the classic Swarm's write-up, on three nodes with real engines; a minute more. */
t.test(
  'the docker CLI finds a classic swarm',
  { skip: isFull ? (whyNoDockerd() ?? skipUnless('docker')) : 'only with SHOAL_E2E_FULL=1' },
  (t) => allAsSaid(t, '--only-classic', 15),
);

async function allAsSaid(t: Test, flag: string, least: number): Promise<void> {
  const json = join(t.testdir({}), 'results.json');
  const argv = [join(root, 'scripts/conformance.mjs'), flag, '--json', json];
  const child = spawn(process.execPath, argv, { stdio: 'ignore' });
  await new Promise((resolve) => child.once('close', resolve));
  const [lab] = JSON.parse(readFileSync(json, 'utf8')) as {
    readonly results: Readonly<Record<string, string>>;
  }[];
  const results = Object.entries(lab?.results ?? {});
  t.ok(results.length > least, `${results.length} statements`);
  for (const [id, result] of results) t.equal(result, 'as said', id);
}
