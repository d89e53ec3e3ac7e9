import t from 'tap';
import {
  createNode,
  dialAddress,
  listenPort,
  startNode,
} from '../../../../src/gossip/io/libp2p-node.js';
import { seedOf, until } from './planes.js';

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

/** A yamux muxer knows its round-trip time some milliseconds after it opened. */
interface Muxed {
  readonly muxer: { readonly rtt: number };
}

t.test('a connection that closes while a stream opens does not end the process', async (t) => {
  const [a, b] = [await openNode('a'), await openNode('b')];
  t.teardown(() => Promise.all([a.stop(), b.stop()]));
  const address = await dialAddress('127.0.0.1', listenPort(b), b.peerId.toString());
  const connection = await a.dial(address);
  // With it, yamux also grants a new stream more window: even on a connection that just closed.
  t.not(await until(() => (connection as unknown as Muxed).muxer.rtt >= 0), -1);
  const opening = connection.newStream('/none/1');
  connection.abort(new Error('gone'));
  await t.rejects(opening, 'the opener is told');
});
