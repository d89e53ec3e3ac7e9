import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Scenario } from './scenario.js';
import { formatScenario, parseScenario } from './transcript.js';

/**
 * Conversations between members, as test and as documentation. With UPDATE_SCENARIOS=1 the transcripts are written
 * anew, to be read as a diff; else they are what must happen.
 */
const isUpdate = process.env['UPDATE_SCENARIOS'] === '1';
const folder = fileURLToPath(new URL('../../scenarios/raft/', import.meta.url));

for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
  t.test(`scenario ${file}`, async (t) => {
    const text = readFileSync(`${folder}${file}`, 'utf8');
    const scenario = new Scenario();
    const played = parseScenario(text).map((step) => {
      const expected = scenario.play(step.command);
      if (!isUpdate) t.strictSame(expected, step.expected, step.command);
      return { ...step, expected };
    });
    if (isUpdate) writeFileSync(`${folder}${file}`, formatScenario(played));
    else t.equal(formatScenario(played), text, 'nothing else is in the file');
    t.ok(played.length > 3, 'something happens');
  });
}

t.test('a transcript that differs is noticed', async (t) => {
  const [step] = parseScenario('# prose\n> group 1\n1: is happy\n');
  t.strictSame(step, { before: ['# prose'], command: 'group 1', expected: ['1: is happy'] });
  t.notSame(new Scenario().play('group 1'), ['1: is happy']);
  t.throws(() => new Scenario().play('levitate 1'), { message: 'no such command: levitate' });
  t.throws(() => parseScenario('words without a command'));
});
