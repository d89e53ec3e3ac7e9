import { z } from 'zod';
import { composeError } from './error.js';

/**
 * The compose specification's file, after variables were filled in, as far as a swarm can do something
 * with it. Keys beginning with `x-` are for the user alone; any other unknown key is a mistake.
 */
const text = z.string();
/** YAML reads `80` and `true` as other things than text. */
const scalar = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const list = z.array(scalar);
const textOrList = z.union([scalar.transform((one) => [one]), list]);
/** `KEY: value` or `KEY=value`; without a value: `null`. */
const mapping = z.union([
  z.record(z.string(), scalar.nullable()),
  list.transform((lines) =>
    Object.fromEntries(
      lines.map((line) => {
        const at = line.indexOf('=');
        return at < 0 ? [line, null] : [line.slice(0, at), line.slice(at + 1)];
      }),
    ),
  ),
]);
const number = z.union([z.number(), z.string().regex(/^\d+(\.\d+)?$/)]).transform(Number);
const whole = z.union([z.int(), z.string().regex(/^-?\d+$/)]).transform(Number);
const flag = z.union([z.boolean(), z.enum(['true', 'false']).transform((one) => one === 'true')]);

/** An object that takes `x-…` keys besides its own, and forgets them. */
function object<Shape extends z.ZodRawShape>(shape: Shape) {
  const own = z.strictObject(shape);
  const withoutExtensions = (value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).filter(([key]) => !key.startsWith('x-')))
      : value;
  return z.preprocess(withoutExtensions, own);
}

const updateSchema = object({
  parallelism: whole.optional(),
  delay: text.optional(),
  failure_action: text.optional(),
  monitor: text.optional(),
  max_failure_ratio: number.optional(),
  order: text.optional(),
});

const deploySchema = object({
  mode: text.optional(),
  replicas: whole.optional(),
  endpoint_mode: text.optional(),
  labels: mapping.optional(),
  update_config: updateSchema.optional(),
  rollback_config: updateSchema.optional(),
  restart_policy: object({
    condition: text.optional(),
    delay: text.optional(),
    max_attempts: whole.optional(),
    window: text.optional(),
  }).optional(),
  placement: object({
    constraints: list.optional(),
    preferences: z.array(object({ spread: text })).optional(),
    max_replicas_per_node: whole.optional(),
  }).optional(),
  resources: object({
    limits: object({
      cpus: number.optional(),
      memory: scalar.optional(),
      pids: whole.optional(),
    }).optional(),
    reservations: object({
      cpus: number.optional(),
      memory: scalar.optional(),
      generic_resources: z
        .array(object({ discrete_resource_spec: object({ kind: text, value: number }) }))
        .optional(),
      devices: z.unknown().optional(),
    }).optional(),
  }).optional(),
});

const portSchema = z.union([
  scalar,
  object({
    name: text.optional(),
    target: whole,
    published: scalar.optional(),
    protocol: text.optional(),
    mode: text.optional(),
    host_ip: text.optional(),
    app_protocol: text.optional(),
  }),
]);

const volumeSchema = z.union([
  text,
  object({
    type: text,
    source: text.optional(),
    target: text,
    read_only: flag.optional(),
    consistency: text.optional(),
    bind: object({
      propagation: text.optional(),
      create_host_path: flag.optional(),
      selinux: text.optional(),
    }).optional(),
    volume: object({ nocopy: flag.optional(), subpath: text.optional() }).optional(),
    tmpfs: object({ size: scalar.optional(), mode: whole.optional() }).optional(),
  }),
]);

const fileReferenceSchema = z.union([
  text,
  object({
    source: text,
    target: text.optional(),
    uid: scalar.optional(),
    gid: scalar.optional(),
    mode: z.union([z.int(), z.string().regex(/^0?[0-7]+$/)]).optional(),
  }),
]);

const healthSchema = object({
  disable: flag.optional(),
  test: z.union([text, list]).optional(),
  interval: text.optional(),
  timeout: text.optional(),
  start_period: text.optional(),
  start_interval: text.optional(),
  retries: whole.optional(),
});

const dependsSchema = z.union([
  list.transform((names) =>
    Object.fromEntries(names.map((name) => [name, { condition: 'service_started' as const }])),
  ),
  z.record(
    z.string(),
    object({
      condition: z.enum(['service_started', 'service_healthy', 'service_completed_successfully']),
      restart: flag.optional(),
      required: flag.optional(),
    }),
  ),
]);

const serviceNetworksSchema = z.union([
  list.transform((names) => Object.fromEntries(names.map((name) => [name, null]))),
  z.record(
    z.string(),
    object({
      aliases: list.optional(),
      driver_opts: mapping.optional(),
      ipv4_address: text.optional(),
      ipv6_address: text.optional(),
      link_local_ips: list.optional(),
      mac_address: text.optional(),
      priority: number.optional(),
    }).nullable(),
  ),
]);

export const serviceSchema = object({
  image: text.optional(),
  command: z.union([text, list]).nullable().optional(),
  entrypoint: z.union([text, list]).nullable().optional(),
  environment: mapping.optional(),
  env_file: z
    .union([
      textOrList.transform((paths) => paths.map((path) => ({ path, required: true }))),
      z.array(
        z.union([
          text.transform((path) => ({ path, required: true })),
          object({ path: text, required: flag.default(true), format: text.optional() }),
        ]),
      ),
    ])
    .optional(),
  labels: mapping.optional(),
  deploy: deploySchema.nullable().optional(),
  ports: z.array(portSchema).optional(),
  expose: list.optional(),
  networks: serviceNetworksSchema.optional(),
  network_mode: text.optional(),
  volumes: z.array(volumeSchema).optional(),
  tmpfs: textOrList.optional(),
  secrets: z.array(fileReferenceSchema).optional(),
  configs: z.array(fileReferenceSchema).optional(),
  depends_on: dependsSchema.optional(),
  healthcheck: healthSchema.optional(),
  hostname: text.optional(),
  domainname: text.optional(),
  user: scalar.optional(),
  group_add: list.optional(),
  working_dir: text.optional(),
  init: flag.optional(),
  tty: flag.optional(),
  stdin_open: flag.optional(),
  read_only: flag.optional(),
  stop_signal: text.optional(),
  stop_grace_period: text.optional(),
  cap_add: list.optional(),
  cap_drop: list.optional(),
  sysctls: mapping.optional(),
  ulimits: z.record(z.string(), z.union([whole, object({ soft: whole, hard: whole })])).optional(),
  extra_hosts: z
    .union([
      list,
      z
        .record(z.string(), textOrList)
        .transform((hosts) =>
          Object.entries(hosts).flatMap(([name, all]) =>
            all.map((address) => `${name}:${address}`),
          ),
        ),
    ])
    .optional(),
  dns: textOrList.optional(),
  dns_search: textOrList.optional(),
  dns_opt: list.optional(),
  logging: object({ driver: text.optional(), options: mapping.optional() }).optional(),
  isolation: text.optional(),
  credential_spec: z.unknown().optional(),
  oom_score_adj: whole.optional(),
  scale: whole.optional(),
  profiles: list.optional(),
  annotations: mapping.optional(),
  mem_swappiness: whole.optional(),
  memswap_limit: scalar.optional(),
  pids_limit: whole.optional(),
  platform: text.optional(),
  restart: text.optional(),
  extends: z.unknown().optional(),
  // Said of single hosts and images; a swarm has no use for them, and says so.
  build: z.unknown().optional(),
  blkio_config: z.unknown().optional(),
  cgroup: z.unknown().optional(),
  cgroup_parent: z.unknown().optional(),
  container_name: z.unknown().optional(),
  cpu_count: z.unknown().optional(),
  cpu_percent: z.unknown().optional(),
  cpu_period: z.unknown().optional(),
  cpu_quota: z.unknown().optional(),
  cpu_rt_period: z.unknown().optional(),
  cpu_rt_runtime: z.unknown().optional(),
  cpu_shares: z.unknown().optional(),
  cpus: z.unknown().optional(),
  cpuset: z.unknown().optional(),
  develop: z.unknown().optional(),
  device_cgroup_rules: z.unknown().optional(),
  devices: z.unknown().optional(),
  external_links: z.unknown().optional(),
  gpus: z.unknown().optional(),
  ipc: z.unknown().optional(),
  links: z.unknown().optional(),
  mac_address: z.unknown().optional(),
  mem_limit: z.unknown().optional(),
  mem_reservation: z.unknown().optional(),
  oom_kill_disable: z.unknown().optional(),
  pid: z.unknown().optional(),
  privileged: z.unknown().optional(),
  pull_policy: z.unknown().optional(),
  runtime: z.unknown().optional(),
  security_opt: z.unknown().optional(),
  shm_size: z.unknown().optional(),
  storage_opt: z.unknown().optional(),
  userns_mode: z.unknown().optional(),
  uts: z.unknown().optional(),
  volumes_from: z.unknown().optional(),
});

/** Keys of a service that are read and then not honoured, by what to do instead. */
export const UNSUPPORTED: Readonly<Record<string, string>> = {
  build: 'images are not built: push one and name it in `image`',
  container_name: 'tasks are named by the swarm',
  cgroup_parent: 'the swarm places tasks in cgroups itself',
  cpus: 'use deploy.resources.limits.cpus',
  cpuset: 'use deploy.resources',
  cpu_shares: 'use deploy.resources',
  cpu_quota: 'use deploy.resources.limits.cpus',
  devices: 'services get no devices',
  external_links: 'use a network that both are on',
  ipc: 'tasks have namespaces of their own',
  links: 'services of one network find each other by name',
  mac_address: 'the swarm gives addresses',
  mem_limit: 'use deploy.resources.limits.memory',
  mem_reservation: 'use deploy.resources.reservations.memory',
  network_mode: 'use networks',
  pid: 'tasks have namespaces of their own',
  privileged: 'use cap_add',
  restart: 'use deploy.restart_policy',
  security_opt: 'not of services',
  shm_size: 'use a tmpfs volume at /dev/shm',
  userns_mode: 'not of services',
  domainname: 'use hostname',
  expose: 'all ports are open among services of one network',
};

const externalSchema = z
  .union([flag, object({ name: text }).transform(({ name }) => name)])
  .optional();

export const networkSchema = object({
  name: text.optional(),
  driver: text.optional(),
  driver_opts: mapping.optional(),
  attachable: flag.optional(),
  internal: flag.optional(),
  enable_ipv6: flag.optional(),
  enable_ipv4: flag.optional(),
  external: externalSchema,
  labels: mapping.optional(),
  ipam: object({
    driver: text.optional(),
    config: z
      .array(
        object({
          subnet: text.optional(),
          gateway: text.optional(),
          ip_range: text.optional(),
          aux_addresses: mapping.optional(),
        }),
      )
      .optional(),
    options: mapping.optional(),
  }).optional(),
}).nullable();

export const volumeDefinitionSchema = object({
  name: text.optional(),
  driver: text.optional(),
  driver_opts: mapping.optional(),
  external: externalSchema,
  labels: mapping.optional(),
}).nullable();

export const blobSchema = object({
  name: text.optional(),
  file: text.optional(),
  environment: text.optional(),
  content: text.optional(),
  external: externalSchema,
  labels: mapping.optional(),
  driver: text.optional(),
  driver_opts: mapping.optional(),
  template_driver: text.optional(),
}).nullable();

const composeSchema = object({
  version: scalar.optional(),
  name: text.optional(),
  include: z.unknown().optional(),
  services: z.record(z.string(), serviceSchema).default({}),
  networks: z.record(z.string(), networkSchema).default({}),
  volumes: z.record(z.string(), volumeDefinitionSchema).default({}),
  secrets: z.record(z.string(), blobSchema).default({}),
  configs: z.record(z.string(), blobSchema).default({}),
});

export type ComposeFile = z.output<typeof composeSchema>;
export type ComposeService = z.output<typeof serviceSchema>;
export type ComposeNetwork = z.output<typeof networkSchema>;
export type ComposeBlob = z.output<typeof blobSchema>;
export type ComposeVolume = z.output<typeof volumeSchema>;
export type ComposePort = z.output<typeof portSchema>;
export type ComposeUpdate = z.output<typeof updateSchema>;

/** @throws CliError CLI_SPEC which names the place of the first mistake. */
export function checkCompose(tree: unknown): ComposeFile {
  const parsed = composeSchema.safeParse(tree);
  if (parsed.success) return parsed.data;
  const { path, message } = deepest(parsed.error.issues, []);
  throw composeError(placeOf(path), message);
}

interface Mistake {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Of several forms that a value may have, the mistake is told of the one that it comes closest to. */
function deepest(issues: readonly z.core.$ZodIssue[], prefix: readonly PropertyKey[]): Mistake {
  let best: Mistake = { path: prefix, message: 'cannot be read' };
  for (const issue of issues) {
    const path = [...prefix, ...issue.path];
    const found =
      issue.code === 'invalid_union'
        ? closest(issue.errors, path)
        : { path, message: messageOf(issue) };
    if (best.path === prefix || found.path.length > best.path.length) best = found;
  }
  return best;
}

function closest(arms: readonly (readonly z.core.$ZodIssue[])[], path: readonly PropertyKey[]) {
  const found = arms.map((issues) => deepest(issues, path));
  const longest = found.toSorted((a, b) => b.path.length - a.path.length)[0];
  if (longest !== undefined && longest.path.length > path.length) return longest;
  const unknown = found.find(({ message }) => message.startsWith('unknown key'));
  return unknown ?? { path, message: 'has a form that is not understood' };
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys')
    return `unknown key ${issue.keys.map((key) => `'${key}'`).join(', ')}`;
  const { message } = issue;
  return message.slice(0, 1).toLowerCase() + message.slice(1);
}

function placeOf(path: readonly PropertyKey[]): string {
  return path
    .map((part, at) =>
      typeof part === 'number' ? `[${part}]` : at === 0 ? String(part) : `.${String(part)}`,
    )
    .join('');
}
