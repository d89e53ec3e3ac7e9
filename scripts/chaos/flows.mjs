// `npm run chaos -- flows [--only even,evict,idle --connections 100000 --idle-minutes 20 --driver auto --json --keep]`:
// three nodes and a service of six tasks, and what only time or number shows: that many connections are spread
// evenly, that one which must go is reset at both ends at once, and that one on which nothing is said stays.
// Exit codes: 1 something was not so, 2 wrong flags.
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { flagsOf, onLab, Results, refuse, refuseUnknown } from './lab-bed.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const CLIENT = join(here, 'flow-client.mjs');
const REPLICAS = 6;
const BANNER_PORT = 8080;
const ECHO_PORT = 8081;
const TOGETHER = 64;
/** Chi-squared of five degrees of freedom that one even spread in a thousand exceeds. */
const CHI_SQUARED_MAX = 20.5;
/** Those that look at no task's load: of `lc` and `p2c` the quicker tasks get more, and shall. */
const ALGORITHMS = ['rr', 'wrr', 'maglev'];
/** A node's table of flows holds 65,536, and looks at some of them for the one silent the longest. */
const EVICTING_FLOWS_MAX = 600_000;
const EVICTED_APART_MS_MAX = 50;

const OPTIONS = {
  connections: { type: 'string', default: '100000' },
  'idle-minutes': { type: 'string', default: '20' },
};

function judge(values) {
  const connections = Number(values.connections);
  const idleMinutes = Number(values['idle-minutes']);
  if (!Number.isInteger(connections) || connections < 1_000)
    refuse(`--connections is a number from 1000, not '${values.connections}'`);
  if (!(idleMinutes > 0)) refuse(`--idle-minutes is above 0, not '${values['idle-minutes']}'`);
  return { connections, idleMinutes };
}

async function openService(bed) {
  await bed.docker('network', 'create', '--driver', 'overlay', '--attachable', 'mesh');
  const flags = ['--detach', '--name', 'web', '--replicas', String(REPLICAS)];
  const ports = ['--publish', `${BANNER_PORT}:80`, '--publish', `${ECHO_PORT}:81`];
  const env = ['--env', 'SLOT={{.Task.Slot}}', '--network', 'mesh'];
  const command = ['host', process.execPath, join(here, 'flow-server.mjs')];
  await bed.docker('service', 'create', ...flags, ...env, ...ports, ...command);
  await bed.untilRunning('web', REPLICAS);
}

async function vipOf(bed) {
  const format = '{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{.Addr}}\n{{end}}';
  const vips = await bed.docker('service', 'inspect', '--format', format, 'web');
  const mesh = await bed.docker('network', 'inspect', '--format', '{{.ID}}', 'mesh');
  const line = vips.split('\n').find((text) => text.startsWith(mesh));
  return (line ?? '').split(' ')[1]?.replace(/\/.*/, '');
}

async function even(bed, flags) {
  const results = [];
  for (const algorithm of ALGORITHMS) {
    await bed.docker('service', 'update', '-d', '--label-add', `shoal.balance=${algorithm}`, 'web');
    await delay(2_000);
    // Of the same address and ports `maglev` always makes the same choice: each connection has an address of its own.
    const hasManyAddresses = algorithm === 'maglev';
    const target = `${hasManyAddresses ? '127.0.0.1' : bed.nodes[0].address}:${BANNER_PORT}`;
    const count = flags.connections;
    const wish = { mode: 'even', target, count, together: TOGETHER, hasManyAddresses };
    const { tasks, failed, tookMs } = await bed.program('node1', CLIENT, wish);
    const counts = Object.values(tasks);
    const each = (flags.connections - failed) / REPLICAS;
    const missing = REPLICAS - counts.length;
    const chiSquared =
      counts.reduce((sum, count) => sum + (count - each) ** 2 / each, 0) + missing * each;
    results.push({
      name: `even ${algorithm}`,
      isGood: failed === 0 && chiSquared <= CHI_SQUARED_MAX,
      text: `${counts.join(' ')}: chi-squared ${chiSquared.toFixed(2)}, ${failed} failed, ${tookMs} ms`,
      tasks,
      failed,
      tookMs,
      chiSquared,
    });
  }
  return results;
}

async function evict(bed) {
  const target = `${await vipOf(bed)}:81`;
  const wish = { mode: 'evict', target, flows: EVICTING_FLOWS_MAX };
  const seen = await bed.attached('node1', 'mesh', CLIENT, wish);
  await delay(1_000);
  const log = await bed.docker('service', 'logs', '--raw', 'web');
  const atServer = log.split('\n').find((line) => line.startsWith('ECONNRESET'));
  const apartMs =
    atServer === undefined || seen.reset === null
      ? Number.POSITIVE_INFINITY
      : Math.abs(Number(atServer.split(' ')[1]) - seen.reset.atMs);
  const isGood = seen.reset?.code === 'ECONNRESET' && apartMs <= EVICTED_APART_MS_MAX;
  const text = `after ${seen.sent} other flows: client ${seen.reset?.code ?? 'nothing'}, task ${atServer ?? 'nothing'}, ${apartMs} ms apart`;
  return [{ name: 'evict', isGood, text, ...seen, apartMs }];
}

async function idle(bed, flags) {
  const byPort = bed.nodes
    .flatMap(({ address, address6 }) => [address, address6])
    .filter((address) => address !== undefined);
  const targets = ['127.0.0.1', ...byPort].map((address) => `${address}:${ECHO_PORT}`);
  const wish = { mode: 'idle', minutes: flags.idleMinutes };
  const [published, attached] = await Promise.all([
    bed.program('node1', CLIENT, { ...wish, targets }),
    bed.attached('node1', 'mesh', CLIENT, { ...wish, targets: [`${await vipOf(bed)}:81`] }),
  ]);
  return [...published, ...attached].map(({ target, ms, error }) => ({
    name: `idle ${target}`,
    isGood: error === undefined,
    text: error ?? `answers after ${flags.idleMinutes} silent minutes, in ${ms} ms`,
    ms,
  }));
}

const PARTS = { even, evict, idle };

export async function flows(argv) {
  const flags = flagsOf(argv, OPTIONS, judge);
  refuseUnknown(flags.only, Object.keys(PARTS));
  const results = new Results(flags.json);
  await onLab({ driver: flags.driver, ipv6: true }, flags.keep, async (bed) => {
    await openService(bed);
    for (const name of flags.only ?? Object.keys(PARTS))
      for (const result of await PARTS[name](bed, flags)) results.add(result);
  });
  results.tell();
}
