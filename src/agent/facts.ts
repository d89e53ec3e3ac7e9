import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { arch, availableParallelism, networkInterfaces, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { HostFacts } from '../api/index.js';
import { writeFileAtomically } from '../base/io/atomic-file.js';
import { packageRoot, packageVersion } from '../base/io/package-root.js';
import { OUTSIDE_BRIDGE } from '../dataplane/io/index.js';
import type { HostAddress } from './addresses.js';
import type { AgentConfig } from './config.js';

/** The commit that a checkout stands at, shortened; empty outside a checkout. */
function gitCommit(): string {
  try {
    const git = join(packageRoot(), '.git');
    const head = readFileSync(join(git, 'HEAD'), 'utf8').trim();
    const ref = /^ref: (.+)$/.exec(head)?.[1];
    const commit = ref === undefined ? head : readFileSync(join(git, ref), 'utf8').trim();
    return commit.slice(0, 7);
  } catch {
    return '';
  }
}

function builtAtMs(): number {
  try {
    return statSync(fileURLToPath(import.meta.url)).mtimeMs;
  } catch {
    return 0;
  }
}

function operatingSystem(): string {
  try {
    const text = readFileSync('/etc/os-release', 'utf8');
    return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(text)?.[1] ?? 'Linux';
  } catch {
    return 'Linux';
  }
}

const MACHINE: Readonly<Record<string, string>> = {
  x64: 'x86_64',
  arm64: 'aarch64',
  arm: 'armv7l',
  ia32: 'i686',
};

/** The agent's id, made once and kept in the data directory. */
function agentId(dataDir: string): string {
  const path = join(dataDir, 'agent-id');
  if (existsSync(path)) return readFileSync(path, 'utf8').trim();
  const hex = randomBytes(16).toString('hex');
  const id = [8, 12, 16, 20].reduce(
    (text, at, i) => `${text.slice(0, at + i)}-${text.slice(at + i)}`,
    hex,
  );
  writeFileAtomically(path, `${id}\n`);
  return id;
}

export type StaticFacts = Omit<HostFacts, 'dataPathDriver' | 'ingressDriver' | 'warnings'>;

/** The machine's name for its architecture, as Docker tells it. */
export const ARCHITECTURE = MACHINE[arch()] ?? arch();

/** What does not change while the agent runs. */
export function readFacts(config: AgentConfig): StaticFacts {
  return {
    id: agentId(config.dataDir),
    hostname: config.hostname,
    kernelVersion: release(),
    operatingSystem: operatingSystem(),
    architecture: ARCHITECTURE,
    cpuCount: availableParallelism(),
    memoryBytes: totalmem(),
    agentVersion: packageVersion(),
    gitCommit: gitCommit(),
    builtAtMs: builtAtMs(),
    dataDir: config.dataDir,
    labels: config.labels,
    genericResources: config.genericResources,
  };
}

/** This node's place on the ingress network, in the host's namespace. */
export const INGRESS_IFNAME = 'shoal-ingress';

/**
 * The addresses of this host (of the agent's network namespace), without those of the agent's own interfaces: by them nobody
 * gets here. One of them may still be there when an agent begins whose forerunner was killed.
 */
export function hostAddresses(interfaces = networkInterfaces()): readonly HostAddress[] {
  const own = Object.entries(interfaces).filter(
    ([name]) => name !== OUTSIDE_BRIDGE && name !== INGRESS_IFNAME,
  );
  return own.flatMap(([interfaceName, addresses]) =>
    (addresses ?? []).map(({ address, family, internal }) => ({
      interfaceName,
      address,
      family,
      loopback: internal,
    })),
  );
}

const UNDERLAY_MTU_DEFAULT = 1500;

/** IP MTU of the interface that holds `address`; 1500 when it cannot be told. */
export function underlayMtuBytes(address: string): number {
  const name = hostAddresses().find((a) => a.address === address)?.interfaceName;
  if (name === undefined) return UNDERLAY_MTU_DEFAULT;
  try {
    // Not from /sys, which shows the namespace that it was mounted in.
    const text = execFileSync('ip', ['-j', 'link', 'show', 'dev', name], { encoding: 'utf8' });
    const [link] = JSON.parse(text) as { mtu?: number }[];
    return link?.mtu ?? UNDERLAY_MTU_DEFAULT;
  } catch {
    return UNDERLAY_MTU_DEFAULT;
  }
}
