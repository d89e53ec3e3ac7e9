import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { inspectJson } from '../wire/inspect-json.js';
import { type EngineClient, EngineError } from './engine-client.js';

/** Looks at a sandbox's process, and the time between them. */
const SIGHTS_MAX = 20;
const SIGHT_MS = 50;

/**
 * The process of a sandbox that runs; `undefined`: none is seen. Only if it is ours: the engine may
 * count processes in another namespace.
 *
 * @param token The word by which the sandbox's command line is known.
 */
export async function sandboxPid(
  client: EngineClient,
  sandbox: string,
  token: string,
): Promise<number | undefined> {
  const inspected = await client
    .call(inspectJson, { path: `/containers/${sandbox}/json` })
    .catch((error) => {
      if (error instanceof EngineError && error.status === 404) return undefined;
      throw error;
    });
  const pid = inspected?.State.Pid ?? 0;
  if (pid === 0) return undefined;
  // A container that has only just started may still be on its way to its program.
  for (let tries = 0; tries < SIGHTS_MAX; tries++) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.split('\0').includes(token)) return pid;
    await delay(SIGHT_MS);
  }
  return undefined;
}

export const netnsOf = (pid: number) => `/proc/${pid}/ns/net`;
