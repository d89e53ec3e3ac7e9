import { TestLab } from './lab.js';
import { type Teardown, until } from './process.js';

export const MANAGERS = ['node1', 'node2', 'node3'] as const;
/** What a busy machine may take for something that is a matter of moments. */
export const SOON_MS = 20_000;

/** A lab of three managers. */
export function managersUp(
  t: Teardown,
  options: { readonly ipv6?: boolean } = {},
): Promise<TestLab> {
  return TestLab.up(t, { nodes: 3, managers: 3, ...options });
}

/** `docker node ls` on a node: by host name, the columns STATUS and MANAGER STATUS. */
export async function nodesSeen(
  lab: TestLab,
  node: string,
): Promise<ReadonlyMap<string, { readonly status: string; readonly manager: string }>> {
  const format = '{{.Hostname}}|{{.Status}}|{{.ManagerStatus}}';
  const { code, stdout } = await lab.docker(node, 'node', 'ls', '--format', format);
  if (code !== 0) return new Map();
  return new Map(
    stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [name = '', status = '', manager = ''] = line.split('|');
        return [name, { status, manager }];
      }),
  );
}

/** Waits until a node shows every node ready, with these columns MANAGER STATUS, sorted. */
export function untilManagers(
  lab: TestLab,
  node: string,
  want: readonly string[],
): Promise<unknown> {
  const wanted = JSON.stringify([...want].sort());
  return until(`${node} shows managers ${wanted}`, 3 * SOON_MS, async () => {
    const seen = [...(await nodesSeen(lab, node)).values()];
    const isReady = seen.every(({ status }) => status === 'Ready');
    return isReady && JSON.stringify(seen.map(({ manager }) => manager).sort()) === wanted;
  });
}

export const ALL_REACHABLE = ['Leader', 'Reachable', 'Reachable'] as const;

/** The node that leads, as another sees it. */
export async function leaderSeen(lab: TestLab, node: string): Promise<string> {
  return until('there is a leader', SOON_MS, async () => {
    const seen = await nodesSeen(lab, node);
    return [...seen].find(([, { manager }]) => manager === 'Leader')?.[0];
  });
}

/** Polls a command of docker until it succeeds. @returns What it wrote. */
export function untilDocker(
  lab: TestLab,
  node: string,
  ...args: readonly string[]
): Promise<string> {
  let last = '';
  return until(`on ${node}: docker ${args.join(' ')}`, 2 * SOON_MS, async () => {
    const { code, stdout, stderr } = await lab.docker(node, ...args);
    last = stderr;
    return code === 0 ? { stdout: stdout.trimEnd() } : undefined;
  }).then(
    ({ stdout }) => stdout,
    (error) => {
      throw new Error(`${error.message}: ${last}`);
    },
  );
}
