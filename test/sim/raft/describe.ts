import type { LogEntry, RaftMessage, RaftPersist } from '../../../src/control/raft/core/types.js';
import { nameOf } from './machine.js';

/** A message, as a line of a trace. */
export function describe(message: RaftMessage): string {
  const { from, to, term, kind, ...rest } = message;
  const fields = Object.entries(rest).map(([name, value]) =>
    name === 'entries'
      ? `entries ${listOf(value as readonly LogEntry[])}`
      : `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`,
  );
  return `${nameOf(from)} to ${nameOf(to)}: ${kind} of term ${term} ${fields.join(' ')}`;
}

/** `7@3`: entry 7 of term 3; with a star: a membership. */
const listOf = (entries: readonly LogEntry[]) =>
  entries
    .map(({ index, term, kind }) => `${index}@${term}${kind === 'members' ? '*' : ''}`)
    .join(',');

/** What is to be written, as a line of a trace. */
export function describeWrite({
  persistId,
  entries,
  reset,
  hardState,
  messages,
}: RaftPersist): string {
  const first = entries[0]?.index;
  const what = [
    ...(reset === undefined ? [] : [`begin after ${reset.index}`]),
    ...(first === undefined ? [] : [`entries ${first} to ${first + entries.length - 1}`]),
    ...(hardState === undefined
      ? []
      : [`term ${hardState.term} vote ${nameOf(hardState.vote)} commit ${hardState.commitIndex}`]),
    ...(messages.length === 0 ? [] : [`then ${messages.length} messages`]),
  ];
  return `write ${persistId}: ${what.join(', ')}`;
}
