import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ApiServer } from '../api/index.js';
import { AssertionFailed } from '../base/assert.js';
import { raiseDescriptors } from '../base/io/descriptors.js';
import { loadNative, nativeUnavailableReason } from '../dataplane/io/index.js';
import { MetricsServer } from '../observe/index.js';
import { createMetrics, describeNode } from './agent-metrics.js';
import { entranceWarnings, openEntrances } from './api-entrances.js';
import { createBackend, driverName } from './backend.js';
import { classicVerbs, type OpenClassic, openClassic } from './classic.js';
import type { AgentConfig } from './config.js';
import { EngineNetworks } from './container-networks.js';
import { createContainerBackend } from './containers.js';
import { lockDataDir } from './data-dir.js';
import { Engine } from './engine.js';
import { readFacts } from './facts.js';
import { plannedIngressDriver } from './ingress-driver.js';
import { type Log, openLog } from './log.js';
import { preflight } from './preflight.js';
import { Runtimes } from './runtimes.js';
import { StateFile } from './state-file.js';
import { SwarmNode } from './swarm-node.js';

/** How long everything may take to be put away before the process ends regardless. */
const SHUTDOWN_TIMEOUT_MS = 10_000;
/** sysexits(3): an internal error. */
const EXIT_SOFTWARE = 70;

function plannedDriver(config: AgentConfig): { name: string; reason: string } {
  if (config.dataPathDriver === 'portable')
    return { name: driverName('portable'), reason: 'asked for' };
  if (loadNative() !== undefined)
    return { name: driverName('native'), reason: 'the addon is there' };
  return { name: driverName('portable'), reason: nativeUnavailableReason() };
}

/** A gate that opens once: with an exit code. */
class Exit {
  readonly code: Promise<number>;
  request!: (code: number) => void;

  constructor() {
    this.code = new Promise((resolve) => {
      this.request = resolve;
    });
  }
}

/**
 * Runs the agent until SIGTERM or SIGINT, then takes away what it made on this host.
 *
 * @returns 0 after an orderly stop, 1 after a failure that it could not go on with.
 * @throws PreflightError, ConfigError, ApiError, SwarmError: one clear sentence each, before anything runs.
 */
export async function runAgent(config: AgentConfig): Promise<number> {
  preflight();
  const unlock = lockDataDir(config.dataDir);
  try {
    return await runLocked(config);
  } finally {
    unlock();
  }
}

async function runLocked(config: AgentConfig): Promise<number> {
  const log = openLog(config);
  const exit = new Exit();
  // Before the proxy's threads look how many flows they may carry.
  const descriptors = await raiseDescriptors();
  if (descriptors !== undefined) log.info(descriptors, 'descriptors');
  const state = StateFile.load(join(config.dataDir, 'agent.json'));
  const facts = readFacts(config);
  const onFatal = (error: Error) => {
    log.fatal({ error: error.message, stack: error.stack }, 'cannot go on');
    exit.request(1);
  };
  const engine = await Engine.find(config, log);
  const docker = {
    onRequest: (...request: Parameters<ApiServer['onRequest']>) => api.onRequest(...request),
    onUpgrade: (...request: Parameters<ApiServer['onUpgrade']>) => api.onUpgrade(...request),
  };
  const runtimes = await Runtimes.open(config, facts, engine, descriptors?.started, log);
  const node = new SwarmNode({ config, facts, state, log, onFatal, docker, runtimes });
  const classic = { config, facts, node, state, docker, log, endpoints: new Set<symbol>() };
  const hostRuntime = runtimes.all.find(({ kind }) => kind === 'host');
  const metrics = createMetrics(node);
  const backend = createBackend({
    facts,
    plannedDriver: plannedDriver(config),
    ingressDriver: plannedIngressDriver(config),
    warnings: entranceWarnings(config),
    node,
    classic: classicVerbs(classic),
    status: () => describeNode(node),
    metrics: () => metrics.text(),
  });
  const networks =
    engine &&
    new EngineNetworks({
      socketPath: engine.socketPath,
      owner: facts.id,
      dataDir: config.dataDir,
      node,
      backend,
      log: log.child({ part: 'containers' }),
    });
  mkdirSync(dirname(config.socket), { recursive: true, mode: 0o755 });
  const api = await ApiServer.listen(
    { socketPath: config.socket },
    {
      backend,
      log: log.child({ part: 'api' }),
      containers: createContainerBackend(node, engine, hostRuntime, networks),
    },
  );
  let closeEntrances = () => {};
  let classicDoor: OpenClassic | undefined;
  let metricsServer: MetricsServer | undefined;
  const stop = async () => {
    closeEntrances();
    await classicDoor?.close();
    await api.close();
    await metricsServer?.close();
    networks?.close();
    await node.close();
    await runtimes.close();
    engine?.close();
  };
  try {
    if (config.metricsAddress !== undefined) {
      metricsServer = await MetricsServer.listen(config.metricsAddress, {
        contentType: metrics.contentType,
        metrics: () => metrics.text(),
        health: () => healthOf(node),
      });
    }
    closeEntrances = await openEntrances({ api, config, node, log });
    if (config.classic !== undefined) classicDoor = await openClassic(classic, config.classic);
    await node.restore();
    networks?.open();
  } catch (error) {
    await stop();
    throw error;
  }
  watchProcess(log, exit);
  log.info(
    {
      socket: config.socket,
      dataDir: config.dataDir,
      pid: process.pid,
      version: facts.agentVersion,
    },
    'agent is ready',
  );
  if (config.logFile === undefined) announce(config, node);

  const code = await exit.code;
  log.info({ code }, 'stopping');
  const timer = setTimeout(() => {
    log.error('could not stop in time');
    process.exit(1);
  }, SHUTDOWN_TIMEOUT_MS);
  await stop();
  clearTimeout(timer);
  log.info('stopped');
  return code;
}

function healthOf(node: SwarmNode): { ok: boolean; detail: unknown } {
  const { state, error } = node.describe();
  return { ok: state !== 'error', detail: { state, ...(error === '' ? {} : { error }) } };
}

function watchProcess(log: Log, exit: Exit): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log.info({ signal }, 'asked to stop');
      exit.request(0);
    });
  }
  process.on('SIGHUP', () => undefined);
  process.on('unhandledRejection', (reason) => {
    const error = reason instanceof Error ? reason : new Error(String(reason));
    log.error({ error: error.message, stack: error.stack }, 'a failure nobody waited for');
    if (error instanceof AssertionFailed) exit.request(EXIT_SOFTWARE);
  });
  process.on('uncaughtException', (error) => {
    log.fatal({ error: error.message, stack: error.stack }, 'a bug');
    exit.request(EXIT_SOFTWARE);
  });
}

/** What to do next, for whoever started the agent by hand. */
function announce(config: AgentConfig, node: SwarmNode): void {
  const { state, controlAvailable } = node.describe();
  const host = `export DOCKER_HOST=unix://${config.socket}`;
  const next =
    state !== 'active'
      ? [
          'docker swarm init                       # on the first host',
          'docker swarm join --token … HOST:2377   # on the others',
        ]
      : controlAvailable
        ? [
            'docker node ls',
            'docker network create --driver overlay --attachable mesh',
            'shoal network attach mesh --host',
          ]
        : ['shoal network ls', 'shoal network attach NETWORK --host'];
  process.stderr.write(
    [
      `\nShoal agent is running (${state}). In another terminal:\n`,
      `  ${host}`,
      ...next.map((line) => `  ${line}`),
      '\nCtrl-C stops it.\n\n',
    ].join('\n'),
  );
}
