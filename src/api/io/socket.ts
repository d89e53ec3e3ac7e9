import { chmod, chown, lstat, mkdir, readFile, unlink } from 'node:fs/promises';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { ApiError } from '../wire/errors.js';
import type { Logger } from './log.js';

/** `sun_path` of Linux less the zero byte. */
export const SOCKET_PATH_BYTES_MAX = 107;
export const SOCKET_MODE = 0o660;

const PROBE_TIMEOUT_MS = 1000;
/** A starting agent may meet another one that is starting as well. */
const CLAIM_ATTEMPTS_MAX = 3;

type Owner = 'nobody' | 'dead' | 'alive';

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code ?? '';

const refused = (path: string, why: string) =>
  new ApiError({ code: 'API_SOCKET_REFUSED', path }, `cannot listen on ${path}: ${why}`);

const taken = (path: string) =>
  new ApiError(
    { code: 'API_SOCKET_TAKEN', path },
    `another agent or engine answers on ${path}: stop it, or give another socket path`,
  );

/** Only a refused connection proves that nobody is there: a busy owner may be slow to accept. */
function probe(path: string): Promise<Owner> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const settle = (owner: Owner) => {
      socket.destroy();
      resolve(owner);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => settle('alive'));
    socket.once('connect', () => settle('alive'));
    socket.once('error', (error) => {
      const code = codeOf(error);
      if (code === 'ENOENT') settle('nobody');
      else settle(code === 'ECONNREFUSED' ? 'dead' : 'alive');
    });
  });
}

/** Makes sure that nobody owns `path`, and removes what a dead agent left there. */
async function clear(path: string): Promise<void> {
  const found = await lstat(path).catch((error) => {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw refused(path, String(error.message));
  });
  if (found === undefined) return;
  if (!found.isSocket()) throw refused(path, 'something there is not a socket; remove it');
  const owner = await probe(path);
  if (owner === 'alive') throw taken(path);
  if (owner === 'dead') {
    await unlink(path).catch((error) => {
      if (codeOf(error) !== 'ENOENT') throw refused(path, String(error.message));
    });
  }
}

/** Binds synchronously, so that the socket is never open wider than its mode, not even briefly. */
function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) => reject(error);
    server.once('error', onError);
    const umask = isMainThread ? process.umask(0o777 & ~SOCKET_MODE) : undefined;
    try {
      server.listen({ path }, () => {
        server.removeListener('error', onError);
        resolve();
      });
    } finally {
      if (umask !== undefined) process.umask(umask);
    }
  });
}

async function groupIdOf(name: string): Promise<number | undefined> {
  const groups = await readFile('/etc/group', 'utf8').catch(() => '');
  const line = groups.split('\n').find((entry) => entry.startsWith(`${name}:`));
  const id = Number(line?.split(':')[2]);
  return line !== undefined && Number.isInteger(id) ? id : undefined;
}

/**
 * Listens on a unix socket: mode 0660, of `group` if the host has it. A socket left by a dead agent
 * is replaced. Throws API_SOCKET_TAKEN if a live one answers there, API_SOCKET_REFUSED otherwise.
 */
export async function listenOnSocket(
  server: Server,
  path: string,
  group: string,
  log: Logger,
): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw refused(path, `the path is longer than ${SOCKET_PATH_BYTES_MAX} bytes`);
  }
  try {
    await mkdir(dirname(path), { recursive: true });
  } catch (error) {
    throw refused(path, (error as Error).message);
  }
  for (let attempt = 1; ; attempt++) {
    await clear(path);
    try {
      await bind(server, path);
      break;
    } catch (error) {
      if (codeOf(error) !== 'EADDRINUSE') throw refused(path, (error as Error).message);
      if (attempt >= CLAIM_ATTEMPTS_MAX) throw taken(path);
    }
  }
  const groupId = await groupIdOf(group);
  try {
    await chmod(path, SOCKET_MODE);
    if (groupId !== undefined) await chown(path, process.getuid?.() ?? 0, groupId);
  } catch (error) {
    // An agent of an ordinary user serves that user.
    log.warn({ path, group, err: error }, 'the socket keeps the group of its owner');
  }
}
