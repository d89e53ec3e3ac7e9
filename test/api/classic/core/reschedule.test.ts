import fc from 'fast-check';
import t from 'tap';
import type { ClassicNode } from '../../../../src/api/classic/core/node.js';
import {
  FORMER_LABEL,
  POLICY_LABEL,
  rescheduleOf,
  successorLabel,
} from '../../../../src/api/classic/core/reschedule.js';
import { containerOf, nodeOf } from './nodes.js';

const POLICY = { [POLICY_LABEL]: '["on-node-failure"]' };
const web = containerOf('web', { labels: POLICY });
const plain = containerOf('plain');
const after = containerOf('after', {
  labels: { ...POLICY, [FORMER_LABEL]: successorLabel(web) },
});

function planned(nodes: readonly ClassicNode[]) {
  const { move, remove } = rescheduleOf(nodes, ({ trouble }) => trouble === 'down');
  const text = (list: typeof move) =>
    list.map((one) => `${one.node.name}/${one.container.names[0]}`);
  return { move: text(move), remove: text(remove) };
}

t.test('who is moved, and who is removed', async (t) => {
  const cases = [
    { name: 'all is well', nodes: [nodeOf('a', { containers: [web] })], move: [], remove: [] },
    {
      name: 'a node is down',
      nodes: [nodeOf('a', { trouble: 'down', containers: [web, plain] }), nodeOf('b')],
      move: ['a/web'],
      remove: [],
    },
    {
      name: 'it only did not answer once',
      nodes: [nodeOf('a', { trouble: 'late', containers: [web] })],
      move: [],
      remove: [],
    },
    {
      name: 'it has been moved',
      nodes: [
        nodeOf('a', { trouble: 'down', containers: [web] }),
        nodeOf('b', { containers: [after] }),
      ],
      move: [],
      remove: [],
    },
    {
      name: 'its node is back',
      nodes: [nodeOf('a', { containers: [web, plain] }), nodeOf('b', { containers: [after] })],
      move: [],
      remove: ['a/web'],
    },
    {
      name: 'the second node is down too',
      nodes: [
        nodeOf('a', { trouble: 'down', containers: [web] }),
        nodeOf('b', { trouble: 'down', containers: [after] }),
      ],
      move: ['b/after'],
      remove: [],
    },
  ];
  for (const { name, nodes, ...want } of cases) t.strictSame(planned(nodes), want, name);
  const bad = containerOf('bad', { labels: { [POLICY_LABEL]: '{' } });
  t.strictSame(planned([nodeOf('a', { trouble: 'down', containers: [bad] })]).move, []);
});

t.test('whatever fails and comes back, one of a kind is left', async () => {
  const step = fc.record({ node: fc.integer({ min: 0, max: 3 }), isUp: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const down = new Set<number>();
      const held: ReturnType<typeof containerOf>[][] = [[web], [], [], []];
      let made = 0;
      const nodes = () =>
        held.map((containers, at) =>
          nodeOf(`n${at}`, { containers, ...(down.has(at) ? { trouble: 'down' } : {}) }),
        );
      const settle = () => {
        const { move, remove } = rescheduleOf(nodes(), ({ trouble }) => trouble !== undefined);
        for (const { node, container } of remove) {
          const at = Number(node.name.slice(1));
          held[at] = (held[at] ?? []).filter((one) => one !== container);
        }
        const target = held.findIndex((_, at) => !down.has(at));
        if (target < 0) return;
        for (const { container } of move) {
          const labels = { ...POLICY, [FORMER_LABEL]: successorLabel(container) };
          held[target]?.push(containerOf(`m${made++}`, { labels }));
        }
      };
      for (const { node, isUp } of steps) {
        if (isUp) down.delete(node);
        else down.add(node);
        settle();
      }
      down.clear();
      settle();
      return held.flat().length === 1;
    }),
  );
});
