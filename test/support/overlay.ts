import type { LocalPort, OverlayInputs } from '../../src/dataplane/overlay/core/derive.js';
import type { EndpointRecord } from '../../src/dataplane/overlay/wire/endpoint-record.js';

/**
 * Overlay tables for tests: node `a` at 192.0.2.1 is this node, others are single letters whose
 * character code is the last part of their underlay address; endpoint n has 10.0.1.n, fd00:1::n.
 */
export const NETWORK_ID = 'network-one';

export function macOfEndpoint(n: number): string {
  return `02:42:0a:00:01:${n.toString(16).padStart(2, '0')}`;
}

export function addressesOf(n: number): readonly string[] {
  return [`10.0.1.${n}/24`, `fd00:1::${n.toString(16)}/64`];
}

export function vtepAddressOf(owner: string): string {
  return owner === 'a' ? '192.0.2.1' : `192.0.2.${owner.charCodeAt(0)}`;
}

export function endpointOf(
  owner: string,
  n: number,
  change: Partial<EndpointRecord> = {},
): { owner: string; record: EndpointRecord } {
  return {
    owner,
    record: {
      version: 1,
      networkId: NETWORK_ID,
      vni: 4097,
      mac: macOfEndpoint(n),
      addresses: addressesOf(n),
      name: `task-${n}`,
      aliases: [],
      vtepAddress: vtepAddressOf(owner),
      vtepPort: 4789,
      createdAtMs: 1000,
      ...change,
    },
  };
}

export function portOf(n: number, change: Partial<LocalPort> = {}): LocalPort {
  return {
    id: `port-${n}`,
    networkId: NETWORK_ID,
    mac: macOfEndpoint(n),
    addresses: addressesOf(n),
    createdAtMs: 1000,
    ...change,
  };
}

export function inputsOf(change: Partial<OverlayInputs>): OverlayInputs {
  return {
    self: { id: 'a', vtep: { address: '192.0.2.1', udpPort: 4789 } },
    ownAddresses: [],
    family: 'ipv4',
    underlayMtuBytes: 1500,
    members: ['a', 'b', 'c', 'd'].map((id) => ({ id, state: 'alive' })),
    networks: [
      {
        id: NETWORK_ID,
        vni: 4097,
        subnets: [{ subnet: '10.0.1.0/24' }, { subnet: 'fd00:1::/64' }],
      },
    ],
    endpoints: [],
    ports: [],
    staticVteps: [],
    ...change,
  };
}
