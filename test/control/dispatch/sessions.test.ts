import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { AttachmentId } from '../../../src/base/swarm-model.js';
import { attachmentId, networkId, networkSpec, nodeId } from '../support.js';
import { Cluster, HOST, until } from './cluster-support.js';

const a = nodeId('a');

t.test('an agent whose manager ends is with another at once, and is never down', async (t) => {
  for (const kind of ['goodbye', 'kill'] as const) {
    await Cluster.run(3, async (cluster) => {
      cluster.join(a);
      const session = await cluster.agent(a);
      await until('it was told', () => session.assignments()?.nodes.size === 4);
      await sleep(1_000);
      const first = cluster.managerOf(session);
      t.equal(cluster.log.state.row('node', a)?.session?.manager, first.id);
      const states = new Set<string>();
      const startMs = performance.now();
      await cluster.stop(first, kind);
      await until('another serves it', () => {
        const row = cluster.log.state.row('node', a);
        states.add(row?.state ?? '');
        return row?.session?.manager !== first.id && session.connected;
      });
      t.ok(performance.now() - startMs < 1_000, `${performance.now() - startMs} ms`);
      t.strictSame([...states], ['ready']);
      const next = cluster.managerOf(session);
      t.not(next.id, first.id);
      t.match(
        next.dispatcher.stats(),
        { partialTells: 1, fullTells: 0 },
        'it was told the news only',
      );
      cluster.log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('n') });
      await until('it hears of a network', () => session.assignments()?.networks.size === 1);
    });
  }
});

t.test('what came and went while an agent was away is gone for it, whoever tells it', async (t) => {
  await Cluster.run(2, async (cluster) => {
    const { log } = cluster;
    cluster.join(a);
    cluster.join(nodeId('b'));
    const [first, second] = cluster.managers as [
      (typeof cluster.managers)[0],
      (typeof cluster.managers)[0],
    ];
    if (first === undefined || second === undefined) throw new Error('no managers');
    const near = await cluster.agent(a, { localManager: () => first.remote });
    await until('it is told', () => near.assignments()?.nodes.size === 4);
    log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('one') });
    log.commit({ kind: 'network_create', id: networkId(2), spec: networkSpec('two') });
    const held = await near.attach({
      key: 'k',
      network: networkId(1),
      addresses: [],
      name: 'x',
      aliases: [],
    });
    await until('it knows both', () => near.assignments()?.networks.size === 2);
    await until('it knows its own', () => near.assignments()?.attachments.size === 1);
    t.equal(near.remote?.port, first.remote.port, 'the local manager is the first choice');
    await near.close();
    log.commit({ kind: 'network_remove', ref: networkId(2) });
    log.commit({ kind: 'network_create', id: networkId(3), spec: networkSpec('three') });
    log.commit({ kind: 'network_create', id: networkId(4), spec: networkSpec('four') });
    log.commit({ kind: 'network_remove', ref: networkId(4) });
    log.commit({ kind: 'attachment_remove', id: held.id as AttachmentId });
    log.commit({ kind: 'node_remove', nodeId: nodeId('b'), force: true });
    const far = await cluster.agent(a, { localManager: () => second.remote });
    t.equal(far.assignments()?.networks.size, 2, 'from disk');
    await until('it is told', () => far.assignments()?.networks.has(networkId(3)) === true);
    t.strictSame([...(far.assignments()?.networks.keys() ?? [])].sort(), [
      networkId(1),
      networkId(3),
    ]);
    t.equal(far.assignments()?.attachments.size, 0);
    t.notOk(far.assignments()?.nodes.has(nodeId('b')));
    t.match(second.dispatcher.stats(), { partialTells: 1, fullTells: 0 });
  });
});

t.test('nobody is taken back to an earlier state by a manager that lags', async (t) => {
  await Cluster.run(2, async (cluster) => {
    cluster.join(a);
    const [late, good] = cluster.managers;
    if (late === undefined || good === undefined) throw new Error('no managers');
    const first = await cluster.agent(a, { localManager: () => good.remote });
    await until('it is told', () => first.connected);
    late.cut = true;
    cluster.log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('n') });
    await until('it knows', () => first.assignments()?.networks.size === 1);
    await first.close();
    // It prefers the manager that knows less, and goes on to the other.
    const again = await cluster.agent(a, { localManager: () => late.remote });
    let smallest = 1;
    again.onAssignments(() => {
      smallest = Math.min(smallest, again.assignments()?.networks.size ?? 0);
    });
    await until('it has a session', () => again.connected);
    t.equal(cluster.managerOf(again).id, good.id);
    t.equal(late.dispatcher.stats().behind, 1);
    await again.close();
    // One that catches up in time may keep the agent.
    const third = await cluster.agent(a, { localManager: () => late.remote });
    setTimeout(() => {
      late.cut = false;
      late.apply();
    }, 300);
    third.onAssignments(() => {
      smallest = Math.min(smallest, third.assignments()?.networks.size ?? 0);
    });
    await until('it has a session', () => third.connected);
    t.equal(cluster.managerOf(third).id, late.id);
    t.equal(smallest, 1);
  });
});

t.test('without a quorum an agent starts with what is known, and waits to be known', async (t) => {
  await Cluster.run(2, async (cluster) => {
    cluster.join(a);
    cluster.log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('n') });
    cluster.log.quorum = false;
    const session = await cluster.agent(a);
    await until('it has its networks', () => session.assignments()?.networks.size === 1);
    t.ok(session.connected && session.stale);
    t.equal(cluster.log.state.row('node', a)?.state, 'unknown');
    const startMs = performance.now();
    const wish = { key: 'k', network: networkId(1), addresses: [], name: 'x', aliases: [] };
    await t.rejects(session.attach(wish), { code: 'SWARM_NO_QUORUM' });
    t.ok(performance.now() - startMs < 2_000, 'a clear word, soon');
    t.equal(cluster.managerOf(session).dispatcher.stats().provisionalSessions, 1);
    cluster.log.quorum = true;
    await until('all managers know', () => cluster.log.state.row('node', a)?.state === 'ready');
    await until('it knows that', () => !session.stale);
    t.match(await session.attach(wish), { key: 'k' });
  });
});

t.test('an agent of a manager that is cut off goes to one that is not', async (t) => {
  await Cluster.run(3, async (cluster) => {
    cluster.join(a);
    const session = await cluster.agent(a);
    await until('it is known', () => session.connected && !session.stale);
    const first = cluster.managerOf(session);
    first.cut = true;
    first.dispatcher.pulse();
    await until('it hears of it', () => session.stale, 500);
    const startMs = performance.now();
    await until(
      'another serves it',
      () => session.connected && session.remote?.port !== first.remote.port,
    );
    const tookMs = performance.now() - startMs;
    t.ok(tookMs > 2_500 && tookMs < 6_000, `${tookMs} ms`);
    await until(
      'it is known',
      () => cluster.log.state.row('node', a)?.session?.manager !== first.id,
    );
    await until('it is not stale', () => !session.stale);
  });
});

t.test('a node that joined a moment ago is not taken for a removed one', async (t) => {
  await Cluster.run(1, async (cluster) => {
    const [manager] = cluster.managers;
    if (manager === undefined) throw new Error('no manager');
    manager.cut = true;
    cluster.join(a);
    const session = await cluster.agent(a);
    await until('it was turned away', () => manager.dispatcher.stats().behind > 1);
    t.equal(session.ended, undefined);
    manager.cut = false;
    manager.apply();
    await until('it is let in', () => session.connected);
  });
});

t.test('a removed node is told so by any manager', async () => {
  await Cluster.run(2, async (cluster) => {
    cluster.join(a);
    const session = await cluster.agent(a);
    await until('it is connected', () => session.connected);
    cluster.log.commit({ kind: 'node_remove', nodeId: a, force: true });
    await until('it knows', () => session.ended === 'removed');
    const again = await cluster.agent(a);
    await until('it is told again', () => again.ended === 'removed');
  });
});

t.test("an agent whose host's clock went back is let in all the same", async () => {
  await Cluster.run(1, async (cluster) => {
    cluster.join(a);
    const number = Date.now() + 86_400_000;
    cluster.log.commit({
      kind: 'node_observe',
      nodeId: a,
      observation: { session: { manager: nodeId('m0'), number } },
    });
    const session = await cluster.agent(a);
    await until('it is connected', () => session.connected);
    await until(
      'it is known',
      () => cluster.log.state.row('node', a)?.session?.number === number + 1,
    );
  });
});

t.test('of two agents with one identity the later has the session', async (t) => {
  await Cluster.run(2, async (cluster) => {
    cluster.join(a);
    const [x, y] = cluster.managers;
    if (x === undefined || y === undefined) throw new Error('no managers');
    const first = await cluster.agent(a, { localManager: () => x.remote });
    await until('the first is connected', () => first.connected);
    const second = await cluster.agent(a, { localManager: () => y.remote });
    await until('the second is connected', () => second.connected);
    await until('the first is told', () => !first.connected);
    await sleep(300);
    t.ok(second.connected);
    t.notOk(first.connected);
  });
});

t.test('all managers have moved: gossip knows where to', async (t) => {
  await Cluster.run(1, async (cluster) => {
    cluster.join(a);
    const [old] = cluster.managers;
    if (old === undefined) throw new Error('no manager');
    const extra: { address: string; port: number }[] = [];
    const session = await cluster.agent(a, { extraManagers: () => extra });
    await until('it is connected', () => session.connected);
    await cluster.stop(old);
    const moved = await cluster.start(old.id);
    await sleep(500);
    t.notOk(session.connected);
    extra.push(moved.remote);
    await until('it is connected again', () => session.connected);
    const told = () => session.assignments()?.cluster.managers ?? [];
    await until('it is told anew', () => told()[0]?.port === moved.remote.port);
    t.strictSame(told(), [moved.remote]);
    await session.close();
    const again = await cluster.agent(a, { managers: [{ address: HOST, port: 1 }] });
    await until('it remembers', () => again.connected);
  });
});

t.test('a node hears of the role that it is to have', async (t) => {
  await Cluster.run(1, async (cluster) => {
    cluster.join(a);
    const session = await cluster.agent(a);
    await until('it is told', () => session.role === 'worker');
    const roles: string[] = [];
    session.onRole((role) => roles.push(role));
    const row = cluster.log.state.row('node', a);
    if (row === undefined) throw new Error('no node');
    cluster.log.commit({
      kind: 'node_update',
      nodeId: a,
      version: row.version,
      spec: { ...row.spec, role: 'manager' },
    });
    await until('it is told', () => roles.length > 0);
    t.strictSame(roles, ['manager']);
    const { port } = cluster.managerOf(session).remote;
    session.reopen();
    await until('it is away', () => !session.connected);
    await until('it is back', () => session.connected);
    t.equal(session.remote?.port, port);
  });
});

t.test('agents go on without any manager, and lose nothing when they return', async (t) => {
  await Cluster.run(
    2,
    async (cluster) => {
      cluster.join(a);
      const session = await cluster.agent(a);
      await until('it is connected', () => session.connected);
      cluster.log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('n') });
      cluster.log.commit({
        kind: 'attachment_create',
        id: attachmentId(1),
        nodeId: a,
        request: { key: 'k', network: networkId(1), addresses: [], name: 'x', aliases: [] },
      });
      await until('it knows its own', () => session.assignments()?.attachments.size === 1);
      const ids = cluster.managers.map(({ id }) => id);
      for (const manager of [...cluster.managers]) await cluster.stop(manager, 'kill');
      await sleep(1_000);
      t.equal(session.assignments()?.attachments.size, 1);
      t.equal(session.ended, undefined);
      const extra = [];
      for (const id of ids) extra.push((await cluster.start(id)).remote);
      await session.close();
      const back = await cluster.agent(a, { managers: extra });
      await until('it is back', () => back.connected);
      t.equal(back.assignments()?.attachments.size, 1);
    },
    300,
  );
});
