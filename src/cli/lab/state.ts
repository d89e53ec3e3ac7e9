import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CliError, usage } from '../error.js';
import type { ProcessRecord } from './process.js';

/** Most nodes of one lab; the address plan would carry more, the machine hardly. */
export const LAB_NODES_MAX = 100;
/** What a unix socket's path can hold, less its end: `sun_path` of unix(7). */
const SOCKET_PATH_BYTES_MAX = 100;

export type WireKind = 'bridge' | 'direct';

/** How a lab is made; fixed while it is up. */
export interface LabShape {
  /** `direct` joins two nodes by one veth pair, with no bridge in between: for measurements. */
  readonly wire: WireKind;
  /** `off` makes every frame cross the wire by itself, as on a real one. */
  readonly wireOffloads: 'on' | 'off';
  readonly mtuBytes: number;
  readonly ipv6: boolean;
}

export interface LabNode {
  readonly name: string;
  /** Name of its network namespace. */
  readonly netns: string;
  readonly address: string;
  readonly address6: string | undefined;
  readonly dataDir: string;
  readonly socket: string;
  readonly logFile: string;
  /** Its agent, if one was started. */
  readonly agent: ProcessRecord | undefined;
}

/** What a lab consists of. Written before anything of it is made, so that a crash leaves nothing unknown. */
export interface LabState {
  readonly version: 1;
  /** Begins the name of each namespace of this lab. */
  readonly prefix: string;
  readonly shape: LabShape;
  readonly nodes: readonly LabNode[];
  /** Groups of node names that cannot reach each other; empty when the wire is whole. */
  readonly partition: readonly (readonly string[])[];
}

/** The prefix of the lab in a folder: the same folder gives the same one. */
export function prefixOf(dir: string): string {
  return `shoal-${createHash('sha256').update(dir).digest('hex').slice(0, 6)}`;
}

export function stateFileOf(dir: string): string {
  return join(dir, 'lab.json');
}

/** @returns `undefined` if there is no lab. */
export function readState(dir: string): LabState | undefined {
  const path = stateFileOf(dir);
  if (!existsSync(path)) return undefined;
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as LabState;
    if (state.version === 1) return state;
  } catch {
    // Said below.
  }
  const message = `${path} is not the state of a lab of this version: remove it, then 'shoal lab down'`;
  throw new CliError({ code: 'LAB_STATE' }, message);
}

/** Replaces the file whole: a reader sees the old state or the new one. */
export function writeState(dir: string, state: LabState): void {
  mkdirSync(dir, { recursive: true });
  const path = stateFileOf(dir);
  writeFileSync(`${path}.new`, `${JSON.stringify(state, null, 2)}\n`);
  renameSync(`${path}.new`, path);
}

export function removeState(dir: string): void {
  rmSync(stateFileOf(dir), { force: true });
}

/** The plan of one node. @param index From 0. */
export function planNode(dir: string, prefix: string, index: number, ipv6: boolean): LabNode {
  const name = `node${index + 1}`;
  const dataDir = join(dir, name);
  const near = join(dataDir, 'docker.sock');
  const socket =
    Buffer.byteLength(near) <= SOCKET_PATH_BYTES_MAX
      ? near
      : `/run/shoal-lab/${prefix}/${name}.sock`;
  return {
    name,
    netns: `${prefix}-${name}`,
    // Only inside the lab's own namespaces, so every lab can have the same.
    address: `10.213.0.${11 + index}`,
    address6: ipv6 ? `fd00:213::${11 + index}` : undefined,
    dataDir,
    socket,
    logFile: join(dataDir, 'agent.log'),
    agent: undefined,
  };
}

export const ADDRESS_PREFIX_BITS = 16;
export const ADDRESS6_PREFIX_BITS = 64;

/**
 * What is to be up: what is up already, and nodes added up to the count that is asked for.
 *
 * @throws CliError CLI_USAGE, LAB_STATE if the lab that is up has another shape.
 */
export function planLab(
  dir: string,
  prefix: string,
  held: LabState | undefined,
  nodeCount: number,
  shape: LabShape,
): LabState {
  if (!Number.isInteger(nodeCount) || nodeCount < 1 || nodeCount > LAB_NODES_MAX) {
    throw usage(`a lab has 1 to ${LAB_NODES_MAX} nodes, not ${nodeCount}`);
  }
  if (shape.wire === 'direct' && nodeCount !== 2) {
    throw usage(`a direct wire joins exactly 2 nodes, not ${nodeCount}`);
  }
  if (held !== undefined && JSON.stringify(held.shape) !== JSON.stringify(shape)) {
    const message = `the lab in ${dir} is up with other settings: 'shoal lab down' it first`;
    throw new CliError({ code: 'LAB_STATE' }, message);
  }
  const nodes = Array.from(
    { length: Math.max(nodeCount, held?.nodes.length ?? 0) },
    (_, index) => held?.nodes[index] ?? planNode(dir, prefix, index, shape.ipv6),
  );
  return { version: 1, prefix, shape, nodes, partition: held?.partition ?? [] };
}

/**
 * The groups of a partition, as the user names them: `['node1,node2', 'node3']`. Nodes that nobody
 * names form one more group together.
 *
 * @throws CliError CLI_USAGE.
 */
export function parseGroups(
  texts: readonly string[],
  names: readonly string[],
): readonly (readonly string[])[] {
  const groups = texts.map((text) => text.split(',').filter((name) => name !== ''));
  const seen = new Set<string>();
  for (const name of groups.flat()) {
    if (!names.includes(name)) {
      throw usage(`there is no node ${name}: the lab has ${names.join(', ')}`);
    }
    if (seen.has(name)) throw usage(`${name} is named twice`);
    seen.add(name);
  }
  const rest = names.filter((name) => !seen.has(name));
  const all = [...groups, rest].filter((group) => group.length > 0);
  if (all.length < 2) throw usage('a partition has at least two groups: name some of the nodes');
  return all;
}
