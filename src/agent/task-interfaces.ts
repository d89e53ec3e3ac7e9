import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { type TaskObject, taskName } from '../base/service-model.js';
import type { AttachmentId } from '../base/swarm-model.js';
import type { EndpointState, TaskNetworks } from '../runtime/index.js';
import type { Attachments } from './attachments.js';

/**
 * What an endpoint record is given to reach the others, who need about 20 ms. A program that starts
 * sooner loses its first packet, and TCP takes a whole second to send it again.
 */
export const RECORD_HEAD_START_MS = 50;
/** For how long the others may take to hear that a task gets no new work. */
const DRAIN_MS = 100;

export interface TaskInterfacesDependencies {
  readonly attachments: Pick<Attachments, 'raise' | 'lower' | 'setEndpointState' | 'list'>;
  /** Whether anybody else hears of endpoints. */
  hasOthers(): boolean;
  /** Every namespace that is attached has its resolver, or has failed to. */
  namesOpened(): Promise<void>;
}

/** The interfaces of this node's tasks: one for each network, with the addresses that the managers gave. */
export class TaskInterfaces implements TaskNetworks {
  readonly #deps: TaskInterfacesDependencies;
  /** Attachments of each task, raised or being raised. */
  readonly #ids = new Map<string, readonly string[]>();

  constructor(dependencies: TaskInterfacesDependencies) {
    this.#deps = dependencies;
  }

  /** The same names of interfaces every time: one that an agent before this one left is taken over. */
  async wire(task: TaskObject, netns: string, endpoint: EndpointState): Promise<void> {
    const ids = task.networks.map(({ attachmentId }) => attachmentId);
    this.#ids.set(task.id, ids);
    for (const [index, network] of task.networks.entries()) {
      await this.#raise(task, network, index, netns, endpoint);
      // The task has ended meanwhile, and `unwire` came before the interface.
      if (this.#ids.get(task.id) !== ids) {
        for (const id of ids) void this.#deps.attachments.lower(id);
        return;
      }
    }
    // The tables, and with them the names, are made anew at the end of the turn.
    await setImmediate();
    if (this.#deps.hasOthers()) await delay(RECORD_HEAD_START_MS);
    await this.#deps.namesOpened();
  }

  unwire(id: string): void {
    const ids = this.#ids.get(id) ?? [];
    this.#ids.delete(id);
    for (const attachment of ids) {
      // Lowering takes its turn; until then nobody shall be sent there.
      this.#deps.attachments.setEndpointState(attachment, 'draining');
      void this.#deps.attachments.lower(attachment);
    }
  }

  setEndpoint(id: string, state: EndpointState): void {
    for (const attachment of this.#ids.get(id) ?? [])
      this.#deps.attachments.setEndpointState(attachment, state);
  }

  async drain(id: string): Promise<void> {
    this.setEndpoint(id, 'draining');
    if (this.#deps.hasOthers()) await delay(DRAIN_MS);
  }

  async #raise(
    task: TaskObject,
    { attachmentId, networkId, addresses, mac, aliases }: TaskObject['networks'][number],
    index: number,
    netns: string,
    endpointState: EndpointState,
  ): Promise<void> {
    const { attachments } = this.#deps;
    const held = attachments.list().find(({ saved }) => saved.id === attachmentId);
    if (held !== undefined && held.netns !== netns) await attachments.lower(attachmentId);
    const { serviceId, serviceName, id: taskId, slot, createdAtMs } = task;
    await attachments.raise({
      object: {
        id: attachmentId as AttachmentId,
        networkId,
        name: taskName(task),
        aliases,
        addresses,
        mac,
        // Of the leader's clock, which may have fractions.
        createdAtMs: Math.floor(createdAtMs),
      },
      target: { kind: 'netns', path: netns },
      ifname: `eth${index}`,
      assigned: {
        purpose: 'task',
        service: { id: serviceId, name: serviceName, taskId, slot },
        endpointState,
      },
    });
    attachments.setEndpointState(attachmentId, endpointState);
  }
}
