import { execFile, spawnSync } from 'node:child_process';
import t from 'tap';
import { FakeBackend, TOKEN } from './fake-backend.js';
import { serve, temporaryFolder } from './harness.js';

/** The unmodified docker CLI against this server. */

interface Run {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

const hasDocker = spawnSync('docker', ['--version']).status === 0;
const skip = hasDocker ? false : 'no docker CLI is on the PATH';

type Teardown = Parameters<typeof serve>[0];

async function cli(t: Teardown, backend = FakeBackend.manager()) {
  const { socketPath } = await serve(t, backend);
  // A folder of its own keeps the contexts of the host's user out.
  const env = { PATH: process.env['PATH'], HOME: temporaryFolder(t) };
  const docker = (line: string, input = ''): Promise<Run> =>
    new Promise((resolve) => {
      const argv = ['-H', `unix://${socketPath}`, ...line.split(' ')];
      const child = execFile('docker', argv, { env, timeout: 30_000 }, (error, stdout, stderr) => {
        resolve({ exit: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
      });
      child.stdin?.end(input);
    });
  return { docker, backend };
}

/** Columns of a table, which are apart by two blanks or more. */
const tableOf = (stdout: string) =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd().split(/ {2,}/));

t.test('version and info print what the agent is', { skip }, async (t) => {
  const { docker } = await cli(t);
  const version = await docker('version');
  t.equal(version.exit, 0, version.stderr);
  t.match(version.stdout, /Server: Shoal\n Engine:\n {2}Version: +0\.1\.0\n/);
  t.match(version.stdout, /API version: +1\.45 \(minimum version 1\.24\)/);
  const info = await docker('info');
  t.equal(info.exit, 0, info.stderr);
  t.equal(info.stderr.trim(), '', 'no warning');
  for (const row of [
    ' Server Version: 0.1.0',
    '  Data Path Driver: native (TAP + UDP GSO)',
    ' Swarm: active',
    '  Is Manager: true',
    '  Managers: 1',
    '  Heartbeat Period: 5 seconds',
    '   Expiry Duration: 3 months',
    '  Node Address: 192.168.78.11',
    ' Architecture: x86_64',
    ' Total Memory: 23.54GiB',
    '  rack=r1',
  ]) {
    t.ok(info.stdout.includes(row), row);
  }
});

t.test('warnings of the agent are printed by info', { skip }, async (t) => {
  const backend = FakeBackend.manager();
  backend.warnings = ['WARNING: the clock is wrong'];
  const { docker } = await cli(t, backend);
  t.match((await docker('info')).stderr, /WARNING: the clock is wrong/);
});

t.test(
  'init, join-token, join and leave print what they print for an engine',
  { skip },
  async (t) => {
    const { docker } = await cli(t, new FakeBackend());
    const join = `docker swarm join --token ${TOKEN} 192.168.78.11:2377`;
    const init = await docker('swarm init --advertise-addr 192.168.78.11');
    t.equal(
      init.stdout,
      `Swarm initialized: current node (manager000000000000000000) is now a manager.

To add a worker to this swarm, run the following command:

    ${join}

To add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions.
`,
    );
    t.ok((await docker('swarm join-token worker')).stdout.includes(`\n    ${join}\n`));
    t.equal((await docker('swarm join-token -q worker')).stdout.trim(), TOKEN);
    const rotated = await docker('swarm join-token --rotate worker');
    t.match(rotated.stdout, /^Successfully rotated worker join token\./);
    t.notOk(rotated.stdout.includes(TOKEN), 'the new token is another');
    t.equal((await docker('swarm update --task-history-limit 3')).stdout, 'Swarm updated.\n');
    t.match((await docker('swarm ca')).stdout, /^-----BEGIN CERTIFICATE-----/);
    t.match((await docker('swarm unlock-key')).stderr, /no unlock key is set/);
    t.match((await docker('swarm unlock')).stderr, /swarm is not locked/);
    t.match((await docker('swarm leave')).stderr, /Removing this node|Removing the last|only way/);
    t.equal((await docker('swarm leave --force')).stdout, 'Node left the swarm.\n');
    const joined = await docker(`swarm join --token ${TOKEN} 192.168.78.11:2377`);
    t.equal(joined.stdout, 'This node joined a swarm as a worker.\n');
  },
);

t.test('nodes are listed, inspected, promoted, drained and removed', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  const [head, first, second] = tableOf((await docker('node ls')).stdout);
  t.same(head, ['ID', 'HOSTNAME', 'STATUS', 'AVAILABILITY', 'MANAGER STATUS', 'ENGINE VERSION']);
  t.same(first, ['manager000000000000000000 *', 'mn1', 'Ready', 'Active', 'Leader', '0.1.0']);
  t.same(second, ['worker0000000000000000000', 'mn2', 'Ready', 'Active', '0.1.0']);
  t.equal((await docker('node ls -q --filter role=worker')).stdout, `${second?.[0]}\n`);
  const inspect = JSON.parse((await docker('node inspect self')).stdout);
  t.equal(inspect[0].ManagerStatus.Leader, true);
  t.match((await docker('node inspect mn2 --pretty')).stdout, /Hostname: +\tmn2\n/);
  t.equal(
    (await docker('node promote mn2')).stdout,
    'Node mn2 promoted to a manager in the swarm.\n',
  );
  t.equal((await docker('node update --availability drain --label-add z=a mn2')).stdout, 'mn2\n');
  t.match(backend.nodeObjects[1]?.spec, { availability: 'drain', labels: { z: 'a' } });
  t.match((await docker('node rm mn2')).stderr, /is not down and can't be removed/);
  t.equal((await docker('node rm --force mn2')).stdout, 'mn2\n');
  t.match(await docker('node inspect nope'), { exit: 1, stderr: /node nope not found/ });
});

t.test('secrets and configs are made, shown and removed', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  const secret = await docker('secret create -l k=v sec1 -', 's3cr3t');
  t.equal(secret.stdout, `${backend.secretObjects[0]?.id}\n`, secret.stderr);
  t.equal(backend.secretObjects[0]?.data, Buffer.from('s3cr3t').toString('base64'));
  t.match(tableOf((await docker('secret ls')).stdout), [
    ['ID', 'NAME', 'DRIVER', 'CREATED', 'UPDATED'],
    [backend.secretObjects[0]?.id, 'sec1'],
  ]);
  const inspect = await docker('secret inspect sec1');
  t.match(JSON.parse(inspect.stdout), [{ Spec: { Name: 'sec1', Labels: { k: 'v' } } }]);
  t.notMatch(inspect.stdout, /Data/);
  t.match((await docker('secret inspect --pretty sec1')).stdout, /Name: +sec1\n/);
  t.match(await docker('secret create sec1 -', 'x'), {
    exit: 1,
    stderr:
      'Error response from daemon: rpc error: code = AlreadyExists desc = secret sec1 already exists\n',
  });
  t.equal((await docker('secret rm sec1')).stdout, 'sec1\n');
  t.match((await docker('secret rm nope')).stderr, /secret nope not found/);
  await docker('config create cfg1 -', 'conf=1\n');
  t.match((await docker('config inspect --pretty cfg1')).stdout, /Data:\nconf=1\n/);
  t.equal((await docker('config ls -q')).stdout, `${backend.configObjects[0]?.id}\n`);
  t.equal((await docker('config rm cfg1')).stdout, 'cfg1\n');
});

t.test('a swarm is locked, its key shown and rotated, and unlocked', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  const update = await docker('swarm update --autolock=true');
  t.match(update.stdout, /^Swarm updated\.\nTo unlock a swarm manager after it restarts/);
  t.ok(update.stdout.includes(backend.key));
  t.equal((await docker('swarm unlock-key -q')).stdout.trim(), backend.key);
  const before = backend.key;
  const rotated = await docker('swarm unlock-key --rotate');
  t.match(rotated.stdout, /^Successfully rotated manager unlock key\./);
  t.not(backend.key, before);
  const active = backend.local;
  backend.local = { ...active, state: 'locked', controlAvailable: false };
  t.match(await docker('node ls'), { exit: 1, stderr: /needs to be unlocked before it can/ });
  t.match((await docker('info')).stdout, /Swarm: locked/);
  t.match(await docker('swarm unlock', `SWMKEY-1-${'w'.repeat(43)}\n`), {
    exit: 1,
    stderr: /swarm could not be unlocked: invalid key provided/,
  });
  t.match(await docker('swarm unlock', `${backend.key}\n`), { exit: 0 });
  t.equal((await docker('node ls')).exit, 0);
});

t.test('the certificate authority is rotated', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  t.equal((await docker('swarm ca --rotate --detach --cert-expiry 2h')).exit, 0);
  t.match(backend.asked.at(-1), [
    'updateCluster',
    10,
    { nodeCertExpiryMs: 7_200_000, ca: { forceRotate: 1 } },
    { rootCa: true },
  ]);
});

t.test('networks are created, listed, inspected and removed', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  const created = await docker('network create -d overlay --attachable --label a=b ov1');
  t.equal(created.stdout, 'net0000000000000000000000\n');
  await docker('network create -d overlay --subnet 10.55.0.0/24 --gateway 10.55.0.1 ov2');
  const [head, ...rows] = tableOf((await docker('network ls')).stdout);
  t.same(head, ['NETWORK ID', 'NAME', 'DRIVER', 'SCOPE']);
  t.same(rows, [
    ['net000000000', 'ov1', 'overlay', 'swarm'],
    ['net100000000', 'ov2', 'overlay', 'swarm'],
  ]);
  t.equal((await docker('network ls -q --filter label=a=b')).stdout, 'net000000000\n');
  await backend.attach({ network: 'ov2', target: { kind: 'host' }, aliases: [] });
  const [inspect] = JSON.parse((await docker('network inspect --verbose ov2')).stdout);
  t.match(inspect, {
    Name: 'ov2',
    IPAM: { Config: [{ Subnet: '10.55.0.0/24', Gateway: '10.55.0.1' }] },
    Containers: { att0000000000000000000000: { Name: 'c1' } },
    Peers: [{ IP: '192.168.78.11' }],
  });
  t.match((await docker('inspect ov1')).stdout, /"Name": "ov1"/, 'by the walk over all kinds');
  t.match((await docker('network create -d overlay ov1')).stderr, /ov1 already exists/);
  t.match((await docker('network create br')).stderr, /use --driver overlay/);
  t.match((await docker('network rm ov2')).stderr, /is in use by task/);
  t.equal((await docker('network rm ov1')).stdout, 'ov1\n');
  t.match((await docker('network inspect nope')).stderr, /network nope not found/);
});

t.test('a node in no swarm says what to do', { skip }, async (t) => {
  const { docker } = await cli(t, new FakeBackend());
  for (const line of ['node ls', 'swarm join-token worker', 'network create -d overlay x']) {
    const { exit, stderr } = await docker(line);
    t.equal(exit, 1);
    t.equal(
      stderr.trim(),
      'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  t.match((await docker('swarm leave')).stderr, /This node is not part of a swarm/);
  t.match((await docker('info')).stdout, / Swarm: inactive\n/);
});

t.test('what shoal does not run is said so', { skip }, async (t) => {
  const { docker } = await cli(t);
  for (const line of [
    ...['ps', 'images', 'volume ls', 'service ls', 'stack ls', 'node ps self'],
    ...['system df', 'system prune -f'],
  ]) {
    t.match(await docker(line), { exit: 0, stderr: '' }, line);
  }
  t.match((await docker('run x')).stderr, /shoal does not do this without a container engine/);
});

t.test('a service of host commands is made, listed, changed and removed', { skip }, async (t) => {
  const { docker, backend } = await cli(t);
  const made = await docker('service create -d --name web --replicas 2 -p 8080:80 host httpd');
  t.match(made, { exit: 0, stdout: /^\w{25}\n$/, stderr: '' }, 'no warning about a registry');
  t.equal(backend.serviceObjects[0]?.spec.task.container.image, 'host:latest');
  t.strictSame(tableOf((await docker('service ls')).stdout)[1]?.slice(1), [
    ...['web', 'replicated', '0/2', 'host:latest', '*:8080->80/tcp'],
  ]);
  t.match(await docker('service scale -d web=3'), { exit: 0, stdout: 'web scaled to 3\n' });
  t.match(await docker('service inspect --pretty web'), { stdout: /Replicas:\s+3\n/ });
  t.match(await docker('service create -d host'), { exit: 0 }, 'a name is made up');
  t.match(backend.serviceObjects[1]?.spec.name, /^[a-z]+_[a-z]+$/);
  t.match(await docker('service rm web'), { exit: 0, stdout: 'web\n' });
});

t.test(
  'an image whose registry cannot be asked is taken as it is, with a warning',
  { skip },
  async (t) => {
    const { docker } = await cli(t);
    const made = await docker('service create -d --name web lab/box:1');
    t.equal(made.exit, 0);
    t.match(made.stderr, /image lab\/box:1 could not be accessed on a registry to record/);
  },
);
