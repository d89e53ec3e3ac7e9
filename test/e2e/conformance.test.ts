import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { skipUnless } from './support/lab.js';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/**
 * What the write-ups of Docker Swarm show, with the real docker CLI against three agents: each statement of
 * `scripts/conformance/statements.mjs` is an assertion here.
 */
t.test('the docker CLI finds a swarm', { skip: skipUnless('docker', 'curl') }, async (t) => {
  const json = join(t.testdir({}), 'results.json');
  const child = spawn(process.execPath, [join(root, 'scripts/conformance.mjs'), '--json', json], {
    stdio: 'ignore',
  });
  await new Promise((resolve) => child.once('close', resolve));
  const [lab] = JSON.parse(readFileSync(json, 'utf8')) as {
    readonly results: Readonly<Record<string, string>>;
  }[];
  const results = Object.entries(lab?.results ?? {});
  t.ok(results.length > 30, `${results.length} statements`);
  for (const [id, result] of results) t.equal(result, 'as said', id);
});
