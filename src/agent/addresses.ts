import ipaddr from 'ipaddr.js';
import { SwarmError } from '../base/swarm-error.js';

/** An address of this host, as `os.networkInterfaces()` reports it. */
export interface HostAddress {
  readonly interfaceName: string;
  readonly address: string;
  readonly family: 'IPv4' | 'IPv6';
  readonly loopback: boolean;
}

export interface HostPort {
  readonly address: string;
  readonly port: number;
}

export const CONTROL_PORT = 2377;

type Kind = 'advertise' | 'listen' | 'dataPath';

const OPTION_OF: Readonly<Record<Kind, string>> = {
  advertise: '--advertise-addr',
  listen: '--listen-addr',
  dataPath: '--data-path-addr',
};

function badAddress(kind: Kind | 'remote', text: string, why: string): SwarmError {
  return new SwarmError({ code: 'SWARM_BAD_ADDRESS', kind }, `'${text}': ${why}`);
}

/** Canonical text of an IP address, zone removed; `undefined` if it is none. */
export function canonicalAddress(text: string): string | undefined {
  const bare = text.replace(/%.*$/, '');
  if (!ipaddr.isValid(bare) || (!bare.includes(':') && !ipaddr.IPv4.isValidFourPartDecimal(bare)))
    return undefined;
  return ipaddr.process(bare).toString();
}

/** Splits `host`, `host:port`, `[v6]:port`, bare IPv6. `port` is `undefined` when not given, NaN when malformed. */
export function splitHostPort(text: string): { host: string; port: number | undefined } {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  if (bracketed)
    return {
      host: bracketed[1] ?? '',
      port: bracketed[2] === undefined ? undefined : parsePort(bracketed[2]),
    };
  const colons = text.split(':').length - 1;
  if (colons !== 1) return { host: text, port: undefined };
  const [host = '', port = ''] = text.split(':');
  return { host, port: parsePort(port) };
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  return port >= 1 && port <= 65_535 ? port : Number.NaN;
}

/** `address:port`, with brackets where IPv6 needs them. */
export function formatHostPort({ address, port }: HostPort): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The address of an interface: its first global IPv4, else its first global IPv6. */
function addressOfInterface(
  name: string,
  kind: Kind,
  host: readonly HostAddress[],
): string | undefined {
  const usable = host.filter((a) => a.interfaceName === name && !a.address.startsWith('fe80:'));
  const v4 = usable.filter((a) => a.family === 'IPv4');
  const candidates = v4.length > 0 ? v4 : usable;
  if (candidates.length > 1) {
    throw new SwarmError(
      { code: 'SWARM_AMBIGUOUS_ADDRESS', candidates: candidates.map((a) => a.address) },
      `interface ${name} has more than one address (${candidates.map((a) => a.address).join(' and ')}): name one with ${OPTION_OF[kind]}`,
    );
  }
  return candidates[0]?.address;
}

/**
 * Reads one of the address options of `swarm init` and `swarm join`: an IP address, an interface
 * name, each with or without a port.
 *
 * @throws SwarmError SWARM_BAD_ADDRESS, SWARM_AMBIGUOUS_ADDRESS
 */
export function resolveAddress(
  text: string,
  kind: Kind,
  defaultPort: number,
  host: readonly HostAddress[],
): HostPort {
  const { host: name, port } = splitHostPort(text);
  if (Number.isNaN(port)) throw badAddress(kind, text, 'the port must be a number from 1 to 65535');
  const address = canonicalAddress(name) ?? addressOfInterface(name, kind, host);
  if (address === undefined)
    throw badAddress(kind, text, 'is neither an IP address nor an interface of this host');
  if (kind !== 'listen' && isUnspecified(address))
    throw badAddress(kind, text, 'must be a non-zero address');
  return { address, port: port ?? defaultPort };
}

export function isUnspecified(address: string): boolean {
  return address === '0.0.0.0' || address === '::';
}

/** Where this host itself reaches what listens there. */
export function localAddressOf({ address, port }: HostPort): HostPort {
  if (!isUnspecified(address)) return { address, port };
  return { address: address === '::' ? '::1' : '127.0.0.1', port };
}

/** The address to advertise when the user names none: the only one there is. */
export function defaultAdvertiseAddress(listen: HostPort, host: readonly HostAddress[]): string {
  if (!isUnspecified(listen.address)) return listen.address;
  const global = host.filter((a) => !a.loopback && !a.address.startsWith('fe80:'));
  const v4 = global.filter((a) => a.family === 'IPv4');
  const candidates = v4.length > 0 ? v4 : global;
  if (candidates.length === 1) return candidates[0]?.address ?? '';
  const addresses = candidates.map((a) => a.address);
  throw new SwarmError(
    { code: 'SWARM_AMBIGUOUS_ADDRESS', candidates: addresses },
    addresses.length === 0
      ? 'this system has no address to advertise: specify one with --advertise-addr'
      : `could not choose an IP address to advertise since this system has multiple addresses (${candidates.map((a) => `${a.address} on ${a.interfaceName}`).join(', ')}) - specify one with --advertise-addr`,
  );
}

/** Reads the address of a manager given to `swarm join`; host names are left to the resolver. */
export function parseRemote(text: string): HostPort {
  const { host, port } = splitHostPort(text);
  if (host === '' || Number.isNaN(port))
    throw badAddress('remote', text, 'must be HOST:PORT of a manager');
  return { address: canonicalAddress(host) ?? host, port: port ?? CONTROL_PORT };
}
