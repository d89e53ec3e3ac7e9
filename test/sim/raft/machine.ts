import type { LogEntry, LogIndex, RaftId } from '../../../src/control/raft/core/types.js';
import type { Model } from '../../support/linearizability.js';

/** What a client wants of one key. Values of writes are used once only. */
export type Request =
  | { readonly kind: 'read'; readonly key: string }
  | { readonly kind: 'put' | 'append'; readonly key: string; readonly value: string }
  | {
      readonly kind: 'cas';
      readonly key: string;
      readonly expected: string;
      readonly value: string;
    };

/** `dedupe` '': done as often as it is committed. */
export interface Command {
  readonly dedupe: string;
  readonly request: Exclude<Request, { kind: 'read' }>;
}

export function encodeCommand({ dedupe, request }: Command): Uint8Array {
  const { kind, key, value } = request;
  const expected = request.kind === 'cas' ? request.expected : '';
  return Buffer.from(`${dedupe}\t${kind}\t${key}\t${value}\t${expected}`);
}

function decodeCommand(data: Uint8Array): Command {
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('latin1');
  const [dedupe, kind, key, value, expected] = text.split('\t') as [
    string,
    'put' | 'append' | 'cas',
    string,
    string,
    string,
  ];
  const request = kind === 'cas' ? { kind, key, value, expected } : { kind, key, value };
  return { dedupe, request };
}

/** The value of a key after a request. Appends fold into a digest, so that states stay small. */
function next(state: string, request: Request): string {
  switch (request.kind) {
    case 'read':
      return state;
    case 'put':
      return request.value;
    case 'append':
      return `${hashOf(hashOf(SEED, state), request.value).toString(36)}`;
    case 'cas':
      return state === request.expected ? request.value : state;
  }
}

/** Every output is the value of the key afterwards. */
export const MODEL: Model<Request, string> = {
  initial: '',
  step(state, input, output) {
    const after = next(state, input);
    return output === undefined || output === after ? after : undefined;
  },
};

const SEED = 0x1505;

/** 52 bits of two multiplicative hashes; the same data always give the same. */
export function hashOf(seed: number, data: Uint8Array | string): number {
  let a = (seed ^ 0x9e3779b9) | 0;
  let b = (Math.floor(seed / 0x1_0000_0000) ^ 0x85ebca6b) | 0;
  const isText = typeof data === 'string';
  for (let i = 0; i < data.length; i++) {
    const byte = isText ? data.charCodeAt(i) : (data[i] as number);
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b + byte, 0x5bd1e995) ^ (b >>> 15);
  }
  return (a >>> 0) * 0x10_0000 + ((b ^ (b >>> 12)) & 0xf_ffff);
}

export function hashOfEntry({ term, kind, data }: LogEntry): number {
  return hashOf(term * 4 + kind.length, data);
}

export interface MachineImage {
  readonly index: LogIndex;
  /** Digest of all entries up to `index`. */
  readonly chain: number;
  readonly values: ReadonlyMap<string, string>;
  readonly outcomes: ReadonlyMap<string, string>;
}

export const EMPTY_IMAGE: MachineImage = {
  index: 0,
  chain: 0,
  values: new Map(),
  outcomes: new Map(),
};

/** A few keys, and the outcomes of commands that must not be done twice. */
export class Machine {
  index: LogIndex;
  chain: number;
  readonly values: Map<string, string>;
  readonly #outcomes: Map<string, string>;

  constructor(image: MachineImage) {
    this.index = image.index;
    this.chain = image.chain;
    this.values = new Map(image.values);
    this.#outcomes = new Map(image.outcomes);
  }

  /** The value of the command's key afterwards. */
  apply(entry: LogEntry): string {
    this.index = entry.index;
    this.chain = chainOf(this.chain, entry);
    if (entry.kind !== 'command') return '';
    const { dedupe, request } = decodeCommand(entry.data);
    const before = dedupe === '' ? undefined : this.#outcomes.get(dedupe);
    if (before !== undefined) return before;
    const after = next(this.read(request.key), request);
    this.values.set(request.key, after);
    if (dedupe !== '') this.#outcomes.set(dedupe, after);
    return after;
  }

  read(key: string): string {
    return this.values.get(key) ?? '';
  }

  capture(): MachineImage {
    return {
      index: this.index,
      chain: this.chain,
      values: new Map(this.values),
      outcomes: new Map(this.#outcomes),
    };
  }
}

export function chainOf(chain: number, entry: LogEntry): number {
  return hashOf(chain, `${hashOfEntry(entry)}`);
}

export const nameOf = (id: RaftId | 0): string => (id === 0 ? 'nobody' : `m${id}`);
