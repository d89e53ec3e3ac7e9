import { readFileSync } from 'node:fs';
import { type LimitCalls, type RaisedDescriptors, raiseLimits } from '../descriptor-limits.js';

/** How `bin/shoal` tells the soft limit: Node raises it before any JavaScript runs. */
const STARTED_SOFT = 'SHOAL_STARTED_NOFILE';

/** The soft limit that this process was started with, where `bin/shoal` has said it; forgets it. */
export function takeStartedSoftLimit(env: NodeJS.ProcessEnv = process.env): number | undefined {
  const text = env[STARTED_SOFT] ?? '';
  delete env[STARTED_SOFT];
  return /^[0-9]{1,10}$/.test(text) ? Number(text) : undefined;
}

/** As `raiseLimits`, of this process. `undefined` where nobody can be asked: all stays as it is. */
export async function raiseDescriptors(): Promise<RaisedDescriptors | undefined> {
  const startedSoft = takeStartedSoftLimit();
  try {
    const mostMax = Number(readFileSync('/proc/sys/fs/nr_open', 'utf8'));
    return raiseLimits(await loadCalls(), startedSoft, mostMax);
  } catch {
    return undefined;
  }
}

const RLIMIT_NOFILE = 7;

/** "None" is the largest number of 64 bits, which is one too many here. */
const limitOf = (value = 0n) => Math.min(Number(value), Number.MAX_SAFE_INTEGER);

async function loadCalls(): Promise<LimitCalls> {
  const { default: koffi } = await import('koffi');
  const libc = koffi.load(null);
  const types = ['int', 'int', 'void *', 'void *'];
  const declare = (name: string) => libc.func(name, 'int', types);
  // Of 64 bits everywhere: glibc has it under a name of its own, and musl knows no other size.
  let prlimit: ReturnType<typeof declare>;
  try {
    prlimit = declare('prlimit64');
  } catch {
    prlimit = declare('prlimit');
  }
  return {
    get: () => {
      const held = new BigUint64Array(2);
      if (prlimit(0, RLIMIT_NOFILE, null, held) !== 0) throw new Error('prlimit');
      return { soft: limitOf(held[0]), hard: limitOf(held[1]) };
    },
    set: ({ soft, hard }) =>
      prlimit(0, RLIMIT_NOFILE, BigUint64Array.of(BigInt(soft), BigInt(hard)), null) === 0,
  };
}
