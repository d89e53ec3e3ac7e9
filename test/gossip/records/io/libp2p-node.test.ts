import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import {
  createNode,
  dialAddress,
  listenPort,
  startNode,
} from '../../../../src/gossip/io/libp2p-node.js';
import { seedOf } from './planes.js';

async function openNode(id: string) {
  const node = await createNode({
    seed: seedOf(id),
    bindAddress: '127.0.0.1',
    port: 0,
    admits: () => true,
  });
  await startNode(node, 0);
  return node;
}

t.test('a connection that closes while streams open does not end the process', async (t) => {
  const [a, b] = [await openNode('a'), await openNode('b')];
  t.teardown(() => Promise.all([a.stop(), b.stop()]));
  const address = await dialAddress('127.0.0.1', listenPort(b), b.peerId.toString());
  let refused = 0;
  for (let i = 0; i < 20; i++) {
    const connection = await a.dial(address);
    const opened: Promise<unknown>[] = [];
    for (let j = 0; j < 20 + i; j++) {
      const opening = connection.newStream('/none/1').catch(() => {
        refused += 1;
      });
      opened.push(opening);
      if (j === 10) for (const theirs of b.getConnections()) theirs.abort(new Error('gone'));
      await turn();
    }
    connection.abort(new Error('enough'));
    await Promise.all(opened);
  }
  t.ok(refused > 0, 'the openers are told');
});
