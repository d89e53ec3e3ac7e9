import { rmdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CliError, usage } from '../error.js';
import {
  agentRuns,
  type LabAgentOptions,
  startAgent,
  untilAgentAnswers,
  wordsOf,
} from './agent.js';
import {
  commandLineOf,
  endProcess,
  hasWords,
  type ProcessRecord,
  recordProcess,
  untilEnded,
} from './process.js';
import {
  type LabNode,
  type LabShape,
  type LabState,
  parseGroups,
  planLab,
  prefixOf,
  readState,
  removeState,
  writeState,
} from './state.js';
import { formSwarm, localState, type NodeAtManager, nodesAtManagers } from './swarm.js';
import { endTasks } from './tasks.js';
import { netnsExists, netnsNames, netnsPath } from './tools.js';
import { healWire, partitionWire, pidsIn, raiseWire, removeWire } from './wire.js';

export interface LabConfig {
  /** Where state, data and logs are kept; it also tells this lab from others. */
  readonly dir: string;
  /** Begins the names of its namespaces; by default made from the folder. */
  readonly prefix?: string | undefined;
  /** Is told of each step. */
  readonly onProgress?: ((line: string) => void) | undefined;
}

export interface LabUpOptions extends Partial<LabShape>, Partial<LabAgentOptions> {
  /** Nodes that there are to be; default 3 (2 on a direct wire). Nodes are added, never taken away. */
  readonly nodes?: number | undefined;
  /** Default true: make one swarm of all. */
  readonly swarm?: boolean | undefined;
  /** The first so many nodes are managers; default: one of a new swarm. Managers are added, never taken away. */
  readonly managers?: number | undefined;
  /** Stops it between two steps. */
  readonly signal?: AbortSignal | undefined;
}

export interface LabNodeStatus {
  readonly name: string;
  readonly pid: number | undefined;
  readonly address: string;
  readonly address6: string | undefined;
  readonly socket: string;
  readonly namespace: string;
  readonly logFile: string;
  /** `gone`: no namespace; `stopped`: no agent; `starting`: it does not answer; else the swarm's word. */
  readonly state: string;
  /** `manager` or `worker`, as the managers have it. */
  readonly role: string | undefined;
  /** Of a manager: `leader`, `reachable`, `unreachable`. */
  readonly manager: string | undefined;
}

export interface LabStatus {
  readonly dir: string;
  readonly prefix: string;
  readonly partition: readonly (readonly string[])[];
  readonly nodes: readonly LabNodeStatus[];
}

const SHAPE_DEFAULT: LabShape = {
  wire: 'bridge',
  wireOffloads: 'on',
  mtuBytes: 1500,
  ipv6: false,
};

/** As many as Docker advises against exceeding. */
const LAB_MANAGERS_MAX = 7;

/** What an agent may be sent: a crash, a shutdown, a pause and its end. */
export const LAB_SIGNALS = [
  'SIGKILL',
  'SIGTERM',
  'SIGINT',
  'SIGQUIT',
  'SIGABRT',
  'SIGSTOP',
  'SIGCONT',
] as const;
export type LabSignal = (typeof LAB_SIGNALS)[number];

/** Smallest MTU on which IPv6 works (RFC 8200 §5) inside a tunnel; largest of an Ethernet link. */
const MTU_BYTES_MIN = 1400;
const MTU_BYTES_MAX = 65_521;

/**
 * A cluster of agents on this machine, each in a network namespace of its own.
 *
 * Everything it makes is written down before it is made, and bears its prefix: `down` finds all of
 * it again, also after a crash of ours or of the machine.
 */
export class Lab {
  readonly #dir: string;
  readonly #prefix: string;
  readonly #say: (line: string) => void;

  constructor(config: LabConfig) {
    this.#dir = resolve(config.dir);
    this.#prefix = config.prefix ?? readState(this.#dir)?.prefix ?? prefixOf(this.#dir);
    this.#say = config.onProgress ?? (() => {});
  }

  get dir(): string {
    return this.#dir;
  }

  /**
   * Brings the lab up: what is there stays, what is missing is made.
   *
   * @throws CliError CLI_USAGE, LAB_STATE, LAB_AGENT_FAILED, CLI_TOOL_FAILED, CLI_REFUSED. What was
   *   made until then stays, for a look at it: `down` removes it.
   */
  async up(options: LabUpOptions = {}): Promise<LabStatus> {
    await this.raise(options);
    await this.startAgents(options);
    if (options.swarm ?? true) {
      this.#say('forming the swarm');
      await formSwarm(this.#state().nodes, options.managers, options.signal);
    }
    this.#say(`${this.#state().nodes.length} nodes are up`);
    return this.status();
  }

  /** The first part of `up`: namespaces and wire, without agents. */
  async raise(options: LabUpOptions = {}): Promise<void> {
    if (process.getuid?.() !== 0) {
      throw new CliError({ code: 'LAB_STATE' }, 'a lab makes network namespaces: run as root');
    }
    const shape = shapeOf(options);
    const held = readState(this.#dir);
    const count = options.nodes ?? held?.nodes.length ?? (shape.wire === 'direct' ? 2 : 3);
    checkManagers(options.managers, Math.max(count, held?.nodes.length ?? 0));
    const state = planLab(this.#dir, this.#prefix, held, count, shape);
    writeState(this.#dir, state);
    this.#say(`wiring ${state.nodes.length} namespaces ${this.#prefix}-…`);
    options.signal?.throwIfAborted();
    await raiseWire(state);
    // A namespace that was made anew came back to the common bridge.
    if (state.partition.length > 0) await partitionWire(state, state.partition);
  }

  /** The second part of `up`: starts the agents that do not run, and waits until all answer. */
  async startAgents(options: LabUpOptions = {}): Promise<void> {
    const { signal } = options;
    for (const node of this.#state().nodes) {
      signal?.throwIfAborted();
      if (agentRuns(node)) continue;
      const [stray] = await this.#straysOf(node);
      if (stray === undefined) this.#start(node, options);
      else this.#replaceNode({ ...node, agent: stray });
    }
    this.#say('waiting for the agents');
    await Promise.all(this.#state().nodes.map((node) => untilAgentAnswers(node, signal)));
  }

  #start(node: LabNode, options: LabUpOptions): void {
    this.#say(`starting the agent of ${node.name}`);
    const agent = startAgent(node, {
      driver: options.driver ?? 'auto',
      logLevel: options.logLevel ?? 'info',
      command: options.command,
      extraFlags: options.extraFlags,
    });
    this.#replaceNode({ ...node, agent });
  }

  /**
   * Starts the agent of a node, if it does not run, and waits until it answers.
   *
   * @throws CliError CLI_USAGE, LAB_STATE, LAB_AGENT_FAILED, CLI_TOOL_FAILED.
   */
  async startAgent(name: string, options: LabUpOptions = {}): Promise<void> {
    const node = this.node(name);
    this.commandIn(name, []);
    if (!agentRuns(node)) this.#start(node, options);
    await untilAgentAnswers(this.node(name), options.signal);
  }

  /**
   * Sends a signal to the agent of a node. One that ends it is waited for, as long as it takes.
   *
   * @returns Whether the agent runs on: it was only stopped, or made to continue.
   * @throws CliError LAB_STATE if no agent runs there.
   */
  async signalAgent(name: string, signal: LabSignal): Promise<boolean> {
    const node = this.node(name);
    if (node.agent === undefined || !agentRuns(node)) {
      throw new CliError(
        { code: 'LAB_STATE' },
        `no agent of ${name} runs: 'shoal lab start ${name}'`,
      );
    }
    process.kill(node.agent.pid, signal);
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') return true;
    await untilEnded(node.agent, wordsOf(node));
    this.#replaceNode({ ...this.node(name), agent: undefined });
    return false;
  }

  /** Ends the agent of a node. @param signal `SIGKILL` is a crash, `SIGTERM` a shutdown. */
  async stopAgent(name: string, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const node = this.node(name);
    if (node.agent === undefined || !agentRuns(node)) return;
    if (signal === 'SIGKILL') process.kill(node.agent.pid, signal);
    await endProcess(node.agent, wordsOf(node));
    this.#replaceNode({ ...node, agent: undefined });
  }

  #replaceNode(node: LabNode): void {
    const state = this.#state();
    const nodes = state.nodes.map((held) => (held.name === node.name ? node : held));
    writeState(this.#dir, { ...state, nodes });
  }

  /** @throws CliError CLI_USAGE, LAB_STATE. */
  node(name: string): LabNode {
    const { nodes } = this.#state();
    const node = nodes.find((candidate) => candidate.name === name);
    if (node !== undefined) return node;
    throw usage(`there is no node ${name}: the lab has ${nodes.map((n) => n.name).join(', ')}`);
  }

  get nodes(): readonly LabNode[] {
    return this.#state().nodes;
  }

  /** Variables that make docker and shoal speak to a node's agent. */
  envOf(name: string): Readonly<Record<string, string>> {
    const { socket } = this.node(name);
    return { DOCKER_HOST: `unix://${socket}`, SHOAL_SOCKET: socket, SHOAL_LAB_NODE: name };
  }

  /** The command line that runs `command` in a node's namespace; give it `envOf`. */
  commandIn(name: string, command: readonly string[]): readonly string[] {
    const node = this.node(name);
    if (!netnsExists(node.netns)) {
      const message = `the namespace of ${name} is gone: 'shoal lab up' makes it again`;
      throw new CliError({ code: 'LAB_STATE' }, message);
    }
    return ['nsenter', `--net=${netnsPath(node.netns)}`, '--', ...command];
  }

  /** Cuts the wire between groups of nodes, `['node1,node2', 'node3']`; others form one more group. */
  async partition(texts: readonly string[]): Promise<readonly (readonly string[])[]> {
    const state = this.#state();
    if (state.shape.wire === 'direct') {
      const message = 'a direct wire cannot be partitioned: bring the lab up with a bridge';
      throw new CliError({ code: 'LAB_STATE' }, message);
    }
    const groups = parseGroups(
      texts,
      state.nodes.map((node) => node.name),
    );
    writeState(this.#dir, { ...state, partition: groups });
    await partitionWire(state, groups);
    return groups;
  }

  /** Joins all groups again. */
  async heal(): Promise<void> {
    const state = this.#state();
    if (state.shape.wire === 'bridge') await healWire(state);
    writeState(this.#dir, { ...state, partition: [] });
  }

  async status(): Promise<LabStatus> {
    const state = this.#state();
    const running = state.nodes.filter(agentRuns);
    const known = await nodesAtManagers(running);
    const nodes = await Promise.all(
      state.nodes.map(async (node) => ({
        name: node.name,
        pid: agentRuns(node) ? node.agent?.pid : undefined,
        address: node.address,
        address6: node.address6,
        socket: node.socket,
        namespace: node.netns,
        logFile: node.logFile,
        state: await stateOf(node, known),
        role: known.get(node.name)?.role,
        manager: known.get(node.name)?.manager,
      })),
    );
    return { dir: this.#dir, prefix: state.prefix, partition: state.partition, nodes };
  }

  /**
   * Takes everything of this lab away: agents, namespaces, data. Harmless when nothing is there, and
   * after any crash.
   */
  async down(): Promise<void> {
    const state = readState(this.#dir);
    const recorded = state?.nodes ?? [];
    await Promise.all(recorded.map((node) => node.agent && endProcess(node.agent, wordsOf(node))));
    await this.#endStrays();
    await Promise.all(recorded.map(({ dataDir }) => endTasks(dataDir)));
    await removeWire(this.#prefix);
    for (const node of recorded) {
      rmSync(node.dataDir, { recursive: true, force: true });
      rmSync(node.socket, { force: true });
    }
    removeState(this.#dir);
    try {
      rmdirSync(this.#dir);
    } catch {
      // Not empty, so not ours alone; or not there.
    }
  }

  /** Ends agents also of nodes that the state does not know. Anything else in there is the user's. */
  async #endStrays(): Promise<void> {
    for (const netns of netnsNames(`${this.#prefix}-`)) {
      const node = { netns, dataDir: join(this.#dir, netns.slice(this.#prefix.length + 1)) };
      for (const record of await this.#straysOf(node)) await endProcess(record, wordsOf(node));
    }
  }

  /**
   * Agents that were started and not yet recorded when we crashed: they are in a namespace of ours
   * and their data lies in our folder.
   */
  async #straysOf(node: Pick<LabNode, 'netns' | 'dataDir'>): Promise<readonly ProcessRecord[]> {
    const words = wordsOf(node);
    return (await pidsIn(node.netns))
      .filter((pid) => hasWords(commandLineOf(pid), words))
      .flatMap((pid) => recordProcess(pid) ?? []);
  }

  #state(): LabState {
    const state = readState(this.#dir);
    if (state !== undefined) return state;
    throw new CliError({ code: 'LAB_STATE' }, `no lab is up in ${this.#dir}: 'shoal lab up' first`);
  }
}

function shapeOf(options: LabUpOptions): LabShape {
  const shape: LabShape = {
    wire: options.wire ?? SHAPE_DEFAULT.wire,
    wireOffloads: options.wireOffloads ?? SHAPE_DEFAULT.wireOffloads,
    mtuBytes: options.mtuBytes ?? SHAPE_DEFAULT.mtuBytes,
    ipv6: options.ipv6 ?? SHAPE_DEFAULT.ipv6,
  };
  const { mtuBytes } = shape;
  if (!Number.isInteger(mtuBytes) || mtuBytes < MTU_BYTES_MIN || mtuBytes > MTU_BYTES_MAX) {
    throw usage(
      `the MTU of the wire is ${MTU_BYTES_MIN} to ${MTU_BYTES_MAX} bytes, not ${mtuBytes}`,
    );
  }
  return shape;
}

/** @throws CliError CLI_USAGE. */
function checkManagers(managers: number | undefined, nodes: number): void {
  if (managers === undefined) return;
  if (!Number.isInteger(managers) || managers < 1 || managers > LAB_MANAGERS_MAX)
    throw usage(`a lab has 1 to ${LAB_MANAGERS_MAX} managers, not ${managers}`);
  if (managers > nodes)
    throw usage(`${managers} managers need as many nodes, and the lab is to have ${nodes}`);
}

async function stateOf(node: LabNode, known: ReadonlyMap<string, NodeAtManager>): Promise<string> {
  if (!netnsExists(node.netns)) return 'gone';
  if (!agentRuns(node)) return 'stopped';
  const said = known.get(node.name);
  if (said !== undefined) return said.state;
  try {
    return await localState(node, 2_000);
  } catch (error) {
    if (error instanceof CliError) return 'starting';
    throw error;
  }
}
