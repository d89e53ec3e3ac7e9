import { performance } from 'node:perf_hooks';
import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { type TaskObject, taskName } from '../base/service-model.js';
import type { AttachmentId } from '../base/swarm-model.js';
import type { EndpointState, TaskNetworks } from '../runtime/index.js';
import type { NodeAcknowledgements } from './acknowledgements.js';
import type { Attachments } from './attachments.js';
import type { NodeChecks } from './task-checks.js';

/**
 * What an endpoint record is given to reach the others, who need about 20 ms. A program that starts
 * sooner loses its first packet, and TCP takes a whole second to send it again.
 */
export const RECORD_HEAD_START_MS = 50;
/** For how long live nodes may take to decide by what was published; they need about 20 ms. */
const ACKNOWLEDGED_MS_MAX = 5000;
/** For how long a program may take until it listens at its published ports. */
const LISTENING_MS_MAX = 5000;
const LISTENING_POLL_MS = 20;
/** What was on its way to a task when the last node let go of it: for its program to take it. */
const LANDING_MS = 50;

export interface TaskInterfacesDependencies {
  readonly attachments: Pick<Attachments, 'raise' | 'lower' | 'setEndpointState' | 'list'>;
  /** Whether anybody else hears of endpoints. */
  hasOthers(): boolean;
  readonly acknowledgements: Pick<NodeAcknowledgements, 'published' | 'freed'>;
  /** Where the published ports of a service lead in its tasks. */
  portsOf(serviceId: string): readonly { readonly protocol: string; readonly targetPort: number }[];
  /** Ports of a namespace at which somebody listens. @throws Error if it is gone. */
  listeningPorts(netns: string, protocol: 'tcp' | 'udp'): ReadonlySet<number>;
  /** For how long connections of a task of this service may go on before it is stopped. */
  drainMs(serviceId: string): number;
  /** Active checks of those that get work. */
  readonly checks: Pick<NodeChecks, 'add' | 'remove'>;
  /** Every namespace that is attached has its resolver, or has failed to. */
  namesOpened(): Promise<void>;
}

interface Wired {
  /** What was announced before must not be taken back by what is slower. */
  isDraining: boolean;
  readonly serviceId: string;
  readonly netns: string;
  /** Its own, if it has one. */
  readonly address: string | undefined;
  readonly attachments: readonly string[];
  readonly networks: readonly string[];
}

/** The interfaces of this node's tasks: one for each network, with the addresses that the managers gave. */
export class TaskInterfaces implements TaskNetworks {
  readonly #deps: TaskInterfacesDependencies;
  /** Tasks whose attachments are raised or being raised. */
  readonly #wired = new Map<string, Wired>();

  constructor(dependencies: TaskInterfacesDependencies) {
    this.#deps = dependencies;
  }

  /** The same names of interfaces every time: one that an agent before this one left is taken over. */
  async wire(task: TaskObject, netns: string, endpoint: EndpointState): Promise<void> {
    const wired: Wired = {
      isDraining: false,
      serviceId: task.serviceId,
      netns,
      address: task.networks[0]?.addresses[0]?.replace(/\/.*$/, ''),
      attachments: task.networks.map(({ attachmentId }) => attachmentId),
      networks: task.networks.map(({ networkId }) => networkId),
    };
    this.#wired.set(task.id, wired);
    for (const [index, network] of task.networks.entries()) {
      await this.#raise(task, network, index, netns, endpoint);
      // The task has ended meanwhile, and `unwire` came before the interface.
      if (this.#wired.get(task.id) !== wired) {
        for (const id of wired.attachments) void this.#deps.attachments.lower(id);
        return;
      }
    }
    // The tables, and with them the names, are made anew at the end of the turn.
    await setImmediate();
    if (this.#deps.hasOthers()) await delay(RECORD_HEAD_START_MS);
    await this.#deps.namesOpened();
    if (endpoint === 'ready') this.#startChecks(task.id);
  }

  unwire(id: string): void {
    const attachments = this.#wired.get(id)?.attachments ?? [];
    this.#wired.delete(id);
    this.#deps.checks.remove(id);
    for (const attachment of attachments) {
      // Lowering takes its turn; until then nobody shall be sent there.
      this.#deps.attachments.setEndpointState(attachment, 'draining');
      void this.#deps.attachments.lower(attachment);
    }
  }

  /**
   * It gets work from all nodes when this is done. A program that has only begun refuses connections,
   * so it gets none before it listens; one that never does gets them all the same.
   */
  async announce(id: string): Promise<void> {
    const wired = this.#wired.get(id);
    await this.#listening(id);
    // It may be stopped by now, or be another.
    if (wired === undefined || wired.isDraining || this.#wired.get(id) !== wired) return;
    this.#setEndpoint(id, 'ready');
    this.#startChecks(id);
    await this.#published(id);
  }

  /**
   * Nobody gives it new work any more, and what it has been given is done, or has had its time. That
   * its program has taken a connection is seen by an answer only, so the end of flows is what counts.
   */
  async drain(id: string): Promise<void> {
    const wired = this.#wired.get(id);
    if (wired !== undefined) wired.isDraining = true;
    this.#deps.checks.remove(id);
    this.#setEndpoint(id, 'draining');
    await this.#published(id);
    const { acknowledgements, drainMs } = this.#deps;
    const serviceId = this.#wired.get(id)?.serviceId ?? '';
    await Promise.all([delay(LANDING_MS), acknowledgements.freed(id, drainMs(serviceId))]);
  }

  #startChecks(id: string): void {
    const { isDraining, serviceId, netns, address } = this.#wired.get(id) ?? { isDraining: true };
    if (isDraining || address === undefined) return;
    this.#deps.checks.add(id, { serviceId, netns, address });
  }

  #setEndpoint(id: string, state: EndpointState): void {
    for (const attachment of this.#wired.get(id)?.attachments ?? [])
      this.#deps.attachments.setEndpointState(attachment, state);
  }

  async #listening(id: string): Promise<void> {
    const wired = this.#wired.get(id);
    if (wired === undefined) return;
    const ports = this.#deps.portsOf(wired.serviceId);
    const endMs = performance.now() + LISTENING_MS_MAX;
    while (this.#wired.get(id) === wired && !wired.isDraining && performance.now() < endMs) {
      if (this.#listensAt(wired, ports)) return;
      await delay(LISTENING_POLL_MS);
    }
  }

  #listensAt({ netns }: Wired, ports: ReturnType<TaskInterfacesDependencies['portsOf']>): boolean {
    try {
      return (['tcp', 'udp'] as const).every((protocol) => {
        const wanted = ports.filter((port) => port.protocol === protocol);
        if (wanted.length === 0) return true;
        const open = this.#deps.listeningPorts(netns, protocol);
        return wanted.every(({ targetPort }) => open.has(targetPort));
      });
    } catch {
      // It has ended, which is told elsewhere.
      return true;
    }
  }

  async #published(id: string): Promise<void> {
    const networks = this.#wired.get(id)?.networks ?? [];
    await this.#deps.acknowledgements.published(networks, ACKNOWLEDGED_MS_MAX);
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
        datagramPorts: this.#deps
          .portsOf(serviceId)
          .flatMap(({ protocol, targetPort }) => (protocol === 'udp' ? [targetPort] : [])),
        endpointState,
      },
    });
    attachments.setEndpointState(attachmentId, endpointState);
  }
}
