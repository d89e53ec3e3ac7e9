import ipaddr from 'ipaddr.js';

/** As many as the C library asks (`MAXNS`). */
export const UPSTREAMS_MAX = 3;

/** Our own address in every namespace: never an upstream, or queries would go round in circles. */
export const NAME_SERVER_ADDRESS = '127.0.0.11';

/**
 * The name servers of a `resolv.conf`, resolv.conf(5): the first three, without our own address and
 * without what is no address. An IPv6 one may name its interface (`fe80::1%eth0`).
 */
export function parseUpstreams(resolvConf: string): readonly string[] {
  const found: string[] = [];
  for (const line of resolvConf.split('\n')) {
    const address = /^\s*nameserver\s+(\S+)/.exec(line)?.[1];
    if (address === undefined || address === NAME_SERVER_ADDRESS) continue;
    if (ipaddr.isValid(address) && !found.includes(address)) found.push(address);
  }
  return found.slice(0, UPSTREAMS_MAX);
}
