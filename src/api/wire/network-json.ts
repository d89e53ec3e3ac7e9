import { type ServiceObject, type TaskObject, taskName } from '../../base/service-model.js';
import type { AttachmentObject, NetworkObject, NodeView } from '../../base/swarm-model.js';
import type { LocalAttachment } from './records.js';
import { formatTimeMs, TIME_ZERO } from './time.js';

export const VNI_OPTION = 'com.docker.network.driver.overlay.vxlanid_list';

/** Docker names a peer by the first twelve digits of its id. */
const PEER_NAME_LENGTH = 12;

/** What is around a network, as far as this node knows it. */
export interface NetworkSurroundings {
  /** This node's attachments to the network. */
  readonly local: readonly LocalAttachment[];
  /** The whole swarm's attachments to it. */
  readonly attachments: readonly AttachmentObject[];
  readonly nodes: readonly NodeView[];
  /** Of managers: services on it, and their tasks that run. */
  readonly services: readonly ServiceObject[];
  readonly tasks: readonly TaskObject[];
}

const isV6 = (address: string) => address.includes(':');
const bare = (address: string | undefined) => address?.split('/', 1)[0] ?? '';

/** A network without what is on it: an item of `GET /networks`. */
export function networkJson(network: NetworkObject) {
  const { spec } = network;
  return {
    Name: spec.name,
    Id: network.id,
    Created: formatTimeMs(network.createdAtMs),
    Scope: 'swarm',
    Driver: spec.driver,
    EnableIPv6: spec.ipv6,
    IPAM: {
      Driver: spec.ipamDriver,
      Options: Object.keys(spec.ipamOptions).length === 0 ? null : spec.ipamOptions,
      Config: network.subnets.map((subnet) => ({
        Subnet: subnet.subnet,
        ...(subnet.ipRange === undefined ? {} : { IPRange: subnet.ipRange }),
        Gateway: subnet.gateway,
        ...(subnet.auxAddresses === undefined ? {} : { AuxiliaryAddresses: subnet.auxAddresses }),
      })),
    },
    Internal: spec.internal,
    Attachable: spec.attachable,
    Ingress: spec.ingress,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: null as Record<string, unknown> | null,
    Options: { ...spec.driverOptions, [VNI_OPTION]: String(network.vni) },
    Labels: spec.labels,
  };
}

/** `host` and the like, which a service may name; the CLI wants an id in place of the name. */
export const predefinedNetworkJson = (name: string) => ({
  Name: name,
  Id: name,
  Created: TIME_ZERO,
  Scope: 'swarm',
  Driver: name === 'none' ? 'null' : name,
  EnableIPv6: false,
  IPAM: { Driver: 'default', Options: null, Config: [] },
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigFrom: { Network: '' },
  ConfigOnly: false,
  Containers: null,
  Options: null,
  Labels: null,
});

function containersJson(around: NetworkSurroundings): Record<string, unknown> {
  const taskOf = new Map<string, TaskObject>(
    around.tasks.flatMap((task) => task.networks.map((one) => [one.attachmentId, task])),
  );
  return Object.fromEntries(
    around.local.map((attachment) => {
      const task = taskOf.get(attachment.id);
      return [
        task?.status.container?.id || (attachment.container ?? attachment.id),
        {
          Name: task === undefined ? attachment.name : taskName(task),
          EndpointID: attachment.id,
          MacAddress: attachment.mac,
          IPv4Address: attachment.addresses.find((address) => !isV6(address)) ?? '',
          IPv6Address: attachment.addresses.find(isV6) ?? '',
        },
      ];
    }),
  );
}

/** The nodes whose VTEPs carry the network. */
function peersJson(around: NetworkSurroundings) {
  const carrying = new Set<string>(around.attachments.map(({ nodeId }) => nodeId));
  return around.nodes
    .filter(({ id }) => carrying.has(id))
    .map(({ id, dataPathAddress }) => ({
      Name: id.slice(0, PEER_NAME_LENGTH),
      IP: dataPathAddress,
    }));
}

/** Plain attachments belong to no service: Docker lists them under the empty name. */
function servicesJson(network: NetworkObject, around: NetworkSurroundings) {
  const addressOf = new Map<string, string>(
    around.nodes.map(({ id, dataPathAddress }) => [id, dataPathAddress]),
  );
  const endpoint = (name: string, id: string, address: string | undefined, nodeId: string) => ({
    Name: name,
    EndpointID: id,
    EndpointIP: bare(address),
    Info: { 'Host IP': addressOf.get(nodeId) ?? '' },
  });
  const ofTasks = new Set<string>();
  const services = around.services.map((service) => {
    const vip = service.endpoint.virtualIps.find(({ networkId }) => networkId === network.id);
    const tasks = around.tasks.flatMap((task) => {
      const place = task.networks.find(({ networkId }) => networkId === network.id);
      if (task.serviceId !== service.id || place === undefined) return [];
      ofTasks.add(place.attachmentId);
      const { attachmentId, addresses } = place;
      return endpoint(taskName(task), attachmentId, addresses[0], task.nodeId ?? '');
    });
    const ports = service.endpoint.ports.filter(() => network.spec.ingress);
    return [
      service.spec.name,
      {
        VIP: bare(vip?.address) || '<nil>',
        Ports: ports.map((one) => `Target: ${one.targetPort}, Publish: ${one.publishedPort}`),
        LocalLBIndex: 0,
        Tasks: tasks,
      },
    ] as const;
  });
  const plain = around.attachments
    .filter(({ id }) => !ofTasks.has(id))
    .map(({ id, name, addresses, nodeId }) => endpoint(name, id, addresses[0], nodeId));
  const unnamed = { VIP: '<nil>', Ports: [], LocalLBIndex: 0, Tasks: plain };
  return {
    ...(plain.length > 0 && { '': unnamed }),
    ...Object.fromEntries(services.filter(([, { Tasks }]) => Tasks.length > 0)),
  };
}

/** `GET /networks/{id}`; a network that this node carries also shows its containers and peers. */
export function networkInspectJson(
  network: NetworkObject,
  around: NetworkSurroundings,
  verbose: boolean,
) {
  const plain = networkJson(network);
  const peers = peersJson(around);
  return {
    ...plain,
    Containers: around.local.length === 0 ? null : containersJson(around),
    ...(peers.length === 0 ? {} : { Peers: peers }),
    ...(verbose && around.attachments.length > 0
      ? { Services: servicesJson(network, around) }
      : {}),
  };
}
