import { z } from 'zod';
import type { NetworkSpec, SubnetSpec } from '../../base/swarm-model.js';
import { badRequest } from './errors.js';
import {
  flag,
  isAddress,
  isCidr,
  labels,
  listOf,
  objectOf,
  read,
  refuseUnsupported,
  text,
} from './fields.js';

export const SUBNETS_MAX = 64;

const subnet = z.object({
  Subnet: text,
  Gateway: text,
  IPRange: text,
  AuxiliaryAddresses: labels,
});

const networkBody = z.object({
  Name: z.string().min(1, 'a network needs a name'),
  Driver: text,
  Scope: text,
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: flag,
  ConfigFrom: objectOf({ Network: text }),
  EnableIPv6: flag,
  Options: labels,
  Labels: labels,
  IPAM: objectOf({
    Driver: text,
    Options: labels,
    Config: listOf(subnet, SUBNETS_MAX),
  }),
});

function subnetSpecOf(config: z.output<typeof subnet>): SubnetSpec {
  const { Subnet, Gateway, IPRange, AuxiliaryAddresses } = config;
  if (!isCidr(Subnet)) {
    throw badRequest(`invalid subnet ${Subnet || '(none)'}: not an address block in CIDR notation`);
  }
  if (IPRange !== '' && !isCidr(IPRange)) {
    throw badRequest(`invalid IP range ${IPRange}: not an address block in CIDR notation`);
  }
  // Old clients send the gateway with the length of the prefix behind it.
  const gateway = Gateway.split('/', 1)[0] ?? '';
  if (gateway !== '' && !isAddress(gateway)) {
    throw badRequest(`invalid gateway ${Gateway}: not an IP address`);
  }
  for (const [name, address] of Object.entries(AuxiliaryAddresses)) {
    if (!isAddress(address))
      throw badRequest(`invalid auxiliary address ${name}=${address}: not an IP address`);
  }
  return {
    subnet: Subnet,
    ...(gateway === '' ? {} : { gateway }),
    ...(IPRange === '' ? {} : { ipRange: IPRange }),
    ...(Object.keys(AuxiliaryAddresses).length === 0 ? {} : { auxAddresses: AuxiliaryAddresses }),
  };
}

export function readNetworkSpec(body: unknown): NetworkSpec {
  const network = read(networkBody, body);
  const driver = network.Driver || 'overlay';
  refuseUnsupported(
    driver !== 'overlay',
    `shoal makes overlay networks only, not "${driver}": use --driver overlay`,
  );
  refuseUnsupported(
    network.Scope !== '' && network.Scope !== 'swarm',
    `shoal makes networks of scope swarm only, not "${network.Scope}"`,
  );
  refuseUnsupported(
    network.ConfigOnly || (network.ConfigFrom?.Network ?? '') !== '',
    'configuration-only networks are not supported',
  );
  return {
    name: network.Name,
    labels: network.Labels,
    driver,
    driverOptions: network.Options,
    attachable: network.Attachable,
    internal: network.Internal,
    ingress: network.Ingress,
    ipv6: network.EnableIPv6,
    ipamDriver: network.IPAM?.Driver || 'default',
    ipamOptions: network.IPAM?.Options ?? {},
    ipam: (network.IPAM?.Config ?? []).map(subnetSpecOf),
  };
}
