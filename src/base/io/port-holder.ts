import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Most processes looked at; the rest of a crowded machine is not worth the wait. */
const PROCESSES_MAX = 5000;

const TABLES = {
  tcp: ['/proc/net/tcp', '/proc/net/tcp6'],
  udp: ['/proc/net/udp', '/proc/net/udp6'],
} as const;

const TCP_LISTEN = '0A';

function inodesOf(protocol: 'tcp' | 'udp', port: number): Set<string> {
  const wanted = port.toString(16).toUpperCase().padStart(4, '0');
  const inodes = new Set<string>();
  for (const table of TABLES[protocol]) {
    let text = '';
    try {
      text = readFileSync(table, 'utf8');
    } catch {
      continue;
    }
    for (const line of text.split('\n').slice(1)) {
      const columns = line.trim().split(/\s+/);
      const local = columns[1] ?? '';
      if (!local.endsWith(`:${wanted}`)) continue;
      if (protocol === 'tcp' && columns[3] !== TCP_LISTEN) continue;
      if (columns[9] !== undefined) inodes.add(columns[9]);
    }
  }
  return inodes;
}

/**
 * Who holds a port of this network namespace, as words for an error message.
 *
 * The kernel's VXLAN device holds its port without a process, which is said too.
 *
 * @returns For example `process 812 (dockerd)`; `another program` where nothing was found.
 */
export function portHolder(protocol: 'tcp' | 'udp', port: number): string {
  const inodes = inodesOf(protocol, port);
  if (inodes.size === 0) {
    return protocol === 'udp' ? 'the kernel (a vxlan device, perhaps)' : 'another program';
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  for (const pid of pids.slice(0, PROCESSES_MAX)) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`));
        if (match?.[1] === undefined || !inodes.has(match[1])) continue;
        return `process ${pid} (${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()})`;
      }
    } catch {
      // The process ended meanwhile, or is not ours to look into.
    }
  }
  return 'another program';
}
