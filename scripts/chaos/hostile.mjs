// `npm run chaos -- hostile [--only syn-flood,slow-readers --seconds 8 --driver auto --json --keep]`: clients that mean
// harm at a node's published ports and at the resolver of an overlay's program, while others ask for work at the same node.
// No request of the others may fail, and the agent's memory stays within bounds.
// Exit codes: 1 something was not so, 2 wrong flags.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { flagsOf, httpLoad, loadTool, onLab, Results, refuse, refuseUnknown } from './lab-bed.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const CLIENT = join(here, 'hostile-client.mjs');
const REPLICAS = 3;
const PORT = 8080;
const UDP_PORT = 8053;
/** Not 53, where the resolver of tasks is. */
const TASK_UDP_PORT = 5353;
/** Of the others, each on a connection of its own, and on connections that stay. */
const RATE = 50;
const GROWTH_BYTES_MAX = 64 * 2 ** 20;
const SAMPLE_MS = 200;
const REQUEST = 'GET /slow?ms=60000 HTTP/1.1\r\nHost: hostile\r\n\r\n';
const ANNOUNCING = '000001000001ffffffffffff037765620000010001';
/** By TCP: a length, and less than that. */
const HALF_QUERY = '\u0000\u0040half';
/** By TCP: `tasks.web`, type A, again and again; nobody reads the answers. */
const QUESTION =
  '\u0000\u0001\u0001\u0000\u0000\u0001\u0000\u0000\u0000\u0000\u0000\u0000\u0005tasks\u0003web\u0000\u0000\u0001\u0000\u0001';
const UNREAD = `\u0000${String.fromCharCode(QUESTION.length)}${QUESTION}`;
/** Of questions by UDP, asked three times: a flood fills the buffers that they have to pass as well. */
const UDP_UNANSWERED_MAX = 0.02;
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
  const tool = loadTool('syn-flood');
  if (tool === '') refuse('syn-flood needs a C compiler: install gcc, or leave it out by --only');
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

/** Of the network behind published ports: its number, node2's place on it, and tasks that are not on node3. */
async function ingressOf(bed) {
  const vni = `{{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}`;
  const [link] = JSON.parse(await bed.on('node2', 'ip', '-j', 'addr', 'show', 'shoal-ingress'));
  const ids = await bed.docker('service', 'ps', '--quiet', '--no-trunc', 'web');
  const tasks = JSON.parse(await bed.docker('inspect', '--type', 'task', ...ids.split('\n')));
  const node3 = await bed.docker('node', 'inspect', '--format', '{{.ID}}', 'node3');
  const elsewhere = tasks
    .filter(({ NodeID }) => NodeID !== node3)
    .flatMap(({ NetworksAttachments }) => NetworksAttachments)
    .filter(({ Network }) => Network.Spec.Name === 'ingress')
    .map(({ Addresses }) => {
      const address = Addresses[0].split('/')[0];
      const hex = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
      return { address, mac: `02:42:${hex.join(':')}`, port: TASK_UDP_PORT };
    });
  return {
    vni: Number(await bed.docker('network', 'inspect', '--format', vni, 'ingress')),
    node2: {
      address: link.addr_info.find(({ family }) => family === 'inet').local,
      mac: link.address,
    },
    elsewhere,
  };
}

/** As a task of another service that is behind published ports too. */
async function byTask(bed, wish) {
  const flags = ['--detach', '--name', 'hostile', '--restart-condition', 'none'];
  const ports = ['--publish', '8070:5353/udp'];
  const argv = ['host', process.execPath, CLIENT, JSON.stringify(wish)];
  await bed.docker('service', 'create', ...flags, ...ports, ...argv);
  try {
    for (let tries = 0; tries < 60; tries += 1) {
      await delay(500);
      const said = await bed.docker('service', 'logs', '--raw', 'hostile');
      if (said.includes('}')) return JSON.parse(said);
    }
    throw new Error('the hostile task did not end');
  } finally {
    await bed.docker('service', 'rm', 'hostile');
  }
}

/** What the tunnel of a node has refused, by reason. */
async function refusalsOf(bed, node) {
  const ask =
    "fetch('http://127.0.0.1:9477/metrics').then(async (r) => console.log(await r.text()))";
  const text = await bed.on(node, process.execPath, '--eval', ask);
  const of = (reason) =>
    Number(
      new RegExp(`^shoal_overlay_drops_total\\{.*"${reason}".*\\} (\\d+)`, 'm').exec(text)?.[1] ??
        0,
    );
  return Object.fromEntries(
    ['mac_spoofed', 'looped', 'return_unknown'].map((reason) => [reason, of(reason)]),
  );
}

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
  'forged-tunnel': async (bed, seconds) => {
    const { vni, node2, elsewhere } = await ingressOf(bed);
    return byNode3(bed, {
      ...{
        mode: 'forge',
        host: bed.nodes[1].address,
        port: 4789,
        vni,
        sources: elsewhere,
      },
      ...{ to: { address: bed.nodes[0].address, mac: node2.mac }, perSecond: 20_000, seconds },
    });
  },
  'forged-answers': async (bed, seconds) => {
    const { node2 } = await ingressOf(bed);
    const hosts = [node2.address, bed.nodes[0].address];
    const wish = { mode: 'spray', hosts, from: TASK_UDP_PORT, perSecond: 10_000, seconds };
    return byTask(bed, wish);
  },
  'dns-garbage': (bed, seconds) =>
    byAttached(bed, { mode: 'datagrams', bytes: 200, perSecond: 20_000, garbage: true, seconds }),
  // Each a question that says that 196,605 records follow it.
  'dns-announcements': (bed, seconds) =>
    byAttached(bed, { mode: 'datagrams', hex: ANNOUNCING, perSecond: 20_000, seconds }),
  'dns-amplification': (bed, seconds) =>
    byAttached(bed, { mode: 'questions', name: 'tasks.web', perSecond: 10_000, seconds }),
  'dns-half-queries': (bed, seconds) =>
    byAttached(bed, { mode: 'hold', count: 2_000, say: HALF_QUERY, seconds }),
  'dns-unread-answers': (bed, seconds) =>
    byAttached(bed, { mode: 'hold', count: 60, say: UNREAD, times: 20_000, seconds }),
  'dns-connection-flood': (bed, seconds) =>
    byAttached(bed, { mode: 'churn', together: 64, seconds }),
};

/** What a resolver answers may be larger than what it was asked, as a DNS answer is, and not by far. */
const AMPLIFICATION_MAX = 12;

async function openService(bed) {
  await bed.docker('network', 'create', '--driver', 'overlay', '--attachable', 'mesh');
  const flags = ['--detach', '--name', 'web', '--replicas', String(REPLICAS), '--network', 'mesh'];
  const ports = ['--publish', `${PORT}:80`, '--publish', `${UDP_PORT}:${TASK_UDP_PORT}/udp`];
  const command = [
    'host',
    process.execPath,
    join(here, 'http-server.mjs'),
    '80',
    String(TASK_UDP_PORT),
  ];
  await bed.docker('service', 'create', ...flags, ...ports, ...command);
  await bed.untilRunning('web', REPLICAS);
}

/** Requests of others at the same node. */
function others(lab) {
  const targets = [`${lab.nodes[1].address}:${PORT}`];
  const udpTarget = `${lab.nodes[1].address}:${UDP_PORT}`;
  const wish = {
    targets,
    rate: RATE,
    keepAlive: 10,
    keepAliveRate: 5,
    timeoutMs: 10_000,
    udpTarget,
    udpRate: RATE,
  };
  return httpLoad(lab, wish);
}

async function attack(name, bed, lab, seconds) {
  const pid = lab.nodes[1].agent.pid;
  const before = rssOf(pid);
  let most = before;
  const sampler = setInterval(() => {
    most = Math.max(most, rssOf(pid));
  }, SAMPLE_MS);
  const isForger = name.startsWith('forged');
  const refused = isForger ? await refusalsOf(bed, 'node2') : {};
  const load = await others(lab);
  await delay(500);
  const did = await ATTACKS[name](bed, seconds).catch(({ message }) => ({ error: message }));
  await delay(500);
  if (isForger)
    for (const [reason, count] of Object.entries(await refusalsOf(bed, 'node2')))
      did[reason] = count - refused[reason];
  const told = await load.stop();
  clearInterval(sampler);
  const failed = Object.entries(told).reduce((sum, [kind, { count, failed: lost }]) => {
    const isBorne = kind.startsWith('udp') && lost <= count * UDP_UNANSWERED_MAX;
    return isBorne ? sum : sum + lost;
  }, 0);
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
      ([kind, { count, again, p50Ms, p99Ms, failed: lost, failures }]) =>
        `others' ${kind} ${count}, p50 ${p50Ms} p99 ${p99Ms} ms,${again > 0 ? ` asked again ${again},` : ''} failed ${lost}${lost > 0 ? ` (${failures[0]})` : ''}`,
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
