import t from 'tap';
import { findContainer, splitNodeName } from '../../../../src/api/classic/core/references.js';
import { containerOf, nodeOf } from './nodes.js';

const HEX = 'ab12'.padEnd(64, 'f');
const NODES = [
  nodeOf('node1', { containers: [containerOf('web'), containerOf('task.1')] }),
  nodeOf('node2', {
    containers: [
      containerOf('db', { id: HEX, names: ['app/db', 'db'] }),
      containerOf('task.1', { id: 'ac'.padEnd(64, '0') }),
    ],
  }),
];

function found(ref: string): string | number | undefined {
  const one = findContainer(NODES, ref);
  return typeof one === 'object' ? `${one.node.name}:${one.container.names.at(-1)}` : one;
}

t.test('a container is found by id, node and name, name, or the beginning of its id', async (t) => {
  const cases = [
    ['web', 'node1:web'],
    ['/web', 'node1:web'],
    ['node1/web', 'node1:web'],
    ['/node1/web', 'node1:web'],
    ['node2/web', undefined],
    ['app/db', 'node2:db'],
    ['node2/app/db', 'node2:db'],
    [HEX, 'node2:db'],
    ['ab1', 'node2:db'],
    ['a', 2],
    ['task.1', 2],
    ['node2/task.1', 'node2:task.1'],
    ['', undefined],
    ['nobody', undefined],
  ] as const;
  for (const [ref, want] of cases) t.equal(found(ref), want, ref);
});

t.test('names of nodes are taken off', async (t) => {
  t.strictSame(splitNodeName('node1/web', NODES), { node: 'node1', name: 'web' });
  t.strictSame(splitNodeName('/node1/web', NODES), { node: 'node1', name: 'web' });
  t.strictSame(splitNodeName('other/web', NODES), { name: 'other/web' });
  t.strictSame(splitNodeName('web', NODES), { name: 'web' });
  t.strictSame(splitNodeName('/', NODES), { name: '/' });
});
