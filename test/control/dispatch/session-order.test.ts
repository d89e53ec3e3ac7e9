import t from 'tap';
import { Bench, node, nodeId } from '../support.js';

const a = nodeId('a');
const session = (manager: string, number: number) => ({ manager: nodeId(manager), number });

function bench() {
  const world = new Bench();
  world.do({ kind: 'node_create', node: { ...node(a), state: 'unknown' } });
  return {
    open: (manager: string, number: number) =>
      world.do({
        kind: 'node_observe',
        nodeId: a,
        observation: { state: 'ready', stateMessage: '', session: session(manager, number) },
      }),
    say: (state: 'ready' | 'down', ifSession: number) =>
      world.do({ kind: 'node_observe', nodeId: a, observation: { state }, ifSession }),
    row: () => {
      const row = world.state.row('node', a);
      return `${row?.state} ${row?.session?.manager.replace(/^0+/, '')} #${row?.session?.number}`;
    },
    version: () => world.state.version,
  };
}

t.test(
  'of two sessions the larger number is the latest, in whatever order they come',
  async (t) => {
    const world = bench();
    world.open('m1', 7);
    world.open('m2', 5);
    t.equal(world.row(), 'ready m1 #7');
    world.open('m2', 8);
    t.equal(world.row(), 'ready m2 #8');
    const version = world.version();
    world.open('m2', 8);
    t.equal(world.version(), version, 'the same again is no change');
  },
);

t.test('a report about an earlier session is void', async (t) => {
  const world = bench();
  world.open('m1', 1);
  world.open('m2', 2);
  world.say('down', 1);
  t.equal(world.row(), 'ready m2 #2');
  world.open('m1', 3);
  world.say('down', 1);
  t.equal(world.row(), 'ready m1 #3', 'also after a return to the same manager');
  world.say('down', 3);
  t.equal(world.row(), 'down m1 #3');
  world.say('ready', 2);
  t.equal(world.row(), 'down m1 #3');
});

t.test('a node that never had a session is number 0', async (t) => {
  const world = bench();
  world.say('down', 1);
  t.match(world.row(), /^unknown/);
  world.say('down', 0);
  t.match(world.row(), /^down/);
});
