import type { TaskObject, TaskStatus } from '../../base/service-model.js';
import type { NetworkObject } from '../../base/swarm-model.js';
import { list, map, number, sorted, text, truth } from './go-json.js';
import { VNI_OPTION } from './network-json.js';
import { genericResourceJson, portJson, taskSpecJson } from './service-json.js';
import { formatTimeMs } from './time.js';

/** The network as a task carries it: in the words of the swarm, not of `GET /networks`. */
export const taskNetworkJson = (network: NetworkObject) => ({
  ID: network.id,
  Version: { Index: network.version },
  CreatedAt: formatTimeMs(network.createdAtMs),
  UpdatedAt: formatTimeMs(network.updatedAtMs),
  Spec: {
    Name: network.spec.name,
    Labels: sorted(network.spec.labels),
    DriverConfiguration: {
      Name: network.spec.ingress ? undefined : text(network.spec.driver),
      Options: map(network.spec.driverOptions),
    },
    IPv6Enabled: truth(network.spec.ipv6),
    Internal: truth(network.spec.internal),
    Attachable: truth(network.spec.attachable),
    Ingress: truth(network.spec.ingress),
    IPAMOptions: {
      Driver: network.spec.ingress ? {} : { Name: text(network.spec.ipamDriver) },
      Configs: list(network.spec.ipam)?.map(({ subnet, ipRange, gateway }) => ({
        Subnet: subnet,
        Range: text(ipRange),
        Gateway: text(gateway),
      })),
    },
    Scope: 'swarm',
  },
  DriverState: {
    Name: network.spec.driver,
    Options: sorted({ ...network.spec.driverOptions, [VNI_OPTION]: String(network.vni) }),
  },
  IPAMOptions: {
    Driver: { Name: network.spec.ipamDriver },
    Configs: network.subnets.map(({ subnet, ipRange, gateway }) => ({
      Subnet: subnet,
      Range: text(ipRange),
      Gateway: gateway,
    })),
  },
});

const statusJson = (status: TaskStatus) => ({
  Timestamp: formatTimeMs(status.atMs),
  State: status.state,
  Message: text(status.message),
  Err: text(status.error),
  ContainerStatus: status.container && {
    ContainerID: status.container.id,
    PID: status.container.pid,
    ExitCode: status.container.exitCode ?? 0,
  },
  PortStatus: { Ports: list(status.ports)?.map(portJson) },
});

/** The CLI counts the tasks of a job from 0, and those of other services from 1. */
const slotOf = ({ slot, jobIteration }: TaskObject) =>
  jobIteration === undefined || slot === 0 ? slot : slot - 1;

/** @param networkOf Of a network that is gone only the id is shown. */
export function taskJson(task: TaskObject, networkOf: (id: string) => NetworkObject | undefined) {
  return {
    ID: task.id,
    Version: { Index: task.version },
    CreatedAt: formatTimeMs(task.createdAtMs),
    UpdatedAt: formatTimeMs(task.updatedAtMs),
    Labels: {},
    Spec: taskSpecJson(task.spec),
    ServiceID: text(task.serviceId),
    Slot: number(slotOf(task)),
    NodeID: text(task.nodeId),
    Status: statusJson(task.status),
    DesiredState: task.desiredState,
    NetworksAttachments: list(task.networks)?.map(({ networkId, addresses }) => {
      const network = networkOf(networkId);
      return {
        Network: network === undefined ? { ID: networkId } : taskNetworkJson(network),
        Addresses: list(addresses),
      };
    }),
    GenericResources: list(task.assignedResources)?.map(genericResourceJson),
    JobIteration:
      task.jobIteration === undefined ? undefined : { Index: number(task.jobIteration) },
    Volumes: null,
  };
}
