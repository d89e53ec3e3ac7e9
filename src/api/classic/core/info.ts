import { FILTERS } from './filters.js';
import { type ClassicNode, reservedOf } from './node.js';
import type { ClassicStrategy } from './scheduler.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const DIGITS = 4;

/** `1.022 GiB`, with four digits, as Go prints them by `%.4g`. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(DIGITS))} ${UNITS[unit]}`;
}

/** Rows of `docker info`: name and value. */
export type Row = readonly [string, string];

/** The cluster as the classic Swarm shows it, node by node. */
export function systemStatus(
  nodes: readonly ClassicNode[],
  strategy: ClassicStrategy,
  role: 'primary' | 'replica',
): Row[] {
  const sorted = [...nodes].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [
    ['Role', role],
    ['Strategy', strategy],
    ['Filters', FILTERS],
    ['Nodes', String(nodes.length)],
    ...sorted.flatMap(nodeRows),
  ];
}

function nodeRows(node: ClassicNode): Row[] {
  const { name, address, containers, labels, cpus, memoryBytes, trouble } = node;
  const reserved = reservedOf(node);
  const texts = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return [
    [` ${name}`, address],
    ...(trouble === undefined ? [] : ([['  └ Status', 'Unhealthy']] as const)),
    ['  └ Containers', String(containers.length)],
    ['  └ Reserved CPUs', `${cpuText(reserved.cpus)} / ${cpuText(cpus)}`],
    ['  └ Reserved Memory', `${sizeText(reserved.memoryBytes)} / ${sizeText(memoryBytes)}`],
    ['  └ Labels', texts.sort().join(', ')],
    ...(trouble === undefined ? [] : ([['  └ Error', trouble]] as const)),
  ];
}

const cpuText = (cpus: number) => String(Number(cpus.toFixed(2)));

export interface ClusterFacts {
  readonly id: string;
  /** Of the manager that answers. */
  readonly name: string;
  readonly version: string;
  readonly kernelVersion: string;
  readonly operatingSystem: string;
  readonly architecture: string;
  readonly time: string;
  /** Docker's `Swarm` of this node. */
  readonly swarm: unknown;
}

/** `GET /info` of the whole cluster; totals are the sums over its nodes. */
export function clusterInfo(
  nodes: readonly ClassicNode[],
  rows: readonly Row[],
  facts: ClusterFacts,
) {
  const containers = nodes.flatMap((node) => node.containers);
  const count = (isMeant: (state: string) => boolean) =>
    containers.filter(({ state }) => isMeant(state)).length;
  const running = count((state) => state === 'running' || state === 'restarting');
  const paused = count((state) => state === 'paused');
  const sum = (of: (node: ClassicNode) => number) =>
    nodes.reduce((total, node) => total + of(node), 0);
  return {
    ID: facts.id,
    Containers: containers.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: containers.length - running - paused,
    Images: sum(({ images }) => images.length),
    SystemStatus: rows,
    Driver: '',
    DriverStatus: null,
    Plugins: { Volume: null, Network: null, Authorization: null, Log: null },
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    BridgeNfIptables: true,
    BridgeNfIp6tables: true,
    OomKillDisable: true,
    SystemTime: facts.time,
    KernelVersion: facts.kernelVersion,
    OperatingSystem: facts.operatingSystem,
    OSType: 'linux',
    Architecture: facts.architecture,
    NCPU: sum(({ cpus }) => cpus),
    MemTotal: sum(({ memoryBytes }) => memoryBytes),
    Name: facts.name,
    ServerVersion: facts.version,
    Swarm: facts.swarm,
    Warnings: null,
  };
}
