import { composeError } from './error.js';
import type { ComposePort } from './model.js';

/** As Docker's API has it. */
export interface PortJson {
  readonly Name?: string;
  readonly Protocol: string;
  readonly TargetPort: number;
  readonly PublishedPort?: number;
  readonly PublishMode: string;
}

const PORT_MAX = 65_535;
const RANGE_PORTS_MAX = 16_384;

/**
 * `80`, `8080:80`, `8000-8010:80-90/udp`, `127.0.0.1:8080:80`, or the long form; one entry for each port.
 *
 * @param warn Is told that an address to bind to is left out, which a swarm's port does not have.
 */
export function convertPort(
  port: ComposePort,
  where: string,
  warn: (message: string) => void,
): readonly PortJson[] {
  if (typeof port !== 'string') return convertLong(port, where, warn);
  const [numbers = '', protocol = 'tcp', ...more] = port.split('/');
  if (more.length > 0) throw composeError(where, `'${port}' is no port`);
  const { address, rest } = splitAddress(numbers);
  if (address !== undefined)
    warn(
      `${where}: the address ${address} is left out: label shoal.publish.bind says where to listen`,
    );
  const [first = '', second, ...others] = rest.split(':');
  if (others.length > 0) throw composeError(where, `'${port}' is no port`);
  const target = parseRange(second ?? first, where);
  const published = second === undefined || first === '' ? undefined : parseRange(first, where);
  return pair(target, published, { protocol, mode: 'ingress' }, where);
}

function splitAddress(text: string): { readonly address?: string; readonly rest: string } {
  const v6 = /^\[(?<address>[^\]]+)\]:(?<rest>.*)$/.exec(text)?.groups;
  if (v6 !== undefined) return { address: v6['address'] ?? '', rest: v6['rest'] ?? '' };
  const v4 = /^(?<address>\d+\.\d+\.\d+\.\d+):(?<rest>.*)$/.exec(text)?.groups;
  if (v4 !== undefined) return { address: v4['address'] ?? '', rest: v4['rest'] ?? '' };
  return { rest: text };
}

interface PortRange {
  readonly first: number;
  readonly count: number;
}

function parseRange(text: string, where: string): PortRange {
  const match = /^(?<from>\d+)(-(?<to>\d+))?$/.exec(text)?.groups;
  const first = Number(match?.['from']);
  const last = Number(match?.['to'] ?? match?.['from']);
  const isRange = match !== undefined && first >= 1 && last >= first && last <= PORT_MAX;
  if (!isRange) throw composeError(where, `'${text}' is no port: they go from 1 to ${PORT_MAX}`);
  if (last - first >= RANGE_PORTS_MAX)
    throw composeError(where, `'${text}' has more than ${RANGE_PORTS_MAX} ports`);
  return { first, count: last - first + 1 };
}

function pair(
  target: PortRange,
  published: PortRange | undefined,
  rest: { readonly protocol: string; readonly mode: string; readonly name?: string },
  where: string,
): readonly PortJson[] {
  if (published !== undefined && published.count !== target.count)
    throw composeError(where, 'both ranges of ports must have as many ports');
  return Array.from({ length: target.count }, (_, at) => ({
    ...(rest.name !== undefined && { Name: rest.name }),
    Protocol: rest.protocol,
    TargetPort: target.first + at,
    ...(published !== undefined && { PublishedPort: published.first + at }),
    PublishMode: rest.mode,
  }));
}

function convertLong(
  port: Exclude<ComposePort, string>,
  where: string,
  warn: (message: string) => void,
): readonly PortJson[] {
  const { target, published, protocol = 'tcp', mode = 'ingress', name, host_ip: address } = port;
  if (address !== undefined)
    warn(`${where}: host_ip ${address} is left out: label shoal.publish.bind says where to listen`);
  const rest = { protocol, mode, ...(name !== undefined && { name }) };
  const range = published === undefined ? undefined : parseRange(published, where);
  return pair(parseRange(String(target), where), range, rest, where);
}
