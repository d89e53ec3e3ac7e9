import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { playScenario } from '../../sim/gossip-scenario.js';

const SEEDS = Number(process.env['SIM_SEEDS'] ?? 3);
const folder = fileURLToPath(new URL('../../scenarios/gossip/', import.meta.url));

for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
  t.test(`scenario ${file}`, async (t) => {
    const text = readFileSync(`${folder}${file}`, 'utf8');
    for (let seed = 1; seed <= SEEDS; seed++) {
      for (const { line, isMet, found } of playScenario(text, seed)) {
        t.ok(isMet, `seed ${seed}: ${line}${isMet ? '' : `, found ${found}`}`);
      }
    }
  });
}
