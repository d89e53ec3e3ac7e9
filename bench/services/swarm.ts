import type { AgentClient } from '../../src/cli/agent-client.js';

/** A swarm under measurement: three nodes, one manager, tasks that only sleep. */
export interface BenchSwarm {
  readonly name: 'docker' | 'shoal';
  /** The manager's API. */
  readonly client: AgentClient;
  /** What tasks are made of: image, arguments, and another image or argument to update to. */
  readonly task: { readonly image: string; readonly args: readonly string[] };
  readonly updated: { readonly image: string; readonly args: readonly string[] };
  /** Node ids, the manager's first. */
  readonly nodes: readonly string[];
  /** Kills a node as a power cut would: the agent, and all that it runs. */
  kill(node: number): Promise<void>;
  /** Resident bytes of the programs that make up a node, without its tasks. */
  rssBytes(node: number): number;
  close(): Promise<void>;
}

export interface TaskJson {
  readonly ID: string;
  readonly NodeID?: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string };
  readonly Spec: { readonly ContainerSpec: { readonly Image: string; readonly Args?: string[] } };
}

const POLL_MS = 20;
const PATIENCE_MS = 180_000;

interface ServiceJson {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Record<string, unknown>;
  readonly UpdateStatus?: { readonly State: string };
}

export async function tasksOf(client: AgentClient, service: string): Promise<TaskJson[]> {
  const filters = encodeURIComponent(JSON.stringify({ service: { [service]: true } }));
  return (await client.call('GET', `/tasks?filters=${filters}`)) as TaskJson[];
}

/** @returns Milliseconds until it held. */
export async function untilTasks(
  client: AgentClient,
  service: string,
  what: string,
  holds: (tasks: readonly TaskJson[]) => boolean,
): Promise<number> {
  const fromMs = performance.now();
  for (;;) {
    const tasks = await tasksOf(client, service);
    const tookMs = performance.now() - fromMs;
    if (holds(tasks)) return tookMs;
    if (tookMs > PATIENCE_MS) throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export function runningCount(tasks: readonly TaskJson[]): number {
  return tasks.filter(
    ({ DesiredState, Status }) => DesiredState === 'running' && Status.State === 'running',
  ).length;
}

export async function createService(
  { client, task }: BenchSwarm,
  name: string,
  replicas: number,
  more: { readonly networks?: readonly string[]; readonly constraints?: readonly string[] } = {},
): Promise<string> {
  const { ID } = (await client.call('POST', '/services/create', {
    Name: name,
    TaskTemplate: {
      ContainerSpec: { Image: task.image, Args: task.args, StopGracePeriod: 0 },
      ...(more.constraints && { Placement: { Constraints: more.constraints } }),
      ...(more.networks && { Networks: more.networks.map((Target) => ({ Target })) }),
    },
    Mode: { Replicated: { Replicas: replicas } },
    UpdateConfig: { Parallelism: 1, Delay: 0, Monitor: 1_000_000, Order: 'stop-first' },
  })) as { ID: string };
  return ID;
}

async function changeService(
  client: AgentClient,
  id: string,
  change: (spec: Record<string, unknown>) => Record<string, unknown>,
): Promise<void> {
  const { Version, Spec } = (await client.call('GET', `/services/${id}`)) as ServiceJson;
  await client.call('POST', `/services/${id}/update?version=${Version.Index}`, change(Spec));
}

export function scaleService(client: AgentClient, id: string, replicas: number): Promise<void> {
  return changeService(client, id, (spec) => ({
    ...spec,
    Mode: { Replicated: { Replicas: replicas } },
  }));
}

/** @returns Milliseconds until the update says that it is completed. */
export async function updateService({ client, updated }: BenchSwarm, id: string): Promise<number> {
  const fromMs = performance.now();
  await changeService(client, id, (spec) => {
    const template = spec['TaskTemplate'] as Record<string, unknown>;
    const container = template['ContainerSpec'] as Record<string, unknown>;
    return {
      ...spec,
      TaskTemplate: {
        ...template,
        ContainerSpec: { ...container, Image: updated.image, Args: updated.args },
      },
    };
  });
  for (;;) {
    const { UpdateStatus } = (await client.call('GET', `/services/${id}`)) as ServiceJson;
    const tookMs = performance.now() - fromMs;
    if (UpdateStatus?.State === 'completed') return tookMs;
    if (tookMs > PATIENCE_MS) throw new Error(`update: ${UpdateStatus?.State ?? 'not begun'}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Removed, and all its tasks gone. */
export async function removeService(client: AgentClient, id: string): Promise<void> {
  await client.call('DELETE', `/services/${id}`);
  const fromMs = performance.now();
  for (;;) {
    const all = (await client.call('GET', '/tasks')) as (TaskJson & { ServiceID?: string })[];
    if (!all.some(({ ServiceID }) => ServiceID === id)) return;
    if (performance.now() - fromMs > PATIENCE_MS)
      throw new Error('tasks of a removed service stay');
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
