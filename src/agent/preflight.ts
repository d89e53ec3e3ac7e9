import { existsSync, readFileSync } from 'node:fs';
import { AgentError } from '../base/error.js';

export type PreflightErrorDetail =
  /** The agent cannot run as this user or on this host: the message says what is missing. */
  | { readonly code: 'PREFLIGHT_NOT_ROOT' }
  | { readonly code: 'PREFLIGHT_CAPABILITY'; readonly missing: readonly string[] }
  | { readonly code: 'PREFLIGHT_DEVICE'; readonly path: string }
  | { readonly code: 'PREFLIGHT_COMMAND'; readonly command: string }
  /** Another agent works on the same data directory. */
  | { readonly code: 'PREFLIGHT_LOCKED'; readonly pid: number };

export class PreflightError extends AgentError<PreflightErrorDetail> {}

/** capability(7): bit numbers of those that the agent cannot do without, and why. */
const CAPABILITIES = [
  { bit: 12, name: 'CAP_NET_ADMIN', why: 'to make TAP devices and set addresses' },
  { bit: 21, name: 'CAP_SYS_ADMIN', why: 'to enter network namespaces' },
] as const;

/** Names of needed capabilities that a `CapEff` mask (hex, from /proc/self/status) lacks. */
export function missingCapabilities(capEffHex: string): readonly string[] {
  const mask = BigInt(`0x${capEffHex || '0'}`);
  return CAPABILITIES.filter(({ bit }) => ((mask >> BigInt(bit)) & 1n) === 0n).map(
    ({ name, why }) => `${name} (${why})`,
  );
}

const TUN_DEVICE = '/dev/net/tun';
const COMMANDS = [
  { name: 'ip', hint: 'install iproute2' },
  { name: 'nsenter', hint: 'install util-linux' },
] as const;

function commandExists(name: string): boolean {
  const folders = (process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin').split(':');
  return folders.some((folder) => existsSync(`${folder}/${name}`));
}

/** Refuses early, in one sentence, what would otherwise fail late and unclearly. */
export function preflight(): void {
  if (process.getuid?.() !== 0) {
    throw new PreflightError(
      { code: 'PREFLIGHT_NOT_ROOT' },
      'the agent must run as root: start it with sudo',
    );
  }
  const status = readFileSync('/proc/self/status', 'utf8');
  const missing = missingCapabilities(/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '');
  if (missing.length > 0) {
    throw new PreflightError(
      { code: 'PREFLIGHT_CAPABILITY', missing },
      `the agent lacks ${missing.join(' and ')}: grant it, or run outside the restricted container`,
    );
  }
  if (!existsSync(TUN_DEVICE)) {
    throw new PreflightError(
      { code: 'PREFLIGHT_DEVICE', path: TUN_DEVICE },
      `${TUN_DEVICE} does not exist: load the tun module (modprobe tun)`,
    );
  }
  for (const { name, hint } of COMMANDS) {
    if (commandExists(name)) continue;
    throw new PreflightError(
      { code: 'PREFLIGHT_COMMAND', command: name },
      `the command '${name}' is missing: ${hint}`,
    );
  }
}
