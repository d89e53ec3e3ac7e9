/** In the order of their numbers, linux/capability.h. */
const CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
] as const;

/** What Docker leaves to a container's root. */
const DEFAULTS = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
];

export const ALL_CAPABILITIES = (1n << BigInt(CAPABILITIES.length)) - 1n;

function bitOf(name: string): bigint | undefined {
  const plain = name.toUpperCase().replace(/^CAP_/, '');
  const at = (CAPABILITIES as readonly string[]).indexOf(plain);
  return at < 0 ? undefined : 1n << BigInt(at);
}

const isAll = (name: string) => name.toUpperCase().replace(/^CAP_/, '') === 'ALL';

/**
 * The capabilities of a task, as Docker counts them: `ALL` may be added or dropped, what is added by name stays
 * although all are dropped, and what is dropped by name goes although all are added.
 *
 * @returns The bits, or the name that is none.
 */
export function capabilitiesOf(
  added: readonly string[],
  dropped: readonly string[],
): bigint | string {
  const unknown = [...added, ...dropped].find((name) => !isAll(name) && bitOf(name) === undefined);
  if (unknown !== undefined) return unknown;
  const bits = (names: readonly string[]) =>
    names.reduce((sum, name) => sum | (bitOf(name) ?? 0n), 0n);
  let base = bits(DEFAULTS);
  if (added.some(isAll)) base = ALL_CAPABILITIES;
  else if (dropped.some(isAll)) base = 0n;
  return (base | bits(added)) & ~bits(dropped);
}
