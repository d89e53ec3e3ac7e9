import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, hostname } from 'node:os';
import { z } from 'zod';
import { CLASSIC_STRATEGIES, type ClassicStrategy, parseDiscovery } from '../api/classic/index.js';
import { BIND_WANTED, type BindTo, parseBindTo } from '../base/access-labels.js';
import { AgentError } from '../base/error.js';
import type { GenericResource } from '../base/swarm-model.js';
import { proxyThreads } from '../dataplane/ingress/index.js';
import { parseGenericResources } from './generic-resources.js';

export type ConfigErrorDetail =
  /** A flag or a key of the config file is wrong: correct it and start again. */
  { readonly code: 'CONFIG_INVALID'; readonly key: string };

export class ConfigError extends AgentError<ConfigErrorDetail> {}

/** Where the config file is looked for when `--config` does not name one. */
export const CONFIG_FILE_DEFAULT = '/etc/shoal/agent.json';

const staticVtep = z.strictObject({
  vni: z.number().int().min(1).max(0xff_ffff),
  address: z.union([z.ipv4(), z.ipv6()]),
  port: z.number().int().min(1).max(65_535).default(4789),
  macs: z
    .array(z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i))
    .max(4096)
    .default([]),
  flood: z.boolean().default(true),
});

/**
 * The agent's settings. Flags and the config file use the same keys: `--data-dir D` is
 * `"data-dir": "D"`. A flag wins over the file, the file over the default.
 */
const schema = z.strictObject({
  'data-dir': z.string().min(1).default('/var/lib/shoal'),
  socket: z.string().min(1).max(100).default('/run/shoal/docker.sock'),
  hostname: z
    .string()
    .min(1)
    .max(253)
    .default(() => hostname()),
  'log-level': z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
  'log-file': z.string().min(1).optional(),
  /** API socket of a container engine, or `none`; absent: one that is found where engines listen. */
  'engine-socket': z.string().min(1).max(100).optional(),
  /** The way of tasks to the outside, behind the node's address. */
  outside: z.enum(['auto', 'none']).default('auto'),
  'data-path-driver': z.enum(['auto', 'native', 'portable']).default('auto'),
  /** Of published ports. */
  'ingress-driver': z.enum(['auto', 'native', 'portable']).default('auto'),
  /** Of the native one. */
  'ingress-threads': z.coerce
    .number()
    .int()
    .min(1)
    .max(16)
    .default(() => proxyThreads(availableParallelism())),
  /** Where ports of services listen that have no label `shoal.bind`; absent: at all addresses. */
  'ingress-bind': z.string().min(1).optional(),
  /** `none`, or `host:port` of metrics and health. */
  'metrics-address': z.string().default('127.0.0.1:9477'),
  /** `host:port` of the Docker API with mutual TLS, or `none`. */
  'tls-address': z.string().default('none'),
  /** Files; absent: the swarm's own CA signs and judges. */
  'tls-cert': z.string().min(1).optional(),
  'tls-key': z.string().min(1).optional(),
  'tls-ca': z.string().min(1).optional(),
  /** `host:port` of the Docker API without TLS, or `none`. */
  'tcp-address': z.string().default('none'),
  'tcp-insecure': z.boolean().default(false),
  /** `host:port` of the classic Swarm's endpoint with mutual TLS, or `none`. */
  'classic-address': z.string().default('none'),
  /** That endpoint without TLS. */
  'classic-plain': z.boolean().default(false),
  'classic-strategy': z.enum(CLASSIC_STRATEGIES).default('spread'),
  /** `token://…`: only nodes of this group; absent: all. */
  'classic-discovery': z.string().min(1).optional(),
  'gossip-port': z.coerce.number().int().min(1).max(65_535).default(7946),
  'gossip-profile': z.enum(['lan', 'wan', 'local']).default('lan'),
  'busy-poll-micros': z.coerce.number().int().min(0).max(10_000).default(50),
  'source-ports': z.coerce.number().int().min(1).max(64).default(4),
  'receive-buffer-bytes': z.coerce
    .number()
    .int()
    .min(65_536)
    .max(1 << 30)
    .default(16 << 20),
  label: z
    .array(z.string().regex(/^[^=\s]+=.*$/, 'must be KEY=VALUE'))
    .max(256)
    .default([]),
  /** What else tasks may reserve here. */
  'generic-resource': z.array(z.string().max(255)).max(256).default([]),
  /** Tunnel ends that are no agents: kernel or hardware VTEPs (config file only). */
  'static-vteps': z.array(staticVtep).max(1024).default([]),
});

export type ConfigKeys = z.input<typeof schema>;
type Parsed = z.output<typeof schema>;

interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface ApiTls {
  readonly address: HostPort;
  /** PEM files; absent: the swarm's own CA. */
  readonly files?: { readonly cert: string; readonly key: string; readonly ca: string };
}

/** The classic Swarm's endpoint. */
export interface ClassicConfig {
  readonly address: HostPort;
  /** Absent: without TLS. */
  readonly tls?: Pick<ApiTls, 'files'>;
  readonly strategy: ClassicStrategy;
  /** Token of the group of nodes that it shows; absent: all nodes. */
  readonly discovery?: string;
}

export interface AgentConfig {
  readonly dataDir: string;
  readonly socket: string;
  readonly hostname: string;
  readonly logLevel: Parsed['log-level'];
  readonly logFile: string | undefined;
  readonly engineSocket: string | undefined;
  readonly outside: Parsed['outside'];
  readonly dataPathDriver: Parsed['data-path-driver'];
  readonly ingressDriver: Parsed['ingress-driver'];
  readonly ingressThreads: number;
  readonly ingressBind: BindTo | undefined;
  readonly metricsAddress: { readonly host: string; readonly port: number } | undefined;
  readonly tls: ApiTls | undefined;
  /** Without TLS: whoever reaches it is root of this host. */
  readonly tcpAddress: HostPort | undefined;
  /** `--tcp-insecure` was said. */
  readonly tcpInsecure: boolean;
  readonly classic: ClassicConfig | undefined;
  readonly gossipPort: number;
  readonly gossipProfile: Parsed['gossip-profile'];
  readonly busyPollMicros: number;
  readonly sourcePorts: number;
  readonly receiveBufferBytes: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly genericResources: readonly GenericResource[];
  readonly staticVteps: Parsed['static-vteps'];
}

function invalid(key: string, message: string): ConfigError {
  return new ConfigError({ code: 'CONFIG_INVALID', key }, message);
}

function readConfigFile(path: string, explicit: boolean): Record<string, unknown> {
  if (!existsSync(path)) {
    if (explicit) throw invalid('config', `config file ${path} does not exist`);
    return {};
  }
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw invalid('config', `config file ${path} is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('config', `config file ${path} must hold a JSON object`);
  }
  return value as Record<string, unknown>;
}

function parseHostPort(key: string, text: string): HostPort | undefined {
  if (text === 'none') return undefined;
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<host>[^:]*)):(?<port>\d{1,5})$/.exec(text);
  const port = Number(match?.groups?.['port']);
  if (match === null || port > 65_535) {
    throw invalid(key, `${key} must be host:port or none, not '${text}'`);
  }
  return { host: match.groups?.['v6'] ?? (match.groups?.['host'] || '127.0.0.1'), port };
}

/**
 * Merges flags over the config file over the defaults, and checks everything once.
 *
 * @param flags Keys as on the command line, without dashes in front; absent ones are left out.
 */
export function loadConfig(flags: Readonly<Record<string, unknown>>): AgentConfig {
  const { config, ...rest } = flags;
  const path = typeof config === 'string' ? config : CONFIG_FILE_DEFAULT;
  const file = readConfigFile(path, config !== undefined);
  const given = Object.fromEntries(Object.entries(rest).filter(([, v]) => v !== undefined));
  const parsed = schema.safeParse({ ...file, ...given });
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const key =
      issue?.code === 'unrecognized_keys' ? (issue.keys[0] ?? '') : String(issue?.path[0] ?? '');
    const where = Object.hasOwn(given, key) ? `--${key}` : `'${key}' in ${path}`;
    throw invalid(key, `${where}: ${issue?.message.toLowerCase() ?? 'is wrong'}`);
  }
  return fromKeys(parsed.data);
}

function fromKeys(keys: Parsed): AgentConfig {
  return {
    dataDir: keys['data-dir'],
    socket: keys.socket,
    hostname: keys.hostname,
    logLevel: keys['log-level'],
    logFile: keys['log-file'],
    engineSocket: keys['engine-socket'],
    outside: keys.outside,
    dataPathDriver: keys['data-path-driver'],
    ingressDriver: keys['ingress-driver'],
    ingressThreads: keys['ingress-threads'],
    ingressBind: bindOf(keys['ingress-bind']),
    metricsAddress: parseHostPort('metrics-address', keys['metrics-address']),
    tls: tlsOf(keys),
    tcpAddress: tcpOf(keys),
    tcpInsecure: keys['tcp-insecure'],
    classic: classicOf(keys),
    gossipPort: keys['gossip-port'],
    gossipProfile: keys['gossip-profile'],
    busyPollMicros: keys['busy-poll-micros'],
    sourcePorts: keys['source-ports'],
    receiveBufferBytes: keys['receive-buffer-bytes'],
    labels: Object.fromEntries(
      keys.label.map((text) => [
        text.slice(0, text.indexOf('=')),
        text.slice(text.indexOf('=') + 1),
      ]),
    ),
    genericResources: genericResourcesOf(keys),
    staticVteps: keys['static-vteps'],
  };
}

function bindOf(text: string | undefined): BindTo | undefined {
  if (text === undefined) return undefined;
  const bind = parseBindTo(text.trim());
  if (bind === undefined)
    throw invalid('ingress-bind', `ingress-bind must be ${BIND_WANTED}, not '${text}'`);
  return bind;
}

function genericResourcesOf(keys: Parsed): readonly GenericResource[] {
  const resources = parseGenericResources(keys['generic-resource']);
  if (typeof resources === 'string')
    throw invalid('generic-resource', `generic-resource: ${resources}`);
  return resources;
}

function tlsOf(keys: Parsed): ApiTls | undefined {
  const address = parseHostPort('tls-address', keys['tls-address']);
  const isClassic = keys['classic-address'] !== 'none' && !keys['classic-plain'];
  const given = [keys['tls-cert'], keys['tls-key'], keys['tls-ca']];
  if (address === undefined && !isClassic && given.some((file) => file !== undefined))
    throw invalid('tls-address', '--tls-cert needs --tls-address');
  const tls = tlsFilesOf(keys);
  return address && { address, ...tls };
}

function tlsFilesOf(keys: Parsed): Pick<ApiTls, 'files'> {
  const { 'tls-cert': cert, 'tls-key': key, 'tls-ca': ca } = keys;
  if (cert !== undefined && key !== undefined && ca !== undefined)
    return { files: { cert, key, ca } };
  if (cert !== undefined || key !== undefined || ca !== undefined)
    throw invalid('tls-cert', 'give --tls-cert, --tls-key and --tls-ca together, or none of them');
  return {};
}

function classicOf(keys: Parsed): ClassicConfig | undefined {
  const key = 'classic-address';
  const address = parseHostPort(key, keys[key]);
  const asked = keys['classic-discovery'];
  const discovery = asked === undefined ? undefined : parseDiscovery(asked);
  if (typeof discovery === 'string') throw invalid('classic-discovery', discovery);
  if (address === undefined) return undefined;
  const isPlain = keys['classic-plain'];
  if (isPlain) refuseOpen(key, address, keys['tcp-insecure'], 'leave --classic-plain away');
  return {
    address,
    ...(isPlain ? {} : { tls: tlsFilesOf(keys) }),
    strategy: keys['classic-strategy'],
    ...(discovery && { discovery: discovery.token }),
  };
}

/** Off the loopback interface it takes a second word: the whole host is open to who reaches the port. */
function tcpOf(keys: Parsed): HostPort | undefined {
  const address = parseHostPort('tcp-address', keys['tcp-address']);
  if (address !== undefined)
    refuseOpen('tcp-address', address, keys['tcp-insecure'], 'use --tls-address');
  return address;
}

/** @throws ConfigError */
export function refuseOpen(
  key: string,
  { host, port }: HostPort,
  isInsecure: boolean,
  instead: string,
): void {
  if (isInsecure || isLoopback(host)) return;
  throw invalid(
    key,
    `whoever reaches ${host}:${port} would be root of this host: ${instead}, or add --tcp-insecure`,
  );
}

const isLoopback = (host: string) =>
  host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
