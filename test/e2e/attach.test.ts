import { existsSync } from 'node:fs';
import t from 'tap';
import { type Attached, hostOf, shoalArgv, skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { type Finished, must, start, until } from './support/process.js';

/** Attaching namespaces, processes and hosts to overlay networks, by the `shoal` command. */

const skip = skipUnless('dig', 'getent', 'setpriv');
const opened = skip === false ? makeLab() : undefined;
const theLab = () => opened as Promise<TestLab>;

async function makeLab(): Promise<TestLab> {
  const lab = await TestLab.up(t, { nodes: 2 });
  await lab.createNetwork('mesh', { IPAM: { Config: [{ Subnet: '10.50.0.0/24' }] } });
  await lab.createNetwork('closed', { Attachable: false });
  return lab;
}

type Asserts = Pick<typeof t, 'equal' | 'match' | 'not'>;

function succeeded(t: Asserts, ran: Finished): string {
  t.equal(ran.code, 0, ran.stderr);
  return ran.stdout;
}

/** One sentence on stderr, in the words of the refusal. */
function refused(t: Asserts, ran: Finished, text: RegExp): void {
  t.not(ran.code, 0, 'exit code');
  t.equal(ran.stdout, '', 'nothing on stdout');
  t.match(ran.stderr, text);
  t.match(ran.stderr, /^shoal: [^\n]+\n$/, 'one sentence');
}

function attachedOf(ran: Finished): Attached {
  if (ran.code !== 0) throw new Error(ran.stderr);
  return JSON.parse(ran.stdout) as Attached;
}

t.test('a named namespace, a process, a host', { skip }, async (t) => {
  const lab = await theLab();
  const attach = async (node: string, ...flags: string[]) =>
    attachedOf(await lab.shoal(node, 'network', 'attach', 'mesh', ...flags, '--json'));
  const web = await Netns.make(t);
  const other = await Netns.make(t);

  const byName = await attach('node1', '--netns', web.name, '--name', 'web', '--alias', 'app');
  t.match(byName, { name: 'web', ifname: 'eth0', mtuBytes: 1450, state: 'up' });
  const sleeper = other.start(t, ['sleep', '1000']);
  const byPid = await attach('node2', '--pid', `${sleeper.child.pid}`, '--ifname', 'mesh0');
  t.match(byPid, { name: `pid-${sleeper.child.pid}`, ifname: 'mesh0' });
  t.strictSame(await other.links(), ['mesh0'], 'in the namespace of the process');
  const byHost = await attach('node2', '--host');
  t.match(byHost, { name: 'node2', ifname: 'shoal0' });

  const [ofWeb, ofPid, ofHost] = [byName, byPid, byHost].map((a) => hostOf(a.addresses[0]));
  t.equal(await web.ping(ofPid ?? ''), 1, 'web to the process');
  t.equal(await web.ping(ofHost ?? ''), 1, 'web to the host');
  t.equal(await other.ping(ofHost ?? ''), 1, 'the process to the host, on one node');
  const fromHost = lab.lab.commandIn('node2', ['ping', '-c1', '-W2', ofWeb ?? '']);
  t.match(await must(fromHost), / 1 received/, 'the host to web');

  const ls = succeeded(t, await lab.shoal('node2', 'network', 'attachments'));
  t.match(ls, /^ID +NETWORK +NAME +TARGET +INTERFACE +ADDRESSES +MAC +MTU +STATE$/m);
  t.match(
    ls,
    new RegExp(` mesh +pid-\\d+ +pid \\d+ +mesh0 +${byPid.addresses[0]} .* 1450 +up$`, 'm'),
  );
  t.match(ls, new RegExp(` mesh +node2 +host +shoal0 +${byHost.addresses[0]} `, 'm'));

  t.match(
    succeeded(t, await lab.shoal('node2', 'network', 'detach', 'mesh', '--host')),
    'node2 is detached from mesh\n',
  );
  t.equal(await web.ping(ofHost ?? '', { timeoutMs: 300 }), 0, 'the host is off the network');
  const pid = `${sleeper.child.pid}`;
  succeeded(t, await lab.shoal('node2', 'network', 'detach', 'mesh', '--pid', pid));
  t.strictSame(await other.links(), [], 'the interface is gone');
  succeeded(t, await lab.shoal('node1', 'network', 'detach', byName.id));
  refused(
    t,
    await lab.shoal('node1', 'network', 'detach', 'mesh', '--netns', web.name),
    /attachment mesh not found/,
  );
});

t.test('an address of choice, and every refusal', { skip }, async (t) => {
  const lab = await theLab();
  const [blue, red] = [await Netns.make(t), await Netns.make(t)];
  const attach = (node: string, network: string, ...flags: string[]) =>
    lab.shoal(node, 'network', 'attach', network, ...flags, '--json');
  const wished = attachedOf(
    await attach('node1', 'mesh', '--netns', blue.name, '--ip', '10.50.0.77'),
  );
  t.strictSame(wished.addresses, ['10.50.0.77/24']);
  t.match(await must(['ip', '-n', blue.name, '-br', 'addr']), /eth0 +\S+ +10\.50\.0\.77\/24/);

  const cases: readonly (readonly [string, string[], RegExp])[] = [
    ['mesh', ['--netns', blue.name], /already attached to mesh \(as eth0\)/],
    ['mesh', ['--netns', red.name, '--ip', '10.50.0.77'], /10\.50\.0\.77 is already in use/],
    [
      'mesh',
      ['--netns', red.name, '--ip', '10.51.0.7'],
      /10\.51\.0\.7 is not in a subnet of network mesh/,
    ],
    ['mesh', ['--netns', red.name, '--ip', '10.50.0.1'], /10\.50\.0\.1 is /],
    ['mesh', ['--netns', red.name, '--ip', '10.50.0.300'], /--ip must be an IPv4 or IPv6 address/],
    ['closed', ['--netns', red.name], /network closed not manually attachable/],
    ['nope', ['--netns', red.name], /network nope not found/],
    ['mesh', ['--netns', 'she-nowhere'], /namespace \/run\/netns\/she-nowhere does not exist/],
    ['mesh', ['--netns', '/etc/passwd'], /\/etc\/passwd is not a network namespace/],
    ['mesh', ['--pid', '4194303'], /process 4194303 does not exist/],
    ['mesh', ['--netns', red.name, '--name', 'not a name'], /--name must be a host name/],
    ['mesh', ['--netns', red.name, '--host'], /one of --netns PATH, --pid N or --host/],
  ];
  for (const node of ['node1', 'node2'])
    for (const [network, flags, text] of cases) {
      // What is attached on node1 is not attached by node2; its address is.
      if (node === 'node2' && flags[1] === blue.name) continue;
      refused(t, await attach(node, network, ...flags), text);
    }
  t.strictSame(await red.links(), [], 'no refusal left an interface behind');
  const taken = await attach('node2', 'mesh', '--netns', red.name, '--ifname', 'lo');
  t.not(taken.code, 0, 'an interface name that is taken');
  t.match(taken.stderr, /^shoal: [^\n]*lo[^\n]*\n$/);

  const held = (await lab.status('node1')).attachments.map((a) => a.name);
  t.strictSame(held, [blue.name], 'and none left an attachment');
  succeeded(t, await lab.shoal('node1', 'network', 'detach', 'mesh', '--netns', blue.name));
});

t.test(
  'a namespace that is deleted is detached, and its address free again',
  { skip },
  async (t) => {
    const lab = await theLab();
    const [gone, next] = [await Netns.make(t), await Netns.make(t)];
    const attach = (node: string, netns: Netns) =>
      lab.shoal(node, 'network', 'attach', 'mesh', '--netns', netns.name, '--ip', '10.50.0.88');
    succeeded(t, await attach('node1', gone));
    await gone.remove();
    const beganMs = performance.now();
    await until(
      'the attachment is gone',
      10_000,
      async () => (await lab.status('node1')).attachments.length === 0,
    );
    await until(
      'the address is free',
      10_000,
      async () => (await attach('node2', next)).code === 0,
    );
    t.comment(`free after ${Math.round(performance.now() - beganMs)} ms`);
    const endpoints = async (node: string) => (await lab.network(node, 'mesh')).endpoints;
    await until('one endpoint is known', 5_000, async () => (await endpoints('node1')) === 1);
    succeeded(t, await lab.shoal('node2', 'network', 'detach', 'mesh', '--netns', next.name));
  },
);

t.test('names and aliases resolve on every node', { skip }, async (t) => {
  const lab = await theLab();
  const [web, other] = [await Netns.make(t), await Netns.make(t)];
  const made = await lab.attach('node1', 'mesh', web, { name: 'web', aliases: ['app', 'www'] });
  await lab.attach('node2', 'mesh', other, { name: 'other', aliases: ['app'] });
  const dig = async (netns: Netns, ...question: string[]) =>
    (await netns.must(['dig', '@127.0.0.11', '+short', '+tries=1', ...question])).trim();
  const address = hostOf(made.addresses[0]);
  await until('node2 knows web', 5_000, async () => (await dig(other, 'web')) === address);
  t.equal(await dig(other, 'www'), address, 'an alias');
  t.equal(await dig(web, 'web'), address, 'of itself');
  t.equal(await dig(other, 'WEB.'), address, 'in any case');
  t.equal(await dig(other, '-x', address), 'web.mesh.', 'the name of an address');
  await until(
    'both have the alias',
    5_000,
    async () => [web, other].length === (await dig(web, 'app')).split('\n').length,
  );
  t.equal(await dig(other, '+tcp', 'web'), address, 'by TCP');
  t.match(
    await other.must(['dig', '@127.0.0.11', 'web', 'AAAA']),
    /status: NOERROR[\s\S]*ANSWER: 0/,
  );
  for (const [node, netns] of [
    ['node1', web],
    ['node2', other],
  ] as const)
    succeeded(t, await lab.shoal(node, 'network', 'detach', 'mesh', '--netns', netns.name));
});

t.test('shoal run: names, exit codes, two networks', { skip }, async (t) => {
  const lab = await theLab();
  await lab.createNetwork('back');
  const web = await Netns.make(t);
  const made = await lab.attach('node1', 'mesh', web, { name: 'web', aliases: ['app'] });
  const address = hostOf(made.addresses[0]);
  const shell = (script: string) =>
    lab.shoal(
      'node2',
      'run',
      '--network',
      'mesh',
      '--network',
      'back',
      '--name',
      'job',
      '--',
      'sh',
      '-c',
      script,
    );

  const looked = await shell(
    'getent ahostsv4 web; getent ahostsv4 app; ping -c1 -W2 web; hostname; exit 7',
  );
  t.equal(looked.code, 7, looked.stderr);
  t.equal((looked.stdout.match(new RegExp(`^${address} +STREAM`, 'gm')) ?? []).length, 2);
  t.match(looked.stdout, / 1 received/);
  t.match(looked.stdout, /^job$/m, 'its host name');
  const twoNetworks = await shell('ip -br -4 addr');
  t.match(twoNetworks.stdout, /^eth0 +\S+ +10\.50\.0\.\d+\/24/m);
  t.match(twoNetworks.stdout, /^eth1 +\S+ +10\.\d+\.\d+\.\d+\/24/m);

  let reached = 0;
  for (let run = 0; run < 5; run++) {
    const first = await shell(`ping -n -c1 -W1 ${address}`);
    if (first.code === 0) reached += 1;
  }
  t.ok(reached >= 4, `the very first packet arrives: ${reached} of 5`);

  const one = (...command: string[]) =>
    lab.shoal('node2', 'run', '--network', 'mesh', '--', ...command);
  t.equal((await one('true')).code, 0);
  t.equal((await one('/she/no/such/program')).code, 127);
  t.equal((await one('/etc/passwd')).code, 126);
  t.equal((await one('sh', '-c', 'kill -9 $$')).code, 137);
  const refusedRun = await lab.shoal('node2', 'run', '--network', 'nope', '--', 'true');
  t.equal(refusedRun.code, 125);
  t.equal(refusedRun.stderr, 'shoal: network nope not found\n');
  const left = (await lab.status('node2')).attachments;
  t.strictSame(left, [], 'nothing is left of any of them');
  succeeded(t, await lab.shoal('node1', 'network', 'detach', 'mesh', '--netns', web.name));
});

t.test('shoal run passes signals on', { skip }, async (t) => {
  const lab = await theLab();
  const argv = lab.lab.commandIn('node1', [
    ...[...shoalArgv, 'run', '--network', 'mesh', '--name', 'job', '--'],
    ...['sh', '-c', 'echo started; exec sleep 1000'],
  ]);
  const cases = [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const;
  for (const [signal, code] of cases) {
    const job = start(t, argv, { env: lab.lab.envOf('node1') });
    await until('it runs', 10_000, () => job.output().includes('started'));
    t.equal((await lab.status('node1')).attachments.length, 1, 'it is attached');
    t.equal((await job.stop(signal)).code, code, signal);
    t.strictSame((await lab.status('node1')).attachments, [], 'it is detached');
  }

  const killed = start(t, argv, { env: lab.lab.envOf('node1') });
  await until('it runs', 10_000, () => killed.output().includes('started'));
  const children = await must(['pgrep', '-P', `${killed.child.pid}`]);
  await killed.stop('SIGKILL');
  await until('its process is gone', 5_000, () => !existsSync(`/proc/${children.trim()}`));
  await until(
    'its attachment is gone',
    10_000,
    async () => (await lab.status('node1')).attachments.length === 0,
  );
});

t.test('a network with IPv6', { skip }, async (t) => {
  const lab = await theLab();
  await lab.createNetwork('six', {
    EnableIPv6: true,
    IPAM: { Config: [{ Subnet: '10.66.0.0/24' }, { Subnet: 'fd00:66::/64' }] },
  });
  const [a, b] = [await Netns.make(t), await Netns.make(t)];
  const madeA = await lab.attach('node1', 'six', a, { name: 'alpha' });
  const madeB = await lab.attach('node2', 'six', b, { name: 'beta' });
  t.match(madeA.addresses, [/^10\.66\.0\.\d+\/24$/, /^fd00:66::[0-9a-f]+\/64$/]);
  const [a6, b6] = [madeA, madeB].map((made) => hostOf(made.addresses[1])) as [string, string];
  await until('they reach each other', 5_000, async () => (await a.ping(b6)) === 1);
  t.equal(await b.ping(a6, { count: 5, intervalMs: 10 }), 5);
  t.equal(await b.ping(a6, { payloadBytes: 1402, dontFragment: true }), 1, 'of the MTU');
  t.equal(await b.ping(a6, { payloadBytes: 1403, dontFragment: true }), 0, 'above the MTU');
  t.equal(await b.ping(a6, { payloadBytes: 8000 }), 1, 'in fragments');
  const dig = await b.must(['dig', '@127.0.0.11', '+short', 'alpha', 'AAAA']);
  t.equal(dig.trim(), a6);
  const { replies } = (await lab.status('node1')).counters;
  t.ok((replies['neighbor_advertisement'] ?? 0) > 0, 'neighbours were told by the agent');
});
