import type { Edit } from '../../support/mutate.js';
import type { DiskConfig } from './disk.js';

/** A way to be wrong, which the simulation must notice. */
export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  readonly lie?: DiskConfig['lie'];
  /** Seeds within which it is found when the ledger looks inside; some five times what it took. */
  readonly seeds: number;
  /** And by what the outside can see alone; undefined: that takes too long for every day. */
  readonly outsideSeeds?: number;
}

const edit = (file: string, find: string, put: string): readonly Edit[] => [{ file, find, put }];

export const MUTANTS: readonly Mutant[] = [
  { name: 'the vote is not on disk', edits: [], lie: 'forgets_vote', seeds: 10 },
  { name: 'the term is not on disk', edits: [], lie: 'forgets_term', seeds: 10 },
  {
    name: 'durable is said before the flush',
    edits: [],
    lie: 'early',
    seeds: 10,
    outsideSeeds: 20,
  },
  {
    name: 'answers do not wait for the disk',
    edits: edit(
      'roles.ts',
      'this.state.writes.sendAfter(this.#sealed(to, body, this.state.term));',
      'this.send(to, body);',
    ),
    seeds: 10,
    outsideSeeds: 60,
  },
  {
    name: 'an entry of an old term is committed by counting',
    edits: edit('roles.ts', ' || log.termAt(index) !== term', ''),
    seeds: 20,
  },
  {
    name: 'a leader counts itself before its disk',
    edits: edit(
      'leadership.ts',
      'voter === config.id ? writes.stableIndex',
      'voter === config.id ? this.#state.log.lastIndex',
    ),
    seeds: 60,
    outsideSeeds: 60,
  },
  {
    name: 'a conflict does not cut the log',
    edits: edit(
      'log.ts',
      'return entries.find((entry) => !this.has(entry));',
      'return entries.find((entry) => entry.index > this.lastIndex);',
    ),
    seeds: 20,
    outsideSeeds: 20,
  },
  {
    name: 'an append is taken without looking at the entry before',
    edits: edit(
      'inbox.ts',
      'else if (state.log.has(prev))',
      'else if (prev.index <= state.log.lastIndex)',
    ),
    seeds: 60,
    outsideSeeds: 60,
  },
  {
    name: 'a read is answered without a round',
    edits: edit(
      'leadership.ts',
      'this.rounds.round : this.#of(voter).readRound',
      'this.rounds.round : this.rounds.round',
    ),
    seeds: 150,
  },
  {
    name: 'a read is answered before the term has committed anything',
    edits: edit('leadership.ts', 'if (ready && this.rounds.begin', 'if (this.rounds.begin'),
    seeds: 60,
    outsideSeeds: 60,
  },
  {
    name: 'members change before the term has committed anything',
    edits: edit(
      'raft.ts',
      '!this.#roles.leaderReady || members.index > commitIndex',
      'members.index > commitIndex',
    ),
    seeds: 20,
  },
  {
    name: 'members change while a change is open',
    edits: edit('raft.ts', ' || members.index > commitIndex', ''),
    seeds: 20,
  },
  {
    name: 'a vote goes to a shorter log',
    edits: edit(
      'inbox.ts',
      'const granted = this.#isFree(message) && this.#isCovered(message);',
      'const granted = this.#isFree(message);',
    ),
    seeds: 20,
  },
  {
    name: 'half of the voters are a quorum',
    edits: edit('quorum.ts', 'Math.floor(voters / 2) + 1', 'Math.ceil(voters / 2)'),
    seeds: 20,
    outsideSeeds: 60,
  },
  {
    name: 'what was cut off is taken for durable when it comes back',
    edits: edit(
      'write-ahead.ts',
      'for (const flight of this.#flights)\n      flight.stableIndex = Math.min(flight.stableIndex, index - 1);',
      '',
    ),
    seeds: 120,
  },
  {
    name: 'a pre-vote goes to a shorter log',
    edits: edit(
      'inbox.ts',
      '|| this.#isFree(message)) && this.#isCovered(message);',
      '|| this.#isFree(message));',
    ),
    seeds: 20,
  },
  {
    name: 'neither votes nor pre-votes look at the log',
    edits: [
      {
        file: 'inbox.ts',
        find: 'const granted = this.#isFree(message) && this.#isCovered(message);',
        put: 'const granted = this.#isFree(message);',
      },
      {
        file: 'inbox.ts',
        find: '|| this.#isFree(message)) && this.#isCovered(message);',
        put: '|| this.#isFree(message));',
      },
    ],
    seeds: 20,
    outsideSeeds: 60,
  },
  {
    name: 'a snapshot of the past is accepted',
    edits: [
      ...edit(
        'inbox.ts',
        'return meta.index > commitIndex && !log.has(meta);',
        'return meta.index > 0 && commitIndex + log.lastIndex > 0;',
      ),
      ...edit(
        'raft.ts',
        "assert(meta.index > this.#state.commitIndex, 'the state machine never goes back');",
        '',
      ),
    ],
    seeds: 20,
    outsideSeeds: 20,
  },
  {
    name: 'what is committed is applied before it is on disk',
    edits: edit('raft.ts', 'Math.min(commitIndex, writes.stableIndex)', 'commitIndex'),
    seeds: 10,
  },
];
