const F_SETFD = 2;

/** Says that this has been done; and to the C library that one arena is enough. */
export const LEAN_ENVIRONMENT = { SHOAL_LEAN: '1', MALLOC_ARENA_MAX: '1' } as const;

/**
 * V8 lets the young generation of each thread grow to 48 MB, and glibc keeps a pool of memory for each thread:
 * together a quarter of an agent's memory, for nothing that an agent does. 12 MB cost no measurable time.
 */
export const LEAN_FLAGS = ['--max-semi-space-size=4'] as const;

/**
 * Begins this process anew (execve: same pid, same descriptors) with settings that Node and the C library read
 * only when they start. Returns in the new process, and where it cannot be done, which costs memory only.
 */
export async function becomeLean(): Promise<void> {
  const { SHOAL_LEAN: done, ...env } = process.env;
  if (done !== undefined) {
    // Not for what this process starts.
    for (const name of Object.keys(LEAN_ENVIRONMENT)) delete process.env[name];
    return;
  }
  // Whoever started this process talks with it through a channel that would not survive, or watches it.
  if (process.platform !== 'linux' || process.channel !== undefined || process.execArgv.length > 0)
    return;
  try {
    const { default: koffi } = await import('koffi');
    const libc = koffi.load(null);
    const execve = libc.func('execve', 'int', ['str', 'str *', 'str *']);
    const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'long']);
    // Node marks them to be closed.
    for (const descriptor of [0, 1, 2]) fcntl(descriptor, F_SETFD, 0);
    const argv = [process.execPath, ...LEAN_FLAGS, ...process.argv.slice(1)];
    const pairs = Object.entries({ ...env, ...LEAN_ENVIRONMENT }).map(
      ([key, value]) => `${key}=${value}`,
    );
    execve(process.execPath, [...argv, null], [...pairs, null]);
  } catch {
    // It runs all the same.
  }
}
