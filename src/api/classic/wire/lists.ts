import { type Json, listOf, numberOf, objectOf, textOf, textsOf } from './json.js';

/** The node that an answer came from. */
export interface Origin {
  readonly id: string;
  readonly name: string;
  /** Without a port. */
  readonly ip: string;
  readonly address: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** One of an engine's list of containers, as one of the cluster's: `node/name`, with the node's address. */
export function clusterContainer(one: unknown, { name, ip }: Origin): Json {
  const container = objectOf(one);
  return {
    ...container,
    Names: textsOf(container['Names']).map((own) => `/${name}${own}`),
    Ports: listOf(container['Ports']).map((port) => {
      const { IP, ...rest } = objectOf(port);
      return IP === undefined ? rest : { ...rest, IP: isUnspecified(IP) ? ip : IP };
    }),
  };
}

/** Of a node that does not answer: as it was last. */
export function lostContainer(container: Json): Json {
  return { ...container, Status: 'Host Down' };
}

const isUnspecified = (ip: unknown) => ip === '' || ip === '0.0.0.0' || ip === '::';

/** `GET /containers/{id}/json`, with what the classic Swarm says of its node. */
export function clusterInspect(inspected: unknown, origin: Origin): Json {
  const { id, name, ip, address, cpus, memoryBytes, labels } = origin;
  const container = objectOf(inspected);
  const settings = objectOf(container['NetworkSettings']);
  const ports = Object.entries(objectOf(settings['Ports'])).map(([port, bindings]) => [
    port,
    Array.isArray(bindings)
      ? bindings.map((one) => {
          const binding = objectOf(one);
          return isUnspecified(binding['HostIp']) ? { ...binding, HostIp: ip } : binding;
        })
      : bindings,
  ]);
  return {
    ...container,
    Node: {
      ID: id,
      IP: ip,
      Addr: address,
      Name: name,
      Cpus: cpus,
      Memory: memoryBytes,
      Labels: labels,
    },
    ...(settings['Ports'] === undefined
      ? {}
      : { NetworkSettings: { ...settings, Ports: Object.fromEntries(ports) } }),
  };
}

/** Newest first. */
export function byCreation(a: Json, b: Json): number {
  return numberOf(b['Created']) - numberOf(a['Created']);
}

/** Each image once, with the tags that it has anywhere. */
export function mergeImages(lists: readonly unknown[]): Json[] {
  const merged = new Map<string, Json>();
  for (const one of lists.flatMap(listOf)) {
    const image = objectOf(one);
    const id = textOf(image['Id']);
    const before = merged.get(id);
    merged.set(
      id,
      before === undefined
        ? image
        : {
            ...before,
            RepoTags: unique(before['RepoTags'], image['RepoTags']),
            RepoDigests: unique(before['RepoDigests'], image['RepoDigests']),
          },
    );
  }
  return [...merged.values()].sort(byCreation);
}

const unique = (a: unknown, b: unknown) => [...new Set([...textsOf(a), ...textsOf(b)])];

/** Volumes of engines' own disks are each node's; what another driver has is the same everywhere. */
export function clusterVolumes(answers: readonly { origin: Origin; value: unknown }[]): Json[] {
  const volumes = answers.flatMap(({ origin, value }) =>
    listOf(objectOf(value)['Volumes']).map((one) => {
      const volume = objectOf(one);
      return isLocalVolume(volume)
        ? { ...volume, Name: `${origin.name}/${textOf(volume['Name'])}` }
        : volume;
    }),
  );
  return [...new Map(volumes.map((one) => [textOf(objectOf(one)['Name']), one])).values()];
}

const isLocalVolume = (volume: Json) => volume['Driver'] === 'local';

/** The engines' own networks; those of the swarm come from it. */
export function localNetworks(value: unknown, { name }: Origin): Json[] {
  return listOf(value).flatMap((one) => {
    const network = objectOf(one);
    if (network['Scope'] !== 'local') return [];
    return [{ ...network, Name: `${name}/${textOf(network['Name'])}` }];
  });
}

/** A line of `GET /events` with the node that it is from. */
export function clusterEvent(line: string, { id, name, ip, address }: Origin): string | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return undefined;
  }
  const event = objectOf(parsed);
  // The swarm's own are told once, by the manager that is asked.
  if (event['scope'] === 'swarm') return undefined;
  const actor = objectOf(event['Actor']);
  const from = textOf(event['from']);
  return JSON.stringify({
    ...event,
    ...(from === '' ? {} : { from: `${from} node:${name}` }),
    Actor: {
      ...actor,
      Attributes: {
        ...objectOf(actor['Attributes']),
        'node.name': name,
        'node.id': id,
        'node.addr': address,
        'node.ip': ip,
      },
    },
    node: { Name: name, Id: id, Addr: address, Ip: ip },
  });
}
