import t from 'tap';
import { resolve } from '../../../src/api/core/references.js';
import type { SwarmError } from '../../../src/base/swarm-error.js';

interface Thing {
  readonly id: string;
  readonly name: string;
}
const things: readonly Thing[] = [
  { id: 'abc1', name: 'web' },
  { id: 'abd2', name: 'abc' },
  { id: 'xyz3', name: 'abc1' },
  { id: 'zzz4', name: 'twin' },
  { id: 'zzz5', name: 'twin' },
];
const find = (ref: string) => resolve('node', ref, things, ({ name }) => [name]).id;

t.test('a full id comes before a name, a name before a prefix', async (t) => {
  t.equal(find('abc1'), 'abc1', 'id, although another has this name');
  t.equal(find('abc'), 'abd2', 'name, although it begins an id');
  t.equal(find('x'), 'xyz3', 'prefix');
});

/** The refusal that `ref` meets. */
function refusalOf(ref: string): unknown {
  try {
    return find(ref);
  } catch (error) {
    return (error as SwarmError).detail;
  }
}

t.test('nothing and too much are refused', async (t) => {
  const kind = 'node';
  t.same(refusalOf('nope'), { code: 'SWARM_NOT_FOUND', kind, ref: 'nope' });
  t.same(refusalOf(''), { code: 'SWARM_NOT_FOUND', kind, ref: '' });
  t.same(refusalOf('ab'), { code: 'SWARM_AMBIGUOUS', kind, ref: 'ab', count: 2 });
  t.same(refusalOf('twin'), { code: 'SWARM_AMBIGUOUS', kind, ref: 'twin', count: 2 });
});
