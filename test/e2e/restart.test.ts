import { existsSync } from 'node:fs';
import t from 'tap';
import { hostOf, type Status, skipUnless, TestLab } from './support/lab.js';
import { lostOf, Netns, sentOf } from './support/netns.js';
import { must, until } from './support/process.js';
import { EchoStream } from './support/tcp.js';

/** Agents that crash or stop, and come back, while programs talk. */

const skip = skipUnless('dig');

/** The node's namespace and its address on the overlay. */
interface Place {
  readonly netns: Netns;
  readonly address: string;
}

const NODES = ['node1', 'node2', 'node3'] as const;
type NodeName = (typeof NODES)[number];

interface World {
  readonly lab: TestLab;
  readonly places: Readonly<Record<NodeName, Place>>;
}

/** Three nodes, the first of them the manager, and a namespace on each. */
async function makeWorld(): Promise<World> {
  const lab = await TestLab.up(t, { nodes: NODES.length });
  await lab.createNetwork('mesh');
  const place = async (node: NodeName): Promise<Place> => {
    const netns = await Netns.make(t);
    const made = await lab.attach(node, 'mesh', netns, { name: `on-${node}`, aliases: ['any'] });
    return { netns, address: hostOf(made.addresses[0]) };
  };
  const places = {
    node1: await place('node1'),
    node2: await place('node2'),
    node3: await place('node3'),
  };
  for (const node of NODES)
    await until('they reach each other', 5_000, async () => {
      const answered = NODES.map((other) => places[node].netns.ping(places[other].address));
      return (await Promise.all(answered)).every((count) => count === 1);
    });
  return { lab, places };
}

const opened = skip === false ? makeWorld() : undefined;
const theWorld = () => opened as Promise<World>;

/** What has to be the same after a restart. */
function identityOf(status: Status) {
  return {
    node: status.node,
    networks: status.networks.map(({ id, name, vni }) => ({ id, name, vni })),
    attachments: status.attachments,
  };
}

/** Number, address and state flags of an interface: another one of the same name has another number. */
const linkOf = async (netns: Netns) =>
  (await must(['ip', '-n', netns.name, '-o', 'link', 'show', 'eth0'])).split(':', 1)[0];

for (const [crashed, other, third] of [
  ['node2', 'node3', 'node1'],
  ['node1', 'node2', 'node3'],
] as const) {
  const role = crashed === 'node1' ? 'manager' : 'worker';
  t.test(`the agent of a ${role} is killed and started again`, { skip }, async (t) => {
    const { lab, places } = await theWorld();
    const { netns: a, address: addressA } = places[crashed];
    const { netns: b, address: addressB } = places[other];
    const before = identityOf(await lab.status(crashed));
    const incarnation = (await lab.member(other, crashed))?.incarnation ?? -1;
    const link = await linkOf(a);
    const stream = await EchoStream.open(t, a, b, addressB);
    const bystander = b.start(
      t,
      b.pingArgv(places[third].address, { count: 2000, intervalMs: 20 }),
    );

    const killedMs = performance.now();
    await lab.lab.stopAgent(crashed, 'SIGKILL');
    const seen = await until('the others notice', 15_000, async () => {
      const state = (await lab.member(other, crashed))?.state;
      return state === 'suspect' || state === 'dead' ? state : undefined;
    });
    t.comment(`${seen} after ${Math.round(performance.now() - killedMs)} ms`);
    if (role === 'worker') {
      await until(
        'the manager calls it down',
        20_000,
        async () => (await lab.nodeStates()).get(crashed) === 'down',
      );
      t.comment(`down after ${Math.round(performance.now() - killedMs)} ms`);
    }
    const question = ['dig', '@127.0.0.11', '+short', `on-${third}`];
    t.equal((await b.must(question)).trim(), places[third].address, 'names go on');

    const startedMs = performance.now();
    await lab.lab.startAgents();
    await t.rejects(
      lab.call(crashed, 'POST', '/swarm/init', { AdvertiseAddr: 'eth0' }),
      /already part of a swarm/,
      'it is in its swarm from the first moment',
    );
    await until('it is back in the swarm', 15_000, async () => {
      const status = await lab.status(crashed);
      return status.state === 'active' && status.managerReachable;
    });
    const backMs = performance.now() - startedMs;
    await until('pings are answered', 10_000, async () => (await a.ping(addressB)) === 1);
    const pingMs = performance.now() - startedMs;
    await stream.untilAnswers(5, 20_000);
    const streamMs = performance.now() - startedMs;
    const times = [backMs, pingMs, streamMs].map((ms) => Math.round(ms)).join(', ');
    t.comment(`ms after the start: in the swarm, ping, the TCP stream: ${times}`);
    t.ok(stream.lives, 'the TCP connection has survived');
    const { stdout } = await bystander.stop('SIGINT');
    t.same(lostOf(stdout), [], `the two others lost no ping: ${sentOf(stdout)}`);

    t.strictSame(identityOf(await lab.status(crashed)), before, 'identity, networks, attachments');
    t.equal(await linkOf(a), link, 'the very same interface');
    const many = { count: 5, intervalMs: 20 };
    t.equal(await a.ping(places[third].address, many), 5);
    t.equal(await b.ping(addressA, many), 5);
    const back = await until('the other sees it alive', 10_000, async () => {
      const member = await lab.member(other, crashed);
      return member?.state === 'alive' ? member : undefined;
    });
    t.ok(back.incarnation > incarnation, 'it has told of itself anew');
    const answer = await b.must(['dig', '@127.0.0.11', '+short', `on-${crashed}`]);
    t.equal(answer.trim(), addressA, 'its names are back');
    await until('the manager shows all ready', 10_000, async () =>
      [...(await lab.nodeStates()).values()].every((state) => state === 'ready'),
    );
    const late = await Netns.make(t);
    const made = await lab.attach(crashed, 'mesh', late, { name: 'late' });
    await until('it is reached', 5_000, async () => (await late.ping(addressB)) === 1);
    await lab.call(crashed, 'POST', '/shoal/v1/detach', { id: made.id });
  });
}

t.test('an agent that is asked to stop takes away what it made', { skip }, async (t) => {
  const { lab, places } = await theWorld();
  const { netns: a, address: addressA } = places.node1;
  const { netns: b, address: addressB } = places.node2;
  const before = identityOf(await lab.status('node2'));
  await lab.shoal('node2', 'network', 'attach', 'mesh', '--host');
  const linksOfNode = async () =>
    (await must(lab.lab.commandIn('node2', ['ip', '-br', 'link']))).match(/^[\w-]+/gm);
  // The node's own place on the ingress network, and what was attached here by hand.
  const made = ['shoal-ingress', 'shoal0'];
  t.strictSame((await linksOfNode())?.sort(), ['eth0', 'lo', ...made]);
  const { socket } = lab.lab.node('node2');

  const beganMs = performance.now();
  await lab.lab.stopAgent('node2', 'SIGTERM');
  t.comment(`stopped in ${Math.round(performance.now() - beganMs)} ms`);
  t.strictSame(await b.links(), [], 'no interface in the namespace');
  t.strictSame(await linksOfNode(), ['lo', 'eth0'], 'none on the host');
  t.notOk(existsSync(socket), 'no socket');
  t.equal(await a.ping(addressB, { timeoutMs: 200 }), 0);

  await lab.lab.startAgents();
  await until('the attachments are back', 15_000, async () => {
    const { attachments, state } = await lab.status('node2');
    return state === 'active' && attachments.length === 2;
  });
  const { attachments, ...rest } = identityOf(await lab.status('node2'));
  t.match(attachments, before.attachments);
  t.match(rest, { node: before.node, networks: before.networks });
  t.strictSame((await linksOfNode())?.sort(), ['eth0', 'lo', ...made]);
  await until('they reach each other again', 10_000, async () => (await a.ping(addressB)) === 1);
  t.equal(await b.ping(addressA, { count: 5, intervalMs: 20 }), 5);
});
