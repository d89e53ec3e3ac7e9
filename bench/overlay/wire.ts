import { run, tryRun } from '../support/run.js';

/**
 * How the veth that joins two hosts treats large packets.
 *
 * `wire`: segmentation offloads off at both ends, so that each datagram crosses as one frame, as on
 * a NIC without tunnel offload. `pass-through`: the veth carries super-frames of 64 KiB whole, which
 * flatters whoever never segments.
 */
export type WireMode = 'wire' | 'pass-through';

/** Receive aggregation of the underlay: on, as every NIC driver has it; off, as veth has it unless told. */
export type Gro = 'on' | 'off';

const SEGMENTATION = ['tso', 'gso', 'tx-udp-segmentation'];

/** Sets the offloads of `device` in `netns`. */
export function setOffloads(netns: string, device: string, mode: WireMode, gro: Gro): void {
  const value = mode === 'wire' ? 'off' : 'on';
  const ethtool = (...args: string[]) =>
    tryRun('nsenter', `--net=/run/netns/${netns}`, '--', 'ethtool', '-K', device, ...args);
  for (const name of SEGMENTATION) ethtool(name, value);
  ethtool('gro', gro);
}

export function addNetns(name: string): void {
  run('ip', 'netns', 'add', name);
  run('ip', '-n', name, 'link', 'set', 'lo', 'up');
}

export function deleteNetns(name: string): void {
  tryRun('ip', 'netns', 'del', name);
}

/** A veth between two namespaces, up and addressed. */
export function joinByVeth(
  a: { netns: string; device: string; address?: string; mtu?: number },
  b: { netns: string; device: string; address?: string; mtu?: number },
): void {
  run(
    'ip',
    'link',
    'add',
    a.device,
    'netns',
    a.netns,
    'type',
    'veth',
    'peer',
    'name',
    b.device,
    'netns',
    b.netns,
  );
  for (const end of [a, b]) {
    if (end.mtu !== undefined)
      run('ip', '-n', end.netns, 'link', 'set', end.device, 'mtu', String(end.mtu));
    if (end.address !== undefined)
      run('ip', '-n', end.netns, 'address', 'add', end.address, 'dev', end.device);
    run('ip', '-n', end.netns, 'link', 'set', end.device, 'up');
  }
}
