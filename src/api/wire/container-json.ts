import type {
  ConfigReference,
  ContainerSpec,
  FileTarget,
  HealthConfig,
  Mount,
  SecretReference,
} from '../../base/service-model.js';
import { list, map, nanoseconds, number, text, truth } from './go-json.js';

const mountJson = (mount: Mount) => ({
  Type: mount.type,
  Source: text(mount.source),
  Target: text(mount.target),
  ReadOnly: truth(mount.readOnly),
  Consistency: text(mount.consistency),
  BindOptions: mount.bind && {
    Propagation: text(mount.bind.propagation),
    NonRecursive: truth(mount.bind.nonRecursive),
    CreateMountpoint: truth(mount.bind.createMountpoint),
    ReadOnlyNonRecursive: truth(mount.bind.readOnlyNonRecursive),
    ReadOnlyForceRecursive: truth(mount.bind.readOnlyForceRecursive),
  },
  VolumeOptions: mount.volume && {
    NoCopy: truth(mount.volume.noCopy),
    Labels: map(mount.volume.labels),
    Subpath: text(mount.volume.subpath),
    DriverConfig: mount.volume.driver && {
      Name: text(mount.volume.driver.name),
      Options: map(mount.volume.driver.options),
    },
  },
  TmpfsOptions: mount.tmpfs && {
    SizeBytes: number(mount.tmpfs.sizeBytes),
    Mode: number(mount.tmpfs.mode),
    Options: list(mount.tmpfs.options),
  },
});

const healthJson = (health: HealthConfig) => ({
  Test: list(health.test),
  Interval: number(nanoseconds(health.intervalMs)),
  Timeout: number(nanoseconds(health.timeoutMs)),
  StartPeriod: number(nanoseconds(health.startPeriodMs)),
  StartInterval: number(nanoseconds(health.startIntervalMs)),
  Retries: number(health.retries),
});

const fileJson = ({ name, uid, gid, mode }: FileTarget) => ({
  Name: name,
  UID: uid,
  GID: gid,
  Mode: mode,
});

const secretReferenceJson = ({ file, secretId, secretName }: SecretReference) => ({
  File: file === undefined ? null : fileJson(file),
  SecretID: secretId,
  SecretName: secretName,
});

const configReferenceJson = ({ file, runtime, configId, configName }: ConfigReference) => ({
  File: file && fileJson(file),
  Runtime: runtime === true ? {} : undefined,
  ConfigID: configId,
  ConfigName: configName,
});

/** `ContainerSpec` of a service's or a task's spec. */
export const containerSpecJson = (spec: ContainerSpec) => ({
  Image: text(spec.image),
  Labels: map(spec.labels),
  Command: list(spec.command),
  Args: list(spec.args),
  Hostname: text(spec.hostname),
  Env: list(spec.env),
  Dir: text(spec.dir),
  User: text(spec.user),
  Groups: list(spec.groups),
  Privileges: spec.privileges,
  Init: spec.init,
  StopSignal: text(spec.stopSignal),
  TTY: truth(spec.tty),
  OpenStdin: truth(spec.openStdin),
  ReadOnly: truth(spec.readOnly),
  Mounts: list(spec.mounts)?.map(mountJson),
  StopGracePeriod: nanoseconds(spec.stopGracePeriodMs),
  Healthcheck: spec.health && healthJson(spec.health),
  Hosts: list(spec.hosts),
  DNSConfig: spec.dns && {
    Nameservers: list(spec.dns.nameservers),
    Search: list(spec.dns.search),
    Options: list(spec.dns.options),
  },
  Secrets: list(spec.secrets)?.map(secretReferenceJson),
  Configs: list(spec.configs)?.map(configReferenceJson),
  Isolation: spec.isolation ?? 'default',
  Sysctls: map(spec.sysctls),
  CapabilityAdd: list(spec.capabilityAdd),
  CapabilityDrop: list(spec.capabilityDrop),
  Ulimits: list(spec.ulimits)?.map(({ name, hard, soft }) => ({
    Name: name,
    Hard: hard,
    Soft: soft,
  })),
  OomScoreAdj: number(spec.oomScoreAdj),
});
