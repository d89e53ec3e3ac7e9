import t from 'tap';
import { proxyThreads } from '../../../../src/dataplane/ingress/index.js';

t.test('threads of the proxy by processors', async (t) => {
  const wanted = [
    [1, 1],
    [2, 2],
    [3, 2],
    [4, 2],
    [6, 3],
    [8, 4],
    [128, 4],
  ] as const;
  for (const [processors, threads] of wanted)
    t.equal(proxyThreads(processors), threads, `${processors} processors`);
});
