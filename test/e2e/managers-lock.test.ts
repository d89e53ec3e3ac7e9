import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { skipUnless, type TestLab } from './support/lab.js';
import { ALL_REACHABLE, MANAGERS, managersUp, SOON_MS, untilManagers } from './support/managers.js';
import { until } from './support/process.js';

/** Managers whose disks are locked. */

const skip = skipUnless('docker');
const LOCKED = /Swarm is encrypted and needs to be unlocked before it can be used/;

/** Crashes a manager, starts it, and waits until it has found its disk locked. */
async function restartLocked(lab: TestLab, node: string): Promise<void> {
  await lab.lab.signalAgent(node, 'SIGKILL');
  await lab.lab.startAgent(node);
  await until(`${node} is locked`, SOON_MS, async () =>
    LOCKED.test((await lab.docker(node, 'node', 'ls')).stderr),
  );
}

const unlock = (lab: TestLab, node: string, key: string) =>
  lab.dockerWith(`${key}\n`, node, 'swarm', 'unlock');

t.test('managers that are locked open with the key, and no other', { skip }, async (t) => {
  const lab = await managersUp(t);
  t.match((await unlock(lab, 'node1', 'x')).stderr, /swarm is not locked/);
  const on = await lab.docker('node2', 'swarm', 'update', '--autolock=true');
  t.equal(on.code, 0, on.stderr);
  const key = /SWMKEY-1-\S+/.exec(on.stdout)?.[0] ?? 'none';
  t.match(on.stdout, /To unlock a swarm manager after it restarts/);
  t.equal(await lab.dockerMust('node3', 'swarm', 'unlock-key', '-q'), key, 'all say the same');
  await lab.dockerMust('node1', 'config', 'create', 'kept', '/etc/hostname');
  const hush = 'a-secret-that-nobody-may-find';
  t.equal((await lab.dockerWith(hush, 'node3', 'secret', 'create', 'hush', '-')).code, 0);
  for (const node of MANAGERS)
    await until(`${node} has locked its disk`, SOON_MS, () => lockOf(lab, node) !== null);
  for (const node of MANAGERS) {
    const written = allWritten(lab.lab.node(node).dataDir);
    for (const text of [hush, Buffer.from(hush).toString('base64'), key.slice('SWMKEY-1-'.length)])
      t.notOk(written.includes(text), `${node} has written neither the secret nor the key`);
  }

  await restartLocked(lab, 'node1');
  t.match((await lab.docker('node1', 'info')).stdout, /Swarm: locked/);
  t.match((await lab.docker('node1', 'config', 'ls')).stderr, LOCKED);
  const other = `SWMKEY-1-${Buffer.alloc(32, 7).toString('base64').replace(/=+$/, '')}`;
  const wrong = await unlock(lab, 'node1', other);
  t.match(wrong, { code: 1, stderr: /invalid key provided/ });
  t.not((await unlock(lab, 'node1', 'nonsense')).code, 0);
  t.match((await lab.docker('node1', 'node', 'ls')).stderr, LOCKED, 'it is locked still');
  // A manager that leads since a moment ago gives the others an election timeout to be heard.
  await until('node1 is unreachable', SOON_MS, async () =>
    /node1 .*Unreachable/.test(await lab.dockerMust('node2', 'node', 'ls')),
  );
  const right = await unlock(lab, 'node1', key);
  t.equal(right.code, 0, right.stderr);
  await untilManagers(lab, 'node1', ALL_REACHABLE);
  t.match(await lab.dockerMust('node1', 'config', 'ls'), / kept /);

  const before = JSON.stringify(lockOf(lab, 'node2'));
  const rotated = await lab.dockerMust('node3', 'swarm', 'unlock-key', '--rotate', '-q');
  t.match(rotated, /^SWMKEY-1-/);
  t.not(rotated, key);
  await until('its disk has the new lock', SOON_MS, () => {
    return JSON.stringify(lockOf(lab, 'node2')) !== before;
  });
  await restartLocked(lab, 'node2');
  t.match((await unlock(lab, 'node2', key)).stderr, /invalid key provided/, 'the old key');
  t.equal((await unlock(lab, 'node2', rotated)).code, 0, 'the new key');
  await untilManagers(lab, 'node2', ALL_REACHABLE);

  await lab.dockerMust('node1', 'swarm', 'update', '--autolock=false');
  for (const node of MANAGERS)
    await until(`${node} has no lock any more`, SOON_MS, () => lockOf(lab, node) === null);
  await lab.lab.signalAgent('node3', 'SIGKILL');
  await lab.lab.startAgent('node3');
  await untilManagers(lab, 'node3', ALL_REACHABLE);
});

/** The lock of a manager's keys; null: there is none. */
function lockOf(lab: TestLab, node: string): unknown {
  const file = join(lab.lab.node(node).dataDir, 'identity/raft-keys.json');
  return JSON.parse(readFileSync(file, 'utf8')).lock;
}

/** All that an agent has written to its data folder, the logs included. */
function allWritten(folder: string): string {
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .map((path) => {
      try {
        return statSync(path).isFile() ? readFileSync(path, 'latin1') : '';
      } catch {
        // Gone since it was listed.
        return '';
      }
    })
    .join('\n');
}
