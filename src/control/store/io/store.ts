import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlError } from '../../core/control-error.js';
import type { Logger } from '../../core/logger.js';
import { errnoOf, makePrivateFolder, removeTemporaries, writeFileAtomic } from '../../io/files.js';
import type { SingleCommand } from '../core/command.js';
import { decide } from '../core/decide.js';
import type { Change, ReadonlyState, State } from '../core/state.js';
import { encodeRecord } from '../wire/record.js';
import { type JournalFile, type OpenJournalFile, openJournalFile } from './journal.js';
import { JOURNAL_NAME, journalHead, recover, SNAPSHOT_NAME, snapshotRecord } from './recover.js';

/** A journal larger than this is replaced by a snapshot. */
const JOURNAL_BYTES_MAX = 4 << 20;
/** Commands that may wait for the disk; further ones are refused. */
const WAITING_MAX = 4096;
/** Commands of one line of the journal, which is to say of one flush to the disk. */
const BATCH_MAX = 512;

export interface StoreConfig {
  /** Folder of its own. */
  readonly dir: string;
  readonly log: Logger;
  readonly journalBytesMax?: number;
  readonly openFile?: OpenJournalFile;
}

interface Waiting {
  readonly command: SingleCommand;
  readonly done: (id: string) => void;
  readonly failed: (error: unknown) => void;
}

interface Decided {
  readonly waiting: Waiting;
  readonly changes: readonly Change[];
  readonly id: string;
}

/** Told after each flush of what has changed; never of anything that is not durable. */
export type StoreListener = (changes: readonly Change[]) => void;

/**
 * The cluster's state on one manager's disk: a snapshot and a journal of the commands since.
 *
 * A command is decided, written and flushed before its proposer hears of it and before any reader
 * sees its effect. Commands that come while the disk is busy share the next flush.
 */
export class Store {
  readonly #config: StoreConfig;
  readonly #state: State;
  readonly #listeners = new Set<StoreListener>();
  readonly #waiting: Waiting[] = [];
  #file: JournalFile;
  #fileBytes: number;
  /** Number of the last line of the journal. */
  #sequence: number;
  #running: Promise<void> | undefined;
  #failure: ControlError | undefined;
  #compactAtBytes: number;

  private constructor(
    config: StoreConfig,
    recovered: { readonly state: State; readonly sequence: number; readonly fileBytes: number },
    file: JournalFile,
  ) {
    this.#config = config;
    this.#state = recovered.state;
    this.#sequence = recovered.sequence;
    this.#fileBytes = recovered.fileBytes;
    this.#file = file;
    this.#compactAtBytes = this.#journalBytesMax;
  }

  /** @throws ControlError `CONTROL_STORE_CORRUPT`, `CONTROL_STORE_SCHEMA`. */
  static async open(config: StoreConfig): Promise<Store> {
    await makePrivateFolder(config.dir);
    await removeTemporaries(config.dir);
    const recovered = await recover(config.dir, config.log);
    const openFile = config.openFile ?? openJournalFile;
    const file = await openFile(join(config.dir, JOURNAL_NAME));
    return new Store(config, recovered, file);
  }

  get state(): ReadonlyState {
    return this.#state;
  }

  get journalBytes(): number {
    return this.#fileBytes;
  }

  watch(listener: StoreListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Answers with the id of the object that the command was about, when the command is durable.
   * @throws SwarmError the refusal; ControlError when the disk or the store cannot.
   */
  propose(command: SingleCommand): Promise<string> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#waiting.length >= WAITING_MAX) {
      const busy = 'too many changes wait for the disk: try again later';
      return Promise.reject(new ControlError({ code: 'CONTROL_STORE_BUSY' }, busy));
    }
    // What is decided now is exactly what a replay would read: its JSON, and nobody else's object.
    const copy = JSON.parse(JSON.stringify(command)) as SingleCommand;
    return new Promise((done, failed) => {
      this.#waiting.push({ command: copy, done, failed });
      this.#running ??= this.#run();
    });
  }

  /** What was proposed is finished first. */
  async close(): Promise<void> {
    this.#failure ??= new ControlError({ code: 'CONTROL_STORE_CLOSED' }, 'the store is closed');
    await this.#running;
    this.#listeners.clear();
    await this.#file.close();
  }

  async #run(): Promise<void> {
    // Commands of the same turn of the event loop share the first flush, too.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      await this.#flush(this.#waiting.splice(0, BATCH_MAX));
      if (this.#fileBytes > this.#compactAtBytes) await this.#compact();
    }
    this.#running = undefined;
  }

  async #flush(batch: readonly Waiting[]): Promise<void> {
    const decided = this.#decideAll(batch);
    const effective = decided.filter(({ changes }) => changes.length > 0);
    if (effective.length > 0) {
      const failure = await this.#append(effective.map(({ waiting }) => waiting.command));
      if (failure !== undefined) {
        for (const { waiting } of decided) waiting.failed(failure);
        return;
      }
    }
    for (const { changes } of effective) this.#state.commit(changes);
    for (const { waiting, id } of decided) waiting.done(id);
    const changes = effective.flatMap((one) => one.changes);
    if (changes.length > 0) for (const listener of this.#listeners) listener(changes);
  }

  /** Each is decided on the state that those before it make, and all are taken back until durable. */
  #decideAll(batch: readonly Waiting[]): readonly Decided[] {
    const decided: Decided[] = [];
    for (const waiting of batch) {
      try {
        const { changes, id } = decide(this.#state, waiting.command);
        this.#state.commit(changes);
        decided.push({ waiting, changes, id });
      } catch (error) {
        waiting.failed(error);
      }
    }
    for (const { changes } of decided.toReversed()) this.#state.revert(changes);
    return decided;
  }

  async #append(commands: readonly SingleCommand[]): Promise<ControlError | undefined> {
    if (this.#failure?.code === 'CONTROL_STORE_FAILED') return this.#failure;
    const line = encodeRecord({ sequence: this.#sequence + 1, commands });
    try {
      await this.#file.write(line, this.#fileBytes);
      await this.#file.datasync();
    } catch (error) {
      return this.#undo(error);
    }
    this.#sequence++;
    this.#fileBytes += line.length;
    return undefined;
  }

  /**
   * Cuts off what may have been written. If even that fails nobody knows what the disk holds, so
   * nothing may be written after it.
   */
  async #undo(error: unknown): Promise<ControlError> {
    const cause = error instanceof Error ? error.message : String(error);
    try {
      await this.#file.truncate(this.#fileBytes);
      await this.#file.datasync();
    } catch {
      this.#failure = storeFailed(cause);
      this.#config.log.error({ cause, dir: this.#config.dir }, 'store failed');
      return this.#failure;
    }
    this.#config.log.error({ cause, dir: this.#config.dir }, 'store could not write');
    return errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT'
      ? new ControlError(
          { code: 'CONTROL_STORE_FULL' },
          'no space is left on the disk of the cluster state: free some, then try again',
        )
      : new ControlError(
          { code: 'CONTROL_STORE_FAILED', cause },
          `the cluster's state could not be written: ${cause}`,
        );
  }

  /**
   * Snapshot first, then a fresh journal: a crash in between leaves lines that the snapshot has
   * already, which the sequence tells. A failure costs only space, so it is put off.
   */
  async #compact(): Promise<void> {
    const { dir, log } = this.#config;
    try {
      const snapshot = snapshotRecord(this.#state.snapshot(), this.#sequence);
      await writeFileAtomic(join(dir, SNAPSHOT_NAME), snapshot);
      await writeFileAtomic(join(dir, JOURNAL_NAME), journalHead());
    } catch (error) {
      this.#compactAtBytes = this.#fileBytes + this.#journalBytesMax;
      log.warn({ err: error, dir }, 'store could not be compacted');
    }
    await this.#reopen();
  }

  /** After a compaction, even a failed one, the name may stand for another file than the one held. */
  async #reopen(): Promise<void> {
    const { dir, openFile = openJournalFile } = this.#config;
    const path = join(dir, JOURNAL_NAME);
    try {
      const old = this.#file;
      this.#file = await openFile(path);
      await old.close();
      this.#fileBytes = (await stat(path)).size;
      if (this.#fileBytes <= this.#journalBytesMax) this.#compactAtBytes = this.#journalBytesMax;
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      this.#failure = storeFailed(cause);
      this.#config.log.error({ cause, dir }, 'store failed');
    }
  }

  get #journalBytesMax(): number {
    return this.#config.journalBytesMax ?? JOURNAL_BYTES_MAX;
  }
}

function storeFailed(cause: string): ControlError {
  return new ControlError(
    { code: 'CONTROL_STORE_FAILED', cause },
    `the disk of the cluster's state failed: repair it, then restart the agent (${cause})`,
  );
}
