import type { PortConfig, ServiceObject, TaskObject } from '../../../base/service-model.js';
import type {
  AttachmentId,
  ConfigId,
  NetworkId,
  NodeId,
  NodeObject,
  SecretId,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import type { Rows, TableName } from './rows.js';

/** Services that have a port. */
export interface Publishers {
  readonly ingress: ServiceId | undefined;
  /** Several may have one on the nodes of their tasks. */
  readonly host: ReadonlySet<ServiceId>;
}

function portKey(protocol: PortConfig['protocol'], port: number): string {
  return `${protocol}/${port}`;
}

/** An attachment, or a service by one of its virtual addresses. */
export type AddressHolder = AttachmentId | ServiceId;

const NO_ADDRESSES: ReadonlyMap<string, AddressHolder> = new Map();
const NONE: ReadonlySet<never> = new Set();

/**
 * What is found otherwise than by key, derived from the rows. The order inside an index tells its
 * history, which a restored one lacks: no decision may depend on it.
 */
export class Indexes {
  readonly secrets = new Map<string, SecretId>();
  readonly configs = new Map<string, ConfigId>();
  readonly services = new Map<string, ServiceId>();
  readonly #nodesByPeerId = new Map<string, NodeId>();
  readonly #addresses = new Map<NetworkId, Map<string, AddressHolder>>();
  readonly #attachmentsByNode = new Map<NodeId, Set<AttachmentId>>();
  readonly #attachmentsByKey = new Map<string, AttachmentId>();
  readonly #tasksByService = new Map<ServiceId, Set<TaskId>>();
  readonly #tasksByNode = new Map<NodeId, Set<TaskId>>();
  readonly #ingressPorts = new Map<string, ServiceId>();
  readonly #hostPorts = new Map<string, Set<ServiceId>>();

  addressesOn(network: NetworkId): ReadonlyMap<string, AddressHolder> {
    return this.#addresses.get(network) ?? NO_ADDRESSES;
  }

  attachmentsOf(node: NodeId): ReadonlySet<AttachmentId> {
    return this.#attachmentsByNode.get(node) ?? NONE;
  }

  attachmentByKey(node: NodeId, key: string): AttachmentId | undefined {
    return this.#attachmentsByKey.get(`${node}/${key}`);
  }

  nodeByPeerId(peerId: string): NodeId | undefined {
    return this.#nodesByPeerId.get(peerId);
  }

  tasksOfService(service: ServiceId): ReadonlySet<TaskId> {
    return this.#tasksByService.get(service) ?? NONE;
  }

  tasksOnNode(node: NodeId): ReadonlySet<TaskId> {
    return this.#tasksByNode.get(node) ?? NONE;
  }

  publishersOf(protocol: PortConfig['protocol'], port: number): Publishers {
    const key = portKey(protocol, port);
    return { ingress: this.#ingressPorts.get(key), host: this.#hostPorts.get(key) ?? NONE };
  }

  clear(): void {
    for (const index of [
      this.secrets,
      this.configs,
      this.services,
      this.#nodesByPeerId,
      this.#addresses,
      this.#attachmentsByNode,
      this.#attachmentsByKey,
      this.#tasksByService,
      this.#tasksByNode,
      this.#ingressPorts,
      this.#hostPorts,
    ])
      index.clear();
  }

  /** `present`: the row is there from now on, or from now on no more. */
  put(table: TableName, row: Rows[TableName], present: boolean): void {
    if (table === 'attachment') this.#putAttachment(row as KeyedAttachment, present);
    if (table === 'task') this.#putTask(row as TaskObject, present);
    if (table === 'secret') putNamed(this.secrets, row as Rows['secret'], present);
    if (table === 'config') putNamed(this.configs, row as Rows['config'], present);
    if (table === 'service') this.#putService(row as ServiceObject, present);
    if (table === 'node') {
      const node = row as NodeObject;
      name(this.#nodesByPeerId, node.peerId, node.id, present);
    }
  }

  #putTask({ id, serviceId, nodeId }: TaskObject, present: boolean): void {
    gather(this.#tasksByService, serviceId, id, present);
    if (nodeId !== undefined) gather(this.#tasksByNode, nodeId, id, present);
  }

  /** A service that is being removed has neither name nor ports any more, but still its addresses. */
  #putService(row: ServiceObject, present: boolean): void {
    for (const { networkId, address } of row.endpoint.virtualIps)
      if (address !== undefined) this.#putAddress(networkId, address, row.id, present);
    if (row.pendingDelete === true) return;
    putNamed(this.services, row, present);
    for (const { publishMode, protocol, publishedPort } of row.endpoint.ports) {
      if (publishedPort === 0) continue;
      const key = portKey(protocol, publishedPort);
      if (publishMode === 'ingress') name(this.#ingressPorts, key, row.id, present);
      else gather(this.#hostPorts, key, row.id, present);
    }
  }

  #putAddress(network: NetworkId, cidr: string, holder: AddressHolder, present: boolean): void {
    const addresses = this.#addresses.get(network) ?? new Map<string, AddressHolder>();
    name(addresses, cidr.slice(0, cidr.indexOf('/')), holder, present);
    if (addresses.size === 0) this.#addresses.delete(network);
    else this.#addresses.set(network, addresses);
  }

  #putAttachment(row: KeyedAttachment, present: boolean): void {
    for (const cidr of row.addresses) this.#putAddress(row.networkId, cidr, row.id, present);
    gather(this.#attachmentsByNode, row.nodeId, row.id, present);
    name(this.#attachmentsByKey, `${row.nodeId}/${row.key}`, row.id, present);
  }
}

function putNamed<Id extends string>(
  index: Map<string, Id>,
  row: { readonly id: Id; readonly spec: { readonly name: string } },
  present: boolean,
): void {
  name(index, row.spec.name, row.id, present);
}

function name<Id>(index: Map<string, Id>, key: string, id: Id, present: boolean): void {
  if (present) index.set(key, id);
  else index.delete(key);
}

function gather<Key, Id>(index: Map<Key, Set<Id>>, key: Key, id: Id, present: boolean): void {
  const ids = index.get(key) ?? new Set<Id>();
  if (present) ids.add(id);
  else ids.delete(id);
  if (ids.size === 0) index.delete(key);
  else index.set(key, ids);
}
