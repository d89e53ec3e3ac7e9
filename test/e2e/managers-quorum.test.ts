import t from 'tap';
import { skipUnless, type TestLab } from './support/lab.js';
import {
  ALL_REACHABLE,
  MANAGERS,
  managersUp,
  nodesSeen,
  SOON_MS,
  untilManagers,
} from './support/managers.js';
import { run, until } from './support/process.js';

/** Managers that are lost, most of them: for a while, and for good. */

const skip = skipUnless('docker', 'curl');
const NO_LEADER =
  "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/** The head of an answer, as curl shows it. */
async function headOf(lab: TestLab, node: string, path: string): Promise<string> {
  const { socket } = lab.lab.node(node);
  const { stdout } = await run(['curl', '-si', '--unix-socket', socket, `http://shoal${path}`]);
  return stdout.split('\r\n\r\n')[0] ?? '';
}

t.test('without a quorum there are old answers and no changes', { skip }, async (t) => {
  const lab = await managersUp(t);
  await lab.dockerMust('node2', 'network', 'create', '-d', 'overlay', 'before');
  const fresh = await headOf(lab, 'node3', '/nodes');
  t.match(fresh, /^HTTP\/1\.1 200 OK/);
  t.notMatch(fresh, /Shoal-Stale/i);
  for (const node of ['node1', 'node2']) await lab.lab.signalAgent(node, 'SIGKILL');

  const beganMs = performance.now();
  const first = await lab.docker('node3', 'network', 'create', '-d', 'overlay', 'never');
  const firstMs = performance.now() - beganMs;
  t.match(
    first.stderr,
    /does not have a leader|the managers lost each other/,
    'no word of success',
  );
  t.ok(firstMs < 18_000, `within a bounded time: ${Math.round(firstMs)} ms`);
  await until('it knows that nobody leads', SOON_MS, async () =>
    /^Shoal-Stale: /m.test(await headOf(lab, 'node3', '/nodes')),
  );
  const refusedAtMs = performance.now();
  const refused = await lab.docker('node3', 'network', 'create', '-d', 'overlay', 'never2');
  const refusedMs = performance.now() - refusedAtMs;
  t.match(refused.stderr, NO_LEADER);
  t.ok(refusedMs < 12_000, `within a bounded time: ${Math.round(refusedMs)} ms`);
  const stale = await headOf(lab, 'node3', '/nodes');
  t.match(stale, /^HTTP\/1\.1 200 OK/);
  t.match(stale, /^Shoal-Stale: \d+$/m);
  t.match(stale, /^Warning: 110 /m);
  const seen = await nodesSeen(lab, 'node3');
  t.strictSame([...seen.keys()].sort(), MANAGERS);
  await until('the others are unreachable', SOON_MS, async () => {
    const now = await nodesSeen(lab, 'node3');
    return (
      now.get('node1')?.manager === 'Unreachable' && now.get('node2')?.manager === 'Unreachable'
    );
  });
  t.match(await lab.dockerMust('node3', 'network', 'ls'), / before /);
  const explained = await lab.shoal('node3', 'recover');
  t.match(explained.stdout, /^Quorum: +2 of 3 managers are needed, 1 can be reached$/m);

  for (const node of ['node1', 'node2']) await lab.lab.startAgent(node);
  for (const node of MANAGERS) await untilManagers(lab, node, ALL_REACHABLE);
  const networks = await lab.dockerMust('node1', 'network', 'ls');
  t.match(networks, / before /, 'nothing is lost');
  t.notMatch(networks, / never2 /, 'what was refused was not done');
  t.notMatch(await headOf(lab, 'node3', '/nodes'), /Shoal-Stale/i);
});
