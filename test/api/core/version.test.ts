import t from 'tap';
import { flagOf, momentMs, versionOf } from '../../../src/api/core/parameters.js';
import { compareVersions, splitVersion } from '../../../src/api/core/version.js';

t.test('a version is taken off the path', async (t) => {
  t.same(splitVersion('/v1.45/nodes'), { version: '1.45', route: '/nodes' });
  t.same(splitVersion('/v1.24/nodes'), { version: '1.24', route: '/nodes' });
  for (const path of ['/nodes', '/volumes', '/v1.45', '/vx/nodes', '/v1.45x/nodes', '']) {
    t.same(splitVersion(path), { version: '1.45', route: path });
  }
});

t.test('versions beyond the range are refused in words that users know', async (t) => {
  t.throws(() => splitVersion('/v1.99/info'), {
    message: 'client version 1.99 is too new. Maximum supported API version is 1.45',
  });
  t.throws(() => splitVersion('/v1.9/info'), {
    message:
      'client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version',
  });
});

t.test('versions compare by number', async (t) => {
  t.ok(compareVersions('1.9', '1.24') < 0);
  t.equal(compareVersions('1.45', '1.45.0'), 0);
  t.ok(compareVersions('2.0', '1.99') > 0);
});

t.test('query parameters are read as Docker reads them', async (t) => {
  const query = new URLSearchParams('a=1&b=0&c=False&d=yes&e=&version=12&bad=-1');
  const flags = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => flagOf(query, name));
  t.same(flags, [true, false, false, true, false, false]);
  t.equal(versionOf(query, 'node'), 12);
  t.throws(() => versionOf(new URLSearchParams('version=x'), 'node'), {
    message: "invalid node version 'x'",
  });
});

t.test('a moment is seconds since the epoch or a time back from now', async (t) => {
  t.equal(momentMs('1795190765', 0), 1_795_190_765_000);
  t.equal(momentMs('1.5', 0), 1500);
  t.equal(momentMs('1h30m', 10_000_000), 10_000_000 - 5_400_000);
  t.equal(momentMs('250ms', 1000), 750);
  t.equal(momentMs('yesterday', 0), undefined);
  t.equal(momentMs('', 0), undefined);
});
