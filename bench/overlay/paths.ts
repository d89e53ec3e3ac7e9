import { run } from '../support/run.js';
import { addNetns, deleteNetns, type Gro, joinByVeth, setOffloads, type WireMode } from './wire.js';

/** One way for two applications on two hosts to reach each other: what the bench compares. */
export interface DataPath {
  readonly name: string;
  readonly title: string;
  /** Namespace of the client and of the server. */
  readonly client: string;
  readonly server: string;
  readonly serverAddress: string;
  /** Processes whose CPU time at rest is of interest. */
  readonly pids: readonly number[];
  setWire(mode: WireMode, gro: Gro): void;
  close(): Promise<void> | void;
}

/** Two applications directly on the ends of the veth: what the wire itself can carry. */
export function bareVeth(prefix: string): DataPath {
  const [client, server] = [`${prefix}-bc`, `${prefix}-bs`];
  for (const name of [client, server]) addNetns(name);
  joinByVeth(
    { netns: client, device: 'eth0', address: '10.90.0.1/24' },
    { netns: server, device: 'eth0', address: '10.90.0.2/24' },
  );
  return {
    name: 'veth',
    title: 'bare veth',
    client,
    server,
    serverAddress: '10.90.0.2',
    pids: [],
    setWire: (mode, gro) => {
      for (const name of [client, server]) setOffloads(name, 'eth0', mode, gro);
    },
    close: () => [client, server].forEach(deleteNetns),
  };
}

const KERNEL_VNI = '4097';
const OVERLAY_MTU = 1450;

/** The kernel's vxlan device as Docker wires it: application, veth, bridge, vxlan, underlay. */
export function kernelVxlan(prefix: string): DataPath {
  const hosts = [`${prefix}-k1`, `${prefix}-k2`] as const;
  const apps = [`${prefix}-kc`, `${prefix}-ks`] as const;
  for (const name of [...hosts, ...apps]) addNetns(name);
  joinByVeth(
    { netns: hosts[0], device: 'eth0', address: '10.91.0.1/24' },
    { netns: hosts[1], device: 'eth0', address: '10.91.0.2/24' },
  );
  const macs = ['02:42:0a:5c:00:01', '02:42:0a:5c:00:02'] as const;
  for (const i of [0, 1] as const) {
    const host = hosts[i];
    const local = `10.91.0.${i + 1}`;
    const remote = `10.91.0.${2 - i}`;
    run('ip', '-n', host, 'link', 'add', 'br0', 'type', 'bridge');
    run(
      'ip',
      '-n',
      host,
      'link',
      'add',
      'vx0',
      'type',
      'vxlan',
      'id',
      KERNEL_VNI,
      'local',
      local,
      'dstport',
      '4789',
      'nolearning',
      'dev',
      'eth0',
    );
    run('ip', '-n', host, 'link', 'set', 'vx0', 'mtu', String(OVERLAY_MTU), 'master', 'br0', 'up');
    run('ip', '-n', host, 'link', 'set', 'br0', 'up');
    joinByVeth(
      { netns: apps[i], device: 'eth0', address: `10.92.0.${i + 1}/24`, mtu: OVERLAY_MTU },
      { netns: host, device: 'app0', mtu: OVERLAY_MTU },
    );
    run('ip', '-n', host, 'link', 'set', 'app0', 'master', 'br0');
    run('ip', '-n', apps[i], 'link', 'set', 'eth0', 'address', macs[i]);
    run('bridge', '-n', host, 'fdb', 'append', macs[1 - i] as string, 'dev', 'vx0', 'dst', remote);
    run('bridge', '-n', host, 'fdb', 'append', '00:00:00:00:00:00', 'dev', 'vx0', 'dst', remote);
  }
  return {
    name: 'kernel',
    title: 'kernel vxlan, bridge and veth',
    client: apps[0],
    server: apps[1],
    serverAddress: '10.92.0.2',
    pids: [],
    setWire: (mode, gro) => {
      for (const name of hosts) setOffloads(name, 'eth0', mode, gro);
    },
    close: () => [...apps, ...hosts].forEach(deleteNetns),
  };
}
