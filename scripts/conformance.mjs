// `npm run conformance [-- --only S3-11,S0-04 --json FILE --docker-host URL,URL,URL --address A,A,A
//   --namespace N,N,N --image IMAGE,IMAGE --no-lab --no-classic --only-classic]`: runs the statements with the real docker CLI against a lab, and
// against a real Docker Swarm's engines where those are given, and prints the differences as a table.
// The statements of the classic Swarm (S1) are tried on a lab with engines of its own, where there is a dockerd.
// The engines must be in no swarm; images are two tags of a busybox that every one of them has.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { CLASSIC_STATEMENTS, classicTarget } from './conformance/classic.mjs';
import { whyNoEngines } from './conformance/engines.mjs';
import { Difference } from './conformance/expect.mjs';
import { STATEMENTS } from './conformance/statements.mjs';
import { engineTarget, labTarget } from './conformance/target.mjs';
import { setup } from './setup.mjs';

function refuse(text) {
  process.stderr.write(`conformance: ${text}\n`);
  process.exit(2);
}

const listOf = (text) =>
  text === undefined ? undefined : text.split(',').filter((one) => one !== '');

function options() {
  try {
    const { values } = parseArgs({
      options: {
        only: { type: 'string' },
        json: { type: 'string' },
        'docker-host': { type: 'string' },
        address: { type: 'string' },
        namespace: { type: 'string' },
        image: { type: 'string', default: 'busybox:1,busybox:2' },
        'no-lab': { type: 'boolean', default: false },
        'no-classic': { type: 'boolean', default: false },
        'only-classic': { type: 'boolean', default: false },
      },
    });
    const hosts = listOf(values['docker-host']);
    const addresses = listOf(values.address);
    if (hosts !== undefined && (hosts.length !== 3 || addresses?.length !== 3))
      refuse('--docker-host and --address name three engines each');
    return {
      ...values,
      only: listOf(values.only),
      hosts,
      addresses,
      namespaces: listOf(values.namespace) ?? [],
      images: listOf(values.image),
    };
  } catch (error) {
    return refuse(error.message);
  }
}

/** Every statement is tried, whatever became of those before. */
async function judge(target, statements, only) {
  const results = new Map();
  const state = {};
  for (const { id, says, run } of statements) {
    if (only !== undefined && !only.includes(id)) continue;
    const fromMs = Date.now();
    let result = 'as said';
    try {
      await run(target, state);
    } catch (error) {
      result = error instanceof Difference ? error.message : `broken: ${error.stack}`;
    }
    results.set(id, result);
    const seconds = ((Date.now() - fromMs) / 1000).toFixed(1);
    process.stderr.write(`${target.name} ${id} (${seconds} s) ${says}: ${result}\n`);
  }
  return results;
}

/** Opens the target, judges it, and takes it down, also when we are interrupted. */
async function tried(open, statements, only) {
  const target = await open();
  const onSignal = () => void target.end().finally(() => process.exit(130));
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    return { name: target.name, results: await judge(target, statements, only) };
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    await target.end();
  }
}

function printTable(statements, columns, only) {
  process.stdout.write(
    `\n| statement | says | ${columns.map(({ name }) => name).join(' | ')} |\n|---|---|${'---|'.repeat(columns.length)}\n`,
  );
  for (const { id, says } of statements) {
    if (only !== undefined && !only.includes(id)) continue;
    const cells = columns.map(({ results }) => results.get(id) ?? 'not tried');
    process.stdout.write(`| ${id} | ${says} | ${cells.join(' | ')} |\n`);
  }
}

const isAsked = (statements, only) =>
  only === undefined || statements.some(({ id }) => only.includes(id));

setup();
const given = options();
const columns = [];
if (!given['only-classic'] && isAsked(STATEMENTS, given.only)) {
  if (!given['no-lab']) columns.push(await tried(labTarget, STATEMENTS, given.only));
  if (given.hosts !== undefined)
    columns.push(await tried(async () => engineTarget(given), STATEMENTS, given.only));
  if (columns.length > 0) printTable(STATEMENTS, columns, given.only);
}
if (!given['no-classic'] && isAsked(CLASSIC_STATEMENTS, given.only)) {
  const lack = whyNoEngines();
  if (lack === undefined) {
    const column = await tried(classicTarget, CLASSIC_STATEMENTS, given.only);
    printTable(CLASSIC_STATEMENTS, [column], given.only);
    columns.push(column);
  } else process.stdout.write(`\nthe classic Swarm's statements were not tried: ${lack}\n`);
}
let differences = 0;
for (const { name, results } of columns) {
  const same = [...results.values()].filter((one) => one === 'as said').length;
  differences += name === 'shoal' ? results.size - same : 0;
  process.stdout.write(`${name}: ${same} of ${results.size} as said\n`);
}
if (given.json !== undefined)
  writeFileSync(
    given.json,
    JSON.stringify(
      columns.map(({ name, results }) => ({ name, results: Object.fromEntries(results) })),
      null,
      2,
    ),
  );
process.exit(differences === 0 ? 0 : 1);
