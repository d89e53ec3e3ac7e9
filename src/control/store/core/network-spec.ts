import type { NetworkSpec } from '../../../base/swarm-model.js';
import { invalid, unsupported } from './refuse.js';

/** First VNI: the ingress network's. */
export const INGRESS_VNI = 4096;
const VNI_MAX = 2 ** 24 - 1;
const NAME = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9])*$/;
const NAME_CHARS_MAX = 63;
/** Every node is told of every network, so none may be huge. */
const SPEC_CHARS_MAX = 65_536;
const MTU_MIN_BYTES = 68;
const MTU_MAX_BYTES = 65_535;

export const OPTION_MTU = 'com.docker.network.driver.mtu';
export const OPTION_VNI_LIST = 'com.docker.network.driver.overlay.vxlanid_list';
export const OPTION_ENCRYPTED = 'encrypted';

/** What the options of a network say. */
export interface NetworkOptions {
  readonly mtuBytes?: number;
  readonly vni?: number;
  readonly isSealed?: true;
}

/** Words of Go's strconv.ParseBool; an option without a value comes as an empty text, and is on. */
const ON = new Set(['', '1', 't', 'T', 'true', 'TRUE', 'True']);
const OFF = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False']);

/**
 * Judges everything about a network that needs no look at other networks.
 * @throws SwarmError `SWARM_INVALID` or `SWARM_UNSUPPORTED`, with one sentence.
 */
export function checkNetworkSpec(spec: NetworkSpec): NetworkOptions {
  if (JSON.stringify(spec).length > SPEC_CHARS_MAX)
    throw invalid('the description of the network is too large: use fewer or shorter labels');
  if (spec.name === '') throw invalid('name must be provided');
  if (spec.name.length > NAME_CHARS_MAX)
    throw invalid(`name must be ${NAME_CHARS_MAX} characters or fewer`);
  if (!NAME.test(spec.name)) throw invalid('name must be valid as a DNS name component');
  if (spec.driver !== '' && spec.driver !== 'overlay')
    throw invalid(
      `driver ${spec.driver} cannot make a network for the whole swarm: use the overlay driver`,
    );
  if (spec.ipamDriver !== '' && spec.ipamDriver !== 'default')
    throw invalid(`IPAM driver ${spec.ipamDriver} is unknown: use the default one`);
  if (spec.ingress && spec.attachable) throw invalid('ingress network cannot be attachable');
  if (spec.ingress && spec.internal) throw invalid('ingress network cannot be internal');
  return {
    ...mtuOf(spec.driverOptions[OPTION_MTU]),
    ...vniOf(spec.driverOptions[OPTION_VNI_LIST]),
    ...sealedOf(spec.driverOptions[OPTION_ENCRYPTED]),
  };
}

function sealedOf(text: string | undefined): { isSealed?: true } {
  if (text === undefined || OFF.has(text)) return {};
  if (!ON.has(text))
    throw invalid(`invalid value ${text} of option ${OPTION_ENCRYPTED}: say true or false`);
  return { isSealed: true };
}

function mtuOf(text: string | undefined): { mtuBytes?: number } {
  if (text === undefined) return {};
  const mtuBytes = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(mtuBytes >= MTU_MIN_BYTES && mtuBytes <= MTU_MAX_BYTES))
    throw invalid(
      `invalid MTU ${text}: ${OPTION_MTU} must be a whole number from ${MTU_MIN_BYTES} to ${MTU_MAX_BYTES}`,
    );
  return { mtuBytes };
}

function vniOf(text: string | undefined): { vni?: number } {
  if (text === undefined) return {};
  if (text.includes(','))
    throw unsupported(`${OPTION_VNI_LIST} must name one VNI: all subnets of a network share it`);
  const vni = /^\d{1,8}$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (!(vni >= 1 && vni <= VNI_MAX))
    throw invalid(`invalid VNI ${text}: ${OPTION_VNI_LIST} must be a number from 1 to ${VNI_MAX}`);
  return { vni };
}

/** Lowest free VNI from `first` on; there are more of them than networks could ever be. */
export function lowestFreeVni(first: number, taken: ReadonlySet<number>): number {
  let vni = first;
  while (taken.has(vni)) vni++;
  return vni;
}
