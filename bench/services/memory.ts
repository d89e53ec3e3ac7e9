import { readFileSync } from 'node:fs';

/** Resident bytes of processes, by what the kernel says of them; of one that is gone nothing. */
export function rssOf(pids: readonly number[]): number {
  let kibibytes = 0;
  for (const pid of pids) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      kibibytes += Number(/^VmRSS:\s+(?<kib>\d+)/m.exec(status)?.groups?.['kib'] ?? 0);
    } catch {
      // It has ended.
    }
  }
  return kibibytes * 1024;
}
