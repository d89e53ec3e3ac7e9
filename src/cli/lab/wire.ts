import { ADDRESS_PREFIX_BITS, ADDRESS6_PREFIX_BITS, type LabNode, type LabState } from './state.js';
import { netnsExists, netnsNames, netnsPath, runIp, runTool } from './tools.js';

/**
 * The underlay of a lab: every node's `eth0` is a veth whose other end is a port of a bridge, in a
 * namespace of its own so that this machine's own network is never touched. A partition is several
 * bridges. (A direct wire is one veth pair between two nodes.)
 */
const NODE_LINK = 'eth0';
const BRIDGE_OPTIONS = 'type bridge stp_state 0 forward_delay 0 mcast_snooping 0';

function wireNetnsOf(state: LabState): string {
  return `${state.prefix}-wire`;
}

/** The wire's end of a node's veth. */
function portOf(node: LabNode): string {
  return `p-${node.name}`;
}

function bridgeOf(group: number): string {
  return `br${group}`;
}

/** Names of the links of a namespace. */
async function linksOf(netns: string): Promise<ReadonlySet<string>> {
  const links = JSON.parse(await runTool('ip', ['-n', netns, '-j', 'link', 'show'])) as {
    ifname: string;
  }[];
  return new Set(links.map((link) => link.ifname));
}

/** Makes what is missing of namespaces, bridge, veths and addresses. */
export async function raiseWire(state: LabState): Promise<void> {
  const { wire, wireOffloads } = state.shape;
  const wanted = [
    ...(wire === 'bridge' ? [wireNetnsOf(state)] : []),
    ...state.nodes.map((node) => node.netns),
  ];
  await runIp(
    undefined,
    wanted.filter((name) => !netnsExists(name)).map((name) => `netns add ${name}`),
  );
  if (wire === 'bridge') await raiseBridge(state);
  else await raisePair(state);
  for (const node of state.nodes) await configureNode(state, node);
  if (wireOffloads === 'off') await stopOffloads(state);
}

async function raiseBridge(state: LabState): Promise<void> {
  const netns = wireNetnsOf(state);
  const links = await linksOf(netns);
  const { mtuBytes } = state.shape;
  const lines = ['link set dev lo up'];
  if (!links.has(bridgeOf(0))) lines.push(`link add ${bridgeOf(0)} ${BRIDGE_OPTIONS}`);
  lines.push(`link set dev ${bridgeOf(0)} up`);
  for (const node of state.nodes) {
    if (links.has(portOf(node))) continue;
    const peer = `type veth peer name ${NODE_LINK} mtu ${mtuBytes} netns ${node.netns}`;
    lines.push(`link add ${portOf(node)} mtu ${mtuBytes} ${peer}`);
    lines.push(`link set dev ${portOf(node)} master ${bridgeOf(0)} up`);
  }
  await runIp(netns, lines);
}

async function raisePair(state: LabState): Promise<void> {
  const [a, b] = state.nodes as readonly [LabNode, LabNode];
  if ((await linksOf(a.netns)).has(NODE_LINK)) return;
  const { mtuBytes } = state.shape;
  const peer = `type veth peer name ${NODE_LINK} mtu ${mtuBytes} netns ${b.netns}`;
  await runIp(a.netns, [`link add ${NODE_LINK} mtu ${mtuBytes} ${peer}`]);
}

/** No default route: a node reaches the other nodes and nothing of this machine. */
async function configureNode(state: LabState, node: LabNode): Promise<void> {
  const lines = [
    'link set dev lo up',
    `link set dev ${NODE_LINK} mtu ${state.shape.mtuBytes} up`,
    `address replace ${node.address}/${ADDRESS_PREFIX_BITS} dev ${NODE_LINK}`,
  ];
  if (node.address6 !== undefined) {
    lines.push(`address replace ${node.address6}/${ADDRESS6_PREFIX_BITS} dev ${NODE_LINK} nodad`);
  }
  await runIp(node.netns, lines);
}

/** Segmentation by the sender's kernel before the wire. Receiving side and checksums stay as they are. */
async function stopOffloads(state: LabState): Promise<void> {
  const ends = state.nodes.map((node) => [node.netns, NODE_LINK] as const);
  const ports =
    state.shape.wire === 'bridge'
      ? state.nodes.map((node) => [wireNetnsOf(state), portOf(node)] as const)
      : [];
  for (const [netns, link] of [...ends, ...ports]) {
    const features = ['tso', 'off', 'gso', 'off', 'tx-udp-segmentation', 'off'];
    await runTool('nsenter', [`--net=${netnsPath(netns)}`, 'ethtool', '-K', link, ...features]);
  }
}

/**
 * Gives each group a bridge of its own; what belongs to no group does not exist. The largest stays on the first:
 * ports move one after the other, and those that are to stay together would lose a packet meanwhile.
 */
export async function partitionWire(
  state: LabState,
  groups: readonly (readonly string[])[],
): Promise<void> {
  const netns = wireNetnsOf(state);
  const links = await linksOf(netns);
  const lines: string[] = [];
  const bySize = [...groups].sort((a, b) => b.length - a.length);
  for (const [index, group] of bySize.entries()) {
    const bridge = bridgeOf(index);
    if (!links.has(bridge)) lines.push(`link add ${bridge} ${BRIDGE_OPTIONS}`);
    lines.push(`link set dev ${bridge} up`);
    for (const node of state.nodes) {
      if (group.includes(node.name)) lines.push(`link set dev ${portOf(node)} master ${bridge}`);
    }
  }
  await runIp(netns, lines);
}

/** One bridge for all again. */
export async function healWire(state: LabState): Promise<void> {
  const netns = wireNetnsOf(state);
  const links = await linksOf(netns);
  const ports = state.nodes.map((n) => `link set dev ${portOf(n)} master ${bridgeOf(0)}`);
  const spare = [...links].filter((name) => /^br\d+$/.test(name) && name !== bridgeOf(0));
  await runIp(netns, [...ports, ...spare.map((name) => `link delete dev ${name}`)]);
}

/** Deletes every namespace of the prefix, also those of an earlier lab that nobody took down. */
export async function removeWire(prefix: string): Promise<void> {
  for (const name of netnsNames(`${prefix}-`)) await runTool('ip', ['netns', 'delete', name]);
}

/** Ids of the processes in a namespace. */
export async function pidsIn(netns: string): Promise<readonly number[]> {
  const text = await runTool('ip', ['netns', 'pids', netns]);
  return text.split('\n').filter(Boolean).map(Number);
}
