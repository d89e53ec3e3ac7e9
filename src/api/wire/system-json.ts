import { localSwarmJson, swarmWarnings } from './cluster-json.js';
import { list } from './go-json.js';
import type { HostFacts, LocalSwarm } from './records.js';
import { genericResourceJson } from './service-json.js';
import { formatTimeMs } from './time.js';

export const API_VERSION = '1.45';
export const API_VERSION_MIN = '1.24';

/** Go's names of machines, where they differ from the kernel's. */
const GO_ARCHITECTURES = new Map([
  ['x86_64', 'amd64'],
  ['aarch64', 'arm64'],
  ['armv7l', 'arm'],
  ['i686', '386'],
]);

/** `runtime` stands where an engine names its Go. */
export function versionJson(facts: HostFacts, runtime: string) {
  const arch = GO_ARCHITECTURES.get(facts.architecture) ?? facts.architecture;
  const builtAt = formatTimeMs(facts.builtAtMs);
  return {
    Platform: { Name: 'Shoal' },
    Components: [
      {
        Name: 'Engine',
        Version: facts.agentVersion,
        Details: {
          ApiVersion: API_VERSION,
          Arch: arch,
          BuildTime: builtAt,
          Experimental: 'false',
          GitCommit: facts.gitCommit,
          GoVersion: runtime,
          KernelVersion: facts.kernelVersion,
          MinAPIVersion: API_VERSION_MIN,
          Os: 'linux',
        },
      },
    ],
    Version: facts.agentVersion,
    ApiVersion: API_VERSION,
    MinAPIVersion: API_VERSION_MIN,
    GitCommit: facts.gitCommit,
    GoVersion: runtime,
    Os: 'linux',
    Arch: arch,
    KernelVersion: facts.kernelVersion,
    BuildTime: builtAt,
  };
}

const NO_COMMIT = { ID: '', Expected: '' };

/**
 * `GET /info`. The limits of containers are said to be there: the CLI turns each absence into a
 * warning of its own, and there is no container yet that could miss them.
 */
export function infoJson(
  facts: HostFacts,
  local: LocalSwarm,
  nowMs: number,
  eventStreamsCount: number,
) {
  const warnings = [...facts.warnings, ...swarmWarnings(local)];
  const { cluster } = local;
  return {
    ID: facts.id,
    Containers: 0,
    ContainersRunning: 0,
    ContainersPaused: 0,
    ContainersStopped: 0,
    Images: 0,
    // No storage driver: the rows below it are what the CLI prints in its place.
    Driver: '',
    DriverStatus: [
      ['Data Path Driver', facts.dataPathDriver.name],
      ...(facts.dataPathDriver.reason === ''
        ? []
        : [['Data Path Reason', facts.dataPathDriver.reason]]),
      ['Ingress Driver', facts.ingressDriver.name],
      ['Ingress Reason', facts.ingressDriver.reason],
    ],
    Plugins: { Volume: [], Network: ['overlay'], Authorization: null, Log: [] },
    MemoryLimit: true,
    SwapLimit: true,
    KernelMemoryTCP: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    BridgeNfIptables: true,
    BridgeNfIp6tables: true,
    Debug: false,
    NFd: 0,
    OomKillDisable: true,
    NGoroutines: 0,
    SystemTime: formatTimeMs(nowMs),
    LoggingDriver: '',
    CgroupDriver: '',
    NEventsListener: eventStreamsCount,
    KernelVersion: facts.kernelVersion,
    OperatingSystem: facts.operatingSystem,
    OSVersion: '',
    OSType: 'linux',
    Architecture: facts.architecture,
    IndexServerAddress: '',
    RegistryConfig: {
      AllowNondistributableArtifactsCIDRs: null,
      AllowNondistributableArtifactsHostnames: null,
      InsecureRegistryCIDRs: [],
      IndexConfigs: {},
      Mirrors: null,
    },
    NCPU: facts.cpuCount,
    MemTotal: facts.memoryBytes,
    GenericResources: list(facts.genericResources)?.map(genericResourceJson) ?? null,
    DockerRootDir: facts.dataDir,
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    Name: facts.hostname,
    Labels: Object.entries(facts.labels).map(([key, value]) => `${key}=${value}`),
    ExperimentalBuild: false,
    ServerVersion: facts.agentVersion,
    Runtimes: {},
    DefaultRuntime: '',
    Swarm: localSwarmJson(local),
    LiveRestoreEnabled: false,
    Isolation: '',
    InitBinary: '',
    ContainerdCommit: NO_COMMIT,
    RuncCommit: NO_COMMIT,
    InitCommit: NO_COMMIT,
    SecurityOptions: [],
    ...(cluster === undefined
      ? {}
      : {
          DefaultAddressPools: cluster.defaultAddressPool.map((pool) => ({
            Base: pool,
            Size: cluster.subnetSize,
          })),
        }),
    CDISpecDirs: [],
    Warnings: warnings.length === 0 ? null : warnings,
  };
}
