import ipaddr from 'ipaddr.js';
import type { NodeObject } from './swarm-model.js';

/** Longest value of one constraint, in characters. */
const CONSTRAINT_CHARS_MAX = 1_024;
/** Repetitions (`*`, `+`, `?`) in one regular expression or glob: matching takes time with the power of it. */
const REPETITIONS_MAX = 3;
/** Characters of a label or name that a pattern looks at. */
const SUBJECT_CHARS_MAX = 128;

const KEY = /^[a-z_][a-z0-9\-_.]+$/i;
const VALUE = /^[a-z0-9:\-_\s.*/()?+[\]\\^$|]+$/i;
const OPERATORS = ['==', '!='] as const;
const NODE_LABEL = 'node.labels.';
const ENGINE_LABEL = 'engine.labels.';

/** What a node must be, or, if it is soft, should be. */
export interface Constraint {
  readonly key: string;
  readonly isEqual: boolean;
  /** Counts only as long as some node satisfies it: `==~`, `!=~`, as the classic Swarm had them. */
  readonly isSoft: boolean;
  readonly value: string;
  /** There if the value is a glob (`ssd*`) or a regular expression (`/^ssd[12]$/`). */
  readonly pattern?: RegExp;
}

/**
 * `node.labels.zone==a`, and all else that Docker knows, with the values of the classic Swarm: `*` for
 * any characters, `/…/` for a regular expression, `==~` and `!=~` for a wish instead of a demand.
 *
 * @returns The reason, in Docker's words where it has some, if it is none.
 */
export function parseConstraint(text: string): Constraint | string {
  const operator = OPERATORS.find((each) => text.includes(each));
  if (operator === undefined)
    return `constraint expected one operator from ${OPERATORS.join(', ')}`;
  const at = text.indexOf(operator);
  const key = text.slice(0, at).trim();
  const rest = text.slice(at + operator.length).trim();
  const isSoft = rest.startsWith('~');
  const value = isSoft ? rest.slice(1).trim() : rest;
  if (!KEY.test(key)) return `key '${key}' is invalid`;
  if (!VALUE.test(value) || value.length > CONSTRAINT_CHARS_MAX)
    return `value '${value}' is invalid`;
  const pattern = patternOf(value);
  if (typeof pattern === 'string') return pattern;
  return { key, isEqual: operator === '==', isSoft, value, ...(pattern && { pattern }) };
}

/** All of them, or why one is none. */
export function parseConstraints(texts: readonly string[]): readonly Constraint[] | string {
  const parsed: Constraint[] = [];
  for (const text of texts) {
    const constraint = parseConstraint(text);
    if (typeof constraint === 'string') return constraint;
    parsed.push(constraint);
  }
  return parsed;
}

/** Whether the node is as it says; `key`s are known in any case of letters, labels are not. */
export function satisfies(node: NodeObject, constraint: Constraint): boolean {
  const { key } = constraint;
  const name = key.toLowerCase();
  if (name === 'node.ip') return satisfiesAddress(node.address, constraint);
  const subjects = subjectsOf(node, name, key);
  if (subjects === undefined) return false;
  return matchesAny(constraint, subjects);
}

/** What a constraint or a preference with this key looks at; `undefined`: nobody knows the key. */
function subjectsOf(node: NodeObject, name: string, key: string): readonly string[] | undefined {
  const { description, spec } = node;
  switch (name) {
    case 'node.id':
      return [node.id];
    case 'node.hostname':
      return [description.hostname];
    case 'node':
      return [node.id, description.hostname];
    case 'node.role':
      return [node.observedRole ?? spec.role];
    case 'node.platform.os':
      return [description.os];
    case 'node.platform.arch':
      return architectures(description.architecture);
    default: {
      const label = labelOf(node, key);
      return label && [label.value];
    }
  }
}

/** The value of `node.labels.…` or `engine.labels.…`; empty where the node has no such label. */
export function labelOf(node: NodeObject, key: string): { readonly value: string } | undefined {
  for (const [prefix, labels] of [
    [NODE_LABEL, node.spec.labels],
    [ENGINE_LABEL, node.description.engineLabels],
  ] as const) {
    if (key.length <= prefix.length || !key.toLowerCase().startsWith(prefix)) continue;
    const label = key.slice(prefix.length);
    return { value: Object.hasOwn(labels, label) ? (labels[label] ?? '') : '' };
  }
  return undefined;
}

const ARCHITECTURE_NAMES: readonly (readonly string[])[] = [
  ['x86_64', 'amd64'],
  ['aarch64', 'arm64'],
];

/** An architecture by all of its names. */
export function architectures(name: string): readonly string[] {
  return ARCHITECTURE_NAMES.find((names) => names.includes(name)) ?? [name];
}

/** Whether any of these is as it says, or, with `!=`, none of them. */
export function matchesAny(constraint: Constraint, subjects: readonly string[]): boolean {
  return subjects.some((subject) => isMatch(constraint, subject)) === constraint.isEqual;
}

function isMatch({ value, pattern }: Constraint, subject: string): boolean {
  if (pattern === undefined) return subject.toLowerCase() === value.toLowerCase();
  return pattern.test(subject.slice(0, SUBJECT_CHARS_MAX));
}

function satisfiesAddress(address: string, constraint: Constraint): boolean {
  const { value, isEqual, pattern } = constraint;
  if (ipaddr.isValidCIDR(value)) {
    if (!ipaddr.isValid(address)) return !isEqual;
    const [network, bits] = ipaddr.parseCIDR(value);
    const ip = ipaddr.process(address);
    const isWithin = ip.kind() === network.kind() && ip.match(network, bits);
    return isWithin === isEqual;
  }
  if (ipaddr.isValid(value)) {
    const isSame =
      ipaddr.isValid(address) &&
      ipaddr.process(address).toString() === ipaddr.process(value).toString();
    return isSame === isEqual;
  }
  return pattern !== undefined && isMatch(constraint, address) === isEqual;
}

function patternOf(value: string): RegExp | undefined | string {
  const isRegex = value.length > 2 && value.startsWith('/') && value.endsWith('/');
  if (!isRegex && !value.includes('*')) return undefined;
  const body = isRegex ? value.slice(1, -1) : `^${globOf(value)}$`;
  const source = body.replace(/^\(\?i\)/, '');
  if (isSlow(source)) return `value '${value}' is invalid: it has too many repetitions`;
  try {
    // A glob is as little particular about letters as a plain value is; a regex says `(?i)`.
    return new RegExp(source, !isRegex || source !== body ? 'iu' : 'u');
  } catch {
    return `value '${value}' is invalid`;
  }
}

function globOf(value: string): string {
  const parts = value.split(/\*+/);
  return parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('.*');
}

/** Patterns come from users, and are matched by the leader: none may keep it busy. */
function isSlow(source: string): boolean {
  const plain = source.replace(/\\./g, 'c').replace(/\[[^\]]*\]/g, 'c');
  const repetitions = plain.match(/[*+?]/g)?.length ?? 0;
  return repetitions > REPETITIONS_MAX || /\)[*+?]/.test(plain) || /\\[1-9]/.test(source);
}
