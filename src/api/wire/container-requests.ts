import { z } from 'zod';
import type {
  ConfigReference,
  ContainerSpec,
  FileTarget,
  Mount,
  SecretReference,
} from '../../base/service-model.js';
import type { ConfigId, SecretId } from '../../base/swarm-model.js';
import { badRequest } from './errors.js';
import { count, flag, text, whole } from './fields.js';
import {
  amount,
  choice,
  duration,
  durationOrZero,
  items,
  map,
  oneOf,
  present,
  texts,
  words,
  yes,
} from './spec-fields.js';

const MOUNT_TYPES = ['bind', 'volume', 'tmpfs', 'npipe', 'cluster', 'image'] as const;
const PROPAGATIONS = ['rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave'] as const;

const mount = z.object({
  Type: oneOf(MOUNT_TYPES, (given) => `invalid MountType: "${given}"`),
  Source: words,
  Target: text,
  ReadOnly: yes,
  Consistency: words,
  BindOptions: z
    .object({
      Propagation: oneOf(PROPAGATIONS, (given) => `invalid MountPropagation: "${given}"`),
      NonRecursive: yes,
      CreateMountpoint: yes,
      ReadOnlyNonRecursive: yes,
      ReadOnlyForceRecursive: yes,
    })
    .nullish(),
  VolumeOptions: z
    .object({
      NoCopy: yes,
      Labels: map,
      Subpath: words,
      DriverConfig: z.object({ Name: words, Options: map }).nullish(),
    })
    .nullish(),
  TmpfsOptions: z
    .object({ SizeBytes: amount, Mode: amount, Options: items(z.array(z.string())) })
    .nullish(),
});

function mountOf(body: z.output<typeof mount>): Mount {
  const { BindOptions: bind, VolumeOptions: volume, TmpfsOptions: tmpfs } = body;
  return present({
    type: body.Type ?? ('bind' as const),
    source: body.Source,
    target: body.Target,
    readOnly: body.ReadOnly,
    consistency: body.Consistency,
    bind:
      bind == null
        ? undefined
        : present({
            propagation: bind.Propagation,
            nonRecursive: bind.NonRecursive,
            createMountpoint: bind.CreateMountpoint,
            readOnlyNonRecursive: bind.ReadOnlyNonRecursive,
            readOnlyForceRecursive: bind.ReadOnlyForceRecursive,
          }),
    volume:
      volume == null
        ? undefined
        : present({
            noCopy: volume.NoCopy,
            labels: volume.Labels,
            subpath: volume.Subpath,
            driver:
              volume.DriverConfig == null
                ? undefined
                : present({
                    name: volume.DriverConfig.Name,
                    options: volume.DriverConfig.Options,
                  }),
          }),
    tmpfs:
      tmpfs == null
        ? undefined
        : present({ sizeBytes: tmpfs.SizeBytes, mode: tmpfs.Mode, options: tmpfs.Options }),
  });
}

const health = z.object({
  Test: texts,
  Interval: duration,
  Timeout: duration,
  StartPeriod: duration,
  StartInterval: duration,
  Retries: amount,
});

const fileTarget = z
  .object({ Name: text, UID: text, GID: text, Mode: count.nullish() })
  .transform(
    ({ Name, UID, GID, Mode }): FileTarget => ({ name: Name, uid: UID, gid: GID, mode: Mode ?? 0 }),
  )
  .nullish();

const secretReference = z.object({ File: fileTarget, SecretID: text, SecretName: text }).transform(
  ({ File, SecretID, SecretName }): SecretReference => ({
    secretId: SecretID as SecretId,
    secretName: SecretName,
    ...(File != null && { file: File }),
  }),
);

const configReference = z
  .object({ File: fileTarget, Runtime: z.object({}).nullish(), ConfigID: text, ConfigName: text })
  .transform(({ File, Runtime, ConfigID, ConfigName }, context): ConfigReference => {
    const wrong =
      File == null && Runtime == null
        ? 'either File or Runtime should be set'
        : File != null && Runtime != null && 'cannot specify both File and Runtime';
    if (wrong !== false) context.addIssue({ code: 'custom', message: `invalid Config: ${wrong}` });
    return {
      configId: ConfigID as ConfigId,
      configName: ConfigName,
      ...(File != null && { file: File }),
      ...(Runtime != null && { runtime: true }),
    };
  });

const SECCOMP_MODES = ['default', 'unconfined', 'custom'] as const;
const APPARMOR_MODES = ['default', 'disabled'] as const;

/** What is kept is Docker's own JSON, with the members it knows in its order. */
const privileges = z.object({
  CredentialSpec: z.object({ Config: text, File: text, Registry: text }).nullish(),
  SELinuxContext: z
    .object({ Disable: flag, User: text, Role: text, Type: text, Level: text })
    .nullish(),
  Seccomp: z
    .object({
      Mode: oneOf(SECCOMP_MODES, (given) => `invalid seccomp mode: "${given}"`),
      Profile: words,
    })
    .nullish(),
  AppArmor: z
    .object({ Mode: oneOf(APPARMOR_MODES, (given) => `invalid AppArmor mode: "${given}"`) })
    .nullish(),
  NoNewPrivileges: flag,
});

function privilegesOf(body: z.output<typeof privileges>): NonNullable<ContainerSpec['privileges']> {
  const { CredentialSpec: credential, Seccomp: seccomp, AppArmor: appArmor } = body;
  if (credential != null) checkCredentialSpec(credential);
  return {
    CredentialSpec: credential ?? null,
    SELinuxContext: body.SELinuxContext ?? null,
    ...(seccomp != null && {
      Seccomp: present({ Mode: seccomp.Mode ?? 'default', Profile: seccomp.Profile }),
    }),
    ...(appArmor != null && { AppArmor: { Mode: appArmor.Mode ?? 'default' } }),
    NoNewPrivileges: body.NoNewPrivileges,
  };
}

function checkCredentialSpec(source: Readonly<Record<'Config' | 'File' | 'Registry', string>>) {
  const given = (['Config', 'File', 'Registry'] as const)
    .filter((name) => source[name] !== '')
    .map((name) => `"${name.toLowerCase()}"`);
  const [last = ''] = given.slice(-1);
  if (given.length === 1) return;
  const what =
    given.length === 0
      ? 'must either provide "file", "registry", or "config" for credential spec'
      : `cannot specify both ${given.slice(0, -1).join(', ')}${given.length > 2 ? ',' : ''} and ${last} credential specs`;
  throw badRequest(`invalid CredentialSpec: ${what}`);
}

const ulimit = z
  .object({ Name: text, Hard: whole.nullish(), Soft: whole.nullish() })
  .transform(({ Name, Hard, Soft }) => ({ name: Name, hard: Hard ?? 0, soft: Soft ?? 0 }));

export const containerBody = z.object({
  Image: text,
  Labels: map,
  Command: texts,
  Args: texts,
  Hostname: words,
  Env: texts,
  Dir: words,
  User: words,
  Groups: texts,
  Privileges: privileges.nullish(),
  Init: choice,
  StopSignal: words,
  TTY: yes,
  OpenStdin: yes,
  ReadOnly: yes,
  Mounts: items(mount),
  StopGracePeriod: durationOrZero,
  Healthcheck: health.nullish(),
  Hosts: texts,
  DNSConfig: z.object({ Nameservers: texts, Search: texts, Options: texts }).nullish(),
  Secrets: items(secretReference),
  Configs: items(configReference),
  Isolation: words,
  Sysctls: map,
  CapabilityAdd: texts,
  CapabilityDrop: texts,
  Ulimits: items(ulimit),
  OomScoreAdj: amount,
});

export function containerSpecOf(body: z.output<typeof containerBody>): ContainerSpec {
  const { DNSConfig: dns, Healthcheck: test, Privileges, Isolation } = body;
  return present({
    image: body.Image,
    labels: body.Labels,
    command: body.Command,
    args: body.Args,
    hostname: body.Hostname,
    env: body.Env,
    dir: body.Dir,
    user: body.User,
    groups: body.Groups,
    privileges: Privileges == null ? undefined : privilegesOf(Privileges),
    init: body.Init,
    stopSignal: body.StopSignal,
    tty: body.TTY,
    openStdin: body.OpenStdin,
    readOnly: body.ReadOnly,
    mounts: body.Mounts?.map(mountOf),
    stopGracePeriodMs: body.StopGracePeriod,
    health:
      test == null
        ? undefined
        : present({
            test: test.Test,
            intervalMs: test.Interval,
            timeoutMs: test.Timeout,
            startPeriodMs: test.StartPeriod,
            startIntervalMs: test.StartInterval,
            retries: test.Retries,
          }),
    hosts: body.Hosts,
    dns:
      dns == null
        ? undefined
        : present({ nameservers: dns.Nameservers, search: dns.Search, options: dns.Options }),
    secrets: body.Secrets,
    configs: body.Configs,
    // The default is shown, and need not be kept.
    isolation: Isolation === 'default' ? undefined : Isolation,
    sysctls: body.Sysctls,
    capabilityAdd: body.CapabilityAdd,
    capabilityDrop: body.CapabilityDrop,
    ulimits: body.Ulimits,
    oomScoreAdj: body.OomScoreAdj,
  });
}
