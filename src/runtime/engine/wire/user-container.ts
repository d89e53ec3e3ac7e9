import { SANDBOX_LABEL } from './container-json.js';

type Json = Readonly<Record<string, unknown>>;

/** Of sandboxes of containers that users make: on behalf of which agent they are there. */
export const USER_OWNER_LABEL = 'com.docker.shoal.user-owner';

/** What a container that joins a sandbox may not say itself, and therefore the sandbox says. */
const MOVED = {
  config: ['Hostname', 'Domainname', 'ExposedPorts', 'MacAddress'],
  host: [
    ...['NetworkMode', 'PortBindings', 'PublishAllPorts', 'Dns', 'DnsOptions', 'DnsSearch'],
    ...['ExtraHosts', 'Links'],
  ],
} as const;

/** The request to make a container, parted. */
export interface ParsedCreate {
  /** Of the user's container, which joins the sandbox. */
  readonly container: Json;
  /** What the user said and the container does not: shown by `inspect`, used by the sandbox. */
  readonly said: Said;
  /** Networks of the engine's own that it is to be on besides, with how. */
  readonly endpoints: Json;
}

export interface Said {
  readonly config: Json;
  readonly host: Json;
}

const objectOf = (value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
const textsOf = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];

const isNetwork = (name: string) => name.startsWith('net.');

/**
 * Parts the body of `POST /containers/create` between a container and the sandbox that it joins.
 *
 * @param sandbox The sandbox's name.
 * @param isOverlay Whether a network is one of the swarm's.
 */
export function partCreate(
  body: unknown,
  sandbox: string,
  isOverlay: (network: string) => boolean,
): ParsedCreate {
  const { HostConfig: hostJson, NetworkingConfig: networking, ...config } = objectOf(body);
  const host = objectOf(hostJson);
  const asked = objectOf(objectOf(networking)['EndpointsConfig']);
  const endpoints = Object.fromEntries(Object.entries(asked).filter(([name]) => !isOverlay(name)));
  const sysctls = Object.entries(objectOf(host['Sysctls']));
  const own = sysctls.filter(([name]) => !isNetwork(name));
  const container = {
    ...without(config, MOVED.config),
    HostConfig: {
      ...without(host, MOVED.host),
      NetworkMode: `container:${sandbox}`,
      ...(own.length === sysctls.length ? {} : { Sysctls: Object.fromEntries(own) }),
    },
  };
  const said = {
    config: only(config, MOVED.config),
    host: {
      ...only(host, MOVED.host),
      ...(own.length === sysctls.length ? {} : { Sysctls: Object.fromEntries(sysctls) }),
    },
  };
  return { container, said, endpoints };
}

/** Body of `POST /containers/create` for the sandbox of a user's container. */
export function userSandboxJson(
  { config, host }: Said,
  of: { readonly id: string; readonly owner: string; readonly image: string },
): Json {
  const sysctls = Object.entries(objectOf(host['Sysctls'])).filter(([name]) => isNetwork(name));
  const options = textsOf(host['DnsOptions']);
  return {
    Image: of.image,
    // Told apart by it in /proc, whatever else has the same number by now.
    Cmd: [of.id],
    Hostname: config['Hostname'] || of.id.slice(0, SHORT_ID_CHARS),
    Domainname: config['Domainname'] ?? '',
    Labels: { [SANDBOX_LABEL]: of.id, [USER_OWNER_LABEL]: of.owner },
    HostConfig: {
      NetworkMode: 'none',
      // The resolver of attached namespaces; it asks the host's own for all else.
      Dns: ['127.0.0.11', ...textsOf(host['Dns'])],
      DnsOptions: options.length > 0 ? options : ['ndots:0'],
      DnsSearch: textsOf(host['DnsSearch']),
      ExtraHosts: textsOf(host['ExtraHosts']),
      Sysctls: Object.fromEntries(sysctls),
      // Writable, as the hosts file is else not: the program in it writes nothing.
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

/** Of a container's id, as users see it. */
export const SHORT_ID_CHARS = 12;

/** A port of a container that the node itself is to offer. */
export interface UserPort {
  readonly protocol: 'tcp' | 'udp';
  readonly targetPort: number;
  /** 0: whichever is free. */
  readonly publishedPort: number;
}

/** @returns Or a sentence that says why they cannot be offered. */
export function userPorts({ config, host }: Said): UserPort[] | string {
  const ports: UserPort[] = [];
  const bindings = Object.entries(objectOf(host['PortBindings']));
  const exposed =
    host['PublishAllPorts'] === true
      ? Object.keys(objectOf(config['ExposedPorts'])).map((key) => [key, [{}]] as const)
      : [];
  const isBound = new Set(bindings.map(([key]) => key));
  for (const [key, list] of [...bindings, ...exposed.filter(([one]) => !isBound.has(one))]) {
    const [, port = '', protocol = 'tcp'] = /^(\d{1,5})(?:\/(\w+))?$/.exec(key) ?? [];
    if (protocol !== 'tcp' && protocol !== 'udp') return `port ${key}: only tcp and udp are served`;
    for (const binding of Array.isArray(list) ? list : []) {
      const { HostIp: address = '', HostPort: published = '' } = objectOf(binding);
      // Wider than asked for would be a hole.
      if (!ANYWHERE.has(String(address)))
        return `port ${key}: a container on an overlay network is published on all addresses of its node, not on ${address} alone`;
      if (!/^\d{0,5}$/.test(String(published)))
        return `port ${key}: ${published} is no single port`;
      ports.push({ protocol, targetPort: Number(port), publishedPort: Number(published) });
    }
  }
  // For IPv4 and IPv6 each, or said twice: one listener serves both.
  return ports.filter(
    (one, at) =>
      one.publishedPort === 0 ||
      ports.findIndex(
        (other) => other.protocol === one.protocol && other.publishedPort === one.publishedPort,
      ) === at,
  );
}

const ANYWHERE = new Set(['', '0.0.0.0', '::']);

/** Where a container is on an overlay, as `docker inspect` is to show it. */
export interface ShownPlace {
  readonly networkId: string;
  readonly networkName: string;
  readonly aliases: readonly string[];
  /** Asked for. */
  readonly ip?: string | undefined;
  /** Absent: it does not run. */
  readonly endpoint?:
    | { readonly id: string; readonly mac: string; readonly addresses: readonly string[] }
    | undefined;
}

export interface ShownContainer {
  readonly said?: Said | undefined;
  readonly places: readonly ShownPlace[];
  readonly ports: readonly UserPort[];
}

/**
 * An engine's answer of `GET /containers/ID/json`, with what the engine does not know.
 *
 * @param sandbox `NetworkSettings` of its sandbox, which has them in its place.
 */
export function shownInspect(
  json: unknown,
  { said, places, ports }: ShownContainer,
  sandbox: unknown,
): unknown {
  const inspected = objectOf(json);
  const settings = objectOf(sandbox ?? inspected['NetworkSettings']);
  const { none: _, ...networks } = objectOf(settings['Networks']);
  const named = (value: string) => value !== '';
  const config = Object.entries(said?.config ?? {}).filter(([, value]) => named(String(value)));
  return {
    ...inspected,
    Config: { ...objectOf(inspected['Config']), ...Object.fromEntries(config) },
    HostConfig: { ...objectOf(inspected['HostConfig']), ...said?.host },
    NetworkSettings: {
      ...settings,
      Ports: { ...objectOf(settings['Ports']), ...portsJson(ports) },
      Networks: { ...networks, ...networksJson(places) },
    },
  };
}

/** One of `GET /containers/json`, likewise. */
export function shownInList(json: unknown, { said, places, ports }: ShownContainer): unknown {
  const listed = objectOf(json);
  const host = objectOf(listed['HostConfig']);
  const settings = objectOf(listed['NetworkSettings']);
  const mode = said?.host['NetworkMode'];
  const own = ports.flatMap(({ protocol, targetPort, publishedPort }) =>
    ['0.0.0.0', '::'].map((address) => ({
      IP: address,
      PrivatePort: targetPort,
      PublicPort: publishedPort,
      Type: protocol,
    })),
  );
  return {
    ...listed,
    Ports: [...(Array.isArray(listed['Ports']) ? listed['Ports'] : []), ...own],
    HostConfig: mode === undefined ? host : { ...host, NetworkMode: mode },
    NetworkSettings: {
      ...settings,
      Networks: { ...objectOf(settings['Networks']), ...networksJson(places) },
    },
  };
}

function portsJson(ports: readonly UserPort[]): Json {
  const byTarget = new Map<string, unknown[]>();
  for (const { protocol, targetPort, publishedPort } of ports) {
    const key = `${targetPort}/${protocol}`;
    const bindings = ['0.0.0.0', '::'].map((address) => ({
      HostIp: address,
      HostPort: String(publishedPort),
    }));
    byTarget.set(key, [...(byTarget.get(key) ?? []), ...bindings]);
  }
  return Object.fromEntries(byTarget);
}

const isV6 = (address: string) => address.includes(':');
const bare = (address: string | undefined) => address?.split('/')[0] ?? '';
const lengthOf = (address: string | undefined) => Number(address?.split('/')[1] ?? 0);

function networksJson(places: readonly ShownPlace[]): Json {
  return Object.fromEntries(
    places.map(({ networkId, networkName, aliases, ip, endpoint }) => {
      const v4 = endpoint?.addresses.find((one) => !isV6(one));
      const v6 = endpoint?.addresses.find(isV6);
      const address = ip ?? bare(v4);
      const shown = {
        IPAMConfig: address === '' ? null : { IPv4Address: address },
        Links: null,
        Aliases: aliases,
        NetworkID: networkId,
        EndpointID: endpoint?.id ?? '',
        Gateway: '',
        IPAddress: bare(v4),
        IPPrefixLen: lengthOf(v4),
        IPv6Gateway: '',
        GlobalIPv6Address: bare(v6),
        GlobalIPv6PrefixLen: lengthOf(v6),
        MacAddress: endpoint?.mac ?? '',
        DriverOpts: null,
      };
      return [networkName, shown];
    }),
  );
}

const without = (json: Json, names: readonly string[]): Json =>
  Object.fromEntries(Object.entries(json).filter(([name]) => !names.includes(name)));
const only = (json: Json, names: readonly string[]): Json =>
  Object.fromEntries(Object.entries(json).filter(([name]) => names.includes(name)));
