import type { SwarmError } from '../../../base/swarm-error.js';
import { ControlError } from '../../core/control-error.js';
import { errorOf, refusalOf } from '../../wire/refusal.js';
import { type BatchItem, decodeItems, encodeItems } from '../wire/batch.js';
import { decodeSnapshot, encodeSnapshot, type SnapshotLine } from '../wire/snapshot.js';
import { type Command, isCommand } from './command.js';
import { apply } from './decide.js';
import { History, type HistoryEntry } from './history.js';
import { type Outcome, Outcomes } from './outcomes.js';
import { TABLE_NAMES, type TableName } from './rows.js';
import { type Change, type ReadonlyState, State, type StateSnapshot } from './state.js';

/** What a command did: the id of the object it was about; of a transaction, of all of them. */
export interface CommandResult {
  readonly id: string;
  readonly ids: readonly string[];
}

/** An entry of the log as raft hands it over. */
export interface MachineEntry {
  readonly index: number;
  readonly data: Uint8Array;
}

export interface StoreMachineConfig {
  /**
   * Called once: a newer program wrote an entry, which this one cannot follow, or an entry is damaged.
   * The machine stands still from there on, and its process should end.
   */
  onFatal(error: ControlError): void;
  /** A command met a bug of ours: it was refused, here and everywhere. For the log. */
  onFault?(error: unknown, command: Command): void;
}

export interface StoreMachineStats {
  readonly commands: number;
  readonly refused: number;
  /** Commands that came a second time. */
  readonly repeated: number;
  readonly faults: number;
}

/** Told, after every batch of entries, what has changed; what changed twice is there twice. */
export type ChangeListener = (changes: readonly Change[]) => void;

/** The bytes of one log entry: commands that are applied together, each refused or not by itself. */
export function encodeBatch(commands: readonly BatchItem<Command>[]): Uint8Array {
  return encodeItems(commands);
}

/**
 * The cluster's state as a deterministic function of the log: machines that were given the same
 * entries are equal in every byte of their snapshots, refusals and restored snapshots included.
 */
export class StoreMachine {
  readonly #config: StoreMachineConfig;
  readonly #state = new State();
  readonly #outcomes = new Outcomes();
  readonly #history = new History();
  readonly #listeners = new Set<ChangeListener>();
  readonly #stats = { commands: 0, refused: 0, repeated: 0, faults: 0 };
  #untold: Change[] = [];
  #failure: ControlError | undefined;

  constructor(config: StoreMachineConfig) {
    this.#config = config;
  }

  /** The same object for ever, also after a restore. */
  get state(): ReadonlyState {
    return this.#state;
  }

  /** The oldest first. */
  history(): readonly HistoryEntry[] {
    return this.#history.entries();
  }

  stats(): StoreMachineStats {
    return { ...this.#stats };
  }

  watch(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Never throws. Results in the order of the batch; a refusal is a SwarmError. */
  apply(entry: MachineEntry): readonly (CommandResult | SwarmError)[] {
    if (this.#failure !== undefined) return [];
    const items = decodeItems(entry.data);
    if (items === 'malformed' || items === 'format') return this.#fail(items, entry.index);
    if (!items.every(({ command }) => isCommand(command))) return this.#fail('format', entry.index);
    return (items as readonly BatchItem<Command>[]).map((item) => resultOf(this.#settle(item)));
  }

  /** Tells the watchers, once for all that was applied since. */
  applied(): void {
    const changes = this.#untold;
    if (changes.length === 0) return;
    this.#untold = [];
    for (const listener of this.#listeners) listener(changes);
  }

  /**
   * The state as it is now, in chunks; encoded as they are asked for, however long that takes.
   * @throws ControlError when the machine stands still: what it holds belongs to no index.
   */
  capture(): Iterable<Uint8Array> {
    if (this.#failure !== undefined) throw this.#failure;
    const { version, rows } = this.#state.snapshot();
    return encodeSnapshot(version, linesOf(rows, this.#outcomes.entries(), this.history()));
  }

  /** @throws ControlError `CONTROL_STORE_CORRUPT`, `CONTROL_STORE_SCHEMA`; nothing is changed then. */
  restore(data: Uint8Array): void {
    const parts = partsOf(data);
    this.applied();
    const before = this.#listeners.size > 0 ? this.#state.snapshot() : undefined;
    this.#state.replace(parts.state);
    this.#outcomes.replace(parts.outcomes);
    this.#history.replace(parts.history);
    this.#failure = undefined;
    if (before === undefined) return;
    this.#untold = differences(before, this.#state.snapshot());
    this.applied();
  }

  #settle({ dedupe, command }: BatchItem<Command>): Outcome {
    const known = this.#outcomes.get(dedupe);
    if (known !== undefined) {
      this.#stats.repeated++;
      return known;
    }
    const outcome = this.#do(command);
    this.#outcomes.add(dedupe, outcome);
    return outcome;
  }

  #do(command: Command): Outcome {
    this.#stats.commands++;
    try {
      const parts = apply(this.#state, command);
      for (const part of parts) {
        this.#history.add(part.version, part.command, part.changes);
        if (this.#listeners.size > 0) this.#untold.push(...part.changes);
      }
      return { ids: parts.map(({ id }) => id) };
    } catch (error) {
      this.#stats.refused++;
      const refusal = refusalOf(error);
      if (refusal !== undefined) return { refusal };
      // Not ended by it: the entry is in the log, and every manager would end at every start.
      this.#stats.faults++;
      this.#config.onFault?.(error, command);
      const message = 'the command could not be judged: this is a bug of shoal, see its log';
      return { refusal: { detail: { code: 'SWARM_INTERNAL' }, message } };
    }
  }

  #fail(fault: 'malformed' | 'format', index: number): readonly [] {
    this.#failure =
      fault === 'format'
        ? new ControlError(
            { code: 'CONTROL_STORE_SCHEMA', file: `log entry ${index}`, schema: 0 },
            `log entry ${index} was written by a newer version: run that one`,
          )
        : new ControlError(
            { code: 'CONTROL_STORE_CORRUPT', file: `log entry ${index}`, offsetBytes: 0 },
            `log entry ${index} is no batch of commands: this manager cannot go on with its log`,
          );
    this.#config.onFatal(this.#failure);
    return [];
  }
}

function resultOf(outcome: Outcome): CommandResult | SwarmError {
  if ('refusal' in outcome) return errorOf(outcome.refusal);
  return { id: outcome.ids.at(-1) ?? '', ids: outcome.ids };
}

function* linesOf(
  rows: StateSnapshot['rows'],
  outcomes: readonly (readonly [string, Outcome])[],
  history: readonly HistoryEntry[],
): Generator<SnapshotLine, void, undefined> {
  for (const table of TABLE_NAMES)
    for (const [key, row] of rows[table] ?? []) yield [table, key, row];
  for (const [dedupe, outcome] of outcomes) yield ['=outcome', dedupe, outcome];
  for (const entry of history) yield ['=history', '', entry];
}

interface SnapshotParts {
  readonly schema: number;
  readonly state: StateSnapshot;
  readonly outcomes: readonly (readonly [string, Outcome])[];
  readonly history: readonly HistoryEntry[];
}

/** @throws ControlError `CONTROL_STORE_CORRUPT`, `CONTROL_STORE_SCHEMA`. */
function partsOf(data: Uint8Array): SnapshotParts {
  const decoded = decodeSnapshot(data);
  const file = 'snapshot';
  if ('fault' in decoded) {
    if (decoded.fault === 'schema') {
      const { schema } = decoded;
      throw new ControlError(
        { code: 'CONTROL_STORE_SCHEMA', file, schema },
        `the snapshot was written by another version (schema ${schema}): run that one`,
      );
    }
    const { offsetBytes } = decoded;
    throw new ControlError(
      { code: 'CONTROL_STORE_CORRUPT', file, offsetBytes },
      `the snapshot is damaged at byte ${offsetBytes}: take another one`,
    );
  }
  const tables = new Map<string, [string, unknown][]>();
  for (const [name, key, value] of decoded.lines) {
    const rows = tables.get(name);
    if (rows === undefined) tables.set(name, [[key, value]]);
    else rows.push([key, value]);
  }
  return {
    schema: decoded.schema,
    state: {
      version: decoded.version,
      rows: Object.fromEntries(
        TABLE_NAMES.map((name) => [name, tables.get(name) ?? []]),
      ) as unknown as StateSnapshot['rows'],
    },
    outcomes: (tables.get('=outcome') ?? []) as [string, Outcome][],
    history: (tables.get('=history') ?? []).map(([, entry]) => entry as HistoryEntry),
  };
}

/** What must have changed between two states; rows that say the same are the same. */
function differences(before: StateSnapshot, after: StateSnapshot): Change[] {
  const changes: Change[] = [];
  for (const table of TABLE_NAMES) {
    const old = new Map<string, unknown>(before.rows[table]);
    for (const [key, row] of after.rows[table] ?? []) {
      const from = old.get(key);
      old.delete(key);
      if (JSON.stringify(from) !== JSON.stringify(row))
        changes.push({ table, key, before: from, after: row } as Change);
    }
    for (const [key, from] of old)
      changes.push({ table, key, before: from, after: undefined } as Change);
  }
  return changes;
}

/** What a snapshot holds, for people. */
export interface SnapshotSummary {
  readonly schema: number;
  /** The store's version. */
  readonly version: number;
  readonly rows: Readonly<Record<TableName, number>>;
  readonly outcomes: number;
  readonly history: number;
}

/** @throws ControlError `CONTROL_STORE_CORRUPT`, `CONTROL_STORE_SCHEMA`. */
export function inspectSnapshot(
  data: Uint8Array,
): SnapshotSummary & { readonly state: ReadonlyState } {
  const { schema, state, outcomes, history } = partsOf(data);
  const counts = TABLE_NAMES.map((name) => [name, state.rows[name]?.length ?? 0] as const);
  return {
    schema,
    version: state.version,
    rows: Object.fromEntries(counts) as Record<TableName, number>,
    outcomes: outcomes.length,
    history: history.length,
    state: State.restore(state),
  };
}
