import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';

/** Why namespace tests cannot run here, for tap's `skip`; `false` if they can. */
export const cannotMakeNamespaces: string | false =
  process.platform === 'linux' && process.getuid?.() === 0 ? false : 'needs root on Linux';

/** A named network namespace that is deleted when the test ends, also when it fails. */
export function makeNetns(t: { teardown(work: () => void): unknown }): {
  readonly name: string;
  readonly path: string;
  readonly ip: (...args: string[]) => string;
} {
  const name = `shl-${randomBytes(4).toString('hex')}`;
  execFileSync('ip', ['netns', 'add', name]);
  t.teardown(() => execFileSync('ip', ['netns', 'delete', name]));
  const ip = (...args: string[]) =>
    execFileSync('ip', ['-n', name, ...args], { encoding: 'utf8', stdio: 'pipe' });
  return { name, path: `/run/netns/${name}`, ip };
}
