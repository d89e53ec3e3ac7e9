import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { playScenario } from '../../sim/cluster/scenario.js';

const folder = fileURLToPath(new URL('../../scenarios/orchestrate/', import.meta.url));

for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
  t.test(`scenario ${file}`, async (t) => {
    for (const { line, isMet, found } of playScenario(readFileSync(`${folder}${file}`, 'utf8')))
      t.ok(isMet, `${line}${isMet ? '' : `, found ${found}`}`);
  });
}
