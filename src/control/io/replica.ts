import type { Duplex } from 'node:stream';
import { assert } from '../../base/assert.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  type Member,
  RaftError,
  RaftNode,
  type RaftNodeStatus,
  type RaftPurpose,
  type RaftStatus,
  type RaftStorage,
} from '../raft/index.js';
import {
  type BatchItem,
  type ChangeListener,
  type Command,
  type CommandResult,
  encodeBatch,
  type HistoryEntry,
  type ReadonlyState,
  StoreMachine,
  type StoreMachineStats,
} from '../store/index.js';
import { parseMemberContext } from '../wire/member-context.js';

/** Commands of one entry of the log. */
const BATCH_COMMANDS_MAX = 256;
/** JSON characters of one entry, about; a longer command makes an entry of its own. */
const BATCH_CHARS_MAX = 256 * 1024;

export interface ReplicaConfig {
  readonly raftId: number;
  readonly storage: RaftStorage;
  readonly log: Logger;
  /** Connects to another manager, which proves to be that node. */
  readonly dial: (
    nodeId: NodeId,
    address: string,
    purpose: RaftPurpose,
    signal: AbortSignal,
  ) => Promise<Duplex>;
  readonly onFatal: (error: Error) => void;
}

/** What became of a command that was proposed here. */
export interface Applied {
  readonly id: string;
  readonly ids: readonly string[];
  /** Of the log entry that has it. */
  readonly index: number;
}

interface Waiting {
  readonly item: BatchItem<Command>;
  readonly resolve: (applied: Applied) => void;
  readonly reject: (error: unknown) => void;
}

interface EntryResult {
  readonly index: number;
  readonly results: readonly (CommandResult | SwarmError)[];
}

/** This manager's copy of the cluster's state, kept the same as the others' by raft. */
export class Replica {
  readonly #machine: StoreMachine;
  readonly #raft: RaftNode;
  readonly #waiters: AppliedWaiters;
  readonly #restoredListeners: Set<() => void>;
  #waiting: Waiting[] = [];

  private constructor(
    machine: StoreMachine,
    raft: RaftNode,
    waiters: AppliedWaiters,
    restoredListeners: Set<() => void>,
  ) {
    this.#machine = machine;
    this.#raft = raft;
    this.#waiters = waiters;
    this.#restoredListeners = restoredListeners;
  }

  /** @throws RaftError, RaftStorageError, ControlError: what the disk holds cannot be gone on with. */
  static async open(config: ReplicaConfig): Promise<Replica> {
    const { log, onFatal } = config;
    const machine = new StoreMachine({
      onFatal,
      onFault: (error, command) =>
        log.error({ err: error, command: command.kind }, 'a command met a bug and was refused'),
    });
    const waiters = new AppliedWaiters();
    const restoredListeners = new Set<() => void>();
    const raft = await RaftNode.open({
      id: config.raftId as Member['id'],
      storage: config.storage,
      machine: {
        apply: ({ index, data }): EntryResult => ({
          index,
          results: machine.apply({ index, data }),
        }),
        applied: (index) => {
          machine.applied();
          waiters.onApplied(index);
        },
        capture: () => machine.capture(),
        restore: (data, meta) => {
          machine.restore(data);
          waiters.onApplied(meta.index);
          for (const listener of restoredListeners) listener();
        },
      },
      log,
      dial: (member, purpose, signal) => {
        const context = parseMemberContext(member.context);
        if (context === undefined)
          return Promise.reject(new Error(`nobody knows where manager ${member.id} is`));
        return config.dial(context.nodeId, context.address, purpose, signal);
      },
      onFatal,
    });
    return new Replica(machine, raft, waiters, restoredListeners);
  }

  get raft(): RaftNode {
    return this.#raft;
  }

  get state(): ReadonlyState {
    return this.#machine.state;
  }

  /** Who leads and who the members are; free, for what asks with every command. */
  get current(): RaftStatus {
    return this.#raft.current;
  }

  get status(): RaftNodeStatus {
    return this.#raft.status();
  }

  history(): readonly HistoryEntry[] {
    return this.#machine.history();
  }

  capture(): Iterable<Uint8Array> {
    return this.#machine.capture();
  }

  machineStats(): StoreMachineStats {
    return this.#machine.stats();
  }

  watch(listener: ChangeListener): () => void {
    return this.#machine.watch(listener);
  }

  /** After the state was replaced by a snapshot; `watch` tells what differs, too. */
  onRestored(listener: () => void): () => void {
    this.#restoredListeners.add(listener);
    return () => this.#restoredListeners.delete(listener);
  }

  onStatus(listener: (status: RaftStatus) => void): () => void {
    return this.#raft.onStatus(listener);
  }

  /**
   * Proposes here, which only the leader may. Commands of the same turn share an entry of the log.
   * @throws RaftError as `RaftNode.propose`; SwarmError the store's refusal.
   */
  propose(item: BatchItem<Command>): Promise<Applied> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      if (this.#waiting.length === 1) queueMicrotask(() => this.#flush());
    });
  }

  /** Resolves when the own state has everything up to `index`, or `signal` says to give up. */
  waitApplied(index: number, signal: AbortSignal): Promise<void> {
    if (this.#raft.appliedIndex >= index || signal.aborted) return Promise.resolve();
    return this.#waiters.add(index, signal);
  }

  async close(): Promise<void> {
    await this.#raft.close();
    this.#waiters.onApplied(Number.MAX_SAFE_INTEGER);
  }

  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    let batch: Waiting[] = [];
    let chars = 0;
    for (const one of waiting) {
      const size = sizeOf(one.item.command);
      if (
        batch.length >= BATCH_COMMANDS_MAX ||
        (batch.length > 0 && chars + size > BATCH_CHARS_MAX)
      ) {
        void this.#send(batch);
        batch = [];
        chars = 0;
      }
      batch.push(one);
      chars += size;
    }
    if (batch.length > 0) void this.#send(batch);
  }

  async #send(batch: readonly Waiting[]): Promise<void> {
    try {
      const entry = (await this.#raft.propose(encodeBatch(batch.map(({ item }) => item)))) as
        | EntryResult
        | undefined;
      assert(entry?.results.length === batch.length, 'every command of an entry has its result');
      for (const [i, { resolve, reject }] of batch.entries()) {
        const result = entry.results[i];
        if (result === undefined || result instanceof SwarmError) reject(result);
        else resolve({ ...result, index: entry.index });
      }
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}

/** Who waits until the state has an entry. */
class AppliedWaiters {
  readonly #waiters = new Set<{ readonly index: number; readonly settle: () => void }>();

  add(index: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const waiter = {
        index,
        settle: () => {
          this.#waiters.delete(waiter);
          signal.removeEventListener('abort', waiter.settle);
          resolve();
        },
      };
      this.#waiters.add(waiter);
      signal.addEventListener('abort', waiter.settle, { once: true });
    });
  }

  onApplied(index: number): void {
    for (const waiter of [...this.#waiters]) if (waiter.index <= index) waiter.settle();
  }
}

/** Only large fields make a command large. */
function sizeOf(command: Command): number {
  if (command.kind === 'transaction') return BATCH_CHARS_MAX;
  return 'data' in command && typeof command.data === 'string' ? command.data.length : 512;
}

/** Whether nobody leads, as far as this manager can tell. */
export function isWithoutLeader(error: unknown): boolean {
  return (
    error instanceof RaftError &&
    (error.code === 'RAFT_NO_LEADER' || error.code === 'RAFT_NOT_LEADER')
  );
}
