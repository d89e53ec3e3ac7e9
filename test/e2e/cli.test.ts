import t from 'tap';
import { labFolder, skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { type Finished, type Teardown, until } from './support/process.js';

/** The real docker CLI, unmodified, against agents of a lab that are in no swarm at first. */

const skip = skipUnless('docker');
const MANAGER_ADDRESS = '10.213.0.11';

const INACTIVE =
  'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const WORKER =
  "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const ALREADY =
  'Error response from daemon: This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';

async function bareLab(t: Teardown, nodes: number): Promise<TestLab> {
  const lab = new TestLab(labFolder(t));
  await lab.lab.up({ nodes, swarm: false });
  return lab;
}

type Asserts = Pick<typeof t, 'equal' | 'match' | 'not'>;

/** Exit code non-zero, nothing printed, and on stderr exactly this. */
function refused(t: Asserts, ran: Finished, text: string | RegExp, name: string): void {
  t.not(ran.code, 0, `${name}: exit code`);
  t.equal(ran.stdout, '', `${name}: nothing on stdout`);
  if (typeof text === 'string') t.equal(ran.stderr.trim(), text, name);
  else t.match(ran.stderr.trim(), text, name);
}

function succeeded(t: Asserts, ran: Finished, name: string): string {
  t.equal(ran.code, 0, `${name}: ${ran.stderr}`);
  return ran.stdout.trim();
}

const wordsOf = (line: string) => line.split(' ');

t.test('a node that is in no swarm', { skip }, async (t) => {
  const lab = await bareLab(t, 1);
  const docker = (line: string) => lab.docker('node1', ...wordsOf(line));

  const version = succeeded(t, await docker('version'), 'version');
  t.match(version, /Server: Shoal/);
  t.match(version, /API version: +1\.45 \(minimum version 1\.24\)/);
  const info = succeeded(t, await docker('info'), 'info');
  t.match(info, / Swarm: inactive/);
  t.match(info, / {2}Data Path Driver: (native|portable)/);
  t.match(info, / {2}Ingress Driver: (native|portable)/);
  t.match(info, / Name: node1/);

  for (const line of [
    'node ls',
    'node update --availability drain self',
    'swarm join-token worker',
    'swarm update --task-history-limit 3',
    'network create -d overlay mesh',
  ]) {
    refused(t, await docker(line), INACTIVE, line);
  }
  refused(
    t,
    await docker('swarm leave'),
    'Error response from daemon: This node is not part of a swarm',
    'swarm leave',
  );
  const inspect = await docker('network inspect mesh');
  t.not(inspect.code, 0);
  t.equal(inspect.stderr.trim(), 'Error response from daemon: network mesh not found');
});

t.test('every way to say an address to init', { skip }, async (t) => {
  const lab = await bareLab(t, 1);
  const docker = (line: string) => lab.docker('node1', ...wordsOf(line));
  const cases: readonly (readonly [string, string, number?])[] = [
    // What is typed; the address in the join command; the data path's port.
    ['swarm init', `${MANAGER_ADDRESS}:2377`],
    [`swarm init --advertise-addr ${MANAGER_ADDRESS}`, `${MANAGER_ADDRESS}:2377`],
    [`swarm init --advertise-addr ${MANAGER_ADDRESS}:4000`, `${MANAGER_ADDRESS}:4000`],
    ['swarm init --advertise-addr eth0:4001', `${MANAGER_ADDRESS}:4001`],
    ['swarm init --listen-addr 0.0.0.0:4002', `${MANAGER_ADDRESS}:4002`],
    [
      `swarm init --data-path-addr eth0 --data-path-port 7777 --listen-addr ${MANAGER_ADDRESS}:4003`,
      `${MANAGER_ADDRESS}:4003`,
      7777,
    ],
    [
      `swarm init --data-path-addr ${MANAGER_ADDRESS} --listen-addr eth0`,
      `${MANAGER_ADDRESS}:2377`,
    ],
  ];
  for (const [line, shown, dataPathPort = 4789] of cases) {
    const printed = succeeded(t, await docker(line), line);
    t.match(printed, new RegExp(`docker swarm join --token SWMTKN-1-\\S+ ${shown}\\b`), line);
    const path = (await lab.call('node1', 'GET', '/shoal/v1/status')) as {
      dataPath: { address: string };
    };
    t.equal(path.dataPath.address, `${MANAGER_ADDRESS}:${dataPathPort}`, line);
    const info = succeeded(t, await docker('info'), 'info');
    t.match(info, / Swarm: active/);
    t.match(info, new RegExp(` {2}Data Path Port: ${dataPathPort}`));
    succeeded(t, await docker('swarm leave --force'), 'swarm leave --force');
  }
  const badAdvertise =
    'Error response from daemon: advertise address must be a non-zero IP address or network interface (with optional port number)';
  for (const address of ['0.0.0.0', 'nope0', '300.1.2.3', 'eth0:x', 'eth0:70000', ':2377']) {
    const line = `swarm init --advertise-addr ${address}`;
    refused(t, await docker(line), badAdvertise, line);
  }
  refused(
    t,
    await docker('swarm init --listen-addr nope0'),
    'Error response from daemon: listen address must be an IP address or network interface (with optional port number)',
    'listen address',
  );
  refused(
    t,
    await docker('swarm init --data-path-addr 0.0.0.0'),
    'Error response from daemon: data path address must be a non-zero IP address or network interface (without a port number)',
    'data path address',
  );
  refused(
    t,
    await docker('swarm init --data-path-port 80'),
    /DataPathPort: expected a port from 1024 to 49151/,
    'data path port',
  );
  t.match(succeeded(t, await docker('info'), 'info'), / Swarm: inactive/, 'nothing was begun');
});

t.test('tokens, joining, nodes, leaving', { skip }, async (t) => {
  const lab = await bareLab(t, 3);
  const docker = (node: string, line: string) => lab.docker(node, ...wordsOf(line));
  succeeded(t, await docker('node1', 'swarm init'), 'init');
  refused(t, await docker('node1', 'swarm init'), ALREADY, 'init twice');
  const tokenOf = async (role: string) =>
    succeeded(t, await docker('node1', `swarm join-token -q ${role}`), `token of a ${role}`);
  const join = (node: string, token: string) =>
    docker(node, `swarm join --token ${token} ${MANAGER_ADDRESS}:2377`);

  const token = await tokenOf('worker');
  t.match(token, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
  t.match(
    succeeded(t, await docker('node1', 'swarm join-token worker'), 'join-token worker'),
    new RegExp(`docker swarm join --token ${token} ${MANAGER_ADDRESS}:2377`),
  );
  t.match(
    succeeded(t, await docker('node1', 'swarm join-token manager'), 'join-token manager'),
    /To add a manager to this swarm/,
  );
  t.not(await tokenOf('manager'), token);

  // Refusals, each at once.
  const [, , digest = '', secret = ''] = token.split('-');
  const other = (text: string) => text.replace(/^./, (c) => (c === '0' ? '1' : '0'));
  const badTokens: readonly (readonly [string, string, string | RegExp])[] = [
    ['garbage', 'SWMTKN-garbage', 'Error response from daemon: invalid join token'],
    ['empty parts', 'SWMTKN-1--', 'Error response from daemon: invalid join token'],
    [
      'wrong secret',
      `SWMTKN-1-${digest}-${other(secret)}`,
      'Error response from daemon: rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster',
    ],
    [
      'wrong CA digest',
      `SWMTKN-1-${other(digest)}-${secret}`,
      /^Error response from daemon: remote CA does not match fingerprint\. Expected: [0-9a-f]{64}$/,
    ],
  ];
  for (const [name, bad, text] of badTokens) {
    const beganMs = performance.now();
    refused(t, await join('node2', bad), text, name);
    const tookMs = performance.now() - beganMs;
    t.ok(tookMs < 1000, `${name}: refused within 1 s (${Math.round(tookMs)} ms)`);
  }
  t.match(succeeded(t, await docker('node2', 'info'), 'info'), / Swarm: inactive/);

  const rotated = succeeded(
    t,
    await docker('node1', 'swarm join-token --rotate -q worker'),
    'rotate',
  );
  t.not(rotated, token);
  t.equal(await tokenOf('worker'), rotated);
  const beganMs = performance.now();
  refused(t, await join('node2', token), /A valid join token is necessary/, 'a rotated token');
  t.ok(performance.now() - beganMs < 1000, 'refused within 1 s');

  t.equal(
    succeeded(t, await join('node2', rotated), 'join'),
    'This node joined a swarm as a worker.',
  );
  refused(t, await join('node2', rotated), ALREADY, 'join twice');
  refused(t, await docker('node2', 'swarm init'), ALREADY, 'init after join');
  succeeded(t, await join('node3', rotated), 'join of the third');

  // On a worker.
  for (const line of [
    'node ls',
    'node update --availability drain node1',
    'swarm join-token -q worker',
  ]) {
    refused(t, await docker('node2', line), WORKER, line);
  }
  refused(t, await docker('node2', 'network create -d overlay mesh'), INACTIVE, 'network create');
  t.match(succeeded(t, await docker('node2', 'info'), 'info'), /Is Manager: false/);

  // Nodes.
  const idOf = async (node: string) =>
    succeeded(t, await docker(node, 'info --format {{.Swarm.NodeID}}'), 'info');
  const [id1, id2] = [await idOf('node1'), await idOf('node2')];
  const list = await until('all nodes are ready', 10_000, async () => {
    const text = succeeded(t, await docker('node1', 'node ls'), 'node ls');
    return (text.match(/ Ready /g) ?? []).length === 3 ? text : undefined;
  });
  t.match(list, new RegExp(`^${id1} \\* +node1 +Ready +Active +Leader +\\d`, 'm'));
  t.match(list, new RegExp(`^${id2} +node2 +Ready +Active +\\d`, 'm'));
  const self = succeeded(t, await docker('node1', 'node inspect self --pretty'), 'inspect');
  t.match(self, new RegExp(`ID:\\s+${id1}\\nHostname:\\s+node1`));
  t.match(self, /Leader:\s+Yes/);
  refused(
    t,
    // Not one that the CLI would complete.
    await docker('node1', 'node update --availability drain nope'),
    'Error response from daemon: node nope not found',
    'unknown node',
  );

  const format = '{{.Spec.Availability}} {{.Spec.Labels}} {{.Status.Addr}} {{.Status.State}}';
  const shown = async () =>
    succeeded(t, await lab.docker('node1', 'node', 'inspect', 'node2', '-f', format), 'inspect');
  t.equal(await shown(), 'active map[] 10.213.0.12 ready');
  succeeded(t, await docker('node1', 'node update --availability drain node2'), 'drain');
  succeeded(
    t,
    await docker('node1', 'node update --label-add zone=a --label-add ssd=1 node2'),
    'label',
  );
  t.equal(await shown(), 'drain map[ssd:1 zone:a] 10.213.0.12 ready');
  t.match(succeeded(t, await docker('node1', 'node ls'), 'node ls'), /node2 +Ready +Drain/);
  succeeded(
    t,
    await docker('node1', 'node update --label-rm ssd --availability active node2'),
    'back',
  );
  t.equal(await shown(), 'active map[zone:a] 10.213.0.12 ready');

  refused(
    t,
    await docker('node1', 'node rm node2'),
    `Error response from daemon: rpc error: code = FailedPrecondition desc = node ${id2} is not down and can't be removed`,
    'rm of a ready node',
  );

  // Leaving.
  refused(
    t,
    await docker('node1', 'swarm leave'),
    'Error response from daemon: You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.',
    'leave of the last manager',
  );
  t.equal(succeeded(t, await docker('node2', 'swarm leave'), 'leave'), 'Node left the swarm.');
  t.match(succeeded(t, await docker('node2', 'info'), 'info'), / Swarm: inactive/);
  await until('node2 is down', 10_000, async () =>
    / node2 +Down /.test(succeeded(t, await docker('node1', 'node ls'), 'node ls')),
  );
  t.equal(succeeded(t, await docker('node1', 'node rm node2'), 'rm after leave'), 'node2');
  t.notMatch(succeeded(t, await docker('node1', 'node ls'), 'node ls'), /node2/);
  succeeded(t, await join('node2', rotated), 'join again');
  t.not(await idOf('node2'), id2, 'as a new node');
  succeeded(t, await docker('node1', 'node rm --force node3'), 'rm --force of a ready node');

  succeeded(t, await docker('node1', 'swarm leave --force'), 'leave --force');
  t.match(succeeded(t, await docker('node1', 'info'), 'info'), / Swarm: inactive/);
  refused(t, await docker('node1', 'node ls'), INACTIVE, 'after leaving');
});

t.test('overlay networks', { skip }, async (t) => {
  const lab = await bareLab(t, 1);
  const docker = (line: string) => lab.docker('node1', ...wordsOf(line));
  succeeded(t, await docker('swarm init'), 'init');

  const id = succeeded(t, await docker('network create -d overlay --attachable mesh'), 'create');
  t.match(id, /^[0-9a-z]{25}$/);
  t.match(
    succeeded(t, await docker('network ls --filter driver=overlay'), 'ls'),
    new RegExp(`^${id.slice(0, 12)} +mesh +overlay +swarm$`, 'm'),
  );
  const full = [
    'network create -d overlay --attachable --internal --ipv6',
    '--subnet 10.77.0.0/16 --gateway 10.77.0.254 --ip-range 10.77.8.0/24',
    '--subnet fd00:77::/64 --gateway fd00:77::fe',
    '--opt com.docker.network.driver.mtu=1300 --label team=net --label empty= full',
  ].join(' ');
  succeeded(t, await docker(full), 'create with everything');
  const [inspected] = JSON.parse(succeeded(t, await docker('network inspect full'), 'inspect'));
  t.match(inspected, {
    Name: 'full',
    Scope: 'swarm',
    Driver: 'overlay',
    EnableIPv6: true,
    Internal: true,
    Attachable: true,
    Ingress: false,
    IPAM: {
      Config: [
        { Subnet: '10.77.0.0/16', Gateway: '10.77.0.254', IPRange: '10.77.8.0/24' },
        { Subnet: 'fd00:77::/64', Gateway: 'fd00:77::fe' },
      ],
    },
    Options: { 'com.docker.network.driver.mtu': '1300' },
    Labels: { team: 'net', empty: '' },
  });
  const web = await Netns.make(t);
  const made = await lab.attach('node1', 'full', web, { name: 'web' });
  t.match(made.addresses, [/^10\.77\.8\.\d+\/16$/, 'fd00:77::1/64'], 'from the range');
  t.equal(made.mtuBytes, 1300);

  const refusals: readonly (readonly [string, string | RegExp])[] = [
    ['--attachable mesh', 'Error response from daemon: network with name mesh already exists'],
    [
      '--subnet 10.77.128.0/17 over',
      'Error response from daemon: Pool overlaps with other one on this address space',
    ],
    ['--subnet 10.300.0.0/16 bad', /10\.300\.0\.0\/16/],
    ['--subnet 10.78.0.0 bad', /10\.78\.0\.0/],
    ['--subnet 10.78.0.1/33 bad', /10\.78\.0\.1\/33/],
    ['--subnet 10.78.0.0/24 --gateway 10.79.0.1 bad', /10\.79\.0\.1/],
    ['--subnet 10.78.0.0/24 --ip-range 10.79.0.0/25 bad', /10\.79\.0\.0\/25/],
    ['--opt com.docker.network.driver.mtu=lots bad', /mtu.*lots/i],
    ['--opt encrypted=maybe bad', /^Error response from daemon: .*maybe.*encrypted/],
  ];
  for (const [flags, text] of refusals) {
    const ran = await docker(`network create -d overlay ${flags}`);
    refused(t, ran, text, flags);
    t.equal(ran.stderr.trim().split('\n').length, 1, `one line: ${ran.stderr.trim()}`);
  }
  t.notMatch(succeeded(t, await docker('network ls'), 'ls'), / bad | over /);

  const inUse = await docker('network rm full');
  t.not(inUse.code, 0);
  t.match(
    inUse.stderr,
    new RegExp(
      `^Error response from daemon: rpc error: code = FailedPrecondition desc = network ${inspected.Id} is in use by task \\S+$`,
      'm',
    ),
  );
  await lab.call('node1', 'POST', '/shoal/v1/detach', { id: made.id });
  t.equal(succeeded(t, await docker('network rm full'), 'rm'), 'full');
  t.equal(succeeded(t, await docker('network rm mesh'), 'rm'), 'mesh');
  const missing = await docker('network rm mesh');
  t.not(missing.code, 0);
  t.match(missing.stderr, /^Error response from daemon: network mesh not found$/m);
});
