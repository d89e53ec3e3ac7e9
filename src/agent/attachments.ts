import { randomUUID } from 'node:crypto';
import { basename } from 'node:path';
import type { AttachRequest, AttachTarget, DetachRequest, LocalAttachment } from '../api/index.js';
import { AgentError } from '../base/error.js';
import { SwarmError } from '../base/swarm-error.js';
import type { AttachmentId, AttachmentObject, NetworkId } from '../base/swarm-model.js';
import {
  answerDatagrams,
  answerOutside,
  configureLink,
  deleteLink,
  deliverForeign,
  freeLinkName,
  netnsIdentity,
  netnsPathOf,
  netnsPathOfPid,
  openTap,
  undeliverForeign,
} from '../dataplane/io/index.js';
import { type EndpointRecord, ingressAddress6, VIP_MAC_TEXT } from '../dataplane/overlay/index.js';
import type { Log } from './log.js';
import type { SavedAttachment, StateFile } from './state-file.js';

/** Attachments that one node holds at most: each is a TAP, a port and a record. */
export const ATTACHMENTS_MAX = 1024;

/** Aliases of one attachment, and UTF-8 bytes of its name and aliases together: its record is small. */
export const ALIASES_MAX = 32;
export const NAME_BYTES_MAX = 1024;

/** How often namespaces are looked at, to notice those that are gone. */
const SWEEP_INTERVAL_MS = 2000;

/** Frames that wait in a TAP while the packet thread is busy. */
const TRANSMIT_QUEUE_FRAMES = 1000;

/** A network as the attachments need it. */
export interface AttachableNetwork {
  readonly id: NetworkId;
  readonly name: string;
  readonly vni: number;
  readonly attachable: boolean;
  readonly mtuBytes: number;
  readonly subnets: readonly { readonly subnet: string }[];
  /** Tasks on it are spoken to by clients outside, under their own addresses. */
  readonly isIngress: boolean;
}

/** What the attachments need of the rest of the agent. */
export interface AttachmentDependencies {
  readonly state: StateFile;
  readonly log: Log;
  /** Whether TAPs shall hand over super-frames: the packet driver must understand them. */
  readonly offloads: boolean;
  /** Finds a network by id, name or unique prefix of an id. */
  network(reference: string): AttachableNetwork | undefined;
  /** Gets an address from the manager. The same `key` twice gives the same attachment. */
  allocate(request: {
    readonly networkId: NetworkId;
    readonly ip: string | undefined;
    readonly name: string;
    readonly aliases: readonly string[];
    readonly key: string;
  }): Promise<AttachmentObject>;
  /** Gives the address back; retried later by the caller when it fails. */
  release(id: AttachmentId): Promise<void>;
  /** `list()` holds the attachment already; the packet thread gets its TAP. */
  addPort(attachment: Attachment, fd: number): void;
  /** The interface of `attachment` is up: the others may hear of it, and names be served in it. */
  raised(attachment: Attachment): void;
  /** `list()` does not hold the attachment any more; records, tables and names follow. */
  removePort(attachment: Attachment): void;
  /** What is said of `attachment` to the others has changed. */
  changed(attachment: Attachment): void;
}

/** An attachment which has its TAP; its id is also the name of its port. */
export interface Attachment {
  readonly saved: SavedAttachment;
  readonly vni: number;
  readonly mtuBytes: number;
  /** Namespace file; `undefined` is the agent's own namespace. */
  readonly netns: string | undefined;
  readonly state: 'up' | 'waiting' | 'failed';
  readonly error?: string;
  /** The host takes what comes by it for its own, whomever it is addressed to: of the families of these, its own addresses. */
  readonly takesForeign?: readonly string[];
  /** Clients outside are answered under their own addresses: by connections, and by datagrams too. */
  readonly answersDatagrams?: boolean;
  readonly answersDatagrams6?: boolean;
  /** Absent: somebody asked for it on this host. */
  readonly assigned?: Assigned;
}

/** What the swarm made for this node by itself: told anew at every start, and not detached by hand. */
export interface Assigned {
  /** `ingress`: this node's own place on the ingress network, in the host's namespace. */
  readonly purpose: 'ingress' | 'task';
  /** What the others are told of a task's endpoint. */
  readonly service?: NonNullable<EndpointRecord['service']>;
  /** At which the task is asked by datagrams. */
  readonly datagramPorts?: readonly number[];
  readonly endpointState?: NonNullable<EndpointRecord['state']>;
  readonly isFailing?: true;
}

/** A wish to raise an attachment that the manager has given already. */
export interface AssignedAttachment {
  readonly object: Omit<AttachmentObject, 'nodeId' | 'version' | 'updatedAtMs'>;
  readonly target: AttachTarget;
  /** Default `eth0` and so on. */
  readonly ifname?: string;
  readonly assigned: Assigned;
}

function invalid(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_INVALID' }, message);
}

function pathOf(target: AttachTarget): string | undefined {
  switch (target.kind) {
    case 'netns':
      return netnsPathOf(target.path);
    case 'pid':
      return netnsPathOfPid(target.pid);
    case 'host':
      return undefined;
  }
}

/** Identity of the namespace that a path stands for at this moment. */
function identityOf(netns: string | undefined): string {
  return netnsIdentity(netns ?? '/proc/self/ns/net');
}

function defaultName(target: AttachTarget, hostname: string): string {
  switch (target.kind) {
    case 'netns':
      return basename(target.path);
    case 'pid':
      return `pid-${target.pid}`;
    case 'host':
      return hostname;
  }
}

function refuseLongNames(name: string, aliases: readonly string[]): void {
  if (aliases.length > ALIASES_MAX) {
    throw invalid(`an attachment has at most ${ALIASES_MAX} aliases, not ${aliases.length}`);
  }
  if (Buffer.byteLength([name, ...aliases].join('')) > NAME_BYTES_MAX) {
    throw invalid(`name and aliases take more than ${NAME_BYTES_MAX} bytes: shorten them`);
  }
}

/** Refusals of the system become refusals of the request: the sentence stays, the status is 400. */
function asRefusal(error: unknown): unknown {
  if (error instanceof SwarmError || !(error instanceof AgentError)) return error;
  return invalid(error.message);
}

/**
 * What this node has attached to overlay networks: makes the TAPs, holds their ports, remembers
 * them on disk, and lets go of those whose namespace is gone.
 *
 * Operations run one after the other, so that two requests cannot take the same name or port.
 */
export class Attachments {
  readonly #hostname: string;
  readonly #deps: AttachmentDependencies;
  readonly #attachments = new Map<string, Attachment>();
  /** Addresses to give back that the manager has not heard of yet. */
  readonly #unreleased = new Set<AttachmentId>();
  readonly #sweeper: NodeJS.Timeout;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(hostname: string, dependencies: AttachmentDependencies) {
    this.#hostname = hostname;
    this.#deps = dependencies;
    this.#sweeper = setInterval(() => void this.#queue(() => this.#sweep()), SWEEP_INTERVAL_MS);
  }

  list(): readonly Attachment[] {
    return [...this.#attachments.values()];
  }

  /** Makes again, after a restart, what was attached before. */
  restore(): Promise<void> {
    return this.#queue(async () => {
      for (const saved of this.#deps.state.attachments) await this.#restoreOne(saved);
      this.#save();
    });
  }

  attach(request: AttachRequest): Promise<LocalAttachment> {
    return this.#queue(async () => {
      try {
        return viewOf(await this.#attach(request));
      } catch (error) {
        throw asRefusal(error);
      }
    });
  }

  /** Raises what the swarm has assigned; done when its interface is up. The same id twice is one. */
  raise({ object, target, ifname, assigned }: AssignedAttachment): Promise<Attachment> {
    return this.#queue(async () => {
      const held = this.#attachments.get(object.id);
      if (held !== undefined) return held;
      if (this.#closed) throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'the agent is stopping');
      const network = this.#deps.network(object.networkId);
      if (network === undefined) throw invalid(`network ${object.networkId} is not known here`);
      const netns = pathOf(target);
      const { id, addresses, mac, name, aliases, createdAtMs } = object;
      const saved: SavedAttachment = {
        id,
        networkId: network.id,
        networkName: network.name,
        target,
        netnsId: identityOf(netns),
        ifname: ifname ?? freeLinkName(netns, 'eth'),
        addresses: [...addresses],
        mac,
        name,
        aliases: [...aliases],
        // The leader's clock has fractions, records have none.
        createdAtMs: Math.floor(createdAtMs),
      };
      return this.#raise(saved, network, assigned);
    });
  }

  /** Takes away what `raise` made; an id that is not there is ignored. */
  lower(id: string): Promise<void> {
    return this.#queue(async () => {
      const attachment = this.#attachments.get(id);
      if (attachment?.assigned !== undefined) await this.#drop(attachment);
    });
  }

  /** Says from now on that a task's endpoint is in this state. */
  setEndpointState(id: string, endpointState: NonNullable<EndpointRecord['state']>): void {
    const attachment = this.#attachments.get(id);
    if (attachment?.assigned === undefined) return;
    const changed = { ...attachment, assigned: { ...attachment.assigned, endpointState } };
    this.#attachments.set(id, changed);
    this.#deps.changed(changed);
  }

  /** Says from now on whether a task's endpoint fails its checks. */
  setEndpointFailing(id: string, isFailing: boolean): void {
    const attachment = this.#attachments.get(id);
    if (attachment?.assigned === undefined) return;
    const { isFailing: _, ...assigned } = attachment.assigned;
    const changed = { ...attachment, assigned: { ...assigned, ...(isFailing && { isFailing }) } };
    this.#attachments.set(id, changed);
    this.#deps.changed(changed);
  }

  detach(request: DetachRequest): Promise<readonly LocalAttachment[]> {
    return this.#queue(async () => {
      const matching = this.list().filter((a) => a.assigned === undefined && matches(a, request));
      if (matching.length === 0) {
        const ref = request.id ?? request.network ?? '';
        throw new SwarmError(
          { code: 'SWARM_NOT_FOUND', kind: 'attachment', ref },
          `nothing here is attached like that${ref === '' ? '' : ` (${ref})`}: see 'shoal network attachments'`,
        );
      }
      for (const attachment of matching) await this.#drop(attachment);
      return matching.map(viewOf);
    });
  }

  /** Forgets those whose network is gone from the swarm, or whose address the manager took back. */
  reconcile(isKnown: (attachment: Attachment) => boolean): Promise<void> {
    return this.#queue(async () => {
      for (const attachment of this.list()) {
        if (isKnown(attachment)) continue;
        this.#deps.log.warn(
          { attachment: attachment.saved.id },
          'attachment was removed by the swarm',
        );
        await this.#drop(attachment);
      }
    });
  }

  /** Takes every interface away; with `forget` also from the disk, as when the node leaves. */
  async close(forget: boolean): Promise<void> {
    clearInterval(this.#sweeper);
    await this.#queue(async () => {
      this.#closed = true;
      for (const attachment of this.list()) {
        this.#attachments.delete(attachment.saved.id);
        this.#deps.removePort(attachment);
        // What runs goes on without its agent, and finds its interface as it was.
        const isLeft = attachment.assigned?.purpose === 'task' || attachment.saved.container;
        if (forget || !isLeft) await this.#deleteLink(attachment);
      }
      if (forget) this.#deps.state.setAttachments([]);
    });
  }

  #queue<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #attach(request: AttachRequest): Promise<Attachment> {
    if (this.#closed) throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'the agent is stopping');
    const network = this.#deps.network(request.network);
    if (network === undefined) {
      throw new SwarmError(
        { code: 'SWARM_NOT_FOUND', kind: 'network', ref: request.network },
        `network ${request.network} not found`,
      );
    }
    if (!network.attachable) {
      throw new SwarmError(
        { code: 'SWARM_NOT_ATTACHABLE', network: network.name },
        `network ${network.name} not manually attachable: create it with --attachable`,
      );
    }
    if (this.#attachments.size >= ATTACHMENTS_MAX) {
      throw new SwarmError(
        { code: 'SWARM_EXHAUSTED', what: 'attachments' },
        `this node holds ${ATTACHMENTS_MAX} attachments, which is the most: detach one first`,
      );
    }
    const name = request.name ?? defaultName(request.target, this.#hostname);
    refuseLongNames(name, request.aliases);
    const netns = pathOf(request.target);
    const netnsId = identityOf(netns);
    const twin = this.list().find(
      (a) => a.saved.netnsId === netnsId && a.saved.networkId === network.id,
    );
    if (twin !== undefined) {
      throw invalid(
        `that namespace is already attached to ${network.name} (as ${twin.saved.ifname})`,
      );
    }
    const object = await this.#deps.allocate({
      networkId: network.id,
      ip: request.ip,
      name,
      aliases: request.aliases,
      key: randomUUID(),
    });
    try {
      const ifname = request.ifname ?? freeLinkName(netns, netns === undefined ? 'shoal' : 'eth');
      const saved: SavedAttachment = {
        id: object.id,
        networkId: network.id,
        networkName: network.name,
        target: request.target,
        netnsId,
        ifname,
        addresses: [...object.addresses],
        mac: object.mac,
        name: object.name,
        aliases: [...object.aliases],
        createdAtMs: object.createdAtMs,
        ...(request.container !== undefined && { container: request.container }),
      };
      const attachment = await this.#raise(saved, network);
      this.#save();
      return attachment;
    } catch (error) {
      await this.#release(object.id);
      throw error;
    }
  }

  async #restoreOne(saved: SavedAttachment): Promise<void> {
    const network = this.#deps.network(saved.networkId);
    try {
      if (network === undefined || identityOf(pathOf(saved.target)) !== saved.netnsId) {
        throw invalid('its network or its namespace is gone');
      }
      await this.#raise(saved, network);
    } catch (error) {
      this.#deps.log.warn(
        { attachment: saved.id, error: (error as Error).message },
        'attachment is not restored',
      );
      await this.#release(saved.id as AttachmentId);
    }
  }

  /** Makes the TAP, hands it to the packet thread, and sets its addresses. */
  async #raise(
    saved: SavedAttachment,
    network: AttachableNetwork,
    assigned?: Assigned,
  ): Promise<Attachment> {
    const netns = pathOf(saved.target);
    const { vni, mtuBytes } = network;
    const purpose = assigned === undefined ? {} : { assigned };
    const waiting: Attachment = { saved, vni, mtuBytes, netns, state: 'waiting', ...purpose };
    const fd = openTap({ netns, name: saved.ifname, offloads: this.#deps.offloads, persist: true });
    this.#attachments.set(saved.id, waiting);
    this.#deps.addPort(waiting, fd);
    try {
      await configureLink(netns, {
        name: saved.ifname,
        mac: saved.mac,
        mtuBytes,
        addresses: saved.addresses,
        transmitQueueLength: TRANSMIT_QUEUE_FRAMES,
      });
    } catch (error) {
      this.#attachments.delete(saved.id);
      this.#deps.removePort(waiting);
      await this.#deleteLink(waiting);
      throw error;
    }
    const outside = network.isIngress ? await this.#openWaysOutside(waiting, network) : {};
    // Its state may have been changed meanwhile.
    const held = this.#attachments.get(saved.id) ?? waiting;
    const attachment: Attachment = { ...held, ...outside, state: 'up' };
    this.#attachments.set(saved.id, attachment);
    this.#deps.raised(attachment);
    return attachment;
  }

  /**
   * Without them clients are spoken for by the node that took the connection. Those of IPv6 need an address of
   * IPv6, which the network may not have: it is made here then, where the namespace has IPv6 at all.
   */
  async #openWaysOutside(
    attachment: Attachment,
    { id, subnets }: AttachableNetwork,
  ): Promise<Partial<Attachment>> {
    const { saved, assigned } = attachment;
    const derived = ingressAddress6(id, subnets, saved.addresses);
    const address4 = saved.addresses.find((cidr) => !cidr.includes(':'));
    const address6 = derived ?? saved.addresses.find((cidr) => cidr.includes(':'));
    const open4 = await this.#openWayOutside(attachment, address4);
    // Whoever answers clients of IPv6 answers those of IPv4: the others count on it.
    const open6 = open4 === 'closed' ? 'closed' : await this.#openWayOutside(attachment, address6);
    const held = open6 === 'closed' ? [address4] : [address4, address6];
    return {
      ...(open6 !== 'closed' &&
        derived !== undefined && {
          saved: { ...saved, addresses: [...saved.addresses, derived] },
        }),
      ...(assigned?.purpose === 'ingress'
        ? open4 !== 'closed' && { takesForeign: held.filter((cidr) => cidr !== undefined) }
        : {
            ...(open4 === 'datagrams' && { answersDatagrams: true }),
            ...(open4 === 'datagrams' && open6 === 'datagrams' && { answersDatagrams6: true }),
          }),
    };
  }

  /** By an address of the attachment, to clients of its family. */
  async #openWayOutside(
    { saved, netns, assigned }: Attachment,
    cidr: string | undefined,
  ): Promise<'closed' | 'connections' | 'datagrams'> {
    if (cidr === undefined) return 'closed';
    let isOpen = false;
    try {
      if (assigned?.purpose === 'ingress') {
        await deliverForeign(saved.ifname, cidr);
        return 'datagrams';
      }
      if (assigned?.purpose !== 'task' || netns === undefined) return 'closed';
      await answerOutside(netns, saved.ifname, cidr, VIP_MAC_TEXT);
      isOpen = true;
      const { datagramPorts: ports = [] } = assigned;
      if (ports.length === 0) return 'connections';
      await answerDatagrams(netns, { name: saved.ifname, address: cidr, ports });
      return 'datagrams';
    } catch (error) {
      const detail = { attachment: saved.id, error: (error as Error).message };
      // Where IPv6 is switched off, nothing is amiss.
      if (cidr.includes(':')) this.#deps.log.debug(detail, 'no clients of IPv6 are seen here');
      else this.#deps.log.warn(detail, 'tasks do not see the addresses of clients');
    }
    return isOpen ? 'connections' : 'closed';
  }

  async #drop(attachment: Attachment): Promise<void> {
    this.#attachments.delete(attachment.saved.id);
    this.#deps.removePort(attachment);
    this.#save();
    await this.#deleteLink(attachment);
    // What the swarm has assigned it takes back by itself.
    if (attachment.assigned === undefined) await this.#release(attachment.saved.id as AttachmentId);
  }

  async #deleteLink(attachment: Attachment): Promise<void> {
    try {
      // A path may by now stand for another namespace, whose link of that name is not ours.
      if (identityOf(attachment.netns) !== attachment.saved.netnsId) return;
      if (attachment.takesForeign !== undefined) await undeliverForeign(attachment.saved.ifname);
      await deleteLink(attachment.netns, attachment.saved.ifname);
    } catch (error) {
      this.#deps.log.debug({ error: (error as Error).message }, 'interface was already gone');
    }
  }

  async #release(id: AttachmentId): Promise<void> {
    this.#unreleased.add(id);
    try {
      await this.#deps.release(id);
      this.#unreleased.delete(id);
    } catch (error) {
      if (error instanceof SwarmError && error.code === 'SWARM_NOT_FOUND')
        this.#unreleased.delete(id);
    }
  }

  async #sweep(): Promise<void> {
    if (this.#closed) return;
    for (const attachment of this.list()) {
      let identity = '';
      try {
        identity = identityOf(attachment.netns);
      } catch {
        // Gone: handled like a namespace that was replaced by another.
      }
      if (identity === attachment.saved.netnsId) continue;
      this.#deps.log.info(
        { attachment: attachment.saved.id, name: attachment.saved.name },
        'namespace is gone, detaching',
      );
      await this.#drop(attachment);
    }
    for (const id of this.#unreleased) await this.#release(id);
  }

  #save(): void {
    const own = this.list().filter((a) => a.assigned === undefined);
    this.#deps.state.setAttachments(own.map((a) => a.saved));
  }
}

function matches({ saved, netns }: Attachment, request: DetachRequest): boolean {
  if (request.id !== undefined && !saved.id.startsWith(request.id)) return false;
  if (
    request.network !== undefined &&
    request.network !== saved.networkName &&
    request.network !== saved.networkId
  ) {
    return false;
  }
  if (request.netns !== undefined && netns !== netnsPathOf(request.netns)) return false;
  if (request.pid !== undefined && netns !== netnsPathOfPid(request.pid)) return false;
  if (request.host === true && saved.target.kind !== 'host') return false;
  return true;
}

export function viewOf(attachment: Attachment): LocalAttachment {
  const { saved, mtuBytes, state, error } = attachment;
  return {
    id: saved.id as AttachmentId,
    networkId: saved.networkId as NetworkId,
    networkName: saved.networkName,
    target: saved.target,
    ifname: saved.ifname,
    addresses: saved.addresses,
    mac: saved.mac,
    name: saved.name,
    aliases: saved.aliases,
    mtuBytes,
    state,
    ...(error === undefined ? {} : { error }),
    ...(saved.container !== undefined && { container: saved.container }),
  };
}
