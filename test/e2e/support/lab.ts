import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AgentClient } from '../../../src/cli/agent-client.js';
import { Lab, type LabUpOptions } from '../../../src/cli/lab/lab.js';
import { statesAtManager } from '../../../src/cli/lab/swarm.js';
import { Netns } from './netns.js';
import { type Finished, hasTool, must, run, type Teardown, until } from './process.js';

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const program = join(root, 'dist/main.js');

/** The built `shoal`. */
export const shoalArgv: readonly string[] = [process.execPath, program];

/** Why a lab cannot be made here, for tap's `skip`; `false` if it can. */
export function skipUnless(...tools: readonly string[]): string | false {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'needs root on Linux';
  if (!existsSync(program)) return 'needs a build';
  const missing = ['ip', 'nsenter', 'ping', ...tools].filter((tool) => !hasTool(tool));
  return missing.length === 0 ? false : `needs ${missing.join(', ')}`;
}

export interface Member {
  readonly id: string;
  readonly address: string;
  readonly state: 'alive' | 'suspect' | 'dead' | 'left';
  readonly incarnation: number;
}

export interface NetworkStatus {
  readonly id: string;
  readonly name: string;
  readonly vni: number;
  readonly endpoints: number;
  readonly recordsDigest: string;
  readonly tablesDigest: string;
}

export interface Attached {
  readonly id: string;
  readonly networkName: string;
  readonly ifname: string;
  readonly addresses: readonly string[];
  readonly mac: string;
  readonly name: string;
  readonly mtuBytes: number;
  readonly state: string;
}

/** `shoal status --json` of a node that is in a swarm. */
export interface Status {
  readonly state: string;
  readonly node: string;
  readonly managerReachable: boolean;
  readonly dataPath: { readonly driver: string; readonly underlayMtuBytes: number };
  readonly members: readonly Member[];
  readonly networks: readonly NetworkStatus[];
  readonly attachments: readonly Attached[];
  readonly counters: {
    readonly io: Readonly<Record<string, number>>;
    readonly drops: Readonly<Record<string, number>>;
    readonly replies: Readonly<Record<string, number>>;
    readonly totals: Readonly<Record<string, number>>;
  };
  readonly vipOutliers: readonly {
    readonly service: string;
    readonly network: string;
    readonly ejections: number;
    readonly passedOver: readonly string[];
  }[];
  readonly gossip: {
    readonly drops: Readonly<Record<string, number>>;
    readonly members: Readonly<Record<string, number>>;
  };
}

export interface AttachOptions {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly ip?: string;
}

/** `SHOAL_E2E_DRIVER=portable` tries everything on the other packet driver. */
export const isPortable = process.env['SHOAL_E2E_DRIVER'] === 'portable';

const labsAlive = new Set<string>();
const foldersAlive = new Set<string>();

// A file that is ended from outside has no teardown.
process.on('exit', () => {
  for (const dir of labsAlive) {
    spawnSync(process.execPath, [program, 'lab', 'down', '--dir', dir], { stdio: 'ignore' });
  }
  for (const folder of foldersAlive) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGALRM'] as const) {
  process.once(signal, () => process.exit(1));
}

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'she-'));
  foldersAlive.add(folder);
  return folder;
}

function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  foldersAlive.delete(folder);
}

/** A folder that goes when the test ends; short, for sockets lie in it. */
export function scratch(t: Teardown): string {
  const folder = makeFolder();
  t.teardown(() => removeFolder(folder));
  return folder;
}

/** A folder for a lab, which is taken down when the test ends, whatever came up of it. */
export function labFolder(t: Teardown): string {
  const parent = makeFolder();
  const dir = join(parent, 'lab');
  labsAlive.add(dir);
  t.teardown(async () => {
    await new Lab({ dir }).down();
    labsAlive.delete(dir);
    removeFolder(parent);
  });
  return dir;
}

/** A lab of built agents, as tests use it. */
export class TestLab {
  readonly lab: Lab;
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
    this.lab = new Lab({ dir });
  }

  static async up(t: Teardown, options: LabUpOptions = {}): Promise<TestLab> {
    const made = new TestLab(labFolder(t));
    await made.lab.up({ driver: isPortable ? 'portable' : 'auto', ...options });
    return made;
  }

  /** As `up`, with flags of each node's own agent. */
  static async raise(
    t: Teardown,
    options: LabUpOptions,
    flagsOf: (at: number) => readonly string[],
  ): Promise<TestLab> {
    const made = new TestLab(labFolder(t));
    const how = { driver: isPortable ? ('portable' as const) : ('auto' as const), ...options };
    await made.lab.raise(how);
    for (const [at, { name }] of made.lab.nodes.entries())
      await made.lab.startAgent(name, { ...how, extraFlags: flagsOf(at) });
    await made.lab.up(how);
    return made;
  }

  call(node: string, method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown) {
    return new AgentClient(this.lab.node(node).socket, 30_000).call(method, path, body);
  }

  async status(node: string): Promise<Status> {
    return (await this.call(node, 'GET', '/shoal/v1/status')) as Status;
  }

  async network(node: string, name: string): Promise<NetworkStatus> {
    const found = (await this.status(node)).networks.find((network) => network.name === name);
    if (found === undefined) throw new Error(`${node} does not know network ${name}`);
    return found;
  }

  /** The real docker CLI, speaking to a node's agent from that node's namespace. */
  docker(node: string, ...args: readonly string[]): Promise<Finished> {
    return this.dockerWith(undefined, node, ...args);
  }

  /** The same, with something to read on its standard input. */
  dockerWith(
    input: string | undefined,
    node: string,
    ...args: readonly string[]
  ): Promise<Finished> {
    // A folder of its own keeps the contexts of the host's user out.
    const env = { ...this.lab.envOf(node), HOME: this.dir };
    return run(this.lab.commandIn(node, ['docker', ...args]), { env, input });
  }

  /** The same, which must succeed. @returns What it wrote, without the last line's end. */
  async dockerMust(node: string, ...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.docker(node, ...args);
    if (code === 0) return stdout.trimEnd();
    throw new Error(`on ${node}: docker ${args.join(' ')}: exit ${code}: ${stderr || stdout}`);
  }

  shoal(node: string, ...args: readonly string[]): Promise<Finished> {
    const argv = this.lab.commandIn(node, [...shoalArgv, ...args]);
    return run(argv, { env: this.lab.envOf(node) });
  }

  /** Makes an attachable overlay network, and waits until every node knows it. */
  async createNetwork(name: string, more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const manager = this.lab.nodes[0]?.name ?? '';
    await this.call(manager, 'POST', '/networks/create', {
      Name: name,
      Driver: 'overlay',
      Attachable: true,
      ...more,
    });
    await this.#untilKnown(name);
  }

  async #untilKnown(name: string): Promise<void> {
    for (const node of this.lab.nodes) {
      await until(`${node.name} knows ${name}`, 10_000, async () =>
        (await this.status(node.name)).networks.some((network) => network.name === name),
      );
    }
  }

  async attach(
    node: string,
    network: string,
    netns: Netns,
    options: AttachOptions,
  ): Promise<Attached> {
    const made = await this.call(node, 'POST', '/shoal/v1/attachments', {
      network,
      target: { kind: 'netns', path: netns.path },
      aliases: [],
      ...options,
    });
    return made as Attached;
  }

  /** A host on the lab's wire that is no node: a stranger, or foreign equipment. */
  async hostOnWire(t: Teardown, cidr: string): Promise<Netns> {
    const host = await Netns.make(t);
    const [node] = this.lab.nodes;
    const wire = (node?.netns ?? '').replace(/node1$/, 'wire');
    // Both ends go with the host's namespace.
    const port = `p-${host.name.slice(-8)}`;
    const peer = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', host.name];
    await must(['ip', '-n', wire, 'link', 'add', port, ...peer]);
    await must(['ip', '-n', wire, 'link', 'set', port, 'master', 'br0', 'up']);
    await host.must(['ip', 'link', 'set', 'lo', 'up']);
    await host.must(['ip', 'link', 'set', 'eth0', 'up']);
    const flags = cidr.includes(':') ? ['nodad'] : [];
    await host.must(['ip', 'addr', 'add', cidr, 'dev', 'eth0', ...flags]);
    return host;
  }

  /** State of each node as the manager shows it: `ready`, `down`, … */
  nodeStates(): Promise<ReadonlyMap<string, string>> {
    const [manager] = this.lab.nodes;
    if (manager === undefined) throw new Error('the lab has no nodes');
    return statesAtManager(manager);
  }

  /** The member with a node's id, as another node sees it. */
  async member(seenBy: string, of: string): Promise<Member | undefined> {
    const address = this.lab.node(of).address;
    const { members } = await this.status(seenBy);
    return members.findLast((member) => member.address === address);
  }
}

/** An address without its prefix length. */
export function hostOf(cidr: string | undefined): string {
  return (cidr ?? '').replace(/\/.*$/, '');
}
