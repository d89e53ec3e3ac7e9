import { split } from 'shlex';
import { composeError } from './error.js';
import type {
  ComposeBlob,
  ComposeFile,
  ComposeNetwork,
  ComposeService,
  ComposeUpdate,
} from './model.js';
import { convertPort } from './ports.js';
import { parseBytes, parseDuration } from './units.js';
import { convertVolume } from './volumes.js';

/** A JSON object of Docker's API. */
export type Json = { readonly [key: string]: unknown };

/** Whose all objects are, as Docker marks them. */
export const NAMESPACE_LABEL = 'com.docker.stack.namespace';
const IMAGE_LABEL = 'com.docker.stack.image';
const SECRET_MODE = 0o444;

/** A stack as the API is to be told of it. */
export interface Stack {
  readonly name: string;
  readonly networks: readonly StackNetwork[];
  readonly secrets: readonly StackBlob[];
  readonly configs: readonly StackBlob[];
  /** In the order in which they are to be made: what is depended on comes first. */
  readonly services: readonly StackService[];
}

export interface StackNetwork {
  readonly name: string;
  /** Must be there; it is not made. */
  readonly external: boolean;
  readonly body: Json;
}

export interface StackBlob {
  readonly name: string;
  readonly external: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** Where its contents are; absent where it is external. */
  readonly content?: BlobSource;
  readonly templating?: string;
}

export type BlobSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'environment'; readonly name: string }
  | { readonly kind: 'text'; readonly text: string };

export interface StackService {
  readonly name: string;
  readonly dependsOn: readonly Dependency[];
  /** Spec, with names in place of ids of secrets and configs (`SecretName`, `ConfigName`). */
  readonly spec: Json;
}

export interface Dependency {
  /** Name of the service in the swarm. */
  readonly service: string;
  readonly condition: 'service_started' | 'service_healthy' | 'service_completed_successfully';
}

export interface ConvertContext {
  readonly stack: string;
  /** Where relative paths begin. */
  readonly folder: string;
  readonly home: string;
  /** Variables of each service's `env_file`, in order, the later ones win. */
  readonly envFiles: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** Value of a variable that is named without one. */
  readonly variable: (name: string) => string | undefined;
  readonly warn: (message: string) => void;
}

/** @throws CliError CLI_SPEC with the place of what cannot be done. */
export function convertStack(file: ComposeFile, context: ConvertContext): Stack {
  const services = Object.entries(file.services);
  const used = new Set(services.flatMap(([, service]) => Object.keys(networksOf(service))));
  return {
    name: context.stack,
    networks: [...used].toSorted().map((name) => convertNetwork(name, file, context)),
    secrets: blobsOf(file.secrets, 'secrets', context),
    configs: blobsOf(file.configs, 'configs', context),
    services: inOrder(file.services).map((name) => ({
      name: `${context.stack}_${name}`,
      dependsOn: Object.entries(file.services[name]?.depends_on ?? {}).map(
        ([dependency, { condition }]) => ({
          service: `${context.stack}_${dependency}`,
          condition,
        }),
      ),
      spec: new ServiceConverter(name, file, context).convert(),
    })),
  };
}

/** Dependencies before their dependents; otherwise as in the file. */
function inOrder(services: ComposeFile['services']): readonly string[] {
  const order: string[] = [];
  const visit = (name: string, path: readonly string[]) => {
    if (path.includes(name))
      throw composeError(
        `services.${name}.depends_on`,
        `a circle: ${[...path.slice(path.indexOf(name)), name].join(' -> ')}`,
      );
    if (order.includes(name)) return;
    for (const [dependency, { required }] of Object.entries(services[name]?.depends_on ?? {})) {
      if (Object.hasOwn(services, dependency)) visit(dependency, [...path, name]);
      else if (required !== false)
        throw composeError(`services.${name}.depends_on`, `there is no service '${dependency}'`);
    }
    order.push(name);
  };
  for (const name of Object.keys(services)) visit(name, []);
  return order;
}

/** A service that names no network is on the stack's own, called `default`. */
function networksOf(service: ComposeService): NonNullable<ComposeService['networks']> {
  if (service.networks !== undefined) return service.networks;
  return service.network_mode === undefined ? { default: null } : {};
}

function outsideName(
  external: boolean | string | undefined,
  name: string | undefined,
  key: string,
): string | undefined {
  if (external === undefined || external === false) return undefined;
  return typeof external === 'string' ? external : (name ?? key);
}

function namespaceLabels(context: ConvertContext): Readonly<Record<string, string>> {
  return { [NAMESPACE_LABEL]: context.stack };
}

function labelsOf(labels: Readonly<Record<string, string | null>> | undefined) {
  return Object.fromEntries(Object.entries(labels ?? {}).map(([key, value]) => [key, value ?? '']));
}

function nameOfNetwork(key: string, network: ComposeNetwork | undefined, stack: string): string {
  return outsideName(network?.external, network?.name, key) ?? network?.name ?? `${stack}_${key}`;
}

function convertNetwork(key: string, file: ComposeFile, context: ConvertContext): StackNetwork {
  const isDefined = Object.hasOwn(file.networks, key);
  if (!isDefined && key !== 'default')
    throw composeError('services', `no network '${key}' is defined under networks`);
  const network = file.networks[key];
  const name = nameOfNetwork(key, network, context.stack);
  const external = outsideName(network?.external, network?.name, key) !== undefined;
  const { driver = 'overlay', ipam } = network ?? {};
  const config = (ipam?.config ?? []).map((one) => ({
    ...(one.subnet !== undefined && { Subnet: one.subnet }),
    ...(one.gateway !== undefined && { Gateway: one.gateway }),
    ...(one.ip_range !== undefined && { IPRange: one.ip_range }),
    ...(one.aux_addresses !== undefined && { AuxiliaryAddresses: labelsOf(one.aux_addresses) }),
  }));
  return {
    name,
    external,
    body: {
      Name: name,
      Driver: driver,
      Labels: { ...labelsOf(network?.labels), ...namespaceLabels(context) },
      Attachable: network?.attachable === true,
      Internal: network?.internal === true,
      ...(network?.enable_ipv6 !== undefined && { EnableIPv6: network.enable_ipv6 }),
      ...(network?.driver_opts !== undefined && { Options: labelsOf(network.driver_opts) }),
      ...(ipam !== undefined && {
        IPAM: {
          Driver: ipam.driver ?? '',
          Config: config,
          ...(ipam.options !== undefined && { Options: labelsOf(ipam.options) }),
        },
      }),
    },
  };
}

function blobsOf(
  blobs: Readonly<Record<string, ComposeBlob>>,
  kind: 'secrets' | 'configs',
  context: ConvertContext,
): readonly StackBlob[] {
  return Object.entries(blobs).map(([key, blob]) => {
    const where = `${kind}.${key}`;
    const outside = outsideName(blob?.external, blob?.name, key);
    const labels = { ...labelsOf(blob?.labels), ...namespaceLabels(context) };
    if (outside !== undefined) return { name: outside, external: true, labels };
    if (blob?.driver !== undefined)
      throw composeError(where, 'drivers of secrets are not supported: use file or environment');
    const content = contentOf(blob, where);
    return {
      name: blob?.name ?? `${context.stack}_${key}`,
      external: false,
      labels,
      content,
      ...(blob?.template_driver !== undefined && { templating: blob.template_driver }),
    };
  });
}

function contentOf(blob: ComposeBlob, where: string): BlobSource {
  const sources: BlobSource[] = [];
  if (blob?.file !== undefined) sources.push({ kind: 'file', path: blob.file });
  if (blob?.environment !== undefined)
    sources.push({ kind: 'environment', name: blob.environment });
  if (blob?.content !== undefined) sources.push({ kind: 'text', text: blob.content });
  const [source] = sources;
  if (source === undefined || sources.length > 1)
    throw composeError(
      where,
      'say where it comes from: one of file, environment, content, external',
    );
  return source;
}

/** One service's part of the file as a spec of Docker's API. */
class ServiceConverter {
  readonly #name: string;
  readonly #service: ComposeService;
  readonly #file: ComposeFile;
  readonly #context: ConvertContext;

  constructor(name: string, file: ComposeFile, context: ConvertContext) {
    const service = file.services[name];
    if (service === undefined) throw composeError('services', `there is no service '${name}'`);
    this.#name = name;
    this.#service = service;
    this.#file = file;
    this.#context = context;
  }

  convert(): Json {
    const { image, deploy, scale } = this.#service;
    if (image === undefined || image === '')
      throw composeError(this.#at(''), 'a service needs an image');
    const own = namespaceLabels(this.#context);
    const placement = deploy?.placement;
    const spread = placement?.preferences ?? [];
    const update = this.#update(deploy?.update_config, 'update_config');
    const rollback = this.#update(deploy?.rollback_config, 'rollback_config');
    return {
      Name: `${this.#context.stack}_${this.#name}`,
      Labels: { ...labelsOf(deploy?.labels), ...own, [IMAGE_LABEL]: image },
      TaskTemplate: {
        ContainerSpec: this.#container(image),
        Resources: this.#resources(),
        ...this.#restart(),
        Placement: {
          ...(placement?.constraints !== undefined && { Constraints: placement.constraints }),
          ...(spread.length > 0 && {
            Preferences: spread.map((one) => ({ Spread: { SpreadDescriptor: one.spread } })),
          }),
          ...(placement?.max_replicas_per_node !== undefined && {
            MaxReplicas: placement.max_replicas_per_node,
          }),
        },
        Networks: this.#networks(),
        ...this.#logDriver(),
        ForceUpdate: 0,
      },
      Mode: this.#mode(deploy?.mode ?? 'replicated', deploy?.replicas ?? scale),
      ...(update && { UpdateConfig: update }),
      ...(rollback && { RollbackConfig: rollback }),
      EndpointSpec: {
        ...(deploy?.endpoint_mode !== undefined && { Mode: deploy.endpoint_mode }),
        ...this.#ports(),
      },
    };
  }

  #at(key: string): string {
    return key === '' ? `services.${this.#name}` : `services.${this.#name}.${key}`;
  }

  #duration(key: string, value: string | undefined): number | undefined {
    return value === undefined ? undefined : parseDuration(value, this.#at(key));
  }

  #words(key: string, value: string | readonly string[] | null | undefined) {
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'string') return value;
    try {
      return split(value);
    } catch {
      throw composeError(this.#at(key), `the quotes in '${value}' do not match`);
    }
  }

  #container(image: string): Json {
    const service = this.#service;
    const own = namespaceLabels(this.#context);
    const command = this.#words('entrypoint', service.entrypoint);
    const args = this.#words('command', service.command);
    const env = this.#environment();
    const mounts = this.#mounts();
    const grace = this.#duration('stop_grace_period', service.stop_grace_period);
    const health = this.#health();
    const hosts = (service.extra_hosts ?? []).map((one, at) => this.#host(one, at));
    const dns = {
      ...(service.dns !== undefined && { Nameservers: service.dns }),
      ...(service.dns_search !== undefined && { Search: service.dns_search }),
      ...(service.dns_opt !== undefined && { Options: service.dns_opt }),
    };
    const ulimits = Object.entries(service.ulimits ?? {}).map(([name, limit]) => ({
      Name: name,
      Soft: typeof limit === 'number' ? limit : limit.soft,
      Hard: typeof limit === 'number' ? limit : limit.hard,
    }));
    return {
      Image: image,
      Labels: { ...labelsOf(service.labels), ...own },
      ...(command && { Command: command }),
      ...(args && { Args: args }),
      ...(service.hostname !== undefined && { Hostname: service.hostname }),
      ...(env.length > 0 && { Env: env }),
      ...(service.working_dir !== undefined && { Dir: service.working_dir }),
      ...(service.user !== undefined && { User: service.user }),
      ...(service.group_add !== undefined && { Groups: service.group_add }),
      ...(service.init !== undefined && { Init: service.init }),
      ...(service.stop_signal !== undefined && { StopSignal: service.stop_signal }),
      ...(service.tty === true && { TTY: true }),
      ...(service.stdin_open === true && { OpenStdin: true }),
      ...(service.read_only === true && { ReadOnly: true }),
      ...(mounts.length > 0 && { Mounts: mounts }),
      ...(grace !== undefined && { StopGracePeriod: grace }),
      ...(health && { Healthcheck: health }),
      ...(hosts.length > 0 && { Hosts: hosts }),
      ...(Object.keys(dns).length > 0 && { DNSConfig: dns }),
      ...this.#references('secrets'),
      ...this.#references('configs'),
      ...(service.isolation !== undefined && { Isolation: service.isolation }),
      ...(service.sysctls !== undefined && { Sysctls: labelsOf(service.sysctls) }),
      ...(service.cap_add !== undefined && { CapabilityAdd: service.cap_add }),
      ...(service.cap_drop !== undefined && { CapabilityDrop: service.cap_drop }),
      ...(ulimits.length > 0 && { Ulimits: ulimits }),
      ...(service.oom_score_adj !== undefined && { OomScoreAdj: service.oom_score_adj }),
    };
  }

  /** `name:address` or `name=address` becomes a line of `/etc/hosts`. */
  #host(entry: string, at: number): string {
    const match = /^(?<name>[^:=]+)[:=](?<address>.+)$/.exec(entry)?.groups;
    if (match === undefined)
      throw composeError(this.#at(`extra_hosts[${at}]`), `'${entry}' is not NAME:ADDRESS`);
    return `${match['address']?.replace(/^\[(.*)\]$/, '$1')} ${match['name']}`;
  }

  /** Sorted, as Docker does it, so that deploying again changes nothing. */
  #environment(): readonly string[] {
    const merged = new Map<string, string | null>([
      ...Object.entries(this.#context.envFiles.get(this.#name) ?? {}),
      ...Object.entries(this.#service.environment ?? {}),
    ]);
    return [...merged]
      .flatMap(([key, value]) => {
        if (value !== null) return [`${key}=${value}`];
        // Named without a value: that of the one who deploys, if there is one.
        const outer = this.#context.variable(key);
        return outer === undefined ? [] : [`${key}=${outer}`];
      })
      .toSorted();
  }

  #mounts(): readonly Json[] {
    const context = {
      stack: this.#context.stack,
      namespaceLabels: namespaceLabels(this.#context),
      definitions: this.#file.volumes,
      folder: this.#context.folder,
      home: this.#context.home,
    };
    const volumes = (this.#service.volumes ?? []).map((volume, at) =>
      convertVolume(volume, context, this.#at(`volumes[${at}]`)),
    );
    const tmpfs = (this.#service.tmpfs ?? []).map((target) => {
      const [path = ''] = target.split(':');
      return { Type: 'tmpfs', Target: path };
    });
    return [...volumes, ...tmpfs];
  }

  #health(): Json | undefined {
    const { healthcheck } = this.#service;
    if (healthcheck === undefined) return undefined;
    if (healthcheck.disable === true) return { Test: ['NONE'] };
    const { test } = healthcheck;
    const times = {
      Interval: this.#duration('healthcheck.interval', healthcheck.interval),
      Timeout: this.#duration('healthcheck.timeout', healthcheck.timeout),
      StartPeriod: this.#duration('healthcheck.start_period', healthcheck.start_period),
      StartInterval: this.#duration('healthcheck.start_interval', healthcheck.start_interval),
    };
    return {
      ...(test !== undefined && { Test: typeof test === 'string' ? ['CMD-SHELL', test] : test }),
      ...Object.fromEntries(Object.entries(times).filter(([, value]) => value !== undefined)),
      ...(healthcheck.retries !== undefined && { Retries: healthcheck.retries }),
    };
  }

  #references(kind: 'secrets' | 'configs'): Json {
    const references = this.#service[kind];
    if (references === undefined) return {};
    const [label, nameKey] =
      kind === 'secrets' ? ['Secrets', 'SecretName'] : ['Configs', 'ConfigName'];
    const all = references.map((reference, at) => {
      const long = typeof reference === 'string' ? { source: reference } : reference;
      const where = this.#at(`${kind}[${at}]`);
      if (!Object.hasOwn(this.#file[kind], long.source))
        throw composeError(where, `no ${kind.slice(0, -1)} '${long.source}' is defined`);
      const blob = this.#file[kind][long.source];
      const outside = outsideName(blob?.external, blob?.name, long.source);
      const { mode } = long;
      return {
        File: {
          Name: long.target ?? (kind === 'secrets' ? long.source : `/${long.source}`),
          UID: long.uid ?? '0',
          GID: long.gid ?? '0',
          Mode: typeof mode === 'string' ? Number.parseInt(mode, 8) : (mode ?? SECRET_MODE),
        },
        [nameKey]: outside ?? blob?.name ?? `${this.#context.stack}_${long.source}`,
      };
    });
    const byName = (one: Json) => String(one[nameKey]);
    return { [label]: all.toSorted((a, b) => (byName(a) < byName(b) ? -1 : 1)) };
  }

  #resources(): Json {
    const { limits, reservations } = this.#service.deploy?.resources ?? {};
    const pids = limits?.pids ?? this.#service.pids_limit;
    const generic = (reservations?.generic_resources ?? []).map(
      ({ discrete_resource_spec: { kind, value } }) => ({
        DiscreteResourceSpec: { Kind: kind, Value: value },
      }),
    );
    const amounts = (
      some:
        | { readonly cpus?: number | undefined; readonly memory?: string | undefined }
        | undefined,
      key: string,
    ) => ({
      ...(some?.cpus !== undefined && { NanoCPUs: Math.round(some.cpus * 1e9) }),
      ...(some?.memory !== undefined && {
        MemoryBytes: parseBytes(some.memory, this.#at(`deploy.resources.${key}.memory`)),
      }),
    });
    const most = { ...amounts(limits, 'limits'), ...(pids !== undefined && { Pids: pids }) };
    const least = {
      ...amounts(reservations, 'reservations'),
      ...(generic.length > 0 && { GenericResources: generic }),
    };
    const swap = this.#service.memswap_limit;
    return {
      ...(Object.keys(most).length > 0 && { Limits: most }),
      ...(Object.keys(least).length > 0 && { Reservations: least }),
      ...(swap !== undefined && { SwapBytes: parseBytes(swap, this.#at('memswap_limit')) }),
      ...(this.#service.mem_swappiness !== undefined && {
        MemorySwappiness: this.#service.mem_swappiness,
      }),
    };
  }

  #restart(): Json {
    const policy = this.#service.deploy?.restart_policy;
    if (policy === undefined) return {};
    const delay = this.#duration('deploy.restart_policy.delay', policy.delay);
    const window = this.#duration('deploy.restart_policy.window', policy.window);
    return {
      RestartPolicy: {
        ...(policy.condition !== undefined && { Condition: policy.condition }),
        ...(delay !== undefined && { Delay: delay }),
        ...(policy.max_attempts !== undefined && { MaxAttempts: policy.max_attempts }),
        ...(window !== undefined && { Window: window }),
      },
    };
  }

  #networks(): readonly Json[] {
    return Object.entries(networksOf(this.#service))
      .map(([key, network]) => ({
        Target: nameOfNetwork(key, this.#file.networks[key], this.#context.stack),
        // Besides its long name a service is found by the one that it has in the file.
        Aliases: [...new Set([...(network?.aliases ?? []), this.#name])],
        ...(network?.driver_opts !== undefined && { DriverOpts: labelsOf(network.driver_opts) }),
      }))
      .toSorted((a, b) => (a.Target < b.Target ? -1 : 1));
  }

  #logDriver(): Json {
    const { logging } = this.#service;
    if (logging === undefined) return {};
    return { LogDriver: { Name: logging.driver ?? '', Options: labelsOf(logging.options) } };
  }

  #mode(mode: string, replicas: number | undefined): Json {
    const where = this.#at('deploy.mode');
    if (replicas !== undefined && mode.startsWith('global'))
      throw composeError(where, `mode ${mode} takes no replicas`);
    switch (mode) {
      case 'replicated':
        return { Replicated: { Replicas: replicas ?? 1 } };
      case 'global':
        return { Global: {} };
      case 'replicated-job':
        return { ReplicatedJob: { MaxConcurrent: replicas ?? 1, TotalCompletions: replicas ?? 1 } };
      case 'global-job':
        return { GlobalJob: {} };
      default:
        throw composeError(
          where,
          `'${mode}' is not one of replicated, global, replicated-job, global-job`,
        );
    }
  }

  #update(config: ComposeUpdate | undefined, key: string): Json | undefined {
    if (config === undefined) return undefined;
    const delay = this.#duration(`deploy.${key}.delay`, config.delay);
    const monitor = this.#duration(`deploy.${key}.monitor`, config.monitor);
    return {
      Parallelism: config.parallelism ?? 1,
      ...(delay !== undefined && { Delay: delay }),
      ...(config.failure_action !== undefined && { FailureAction: config.failure_action }),
      ...(monitor !== undefined && { Monitor: monitor }),
      MaxFailureRatio: config.max_failure_ratio ?? 0,
      ...(config.order !== undefined && { Order: config.order }),
    };
  }

  #ports(): Json {
    const { ports } = this.#service;
    if (ports === undefined) return {};
    const { warn } = this.#context;
    return {
      Ports: ports.flatMap((port, at) => convertPort(port, this.#at(`ports[${at}]`), warn)),
    };
  }
}
