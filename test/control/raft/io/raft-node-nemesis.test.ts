import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import { RaftError } from '../../../../src/control/raft/io/raft-error.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { Cluster, type Host, type ListMachine, until } from './cluster.js';

const MEMBERS = [1, 2, 3, 4, 5];
const CLIENTS = 6;
const SECONDS = 6;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** What the clients were told about each command. */
class History {
  readonly acknowledged = new Set<string>();
  /** Refused, or lost for certain: must never be seen. */
  readonly never = new Set<string>();
  readonly unknown = new Set<string>();
  reads = 0;
  readonly staleReads: string[] = [];

  async propose(host: Host, command: string): Promise<boolean> {
    try {
      await host.running.propose(Buffer.from(command));
      this.acknowledged.add(command);
      return true;
    } catch (error) {
      if (error instanceof RaftError && error.code !== 'RAFT_OUTCOME_UNKNOWN')
        this.never.add(command);
      else this.unknown.add(command);
      return false;
    }
  }

  async read(host: Host): Promise<void> {
    const before = [...this.acknowledged].slice(-20);
    const { node, machine } = host;
    try {
      await node?.read();
    } catch {
      return;
    }
    if (node === undefined || host.machine !== machine) return;
    this.reads++;
    const recent = new Set(machine.commands.slice(-5_000));
    for (const command of before)
      if (!recent.has(command)) this.staleReads.push(`${command} on ${host.id}`);
  }
}

async function client(
  cluster: Cluster,
  history: History,
  name: string,
  prng: Prng,
  done: () => boolean,
) {
  for (let i = 0; !done(); i++) {
    const { up } = cluster;
    const leader = up.find(({ node }) => node?.status().role === 'leader');
    const any = up[prng.nextBelow(up.length)];
    if (prng.chance(0.2) && any !== undefined) await history.read(any);
    else if (leader === undefined || !(await history.propose(leader, `${name}-${i}`)))
      await pause(3);
    await pause(prng.nextBelow(3));
  }
}

/** One misfortune, and what ends it. */
async function misfortune(cluster: Cluster, prng: Prng): Promise<void> {
  const { up } = cluster;
  const victim = up[prng.nextBelow(up.length)] as Host;
  const other = up[prng.nextBelow(up.length)] as Host;
  const lastMs = 50 + prng.nextBelow(400);
  switch (prng.nextBelow(7)) {
    case 0: {
      const leader = up.find(({ node }) => node?.status().role === 'leader') ?? victim;
      cluster.kill(leader.id);
      await pause(lastMs);
      await cluster.start(leader.id);
      break;
    }
    case 1: {
      cluster.kill(victim.id);
      await pause(lastMs);
      await cluster.start(victim.id);
      break;
    }
    case 2: {
      for (const { id } of up) if (id !== victim.id) cluster.part(victim.id, id);
      await pause(lastMs * 2);
      for (const { id } of up) cluster.part(victim.id, id, false);
      break;
    }
    case 3: {
      if (victim === other) break;
      cluster.part(victim.id, other.id);
      await pause(lastMs);
      cluster.part(victim.id, other.id, false);
      break;
    }
    case 4: {
      const pipes = [...cluster.lines(victim.id, other.id), ...cluster.lines(other.id, victim.id)];
      for (const pipe of pipes) pipe.mode = 'stuck';
      await pause(lastMs);
      for (const pipe of pipes) if (prng.chance(0.5)) pipe.cut();
      for (const pipe of pipes) pipe.mode = 'open';
      break;
    }
    case 5:
      await victim.node?.transferLeadership(undefined, 500).catch(() => {});
      break;
    default:
      victim.disk.full = true;
      await pause(lastMs);
      victim.disk.full = false;
      break;
  }
}

t.test('under many misfortunes every answer that clients got was true', async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 32));
  t.comment(`SEED=${seed}`);
  const prng = new Prng(seed);
  // Small snapshots and a short tail, so that followers that were away need them.
  const cluster = new Cluster({ snapshotEntries: 40, keepEntries: 5 });
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(...MEMBERS);
  await cluster.leader();
  const history = new History();
  const endMs = performance.now() + fuzzRuns(SECONDS) * 1_000;
  const done = () => performance.now() > endMs;
  const clients = Array.from({ length: CLIENTS }, (_, i) =>
    client(cluster, history, `c${i}`, new Prng(seed + i), done),
  );
  while (!done()) {
    await misfortune(cluster, prng);
    await pause(prng.nextBelow(150));
  }
  await Promise.all(clients);
  const leader = await cluster.leader(20_000);
  await history.propose(leader, 'last');
  await cluster.settled(20_000);
  const [first, ...rest] = cluster.up;
  const commands = first?.machine.commands ?? [];
  for (const { id, machine, fatal } of rest) {
    t.equal(fatal, undefined);
    t.ok(
      machine.commands.length === commands.length &&
        machine.commands.every((command, i) => command === commands[i]),
      `member ${id} has the same commands in the same order`,
    );
  }
  const seen = new Set(commands);
  t.equal(seen.size, commands.length, 'no command is there twice');
  const lost = [...history.acknowledged].filter((command) => !seen.has(command));
  t.strictSame(lost, [], 'every acknowledged command is there');
  const risen = [...history.never].filter((command) => seen.has(command));
  t.strictSame(risen, [], 'none is there that was refused or reported as lost');
  t.strictSame(history.staleReads, [], 'no read missed what was acknowledged before it');
  const { acknowledged, unknown, never, reads } = history;
  const restores = cluster.up.reduce(
    (sum, { machine }) => sum + (machine as ListMachine).restores,
    0,
  );
  t.comment(
    `${acknowledged.size} acknowledged, ${unknown.size} unknown, ${never.size} refused, ${reads} reads, ${restores} restores`,
  );
  t.ok(acknowledged.size > 50, 'there was progress');
  await until('nothing waits', () =>
    cluster.up.every(({ running }) => running.status().proposals === 0),
  );
});
