/** `token://…`: a name for a group of nodes, which each of them bears as a label of its engine. */
export interface Discovery {
  readonly token: string;
}

const TOKEN = /^[0-9a-f]{32}$/;
/** `token://HOST/PATH/TOKEN` named another server, which is not needed here: the nodes know it themselves. */
const URL = /^token:\/\/(?:[^/]+\/)*(?<token>[^/]+)\/?$/;

const LABEL_PREFIX = 'com.docker.shoal.discovery.';

/** @returns Why it is none. */
export function parseDiscovery(text: string): Discovery | string {
  const scheme = /^(?<scheme>[a-z]+):\/\//.exec(text)?.groups?.['scheme'];
  if (scheme !== undefined && scheme !== 'token')
    return `discovery by ${scheme}:// is not there: discovery is inside the cluster, whose nodes are known; use token://TOKEN, as shoal swarm create prints one`;
  const token = URL.exec(text)?.groups?.['token'] ?? text;
  if (!TOKEN.test(token))
    return `'${text}' is no discovery token: it is token:// and 32 hexadecimal digits, as shoal swarm create prints them`;
  return { token };
}

/** Label of a node's engine that says by which address it is in the group. */
export const discoveryLabel = (token: string): string => `${LABEL_PREFIX}${token}`;

export const isDiscoveryLabel = (label: string): boolean => label.startsWith(LABEL_PREFIX);
