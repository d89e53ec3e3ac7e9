import { type Json, listOf, numberOf, objectOf, textOf } from './json.js';

/** A port of the node that a container has, or will have again when it is started. */
export interface HostPort {
  /** `80`. */
  readonly port: string;
  /** `tcp`, `udp`, `sctp`. */
  readonly protocol: string;
  /** Empty: all addresses of the node. */
  readonly ip: string;
}

/** What a container keeps of its node, running or not. */
export interface Claims {
  readonly ports: readonly HostPort[];
  readonly cpus: number;
  readonly memoryBytes: number;
}

const NANO = 1e9;

/** What a container's configuration, as it was asked for, keeps of its node. */
export function claimsOf(config: Json, hostConfig: Json): Claims {
  return {
    ports: isOnHostNetwork(hostConfig)
      ? Object.keys(objectOf(config['ExposedPorts'])).map((key) => ({ ...portOf(key), ip: '' }))
      : portsOf(hostConfig['PortBindings']),
    cpus: cpusOf(hostConfig),
    memoryBytes: numberOf(hostConfig['Memory']),
  };
}

export const isOnHostNetwork = (hostConfig: Json): boolean => hostConfig['NetworkMode'] === 'host';

/** Docker's map of ports to lists of bindings; what the engine is to choose is none yet. */
function portsOf(bindings: unknown): HostPort[] {
  return Object.entries(objectOf(bindings)).flatMap(([key, list]) =>
    listOf(list).flatMap((one) => {
      const { HostPort: port, HostIp: ip } = objectOf(one);
      const text = textOf(port);
      // `0` and ranges leave the choice to the engine.
      if (!/^[1-9]\d*$/.test(text)) return [];
      return [{ ...portOf(key), port: text, ip: textOf(ip) }];
    }),
  );
}

/** `80/tcp`. */
function portOf(key: string): { readonly port: string; readonly protocol: string } {
  const [port = '', protocol = 'tcp'] = key.split('/');
  return { port, protocol };
}

/** `--cpus`, or `-c`, by which the classic Swarm meant whole processors. */
function cpusOf(hostConfig: Json): number {
  const nano = numberOf(hostConfig['NanoCpus']);
  return nano > 0 ? nano / NANO : numberOf(hostConfig['CpuShares']);
}
