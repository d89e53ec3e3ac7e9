import { assert, unreachable } from '../../../src/base/assert.js';
import type {
  LogEntry,
  Membership,
  ProposalOutcome,
  RaftMessage,
  RaftPersist,
  RaftReady,
  RaftStatus,
} from '../../../src/control/raft/core/types.js';
import { decodeMembers } from '../../../src/control/raft/wire/members.js';

/** How a scenario file puts what happens; one line each. `index@term` is a place in a log. */

export function membersText(members: Membership): string {
  const text = members.map(({ id, voter, context }) => {
    const about = context === `m${id}` ? '' : `(${context})`;
    return `${id}${voter ? '' : '?'}${about}`;
  });
  return text.join(' ') || 'nobody';
}

export function entryText({ index, term, kind, data }: LogEntry): string {
  const place = `${index}@${term}`;
  if (kind === 'noop') return `${place} no-op`;
  if (kind === 'members') return `${place} members ${membersText(decodeMembers(data) ?? [])}`;
  const text = Buffer.from(data).toString();
  return `${place} ${text.length > 20 ? `${text.slice(0, 8)}.. (${text.length} bytes)` : text}`;
}

const entriesText = (entries: readonly LogEntry[]) =>
  entries.length > 5
    ? `${entries.slice(0, 2).map(entryText).join(', ')} .. ${entryText(entries.at(-1) as LogEntry)}`
    : entries.map(entryText).join(', ');

export function messageText(message: RaftMessage): string {
  const { from, to, term } = message;
  return `${from} -> ${to} in term ${term}: ${bodyText(message)}`;
}

function bodyText(message: RaftMessage): string {
  switch (message.kind) {
    case 'pre_vote':
    case 'vote': {
      const wish = message.transfer ? ', at the wish of the leader' : '';
      const ask = message.kind === 'vote' ? 'vote for me' : 'would you vote for me';
      return `${ask}, my log ends at ${message.lastIndex}@${message.lastTerm}${wish}`;
    }
    case 'pre_vote_reply':
      return message.granted ? 'I would' : 'I would not';
    case 'vote_reply':
      return message.granted ? 'my vote is yours' : 'not my vote';
    case 'append': {
      const what = message.entries.length === 0 ? 'nothing' : entriesText(message.entries);
      const after = `${message.prevIndex}@${message.prevTerm}`;
      return `after ${after} append ${what}; commit ${message.commitIndex}`;
    }
    case 'append_reply': {
      if (message.accepted) return `I have up to ${message.index}`;
      if (message.hintIndex === 0 && message.index === 0) return 'that is over';
      return `I lack ${message.index}, try ${message.hintIndex}@${message.hintTerm}`;
    }
    case 'heartbeat':
      return `heartbeat, commit ${message.commitIndex}${roundText(message.readRound)}`;
    case 'heartbeat_reply':
      return `I am here${roundText(message.readRound)}`;
    case 'snapshot':
      return `snapshot of ${message.meta.index}@${message.meta.term}`;
    case 'timeout_now':
      return 'stand now';
    case 'read_index':
      return 'what may I read';
    case 'read_index_reply':
      return `read ${message.index}`;
    default:
      return unreachable(message);
  }
}

const roundText = (round: number) => (round === 0 ? '' : `, round ${round}`);

export function statusText(status: RaftStatus): string {
  const { role, term, leader, commitIndex, members, leaderReady, readOnly } = status;
  const who =
    role === 'follower' ? (leader === 0 ? 'without leader' : `follows ${leader}`) : `is ${role}`;
  const ready = role === 'leader' && !leaderReady ? ', not ready' : '';
  const full = readOnly ? ', disk full' : '';
  const place = `term ${term}, commit ${commitIndex}`;
  return `${who.replace('_', '-')}, ${place}, members ${membersText(members)}${ready}${full}`;
}

export function persistText({
  persistId,
  entries,
  reset,
  hardState,
  messages,
}: RaftPersist): string {
  const parts: string[] = [];
  if (reset !== undefined) parts.push(`begin anew after ${reset.index}@${reset.term}`);
  if (entries.length > 0) parts.push(entriesText(entries));
  if (hardState !== undefined) {
    const { term, vote, commitIndex } = hardState;
    parts.push(
      `term ${term}, vote ${vote === 0 ? 'for nobody' : `for ${vote}`}, commit ${commitIndex}`,
    );
  }
  if (messages.length > 0) parts.push(`then send ${messages.length}`);
  return `write ${persistId}: ${parts.join('; ')}`;
}

export function outcomeText(outcome: ProposalOutcome): string {
  if ('refused' in outcome) return `refused: ${outcome.refused}`;
  return `taken as ${outcome.index}@${outcome.term}`;
}

/** In the order in which a shell does it. */
export function readyText(ready: RaftReady): string[] {
  const lines: string[] = [];
  if (ready.status !== undefined) lines.push(statusText(ready.status));
  for (const outcome of ready.proposals) lines.push(outcomeText(outcome));
  for (const message of ready.messages) lines.push(messageText(message));
  if (ready.persist !== undefined) lines.push(persistText(ready.persist));
  if (ready.restore !== undefined)
    lines.push(`restores ${ready.restore.index}@${ready.restore.term}`);
  if (ready.committed.length > 0) lines.push(`applies ${entriesText(ready.committed)}`);
  for (const { request, index } of ready.reads)
    lines.push(`read ${request}: ${index === undefined ? 'ask again' : `as of ${index}`}`);
  for (const id of ready.snapshots) lines.push(`wants a snapshot sent to ${id}`);
  return lines;
}

/** A file as commands, each with the transcript that is expected below it. */
export interface ScenarioStep {
  /** Prose and blank lines before the command. */
  readonly before: readonly string[];
  readonly command: string;
  readonly expected: readonly string[];
}

/** Commands begin with `> `; what follows up to a blank line or prose (`#`) is the transcript. */
export function parseScenario(text: string): ScenarioStep[] {
  const steps: { before: string[]; command: string; expected: string[] }[] = [];
  let before: string[] = [];
  let inTranscript = false;
  for (const line of text.trimEnd().split('\n')) {
    if (line.startsWith('> ')) {
      steps.push({ before, command: line.slice(2), expected: [] });
      before = [];
      inTranscript = true;
    } else if (line === '' || line.startsWith('#')) {
      before.push(line);
      inTranscript = false;
    } else {
      assert(inTranscript, `a transcript follows a command: ${line}`);
      steps.at(-1)?.expected.push(line);
    }
  }
  return steps;
}

export function formatScenario(steps: readonly ScenarioStep[]): string {
  const lines = steps.flatMap(({ before, command, expected }, i) => [
    ...(i > 0 && before.length === 0 ? [''] : before),
    `> ${command}`,
    ...expected,
  ]);
  return `${lines.join('\n')}\n`;
}
