// `npm run chaos [-- --minutes 10 --managers 3 --seed N --power-cut --json]`: a lab of managers whose
// leader is killed over and over, under load. Its history is checked: no acknowledged write is lost or
// done twice, every answer fits one order of all, and a new leader is there soon.
// `npm run chaos -- ingress`: requests while services change and nodes die, see chaos/ingress.mjs.
// `npm run chaos -- flows`: many connections, silent ones, and ones too many, see chaos/flows.mjs.
// `npm run chaos -- hostile`: clients that mean harm, see chaos/hostile.mjs.
// Exit codes: 1 a violation, 2 wrong flags, 3 only the times of the targets were missed.
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ask, closeConnections } from './chaos/api.mjs';
import { objectClient, Probe, registerClient } from './chaos/clients.mjs';
import { Faults } from './chaos/faults.mjs';
import { flows } from './chaos/flows.mjs';
import { History } from './chaos/history.mjs';
import { hostile } from './chaos/hostile.mjs';
import { ingress } from './chaos/ingress.mjs';
import { onLab, refuse } from './chaos/lab-bed.mjs';
import { PowerCuts } from './chaos/power-cut.mjs';

/** From the kill of a leader to the first acknowledged write that was begun after it. */
const TARGET_MEDIAN_MS = 1_000;
const TARGET_WORST_MS = 3_000;
const OBJECT_CLIENTS = 6;
const REGISTER_CLIENTS = 4;
const PROGRESS_MS = 15_000;

function flagsOf(argv) {
  try {
    const { values } = parseArgs({
      args: argv,
      options: {
        minutes: { type: 'string', default: '2' },
        managers: { type: 'string', default: '3' },
        seed: { type: 'string' },
        'power-cut': { type: 'boolean', default: false },
        'no-targets': { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
      },
    });
    const minutes = Number(values.minutes);
    const managers = Number(values.managers);
    const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
    if (!(minutes > 0 && minutes <= 1_440)) refuse(`--minutes is above 0, not '${values.minutes}'`);
    if (managers !== 3 && managers !== 5) refuse(`--managers is 3 or 5, not '${values.managers}'`);
    if (!Number.isInteger(seed)) refuse(`--seed is a whole number, not '${values.seed}'`);
    return { ...values, minutes, managers, seed };
  } catch (error) {
    return refuse(error.message);
  }
}

/** Mulberry32: what is chosen follows the seed; when it happens does not. */
function prng(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

function gapsOf(events, kinds) {
  const gaps = events.filter(({ kind }) => kinds.test(kind)).map(({ gapMs }) => gapMs ?? Infinity);
  gaps.sort((a, b) => a - b);
  const rounded = (q) => (gaps.length === 0 ? null : Math.round(quantile(gaps, q)));
  return { count: gaps.length, medianMs: rounded(0.5), p90Ms: rounded(0.9), worstMs: rounded(1) };
}

/** All objects as every manager has them. */
async function finalState(lab, history) {
  const views = [];
  for (const { name, socket } of lab.nodes) {
    const callMs = performance.now();
    const answer = await ask(socket, 'GET', '/configs', { timeoutMs: 10_000 });
    if (answer.status !== 200 || answer.stale)
      throw new Error(`${name} does not list its objects: ${JSON.stringify(answer).slice(0, 300)}`);
    const found = new Map();
    for (const { Spec } of answer.value)
      found.set(Spec.Name, [...(found.get(Spec.Name) ?? []), Spec.Data]);
    history.addFinal(callMs, found);
    const lines = answer.value.map(
      ({ ID, Version, Spec }) => `${ID} ${Version.Index} ${Spec.Name}`,
    );
    views.push({ name, found, digest: lines.sort().join('\n') });
  }
  const violations = views
    .filter(({ digest }) => digest !== views[0].digest)
    .map(({ name }) => `${name} has other objects than ${views[0].name}`);
  return {
    violations: [...violations, ...history.checkFinal(views[0].found)],
    objects: views[0].found.size,
  };
}

/** What the agents say of themselves that should never be. */
function bugsIn(lab) {
  return lab.nodes.flatMap(({ name, logFile }) =>
    readFileSync(logFile, 'utf8')
      .split('\n')
      .filter((line) => /"level":"?(60|50|fatal|error)"?/.test(line))
      .map((line) => `${name}: ${line.slice(0, 400)}`),
  );
}

async function runLoad(lab, flags, say) {
  const random = prng(flags.seed);
  const history = new History();
  const managers = lab.nodes.map(({ socket }) => socket);
  const nodes = (await ask(managers[0], 'GET', '/nodes')).value;
  const nodeIds = nodes.slice(0, 3).map(({ ID }) => ID);
  const probe = new Probe({ managers, history });
  const faults = new Faults({ lab, probe, random, say });
  const cuts = new PowerCuts({ lab, dir: lab.dir, random });
  const stop = new AbortController();
  const { signal } = stop;
  const rest = { managers, history, stop: signal };
  const work = [probe.run(signal)];
  for (let i = 0; i < OBJECT_CLIENTS; i++)
    work.push(objectClient({ id: i, random: prng(flags.seed + 1 + i), ...rest }));
  for (let i = 0; i < REGISTER_CLIENTS; i++)
    work.push(registerClient({ id: i, nodeIds, random: prng(flags.seed + 100 + i), ...rest }));
  if (flags['power-cut']) work.push(cuts.run(signal));
  const beganMs = performance.now();
  const progress = setInterval(() => {
    const seconds = Math.round((performance.now() - beganMs) / 1000);
    say(
      `${seconds} s: ${history.size} operations, ${faults.events.length} faults, ${cuts.taken} copies`,
    );
  }, PROGRESS_MS);
  try {
    await faults.run(signal, beganMs + flags.minutes * 60_000);
  } finally {
    stop.abort();
    clearInterval(progress);
    await Promise.all(work);
  }
  await faults.untilHealthy();
  const final = await finalState(lab, history);
  say(`checking ${history.size} operations`);
  const order = await history.checkOrder();
  const violations = [...order, ...final.violations, ...cuts.violations];
  const gaps = {
    killLeader: gapsOf(faults.events, /^kill-leader/),
    pauseLeader: gapsOf(faults.events, /^pause-leader/),
    cutLeader: gapsOf(faults.events, /^cut-leader/),
    followers: gapsOf(faults.events, /follower/),
  };
  return {
    seed: flags.seed,
    managers: flags.managers,
    seconds: Math.round((performance.now() - beganMs) / 1000),
    operations: history.size,
    outcomes: history.counts,
    objectsLeft: final.objects,
    gaps,
    copies: { taken: cuts.taken, entries: cuts.entries, slowestMs: Math.round(cuts.slowestMs) },
    events: faults.events.map(({ kind, node, gapMs }) => ({ kind, node, gapMs })),
    violations,
    errorsLogged: bugsIn(lab),
  };
}

function missedOf({ gaps: { killLeader } }) {
  const { count, medianMs, worstMs } = killLeader;
  if (count === 0) return [];
  const missed = [];
  if (medianMs > TARGET_MEDIAN_MS)
    missed.push(`a new leader took ${medianMs} ms at the median, more than ${TARGET_MEDIAN_MS} ms`);
  if (!(worstMs <= TARGET_WORST_MS))
    missed.push(`a new leader took ${worstMs} ms at worst, more than ${TARGET_WORST_MS} ms`);
  return missed;
}

function show(report) {
  const lines = [
    `seed ${report.seed}, ${report.managers} managers, ${report.seconds} s`,
    `operations ${report.operations}: ${Object.entries(report.outcomes)
      .map((pair) => pair.join(' '))
      .join(', ')}`,
    `objects left ${report.objectsLeft}`,
    '',
    'WRITES AGAIN AFTER    COUNT   MEDIAN      P90    WORST   (ms)',
    ...Object.entries(report.gaps).map(([kind, { count, medianMs, p90Ms, worstMs }]) =>
      [
        kind.padEnd(20),
        ...[count, medianMs, p90Ms, worstMs].map((n) => String(n ?? '-').padStart(7)),
      ].join('  '),
    ),
    '',
  ];
  if (report.copies.taken > 0)
    lines.push(
      `copies of disks taken and opened: ${report.copies.taken}, the slowest in ${report.copies.slowestMs} ms`,
    );
  lines.push(`errors that the agents logged: ${report.errorsLogged.length}`);
  lines.push(...report.errorsLogged.slice(0, 10).map((line) => `  ${line}`));
  lines.push(`violations: ${report.violations.length}`);
  lines.push(...report.violations.slice(0, 20).map((line) => `  ${line}`));
  lines.push(...report.missed.map((line) => `missed: ${line}`));
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function main() {
  const flags = flagsOf(process.argv.slice(2));
  const say = (line) => process.stderr.write(`chaos: ${line}\n`);
  const options = { nodes: flags.managers, managers: flags.managers, driver: 'portable' };
  say(`seed ${flags.seed}: ${flags.managers} managers for ${flags.minutes} min`);
  await onLab(options, flags.keep, async (_bed, lab) => {
    const report = await runLoad(lab, flags, say);
    const missed = flags['no-targets'] ? [] : missedOf(report);
    const whole = { ...report, missed };
    if (flags.json) process.stdout.write(`${JSON.stringify(whole, null, 2)}\n`);
    else show(whole);
    process.exitCode = report.violations.length > 0 ? 1 : missed.length > 0 ? 3 : 0;
  }).finally(closeConnections);
  // A request that waits for a leader does not hold us up.
  await delay(0);
}

const PARTS = { ingress, flows, hostile };
const part = PARTS[process.argv[2] ?? ''];
if (part === undefined) await main();
else await part(process.argv.slice(3));
