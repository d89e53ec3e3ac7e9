import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import type { MemberChange } from '../../../../src/control/raft/core/types.js';
import { Group, raftId } from '../group.js';
import { Invariants } from './invariants.js';

/**
 * Small groups under random schedules: messages late, twice, out of order or never, disks that lag, crashes,
 * changing members, compaction. After every step nothing may have happened that raft forbids; and once all is well
 * again, the group must come to rest and work.
 */
const SEEDS = 60 * Number(process.env['FUZZ_FACTOR'] ?? 1);
const STEPS = 2_500;

type Act = (group: Group, prng: Prng, pick: () => number) => void;

let nextToken = 0;

const propose: Act = (group, prng, pick) => {
  const token = ++nextToken;
  const data = Buffer.alloc(4 + prng.nextBelow(60));
  data.writeUInt32BE(token);
  group.step(pick(), { kind: 'propose', token, data });
};

const change: Act = (group, prng, pick) => {
  const ids = [...group.members.keys()];
  const present = ids.filter((id) => group.member(id).raft.lastIndex > 0);
  const id = raftId(present[prng.nextBelow(present.length)] ?? 1);
  const isNew = prng.chance(0.3) && ids.length < 6;
  const fresh = raftId(ids.length + 1);
  const changes: MemberChange[] = [
    { kind: 'promote', id },
    { kind: 'remove', id },
    { kind: 'describe', id, context: `c${prng.nextBelow(100)}` },
  ];
  if (isNew) group.add(fresh);
  const wanted = isNew
    ? { kind: 'add_learner' as const, id: fresh, context: 'new' }
    : (changes[prng.nextBelow(3)] as MemberChange);
  group.step(pick(), { kind: 'propose_members', token: 0, change: wanted });
};

const deliver: Act = (group, prng) => {
  const at = prng.nextBelow(Math.max(1, Math.min(group.network.length, 8)));
  const message = group.network[at];
  if (message === undefined) return;
  if (prng.chance(0.95)) group.network.splice(at, 1);
  if (prng.chance(0.05) || group.members.get(message.to)?.up !== true) return;
  group.step(message.to, { kind: 'message', message });
};

const snapshot: Act = (group, _prng, pick) => {
  const from = pick();
  const to = group.member(from).snapshotsWanted[0];
  const leads = group.raft(from).status().role === 'leader';
  if (to !== undefined && leads) group.sendSnapshot(from, to);
};

const crash: Act = (group, prng, pick) => {
  const id = pick();
  // What was under way may or may not have reached the disk, in order.
  const member = group.member(id);
  for (const write of member.writes.slice(0, prng.nextBelow(member.writes.length + 1)))
    member.disk.write(write);
  group.crash(id);
};

const restart: Act = (group) => {
  for (const { id, up } of group.members.values()) if (!up) group.restart(id);
};

/** With how often they happen. */
const ACTS: readonly (readonly [number, Act])[] = [
  [400, deliver],
  [150, (group, _prng, pick) => group.persist(pick(), 1)],
  [80, propose],
  [60, (group, prng) => group.tick(prng.nextBelow(60))],
  [8, (group, prng) => group.tick(prng.nextBelow(900))],
  [20, (group, prng, pick) => group.step(pick(), { kind: 'read', request: prng.nextUint32() })],
  [8, change],
  [6, (group, _prng, pick) => group.compact(pick(), 2)],
  [20, snapshot],
  [4, crash],
  [5, restart],
  [3, (group, _prng, pick) => group.step(pick(), { kind: 'campaign' })],
  [3, (group, _prng, pick) => group.step(pick(), { kind: 'transfer' })],
  [2, (group, _prng, pick) => group.step(pick(), { kind: 'peer_gone', peer: raftId(pick()) })],
  [4, (group, _p, pick) => group.step(pick(), { kind: 'peer_unreachable', peer: raftId(pick()) })],
  [2, (group, prng, pick) => group.step(pick(), { kind: 'read_only', on: prng.chance(0.3) })],
];

const TOTAL = ACTS.reduce((sum, [weight]) => sum + weight, 0);

function choose(prng: Prng): Act {
  let at = prng.nextBelow(TOTAL);
  for (const [weight, act] of ACTS) {
    if (at < weight) return act;
    at -= weight;
  }
  return deliver;
}

function runSeed(seed: number): Invariants {
  const prng = new Prng(seed);
  const ids = [1, 2, 3, 4, 5].slice(0, 1 + prng.nextBelow(5));
  const config = { appendBytesMax: 200, inflightMessagesMax: 4, inflightBytesMax: 1_000 };
  const group = new Group(ids, { promptDisks: false, config });
  const invariants = new Invariants(group);
  const running = () => [...group.members.values()].filter(({ up }) => up).map(({ id }) => id);
  for (let step = 0; step < STEPS; step++) {
    if (running().length === 0) restart(group, prng, () => 0);
    const pick = () => {
      const up = running();
      return up[prng.nextBelow(up.length)] as number;
    };
    invariants.watch(() => choose(prng)(group, prng, pick));
  }
  heal(group, invariants);
  return invariants;
}

/** All is well again, for so long that whatever was under way is over. */
function heal(group: Group, invariants: Invariants): void {
  for (const { id, up } of group.members.values()) {
    if (!up) group.restart(id);
    group.step(id, { kind: 'read_only', on: false });
  }
  group.promptDisks = true;
  for (let i = 0; i < 60; i++) {
    invariants.watch(() => group.run(100));
    for (const { id, snapshotsWanted } of group.members.values())
      for (const to of [...snapshotsWanted]) invariants.watch(() => group.sendSnapshot(id, to));
  }
  invariants.checkRest();
}

t.test('no schedule breaks what raft promises, and the group works when all is well', async (t) => {
  const seen = { leaders: 0, applied: 0, reads: 0, restores: 0, memberships: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const { counts } = runSeed(seed);
      for (const key of Object.keys(seen) as (keyof typeof seen)[]) seen[key] += counts[key];
    } catch (error) {
      t.fail(`seed ${seed}: ${(error as Error).stack}`);
      return;
    }
  }
  t.comment(JSON.stringify(seen));
  // A schedule in which nothing happens breaks nothing either.
  t.ok(seen.leaders > 3 * SEEDS, 'there were elections');
  t.ok(seen.applied > 50 * SEEDS, 'there was progress');
  t.ok(seen.reads > 5 * SEEDS, 'reads were answered');
  t.ok(seen.restores > SEEDS / 10, 'snapshots were restored');
  t.ok(seen.memberships > SEEDS, 'members came and went');
});
