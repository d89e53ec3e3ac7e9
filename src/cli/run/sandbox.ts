import { spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * What runs in the new namespaces before the command does. It prepares them, reports over
 * descriptor 3 that they stand, and waits there until the networks are attached. When the other end closes
 * instead, nothing is started.
 *
 * `nscd` and systemd-resolved would answer names from the host's view, past resolv.conf: their
 * sockets are covered.
 */
const GATE_SCRIPT = `
hostname=$1 resolv=$2 hosts=$3 workdir=$4 descriptors=$5
shift 5
set -e
printf %s "$hostname" >/proc/sys/kernel/hostname
if command -v ip >/dev/null; then ip link set lo up; fi
if [ -e /etc/resolv.conf ]; then mount --bind "$resolv" /etc/resolv.conf
else echo 'shoal: this host has no /etc/resolv.conf to cover: names may not resolve' >&2; fi
if [ -e /etc/hosts ]; then mount --bind "$hosts" /etc/hosts; fi
for socket in /run/nscd/socket /run/systemd/resolve/io.systemd.Resolve; do
  if [ -S "$socket" ]; then mount --bind /dev/null "$socket" || :; fi
done
set +e
echo ready >&3
read -r go <&3 || exit 125
exec 3>&-
if [ -n "$descriptors" ]; then ulimit -Sn "$descriptors"; fi
if [ -n "$workdir" ]; then cd -- "$workdir" || exit 126; fi
exec "$@"
`;

/** Files that a sandbox sees in place of the host's. */
export interface SandboxFiles {
  readonly resolvConf: string;
  readonly hosts: string;
  /** Unlinks them. Once they are mounted only their names go, so even a killed shoal leaves none. */
  unlink(): void;
  /** Writes `/etc/hosts`: in place, since the file is mounted, also when it has no name any more. */
  writeHosts(hostname: string, addresses: readonly string[]): void;
  close(): void;
}

/** `ndots:0`: a name without a dot is asked as it is, without the host's search domains. */
const RESOLV_CONF = 'nameserver 127.0.0.11\noptions ndots:0\n';

export function makeSandboxFiles(): SandboxFiles {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-run-'));
  const resolvConf = join(folder, 'resolv.conf');
  const hosts = join(folder, 'hosts');
  writeFileSync(resolvConf, RESOLV_CONF, { mode: 0o644 });
  const fd = openSync(hosts, 'w', 0o644);
  const writeHosts = (hostname: string, addresses: readonly string[]) => {
    ftruncateSync(fd);
    writeSync(fd, formatHosts(hostname, addresses), 0);
  };
  writeHosts('localhost', []);
  const unlink = () => rmSync(folder, { recursive: true, force: true });
  const close = () => {
    unlink();
    closeSync(fd);
  };
  return { resolvConf, hosts, unlink, writeHosts, close };
}

/** @param addresses With or without prefix length. */
export function formatHosts(hostname: string, addresses: readonly string[]): string {
  const own = addresses.map((address) => `${address.replace(/\/\d+$/, '')}\t${hostname}`);
  return ['127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost ip6-loopback', ...own, ''].join(
    '\n',
  );
}

export interface SandboxCommand {
  readonly hostname: string;
  readonly workdir: string | undefined;
  /** Soft limit of descriptors; `undefined`: as this process has it. */
  readonly descriptors: number | undefined;
  readonly command: readonly string[];
}

/**
 * The command line that makes the namespaces, in one process whose id stays the same from here to
 * the command itself. If `setpriv` can, the kernel kills it when we are killed.
 */
export function sandboxCommandLine(
  files: SandboxFiles,
  { hostname, workdir, descriptors, command }: SandboxCommand,
): readonly string[] {
  const namespaces = ['--net', '--mount', '--uts', '--ipc', '--propagation', 'private'];
  const gate = ['/bin/sh', '-c', GATE_SCRIPT, 'shoal', hostname, files.resolvConf, files.hosts];
  const whole = [
    'unshare',
    ...namespaces,
    '--',
    ...gate,
    workdir ?? '',
    `${descriptors ?? ''}`,
    ...command,
  ];
  return canBindToParent() ? ['setpriv', '--pdeathsig', 'KILL', '--', ...whole] : whole;
}

/** Not every `setpriv` knows the option (busybox's does not), and not every host has one. */
function canBindToParent(): boolean {
  return (
    spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true'], { stdio: 'ignore' }).status === 0
  );
}
