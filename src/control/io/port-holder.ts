import { readdir, readFile, readlink } from 'node:fs/promises';

/** Who listens on a TCP port here, for people; empty if that cannot be seen. */
export async function tcpPortHolder(port: number): Promise<string> {
  try {
    const inodes = new Set<string>();
    for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
      for (const line of (await readFile(table, 'utf8')).split('\n').slice(1)) {
        const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
        const listens = state === '0A';
        if (listens && Number.parseInt(local?.split(':')[1] ?? '', 16) === port)
          inodes.add(`socket:[${inode}]`);
      }
    }
    return inodes.size === 0 ? '' : await ownerOf(inodes);
  } catch {
    return '';
  }
}

async function ownerOf(links: ReadonlySet<string>): Promise<string> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const fd of fds) {
      const link = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
      if (!links.has(link)) continue;
      const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      return `${name} (pid ${pid})`;
    }
  }
  return '';
}
