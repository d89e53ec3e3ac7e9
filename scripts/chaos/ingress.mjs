// `npm run chaos -- ingress [--rounds 1 --rate 1000 --only update,kill-task --driver auto --health
// --download-seconds 3 --json --keep]`: three nodes, a service behind a published port, and a load in an
// open loop at every node: new connections, connections that stay, long downloads. Then the service is
// updated, scaled, drained off a node (not one request may fail), and its tasks, agents and nodes are killed
// (requests that were under way there may fail, and others for less than a second), and one of them hangs, breaks
// connections off, or answers slowly, and recovers (it may get requests for less than two seconds).
// Exit codes: 1 a request too many failed, 2 wrong flags.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask, closeConnections } from './api.mjs';
import { flagsOf, httpLoad, loadTool, onLab, refuse, refuseUnknown, run } from './lab-bed.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const PORT = 8080;
const REPLICAS = 6;
/** Each task is asked for a connection once a second, and counts from the first. */
const HEALTH = [
  ...['--health-cmd', 'bash -c "exec 3<>/dev/tcp/127.0.0.1/80"'],
  ...['--health-interval', '1s', '--health-timeout', '2s', '--health-retries', '3'],
];
const CONVERGED_MS_MAX = 120_000;
/** New connections through nodes that live on may fail for so long after a kill. */
const OUTAGE_MS_MAX = 1_000;
/** A task that is sick gets no more after this. */
const SICK_GIVEN_MS_MAX = 2_000;
const WARM_UP_MS = 11_000;
const SICK_AFTER_MS = 5_000;
/** Shorter than it is passed over at first. */
const SICK_MS = 9_000;
const SICK_TOOK_MS = 500;
const BACK_MS_MAX = 14_000;

const OPTIONS = {
  rounds: { type: 'string', default: '1' },
  rate: { type: 'string', default: '1000' },
  health: { type: 'boolean', default: false },
  'download-seconds': { type: 'string', default: '3' },
};

function judge(values) {
  const rounds = Number(values.rounds);
  const rate = Number(values.rate);
  const downloadMs = Number(values['download-seconds']) * 1_000;
  if (!(rounds >= 1)) refuse(`--rounds is a number from 1, not '${values.rounds}'`);
  if (!(rate >= 1)) refuse(`--rate is a number from 1, not '${values.rate}'`);
  if (!(downloadMs >= 1_000 && downloadMs <= 600_000))
    refuse(`--download-seconds is from 1 to 600, not '${values['download-seconds']}'`);
  return { rounds, rate, downloadMs };
}

/** A service on a lab, and what is done to it. */
class Service {
  #lab;
  #version = 1;
  #convergedMsMax;

  constructor(lab, downloadMs) {
    this.#lab = lab;
    // One task after the other may wait for a download of its own.
    this.#convergedMsMax = CONVERGED_MS_MAX + 2 * REPLICAS * downloadMs;
  }

  docker(...args) {
    return run(this.#lab.commandIn('node1', ['docker', ...args]), this.#lab.envOf('node1'));
  }

  async create(replicas, ...options) {
    const flags = ['--detach', '--name', 'web', '--replicas', String(replicas)];
    const env = ['--env', 'SLOT={{.Task.Slot}}', '--publish', `${PORT}:80`];
    const tool = loadTool('http-task');
    const command = tool === '' ? [process.execPath, join(here, 'http-server.mjs')] : [tool, '80'];
    await this.docker('service', 'create', ...flags, ...env, ...options, 'host', ...command);
    await this.converged(replicas);
  }

  /**
   * As many tasks run as shall, all of the newest version, and nothing else does. Asked at the API: the CLI, started ten
   * times a second, would be a good part of the load.
   */
  async converged(replicas) {
    const endMs = performance.now() + this.#convergedMsMax;
    const filters = encodeURIComponent(JSON.stringify({ service: { web: true } }));
    let seen = '';
    for (let calm = 0; calm < 2; ) {
      if (performance.now() > endMs) throw new Error(`the service does not converge: ${seen}`);
      await delay(200);
      const tasks = await this.#get(`/tasks?filters=${filters}`);
      const service = await this.#get('/services/web');
      if (tasks === undefined || service === undefined) continue;
      const update = service.UpdateStatus?.State ?? '';
      const states = tasks.map(({ DesiredState, Status }) => `${DesiredState} ${Status.State}`);
      const wanted = states.filter((state) => state.startsWith('running '));
      const isCalm =
        wanted.length === replicas &&
        wanted.every((state) => state === 'running running') &&
        !states.some((state) => /^shutdown (?:starting|running)$/.test(state)) &&
        !/updating|rollback_started/.test(update);
      calm = isCalm ? calm + 1 : 0;
      seen = `${update} ${states.join(', ')}`;
    }
  }

  /** What node1 answers; undefined where it cannot now. */
  async #get(path) {
    const { socket } = this.#lab.node('node1');
    const { status, value } = await ask(socket, 'GET', `/v1.41${path}`, { timeoutMs: 10_000 });
    return status === 200 ? value : undefined;
  }

  async update(...flags) {
    this.#version += 1;
    await this.docker(
      'service',
      'update',
      '--detach',
      ...flags,
      '--env-add',
      `VERSION=${this.#version}`,
      'web',
    );
    await delay(500);
    await this.converged(REPLICAS);
  }

  async force(...flags) {
    await this.docker('service', 'update', '--detach', '--force', ...flags, 'web');
    await delay(500);
    await this.converged(REPLICAS);
  }

  async scale(replicas) {
    await this.docker('service', 'scale', '--detach', `web=${replicas}`);
    await this.converged(replicas);
  }

  async availability(node, value) {
    await this.docker('node', 'update', '--availability', value, node);
    await delay(500);
    await this.converged(REPLICAS);
  }

  /** The processes of this service's tasks on a node. */
  async pidsOn(node) {
    const ids = await this.docker(
      'service',
      'ps',
      '--no-trunc',
      '-q',
      '--filter',
      `node=${node}`,
      '--filter',
      'desired-state=running',
      'web',
    );
    const pids = [];
    for (const id of ids.split('\n').filter((text) => text !== '')) {
      const pid = await this.docker(
        'inspect',
        '--type',
        'task',
        '--format',
        '{{.Status.ContainerStatus.PID}}',
        id,
      );
      if (Number(pid) > 1) pids.push(Number(pid));
    }
    return pids;
  }
}

/** Load at these nodes from node1, until it is told to stop. */
function loadOn(lab, targets, flags, more = {}) {
  return httpLoad(lab, {
    targets: targets.map((name) => `${lab.node(name).address}:${PORT}`),
    rate: flags.rate,
    keepAlive: 20,
    keepAliveRate: 10,
    downloads: 6,
    downloadMs: flags.downloadMs,
    ...more,
  });
}

const NODES = ['node1', 'node2', 'node3'];

/** What is done under load: nothing of it may cost a request. */
const LOSSLESS = {
  update: (service) => service.update('--update-parallelism', '1'),
  'start-first': (service) =>
    service.force('--update-parallelism', '2', '--update-order', 'start-first'),
  'stop-first': (service) =>
    service.force('--update-parallelism', '2', '--update-order', 'stop-first'),
  scale: async (service) => {
    await service.scale(2);
    await service.scale(9);
    await service.scale(REPLICAS);
  },
  drain: async (service) => {
    await service.availability('node3', 'drain');
    await service.availability('node3', 'active');
  },
};

/** What is killed; requests that were under way there may be lost. */
const KILLS = {
  'kill-task': async (service) => {
    const pids = await service.pidsOn('node2');
    if (pids.length === 0) throw new Error('no task runs on node2');
    process.kill(pids[0], 'SIGKILL');
  },
  'kill-agent': async (_service, lab) => {
    await lab.signalAgent('node3', 'SIGKILL');
  },
  'kill-node': async (_service, lab) => {
    await lab.partition(['node3']);
  },
};

const RECOVER = {
  'kill-task': async () => undefined,
  'kill-agent': (lab) => lab.startAgent('node3'),
  'kill-node': (lab) => lab.heal(),
};

/** How flows have ended on each node, apart from those in good order. */
async function endsOf(lab) {
  const ends = {};
  for (const { name, socket } of lab.nodes) {
    const { value } = await ask(socket, 'GET', '/shoal/v1/status', { timeoutMs: 10_000 }).catch(
      () => ({}),
    );
    for (const [end, count] of Object.entries(value?.ingress?.ports?.[0]?.ends ?? {}))
      if (end !== 'closed' && count > 0) ends[`${name} ${end}`] = count;
  }
  return ends;
}

const failedIn = (told) => Object.values(told).reduce((sum, { failed }) => sum + failed, 0);

async function lossless(name, service, lab, flags) {
  const load = await loadOn(lab, NODES, flags);
  await delay(1_000);
  const beganMs = performance.now();
  let problem;
  await LOSSLESS[name](service).catch((error) => {
    problem = error.message;
  });
  const tookMs = Math.round(performance.now() - beganMs);
  await delay(1_000);
  const told = await load.stop();
  const failed = failedIn(told);
  const isGood = failed === 0 && problem === undefined;
  return { name, tookMs, told, failed, isGood, problem, ends: await endsOf(lab) };
}

async function killed(name, service, lab, flags) {
  // A node that came back has no tasks until the service changes.
  const victim = name.endsWith('-task') ? 'node2' : 'node3';
  if ((await service.pidsOn(victim)).length === 0) await service.force();
  // At nodes that live on.
  const targets = name.endsWith('-task') ? NODES : ['node1', 'node2'];
  const load = await loadOn(lab, targets, flags);
  await delay(2_000);
  const atMs = load.sinceMs();
  await KILLS[name](service, lab);
  await delay(10_000);
  const told = await load.stop();
  await RECOVER[name](lab);
  await service.converged(REPLICAS);
  const { lastFailedMs = null } = told.new ?? {};
  const outageMs = lastFailedMs === null ? 0 : Math.max(0, lastFailedMs - atMs);
  return {
    name,
    killedAtMs: atMs,
    told,
    failed: failedIn(told),
    outageMs,
    isGood: outageMs < OUTAGE_MS_MAX,
  };
}

/** How a task becomes sick, and well again. */
const SICKNESSES = {
  // Its kernel takes connections, and it says nothing.
  'hang-task': ['SIGSTOP', 'SIGCONT'],
  // It breaks off connections once they ask something.
  'reset-task': ['SIGHUP', 'SIGHUP'],
  // It answers after 900 ms, where the others take a few.
  'slow-task': ['SIGUSR2', 'SIGUSR2'],
};

/**
 * New tasks may warm up, on a lab's first load all programs do, and of what was before nobody shall be passed over: under a
 * load that is not measured, without which nobody passes probation.
 */
async function rested(lab, flags) {
  const load = await loadOn(lab, NODES, flags);
  try {
    await delay(WARM_UP_MS);
    const endMs = performance.now() + CONVERGED_MS_MAX;
    const isPassedOver = async ({ socket }) => {
      const { value } = await ask(socket, 'GET', '/shoal/v1/status', { timeoutMs: 10_000 });
      return value.ingress.ports[0].backends.ejected > 0;
    };
    while ((await Promise.all(lab.nodes.map(isPassedOver))).includes(true)) {
      if (performance.now() > endMs) throw new Error('a task is passed over that is well');
      await delay(500);
    }
  } finally {
    await load.stop();
  }
}

/**
 * One task of six is sick for a while: when it got its last request, how many before that, and how long after it is
 * well it gets requests again.
 */
async function sick(name, service, lab, flags) {
  const [falls, recovers] = SICKNESSES[name];
  await rested(lab, flags);
  const [pid] = await service.pidsOn('node2');
  if (pid === undefined) throw new Error('no task runs on node2');
  const slot = /(?:^|\0)SLOT=(\d+)/.exec(readFileSync(`/proc/${pid}/environ`, 'latin1'))?.[1];
  const load = await loadOn(lab, NODES, flags, { timeoutMs: 4_000, keepsAll: true });
  await delay(SICK_AFTER_MS);
  const fellMs = load.sinceMs();
  process.kill(pid, falls);
  await delay(SICK_MS);
  const wellMs = load.sinceMs();
  process.kill(pid, recovers);
  await delay(BACK_MS_MAX);
  const { all, ...told } = await load.stop();
  // Those that it answers at once at first were under way when the signal came.
  const lost = all.filter(
    ([startMs, tookMs, who]) =>
      startMs < wellMs - SICK_MS / 4 &&
      startMs + tookMs > fellMs &&
      (who === null || (who === slot && tookMs >= SICK_TOOK_MS)),
  );
  const lastGivenMs = Math.max(0, ...lost.map(([startMs]) => startMs - fellMs));
  const inTurn = all.filter(([startMs, , who]) => startMs > wellMs && who === slot);
  const backMs = inTurn.map(([startMs]) => startMs - wellMs).sort((a, b) => a - b);
  // Its full share, of any hundred milliseconds.
  const full = (flags.rate / REPLICAS) * 0.08;
  const fullMs = backMs.find((ms, i) => (backMs[i + Math.floor(full)] ?? Infinity) - ms < 100);
  return {
    name,
    told,
    failed: failedIn(told),
    sick: { lastGivenMs, affected: lost.length, backMs: backMs[0], fullMs },
    isGood: lastGivenMs < SICK_GIVEN_MS_MAX && fullMs !== undefined,
  };
}

function show({ name, tookMs, told, failed, outageMs, sick: seen, isGood, problem, ends = {} }) {
  const kinds = Object.entries(told).map(
    ([kind, { count, p50Ms, p99Ms, maxMs, failed: lost }]) =>
      `${kind} ${count} (failed ${lost}, p50 ${p50Ms} p99 ${p99Ms} max ${maxMs} ms)`,
  );
  let end = outageMs === undefined ? `took ${tookMs} ms` : `new ones failed for ${outageMs} ms`;
  if (seen !== undefined)
    end =
      `it got its last request ${seen.lastGivenMs} ms after it fell sick (${seen.affected} affected), ` +
      `its first ${seen.backMs} ms after it was well, its full share after ${seen.fullMs} ms`;
  const lines = [
    `${isGood ? 'ok  ' : 'FAIL'} ${name.padEnd(12)} failed ${failed}, ${end}: ${kinds.join('; ')}`,
  ];
  if (problem !== undefined) lines.push(`       ${problem}`);
  if (!isGood && Object.keys(ends).length > 0)
    lines.push(`       ends so far: ${JSON.stringify(ends)}`);
  for (const { failures } of Object.values(told))
    lines.push(...failures.slice(0, 8).map((line) => `       ${line}`));
  process.stdout.write(`${lines.join('\n')}\n`);
}

export async function ingress(argv) {
  const flags = flagsOf(argv, OPTIONS, judge);
  const all = [LOSSLESS, KILLS, SICKNESSES].flatMap((cases) => Object.keys(cases));
  refuseUnknown(flags.only, all);
  const results = [];
  await onLab({ driver: flags.driver }, flags.keep, async (_bed, lab) => {
    const service = new Service(lab, flags.downloadMs);
    // A task that is told to stop ends its downloads first.
    const graceSeconds = Math.ceil(12 + flags.downloadMs / 1_000);
    const own = ['--stop-grace-period', `${graceSeconds}s`, '--update-monitor', '500ms'];
    await service.create(REPLICAS, ...own, ...(flags.health ? HEALTH : []));
    for (let round = 0; round < flags.rounds; round += 1)
      for (const name of flags.only ?? all) {
        const how = name in LOSSLESS ? lossless : name in KILLS ? killed : sick;
        const result = await how(name, service, lab, flags);
        results.push(result);
        if (!flags.json) show(result);
      }
    if (flags.json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
    process.exitCode = results.every(({ isGood }) => isGood) ? 0 : 1;
  }).finally(closeConnections);
}
