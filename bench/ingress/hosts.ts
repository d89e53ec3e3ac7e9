import { addNetns, deleteNetns, joinByVeth, setOffloads, type WireMode } from '../overlay/wire.js';
import { run } from '../support/run.js';

/** Backends are so many addresses of one host: what is balanced has somewhere to go. */
const BACKENDS = 3;

/** A client's host, a node that takes connections, and a host with backends, in a row. */
export interface Hosts {
  readonly client: string;
  readonly node: string;
  readonly back: string;
  /** The node's, towards the client. */
  readonly nodeAddress: string;
  readonly backends: readonly string[];
  setWire(mode: WireMode): void;
  close(): void;
}

export function openHosts(prefix: string): Hosts {
  const [client, node, back] = [`${prefix}c`, `${prefix}n`, `${prefix}b`];
  const all = [client, node, back];
  const close = () => all.forEach(deleteNetns);
  try {
    all.forEach(addNetns);
    joinByVeth(
      { netns: client, device: 'eth0', address: '10.91.1.2/24' },
      { netns: node, device: 'eth0', address: '10.91.1.1/24' },
    );
    joinByVeth(
      { netns: node, device: 'eth1', address: '10.91.2.1/24' },
      { netns: back, device: 'eth0', address: '10.91.2.2/24' },
    );
    const backends = Array.from({ length: BACKENDS }, (_, i) => `10.91.2.${2 + i}`);
    for (const address of backends.slice(1))
      run('ip', '-n', back, 'address', 'add', `${address}/24`, 'dev', 'eth0');
    run('ip', '-n', client, 'route', 'add', 'default', 'via', '10.91.1.1');
    run('ip', '-n', back, 'route', 'add', 'default', 'via', '10.91.2.1');
    const sysctl = (netns: string, ...settings: string[]) =>
      run('nsenter', `--net=/run/netns/${netns}`, '--', 'sysctl', '-qw', ...settings);
    for (const netns of all)
      sysctl(netns, 'net.ipv4.ip_local_port_range=1024 65000', 'net.core.somaxconn=8192');
    sysctl(node, 'net.ipv4.ip_forward=1');
    const setWire = (mode: WireMode) => {
      for (const [netns, device] of [
        [client, 'eth0'],
        [node, 'eth0'],
        [node, 'eth1'],
        [back, 'eth0'],
      ] as const)
        setOffloads(netns, device, mode, mode === 'wire' ? 'on' : 'off');
    };
    return { client, node, back, nodeAddress: '10.91.1.1', backends, setWire, close };
  } catch (error) {
    close();
    throw error;
  }
}
