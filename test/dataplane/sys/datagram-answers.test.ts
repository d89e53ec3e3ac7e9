import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { answerDatagrams, answerOutside } from '../../../src/dataplane/io/index.js';
import { cannotMakeNamespaces, makeNetns } from './netns-fixture.js';

const hasNft = spawnSync('nft', ['--version']).status === 0;
const skip = cannotMakeNamespaces || (hasNft ? false : 'needs nft');

/** Of the other end of the link, which stands for the VTEP and for clients behind it. */
const MAC = '02:42:ff:ff:ff:01';
const TASK_MAC = '02:42:ff:ff:ff:05';

/** Bound to all addresses: answers with who has asked. */
const ANSWERS = `const s = require('dgram').createSocket('udp6');
s.on('message', (_, { address, port }) => s.send(address, port, address));
s.bind(81, () => console.log('bound'))`;

/** From an address of its own; prints who answers, and what. */
const ASKS = `const [from, to] = process.argv.slice(1);
const s = require('dgram').createSocket(to.includes(':') ? 'udp6' : 'udp4');
s.on('message', (text, { address }) => { console.log(address, String(text)); process.exit(); });
s.bind(0, from, () => s.send('x', 81, to));
setTimeout(() => { console.log('silence'); process.exit(); }, 2000)`;

t.test(
  'datagrams are answered by the link that they came by, and others go their way',
  { skip },
  async (t) => {
    const [task, outside] = [makeNetns(t), makeNetns(t)];
    task.ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'vtep', 'netns', outside.name);
    task.ip('link', 'add', 'out0', 'type', 'veth', 'peer', 'name', 'world', 'netns', outside.name);
    outside.ip('link', 'set', 'vtep', 'address', MAC);
    task.ip('link', 'set', 'eth0', 'address', TASK_MAC);
    for (const [netns, link] of [
      ...(['lo', 'eth0', 'out0'] as const).map((link) => [task, link] as const),
      ...(['lo', 'vtep', 'world'] as const).map((link) => [outside, link] as const),
    ])
      netns.ip('link', 'set', link, 'up');
    const add = (netns: typeof task, address: string, link: string) =>
      netns.ip('address', 'add', address, 'dev', link, ...(address.includes(':') ? ['nodad'] : []));
    add(task, '10.11.0.5/16', 'eth0');
    add(task, '172.30.0.5/24', 'out0');
    add(task, 'fd00:30::5/64', 'out0');
    for (const address of ['172.30.0.1/24', 'fd00:30::1/64']) add(outside, address, 'world');
    for (const address of ['198.51.100.7/32', '2001:db8:7::7/128']) add(outside, address, 'lo');
    task.ip('route', 'add', 'default', 'via', '172.30.0.1');
    task.ip('-6', 'route', 'add', 'default', 'via', 'fd00:30::1');
    for (const [link, subnet] of [
      ['vtep', '10.11.0.0/16'],
      ['vtep', 'fd00:11::/64'],
    ] as const)
      outside.ip('route', 'add', subnet, 'dev', link);
    // As a VTEP knows them. Asked for, one of IPv6 would answer only once the link's own address is no longer tentative.
    for (const address of ['10.11.0.5', 'fd00:11::5'])
      outside.ip('neigh', 'add', address, 'lladdr', TASK_MAC, 'dev', 'vtep', 'nud', 'permanent');
    // An answer by the other link would reach the client too: it is to be seen.
    execFileSync('ip', [
      'netns',
      'exec',
      outside.name,
      'nft',
      'add table inet no; add chain inet no in { type filter hook input priority 0; }; add rule inet no in iifname "world" udp sport 81 drop',
    ]);

    for (const address of ['10.11.0.5/16', 'fd00:11::5/64']) {
      await answerOutside(task.path, 'eth0', address, MAC);
      // Twice, as after a restart of the agent.
      for (let i = 0; i < 2; i++)
        await answerDatagrams(task.path, { name: 'eth0', address, ports: [81] });
    }
    const server = spawn('ip', ['netns', 'exec', task.name, process.execPath, '-e', ANSWERS]);
    t.teardown(() => server.kill('SIGKILL'));
    await once(server.stdout, 'data');
    const ask = (from: string, to: string) =>
      execFileSync('ip', ['netns', 'exec', outside.name, process.execPath, '-e', ASKS, from, to], {
        encoding: 'utf8',
      }).trim();
    t.equal(ask('198.51.100.7', '10.11.0.5'), '10.11.0.5 ::ffff:198.51.100.7');
    t.equal(ask('2001:db8:7::7', 'fd00:11::5'), 'fd00:11::5 2001:db8:7::7');
    t.match(
      task.ip('-6', 'route', 'get', '2001:db8:9::9'),
      /dev out0/,
      'the usual way is as it was',
    );
  },
);
