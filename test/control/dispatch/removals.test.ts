import t from 'tap';
import { Removals } from '../../../src/control/dispatch/core/removals.js';
import { attachmentId, networkId, nodeId } from '../support.js';

const network = (n: number) => ({ table: 'network', id: networkId(n) }) as const;

t.test('what was removed after a version is known, from the version at the start on', async (t) => {
  const removals = new Removals(10);
  removals.add(network(1), 11);
  removals.add({ table: 'attachment', id: attachmentId(1), nodeId: nodeId(1) }, 12);
  t.equal(removals.since(9), undefined, 'before the start anything may have been removed');
  t.equal(removals.since(10)?.length, 2);
  t.match(removals.since(11), [{ table: 'attachment', nodeId: nodeId(1) }]);
  t.strictSame(removals.since(12), []);
  removals.reset(20);
  t.equal(removals.since(19), undefined);
  t.strictSame(removals.since(20), []);
});

t.test('what is forgotten is not vouched for', async (t) => {
  const removals = new Removals(0);
  for (let version = 1; version <= 16_384; version++) removals.add(network(version), version);
  t.equal(removals.since(0)?.length, 16_384);
  removals.add(network(0), 16_385);
  t.equal(removals.since(4_095), undefined);
  t.equal(removals.since(4_096)?.length, 16_385 - 4_096);
});
