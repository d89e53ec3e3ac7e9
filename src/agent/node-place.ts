import { RUNTIME_PLUGIN } from '../base/host-image.js';
import type { NodeAvailability } from '../base/swarm-model.js';
import type { NodeRegistration } from '../control/index.js';
import type { Runtime, RuntimeDescription } from '../runtime/index.js';
import {
  CONTROL_PORT,
  defaultAdvertiseAddress,
  type HostAddress,
  type HostPort,
  isUnspecified,
  resolveAddress,
} from './addresses.js';
import type { AgentConfig } from './config.js';
import type { StaticFacts } from './facts.js';
import type { SavedSwarm } from './state-file.js';

const NANO = 1e9;

/** The three addresses that a node is in a swarm with. */
export interface NodeAddresses {
  readonly listen: HostPort;
  readonly advertise: HostPort;
  readonly dataPathAddress: string;
  /** What is advertised is no address of this host, but one that leads to it: it stays. */
  readonly advertiseGiven?: boolean | undefined;
}

/** As the user gave them; empty: what fits this host. */
export interface AddressWishes {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  readonly dataPathAddress: string;
}

/** @throws SwarmError `SWARM_BAD_ADDRESS`, `SWARM_AMBIGUOUS_ADDRESS`. */
export function resolveAddresses(
  wishes: AddressWishes,
  host: readonly HostAddress[],
): NodeAddresses {
  const listenText = wishes.listenAddress === '' ? '0.0.0.0' : wishes.listenAddress;
  const listen = resolveAddress(listenText, 'listen', CONTROL_PORT, host);
  const advertise =
    wishes.advertiseAddress === ''
      ? { address: defaultAdvertiseAddress(listen, host), port: listen.port }
      : resolveAddress(wishes.advertiseAddress, 'advertise', listen.port, host);
  const dataPathAddress =
    wishes.dataPathAddress === ''
      ? advertise.address
      : resolveAddress(wishes.dataPathAddress, 'dataPath', 0, host).address;
  // An IPv6 address is reached only where IPv6 is listened to.
  const everywhere =
    isUnspecified(listen.address) && advertise.address.includes(':') ? '::' : listen.address;
  const isHere = host.some(({ address }) => address === advertise.address);
  return {
    listen: { ...listen, address: everywhere },
    advertise,
    dataPathAddress,
    ...(host.length > 0 && !isHere && { advertiseGiven: true }),
  };
}

/** The same place, with the address that took the place of one that this host has no more. */
export function readdressed(saved: SavedSwarm, host: readonly HostAddress[]): SavedSwarm {
  const isHere = (address: string) => host.some((own) => own.address === address);
  const { advertise, dataPathAddress } = saved;
  if (saved.advertiseGiven === true || host.length === 0 || isHere(advertise.address)) return saved;
  try {
    const address = defaultAdvertiseAddress(saved.listen, host);
    return {
      ...saved,
      advertise: { ...advertise, address },
      dataPathAddress: isHere(dataPathAddress) ? dataPathAddress : address,
    };
  } catch {
    // Several could be meant: the operator has to say.
    return saved;
  }
}

/** What runs a node's tasks, as its managers hear of it. */
export interface NodeRuntimes {
  readonly kinds: readonly Runtime['kind'][];
  readonly descriptions: readonly Pick<RuntimeDescription, 'plugins' | 'labels'>[];
}

/** What a node says of itself to its managers. */
export function registrationOf(
  config: AgentConfig,
  facts: StaticFacts,
  runtimes: NodeRuntimes,
  addresses: NodeAddresses,
  availability: NodeAvailability,
): NodeRegistration {
  return {
    description: {
      hostname: config.hostname,
      os: 'linux',
      architecture: facts.architecture,
      nanoCpus: facts.cpuCount * NANO,
      memoryBytes: facts.memoryBytes,
      ...(config.genericResources.length > 0 && { genericResources: config.genericResources }),
      engineVersion: facts.agentVersion,
      engineLabels: Object.assign(
        {},
        ...runtimes.descriptions.map(({ labels }) => labels),
        facts.labels,
      ),
      plugins: pluginsOf(runtimes),
    },
    availability,
    address: addresses.advertise.address,
    dataPathAddress: addresses.dataPathAddress,
    gossipAddress: addresses.advertise.address,
    gossipPort: config.gossipPort,
  };
}

/** Networks are the agent's own, whatever an engine has. */
function pluginsOf({
  descriptions: runtimes,
  kinds,
}: NodeRuntimes): NodeRegistration['description']['plugins'] {
  const plugins = [
    ...['bridge', 'host', 'null', 'overlay'].map((name) => ({ type: 'Network', name })),
    ...kinds.map((name) => ({ type: RUNTIME_PLUGIN, name })),
    ...runtimes.flatMap((runtime) => runtime.plugins.filter(({ type }) => type !== 'Network')),
  ];
  const unique = new Map(plugins.map((one) => [`${one.type}/${one.name}`, one]));
  return [...unique.keys()].sort().flatMap((key) => unique.get(key) ?? []);
}
