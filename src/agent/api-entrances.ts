import type { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import type { ApiServer, TcpEntrance, TlsMaterial } from '../api/index.js';
import { CLIENT_NAME, type Manager } from '../control/index.js';
import { type AgentConfig, type ApiTls, ConfigError } from './config.js';
import type { Log } from './log.js';
import type { SwarmNode } from './swarm-node.js';

const DAY_MS = 86_400_000;
const SERVER_LIFE_MS = 90 * DAY_MS;

export interface EntranceOptions {
  readonly api: ApiServer;
  readonly config: AgentConfig;
  readonly node: SwarmNode;
  readonly log: Log;
}

/** What `docker info` says of an API that lets in everybody. */
export function entranceWarnings({ tcpAddress }: AgentConfig): string[] {
  if (tcpAddress === undefined) return [];
  const { host, port } = tcpAddress;
  return [
    `WARNING: API is accessible on http://${host}:${port} without encryption.
         Access to the remote API is equivalent to root access on the host.`,
  ];
}

/** Lets in by TCP, as configured. @returns Ends what is done for it; the API closes the ports. */
export async function openEntrances(options: EntranceOptions): Promise<() => void> {
  const { api, config, log } = options;
  if (config.tcpAddress !== undefined) {
    await api.openTcp(config.tcpAddress, 'none');
    log.warn(
      config.tcpAddress,
      'the Docker API is open without TLS: whoever reaches this port is root of this host',
    );
  }
  if (config.tls === undefined) return () => undefined;
  const { address, files } = config.tls;
  const entrance = await api.openTcp(address, 'tls');
  log.info({ ...address, port: entrance.port }, 'the Docker API is open with mutual TLS');
  return secureEntrance(options, files, entrance);
}

/**
 * Lets an entrance be passed by who has a certificate, of these files or of the swarm's own CA.
 *
 * @returns Ends what is done for it.
 * @throws ConfigError
 */
export function secureEntrance(
  options: Omit<EntranceOptions, 'api'>,
  files: ApiTls['files'],
  entrance: Pick<TcpEntrance, 'useTls'>,
): () => void {
  if (files === undefined) return followSwarm(options, (material) => entrance.useTls(material));
  try {
    entrance.useTls(materialOf(files));
  } catch (error) {
    throw new ConfigError(
      { code: 'CONFIG_INVALID', key: 'tls-cert' },
      `the certificates of the API cannot be used: ${(error as Error).message}`,
    );
  }
  return () => undefined;
}

function materialOf(files: { cert: string; key: string; ca: string }): TlsMaterial {
  const read = (path: string) => readFileSync(path, 'utf8');
  return { certPem: read(files.cert), keyPem: read(files.key), caPem: read(files.ca) };
}

/** The swarm's CA signs, while this node is a manager, and judges who comes. */
function followSwarm(
  { config, node, log }: Omit<EntranceOptions, 'api'>,
  use: (material: TlsMaterial) => void,
): () => void {
  let isEnded = false;
  const renew = (manager: Manager | undefined = node.active?.manager) => {
    if (manager === undefined || isEnded) return;
    materialBy(manager, config, (certificate) => isClient(certificate, node)).then(use, (error) =>
      log.error({ error: (error as Error).message }, 'no certificate for the API could be made'),
    );
  };
  node.onManager((manager) => {
    renew(manager);
    manager.onChange((changes) => {
      if (changes.some(({ table }) => table === 'secrets')) renew(manager);
    });
  });
  const timer = setInterval(() => renew(), DAY_MS);
  timer.unref();
  renew();
  return () => {
    isEnded = true;
    clearInterval(timer);
  };
}

async function materialBy(
  manager: Manager,
  config: AgentConfig,
  accepts: (certificate: X509Certificate) => boolean,
): Promise<TlsMaterial> {
  const found = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  const addresses = found.map(({ address }) => address.split('%', 1)[0] ?? '');
  const material = await manager.apiCertificate({
    use: 'server',
    name: config.hostname,
    names: [...new Set([config.hostname, 'localhost'])],
    addresses: [...new Set(['127.0.0.1', '::1', ...addresses])],
    lifeMs: SERVER_LIFE_MS,
  });
  return { ...material, accepts };
}

/** Of this swarm, and made for it: nodes have certificates of the same CA. */
function isClient(certificate: X509Certificate, node: SwarmNode): boolean {
  const manager = node.active?.manager;
  const lines = certificate.subject.split('\n');
  return (
    manager !== undefined &&
    lines.includes(`OU=${CLIENT_NAME}`) &&
    lines.includes(`O=${manager.scope.clusterId}`)
  );
}
