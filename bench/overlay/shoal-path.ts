import { join } from 'node:path';
import { AgentClient } from '../../src/cli/agent-client.js';
import { Lab } from '../../src/cli/lab/lab.js';
import type { DataPath } from './paths.js';
import { addNetns, deleteNetns, setOffloads } from './wire.js';

interface Attached {
  readonly addresses: readonly string[];
}

/** Two agents of a lab on a wire of their own, and a namespace attached at each. */
export async function shoalPath(
  prefix: string,
  dir: string,
  name: 'native' | 'portable' | 'native-sealed',
  extraFlags: readonly string[],
): Promise<DataPath> {
  const isSealed = name === 'native-sealed';
  const driver = name === 'portable' ? 'portable' : 'native';
  const letter = isSealed ? 'e' : name.slice(0, 1);
  const lab = new Lab({ dir: join(dir, name), prefix: `${prefix}-${letter}` });
  const apps = [`${prefix}-${letter}c`, `${prefix}-${letter}s`] as const;
  const close = async () => {
    await lab.down();
    apps.forEach(deleteNetns);
  };
  try {
    const status = await lab.up({ nodes: 2, wire: 'direct', driver, extraFlags });
    const clients = status.nodes.map((node) => new AgentClient(node.socket));
    const [manager] = clients;
    await manager?.call('POST', '/networks/create', {
      Name: 'bench',
      Driver: 'overlay',
      Attachable: true,
      Options: isSealed ? { encrypted: 'true' } : {},
    });
    const attached: Attached[] = [];
    for (const [i, app] of apps.entries()) {
      addNetns(app);
      attached.push(await attachWhenKnown(clients[i] as AgentClient, app));
    }
    return {
      name,
      title: `shoal, ${driver} driver${isSealed ? ', encrypted' : ''}`,
      client: apps[0],
      server: apps[1],
      serverAddress: (attached[1]?.addresses[0] ?? '').replace(/\/.*/, ''),
      pids: status.nodes.flatMap((node) => node.pid ?? []),
      setWire: (mode, gro) => {
        for (const node of status.nodes) setOffloads(node.namespace, 'eth0', mode, gro);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const KNOWN_TIMEOUT_MS = 5000;

/** A network takes a moment to reach the other agents: asks again until it is known. */
async function attachWhenKnown(client: AgentClient, netns: string): Promise<Attached> {
  const body = {
    network: 'bench',
    target: { kind: 'netns', path: `/run/netns/${netns}` },
    aliases: [],
  };
  for (const end = Date.now() + KNOWN_TIMEOUT_MS; ; ) {
    try {
      return (await client.call('POST', '/shoal/v1/attachments', body)) as Attached;
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
