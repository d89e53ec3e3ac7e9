import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AgentClient } from '../../src/cli/agent-client.js';
import { Lab } from '../../src/cli/lab/lab.js';
import { rssOf } from './memory.js';
import type { BenchSwarm } from './swarm.js';

interface NodeJson {
  readonly ID: string;
  readonly Description: { readonly Hostname: string };
}

/** Three agents of a lab, with the host runtime. */
export async function openShoal(prefix: string, dir: string): Promise<BenchSwarm> {
  const lab = new Lab({ dir: join(dir, 'shoal'), prefix: `${prefix}s` });
  try {
    const { nodes } = await lab.up({ nodes: 3 });
    const client = new AgentClient(nodes[0]?.socket ?? '');
    const known = (await client.call('GET', '/nodes')) as NodeJson[];
    const idOf = (name: string) =>
      known.find(({ Description }) => Description.Hostname === name)?.ID ?? '';
    return {
      name: 'shoal',
      client,
      task: { image: 'host', args: ['sleep', '1000000'] },
      updated: { image: 'host', args: ['sleep', '1000001'] },
      nodes: nodes.map(({ name }) => idOf(name)),
      kill: async (node) => {
        const { pid, namespace } = nodes[node] ?? {};
        if (pid === undefined || namespace === undefined) throw new Error('no such node');
        await lab.partition([`node${node + 1}`]);
        process.kill(pid, 'SIGKILL');
      },
      rssBytes: (node) => rssOf([nodes[node]?.pid ?? 0]),
      close: async () => {
        await lab.down();
      },
    };
  } catch (error) {
    await lab.down();
    throw error;
  }
}

/** Whether this machine can run the host runtime's tasks at all. */
export function isRoot(): boolean {
  return /^Uid:\s+0\s/m.test(readFileSync('/proc/self/status', 'utf8'));
}
