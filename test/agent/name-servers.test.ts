import t from 'tap';
import { sharedIndexes } from '../../src/agent/name-servers.js';

t.test('names are derived once for each network, and known on it alone', async (t) => {
  const derived: string[] = [];
  const indexOf = sharedIndexes((id) => {
    derived.push(id);
    const name = `on-${id}`;
    return { network: id, entries: [{ name, aliases: [], addresses: ['10.0.0.2'] }] };
  });
  const knows = (ids: readonly string[]) =>
    ['on-a', 'on-b'].filter((name) => indexOf(ids).lookup(name) !== undefined);
  t.strictSame(knows(['a']), ['on-a']);
  t.strictSame(knows(['b']), ['on-b']);
  t.strictSame(knows(['a', 'b']), ['on-a', 'on-b']);
  t.equal(indexOf(['a', 'b']), indexOf(['a', 'b']));
  t.strictSame(derived, ['a', 'b']);
});
