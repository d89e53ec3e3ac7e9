// `npm run chaos -- hostile [--only syn-flood,slow-readers --seconds 8 --driver auto --json --keep]`: clients that mean
// harm at a node's published ports and at the resolver of an overlay's program, while others ask for work at the same node.
// No request of the others may fail, and the agent's memory stays within bounds.
// Exit codes: 1 something was not so, 2 wrong flags.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { root } from '../setup.mjs';
import { flagsOf, httpLoad, onLab, Results, refuse, refuseUnknown } from './lab-bed.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const CLIENT = join(here, 'hostile-client.mjs');
const REPLICAS = 3;
const PORT = 8080;
const UDP_PORT = 8053;
/** Of the others, each on a connection of its own, and on connections that stay. */
const RATE = 50;
const GROWTH_BYTES_MAX = 96 * 2 ** 20;
const SAMPLE_MS = 200;
const REQUEST = 'GET /slow?ms=60000 HTTP/1.1\r\nHost: hostile\r\n\r\n';
/** Of the lab's own network, and nobody's. */
const MADE_UP = ['10.213.0.100', '100'];

const OPTIONS = { seconds: { type: 'string', default: '8' } };

function judge(values) {
  const seconds = Number(values.seconds);
  if (!(seconds >= 1 && seconds <= 300))
    refuse(`--seconds is from 1 to 300, not '${values.seconds}'`);
  return { seconds };
}

function synFlood() {
  const tool = join(root, 'build/syn-flood');
  mkdirSync(dirname(tool), { recursive: true });
  const source = join(root, 'bench/load/syn-flood.c');
  const { status } = spawnSync('cc', ['-O2', source, '-o', tool], { stdio: 'inherit' });
  if (status !== 0) refuse('syn-flood needs a C compiler: install gcc, or leave it out by --only');
  return tool;
}

function rssOf(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) * 1_024;
}

const at = (bed) => ({ host: bed.nodes[1].address, port: PORT });
const byNode3 = (bed, wish) => bed.program('node3', CLIENT, wish);
const byAttached = (bed, wish) =>
  bed.attached('node2', 'mesh', CLIENT, { host: '127.0.0.11', port: 53, ...wish });

/** From node3 at node2's ports, or from a program at node2's resolver. */
const ATTACKS = {
  'silent-connections': (bed, seconds) =>
    byNode3(bed, { mode: 'hold', ...at(bed), count: 12_000, seconds }),
  'connection-flood': (bed, seconds) =>
    byNode3(bed, { mode: 'churn', ...at(bed), together: 256, seconds }),
  'half-requests': (bed, seconds) =>
    byNode3(bed, { mode: 'hold', ...at(bed), count: 4_000, say: 'GET / HT', seconds }),
  'half-closed': (bed, seconds) =>
    byNode3(bed, { mode: 'hold', ...at(bed), count: 4_000, say: 'G', halfClose: true, seconds }),
  'slow-readers': (bed, seconds) =>
    byNode3(bed, { mode: 'hold', ...at(bed), count: 1_000, say: REQUEST, seconds }),
  'syn-flood': async (bed, seconds) => {
    const { host, port } = at(bed);
    const argv = [host, port, ...MADE_UP, 20_000, seconds].map(String);
    return JSON.parse(await bed.on('node3', synFlood(), ...argv));
  },
  'giant-datagrams': (bed, seconds) =>
    byNode3(bed, {
      ...{ mode: 'datagrams', host: bed.nodes[1].address, port: UDP_PORT },
      ...{ bytes: 65_000, perSecond: 2_000, sockets: 16, seconds },
    }),
  'many-udp-flows': (bed, seconds) =>
    byNode3(bed, {
      ...{ mode: 'datagrams', host: bed.nodes[1].address, port: UDP_PORT },
      ...{ bytes: 64, perSecond: 20_000, sockets: 4_000, seconds },
    }),
  'dns-garbage': (bed, seconds) =>
    byAttached(bed, { mode: 'datagrams', bytes: 200, perSecond: 20_000, garbage: true, seconds }),
  'dns-amplification': (bed, seconds) =>
    byAttached(bed, { mode: 'questions', name: 'tasks.web', perSecond: 10_000, seconds }),
};

/** What a resolver answers may be larger than what it was asked, as a DNS answer is, and not by far. */
const AMPLIFICATION_MAX = 12;

async function openService(bed) {
  await bed.docker('network', 'create', '--driver', 'overlay', '--attachable', 'mesh');
  const flags = ['--detach', '--name', 'web', '--replicas', String(REPLICAS), '--network', 'mesh'];
  const ports = ['--publish', `${PORT}:80`, '--publish', `${UDP_PORT}:53/udp`];
  const command = ['host', process.execPath, join(here, 'http-server.mjs')];
  await bed.docker('service', 'create', ...flags, ...ports, ...command);
  await bed.untilRunning('web', REPLICAS);
}

/** Requests of others at the same node. */
function others(lab) {
  const targets = [`${lab.nodes[1].address}:${PORT}`];
  const wish = { targets, rate: RATE, keepAlive: 10, keepAliveRate: 5, timeoutMs: 10_000 };
  return httpLoad(lab, wish);
}

async function attack(name, bed, lab, seconds) {
  const pid = lab.nodes[1].agent.pid;
  const before = rssOf(pid);
  let most = before;
  const sampler = setInterval(() => {
    most = Math.max(most, rssOf(pid));
  }, SAMPLE_MS);
  const load = await others(lab);
  await delay(500);
  const did = await ATTACKS[name](bed, seconds).catch(({ message }) => ({ error: message }));
  await delay(500);
  const told = await load.stop();
  clearInterval(sampler);
  const failed = Object.values(told).reduce((sum, kind) => sum + kind.failed, 0);
  const growth = most - before;
  const gain = did.answerBytes === undefined ? undefined : did.answerBytes / did.sentBytes;
  const isGood =
    did.error === undefined &&
    failed === 0 &&
    growth <= GROWTH_BYTES_MAX &&
    !(name.startsWith('dns-') && gain > AMPLIFICATION_MAX);
  const mib = (bytes) => (bytes / 2 ** 20).toFixed(0);
  const text = [
    Object.entries(did)
      .map(([key, value]) => `${key} ${value}`)
      .join(', '),
    `memory ${mib(before)} MiB, at most ${mib(most)}`,
    ...Object.entries(told).map(
      ([kind, { count, p50Ms, p99Ms, failed: lost, failures }]) =>
        `others' ${kind} ${count}, p50 ${p50Ms} p99 ${p99Ms} ms, failed ${lost}${lost > 0 ? ` (${failures[0]})` : ''}`,
    ),
  ].join('; ');
  return { name, isGood, text, did, told, failed, beforeBytes: before, mostBytes: most };
}

export async function hostile(argv) {
  const flags = flagsOf(argv, OPTIONS, judge);
  refuseUnknown(flags.only, Object.keys(ATTACKS));
  const results = new Results(flags.json);
  await onLab({ driver: flags.driver }, flags.keep, async (bed, lab) => {
    await openService(bed);
    for (const name of flags.only ?? Object.keys(ATTACKS))
      results.add(await attack(name, bed, lab, flags.seconds));
  });
  results.tell();
}
