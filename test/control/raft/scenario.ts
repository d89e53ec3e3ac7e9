import { assert } from '../../../src/base/assert.js';
import type {
  MemberChange,
  RaftConfig,
  RaftMessage,
} from '../../../src/control/raft/core/types.js';
import { Group, type GroupMember, raftId } from './group.js';
import { messageText, readyText, statusText } from './transcript.js';

type Command = (scenario: Scenario, args: readonly string[]) => void;

const number = (text: string | undefined): number => {
  const value = Number(text);
  assert(text !== undefined && Number.isFinite(value), `a number is wanted: ${text}`);
  return value;
};

/** `1->2`, `1->`, `->2`, `append`, or several, all of which must fit; none: every message. */
function picker(args: readonly string[]): (message: RaftMessage) => boolean {
  return (message) =>
    args.every((arg) => {
      const [from, to] = arg.split('->');
      if (to === undefined) return message.kind === arg;
      return (
        (from === '' || message.from === Number(from)) && (to === '' || message.to === Number(to))
      );
    });
}

const change =
  (of: (id: ReturnType<typeof raftId>, context: string) => MemberChange): Command =>
  ({ group }, [leader, id, context = `m${id}`]) =>
    group.step(number(leader), {
      kind: 'propose_members',
      token: 0,
      change: of(raftId(number(id)), context),
    });

const peer =
  (kind: 'peer_gone' | 'peer_unreachable'): Command =>
  ({ group }, [id, of]) =>
    group.step(number(id), { kind, peer: raftId(number(of)) });

/** Ids come first in all of them. */
const COMMANDS: Readonly<Record<string, Command>> = {
  /** The members of a new group, all voters but those with a question mark. */
  group: (scenario, args) => {
    const ids = args.map((arg) => number(arg.replace('?', '')));
    const learners = ids.filter((_, i) => args[i]?.endsWith('?'));
    scenario.begin(ids, learners);
  },
  /** Before `group`: other limits than the default ones. */
  config: (scenario, args) => scenario.configure(args),
  /** Before `group`: whether writes reach the disk at once. */
  disks: (scenario, [how]) => scenario.setDisks(how === 'prompt'),
  /** A process that belongs to no group yet. */
  'add-node': (scenario, [id]) => scenario.watch(scenario.group.add(number(id))),
  campaign: ({ group }, [id]) => group.step(number(id), { kind: 'campaign' }),
  propose: ({ group }, [id, ...texts]) => group.propose(number(id), ...texts),
  'propose-bytes': ({ group }, [id, size, times = '1']) =>
    group.propose(number(id), ...Array(number(times)).fill('x'.repeat(number(size)))),
  persist: ({ group }, [id, count]) =>
    group.persist(number(id), count === undefined ? undefined : number(count)),
  deliver: (scenario, args) => {
    if (scenario.group.deliver(picker(args)) === 0) scenario.say('nothing is in flight');
  },
  /** Like `deliver`, but the messages stay in flight, to arrive once more. */
  'deliver-twice': ({ group }, args) => {
    const again = group.network.filter(picker(args));
    group.deliver(picker(args));
    group.network.push(...again);
  },
  drop: (scenario, args) => {
    const dropped = scenario.group.network.filter(picker(args));
    scenario.group.drop(picker(args));
    for (const message of dropped) scenario.say(`lost: ${messageText(message)}`);
  },
  /** Nothing gets to a member or from it any more, but what is in flight. */
  cut: ({ group }, ids) => {
    for (const id of ids) group.cutOff.add(number(id));
  },
  mend: ({ group }, ids) => {
    for (const id of ids) group.cutOff.delete(number(id));
  },
  /** Nothing gets to a member, but all it says is heard. */
  deafen: ({ group }, ids) => {
    for (const id of ids) group.deaf.add(number(id));
  },
  settle: ({ group }, args) => group.settle(args.length === 0 ? undefined : picker(args)),
  /** Time passes for some members or all, and nothing is delivered. */
  tick: ({ group }, [ms, ...ids]) =>
    group.tick(number(ms), ids.length === 0 ? undefined : ids.map(number)),
  run: ({ group }, [ms, ...args]) =>
    group.run(number(ms), args.length === 0 ? undefined : picker(args)),
  transfer: ({ group }, [id, to]) =>
    group.step(
      number(id),
      to === undefined ? { kind: 'transfer' } : { kind: 'transfer', to: raftId(number(to)) },
    ),
  'add-learner': change((id, context) => ({ kind: 'add_learner', id, context })),
  promote: change((id) => ({ kind: 'promote', id })),
  remove: change((id) => ({ kind: 'remove', id })),
  describe: change((id, context) => ({ kind: 'describe', id, context })),
  compact: ({ group }, [id, keep = '0']) => group.compact(number(id), number(keep)),
  'send-snapshot': ({ group }, [from, to]) => group.sendSnapshot(number(from), number(to)),
  'fail-snapshot': ({ group }, [from, to]) =>
    group.step(number(from), { kind: 'snapshot_sent', to: raftId(number(to)), ok: false }),
  read: ({ group }, [id, request]) =>
    group.step(number(id), { kind: 'read', request: number(request) }),
  'peer-gone': peer('peer_gone'),
  'peer-unreachable': peer('peer_unreachable'),
  'disk-full': ({ group }, [id]) => group.step(number(id), { kind: 'read_only', on: true }),
  'disk-space': ({ group }, [id]) => group.step(number(id), { kind: 'read_only', on: false }),
  /** What is not written is gone. */
  crash: ({ group }, [id]) => group.crash(number(id)),
  restart: (scenario, [id]) => scenario.group.restart(number(id)),
  status: (scenario, ids) => {
    for (const { id, raft, up } of scenario.members(ids))
      scenario.say(`${id}: ${up ? statusText(raft.status()) : 'is down'}`);
  },
  log: (scenario, ids) => {
    for (const member of scenario.members(ids)) scenario.say(logText(member));
  },
  commands: (scenario, ids) => {
    for (const { id } of scenario.members(ids))
      scenario.say(`${id}: ${scenario.group.commandsOf(id).join(' ') || 'none'}`);
  },
  followers: (scenario, [id]) => {
    for (const { id: of, matchIndex, mode, active } of scenario.group.raft(number(id)).followers())
      scenario.say(`${of}: ${mode}, match ${matchIndex}${active ? '' : ', silent'}`);
  },
  drops: (scenario, ids) => {
    for (const { id, raft } of scenario.members(ids)) {
      const counts = Object.entries(raft.drops).filter(([, count]) => count > 0);
      scenario.say(`${id}: ${counts.map(([drop, n]) => `${drop} ${n}`).join(', ') || 'none'}`);
    }
  },
  'in-flight': (scenario, args) => {
    for (const message of scenario.group.network.filter(picker(args)))
      scenario.say(messageText(message));
  },
};

function logText({ id, raft, disk }: GroupMember): string {
  const { commitIndex } = raft.status();
  const places: string[] = [];
  for (let index = raft.lastIndex; index > 0; index--) {
    const term = raft.termAt(index);
    if (term === undefined) {
      places.push(`(up to ${index} compacted)`);
      break;
    }
    places.push(`${index}@${term}${disk.termAt(index) === term ? '' : ' (not on disk)'}`);
  }
  return `${id}: ${places.reverse().join(' ') || 'empty'}; commit ${commitIndex}`;
}

/** Plays the commands of a scenario file, and says what they lead to. */
export class Scenario {
  #group: Group | undefined;
  #config: Partial<RaftConfig> = {};
  #promptDisks = false;
  #lines: string[] = [];

  get group(): Group {
    assert(this.#group !== undefined, 'the group comes first');
    return this.#group;
  }

  /** @returns What the command led to. `quietly` before it keeps that short. */
  play(text: string): readonly string[] {
    const words = text.split(' ');
    const isQuiet = words[0] === 'quietly';
    const [name = '', ...args] = isQuiet ? words.slice(1) : words;
    const command = COMMANDS[name];
    assert(command !== undefined, `no such command: ${name}`);
    this.#lines = [];
    command(this, args);
    return isQuiet || this.#lines.length === 0 ? ['ok'] : this.#lines;
  }

  say(line: string): void {
    this.#lines.push(line);
  }

  configure(args: readonly string[]): void {
    const pairs = args.map((arg) => arg.split('='));
    this.#config = Object.fromEntries(pairs.map(([key, value]) => [key, number(value)]));
  }

  setDisks(arePrompt: boolean): void {
    this.#promptDisks = arePrompt;
    if (this.#group !== undefined) this.#group.promptDisks = arePrompt;
  }

  begin(ids: readonly number[], learners: readonly number[]): void {
    const options = { learners, config: this.#config, promptDisks: this.#promptDisks };
    this.#group = new Group(ids, options);
    for (const member of this.#group.members.values()) {
      this.watch(member);
      this.say(`${member.id}: ${statusText(member.raft.status())}`);
    }
  }

  watch(member: GroupMember): void {
    const { id } = member;
    member.onInput = (input) => {
      if (input.kind === 'message') this.say(`${id} hears ${messageText(input.message)}`);
      if (input.kind === 'timeout') this.say(`${id} wakes at ${this.group.nowMs} ms`);
    };
    member.onReady = (ready) => {
      for (const line of readyText(ready)) this.say(`  ${id}: ${line}`);
    };
    member.onPersisted = ({ persistId, messages }) => {
      this.say(`${id} has write ${persistId} on disk`);
      for (const message of messages) this.say(`  ${id}: ${messageText(message)}`);
    };
  }

  members(ids: readonly string[]): readonly GroupMember[] {
    if (ids.length === 0) return [...this.group.members.values()];
    return ids.map((id) => this.group.member(number(id)));
  }
}
