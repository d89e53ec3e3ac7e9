import { spawnSync } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import t from 'tap';
import {
  configureLink,
  deleteLink,
  linkCommands,
  runIpBatch,
} from '../../../src/dataplane/io/link.js';
import {
  freeLinkName,
  inNetns,
  linkNames,
  netnsIdentity,
  netnsPathOf,
  netnsPathOfPid,
  openTcpListenerInNetns,
  openUdpInNetns,
} from '../../../src/dataplane/io/netns.js';
import { openEventfd, SysError, signalEventfd } from '../../../src/dataplane/io/sys.js';
import { openTap, VNET_HEADER_BYTES } from '../../../src/dataplane/io/tap.js';
import { cannotMakeNamespaces, makeNetns } from './netns-fixture.js';

const skip = cannotMakeNamespaces;

function refusal(work: () => unknown): SysError {
  try {
    work();
  } catch (error) {
    if (error instanceof SysError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

t.test('a TAP is made in the namespace and not here', { skip }, async (t) => {
  const netns = makeNetns(t);
  const before = linkNames(undefined);
  const fd = openTap({ netns: netns.path, name: 'eth0', offloads: true, persist: false });
  t.ok(linkNames(netns.path).includes('eth0'));
  t.strictSame(linkNames(undefined), before, 'nothing appeared here');
  closeSync(fd);
  t.notOk(linkNames(netns.path).includes('eth0'), 'it does not persist unless asked');
});

t.test('a persistent TAP outlives its descriptor and is taken again', { skip }, async (t) => {
  const netns = makeNetns(t);
  const options = { netns: netns.path, name: 'eth3', offloads: true, persist: true };
  const first = openTap(options);
  t.match(refusal(() => openTap(options)).detail, { code: 'SYS_CALL_FAILED', errno: 'EBUSY' });
  const index = netns.ip('-o', 'link', 'show', 'eth3').split(':')[0];
  closeSync(first);
  t.ok(linkNames(netns.path).includes('eth3'), 'it is still there');
  const second = openTap(options);
  t.equal(netns.ip('-o', 'link', 'show', 'eth3').split(':')[0], index, 'the same link');
  closeSync(second);
  await deleteLink(netns.path, 'eth3');
  t.notOk(linkNames(netns.path).includes('eth3'));
  await deleteLink(netns.path, 'eth3');
  t.pass('deleting what is gone is no error');
});

t.test('frames cross the TAP with their virtio-net header', { skip }, async (t) => {
  const netns = makeNetns(t);
  const fd = openTap({ netns: netns.path, name: 'eth0', offloads: false, persist: false });
  t.teardown(() => closeSync(fd));
  await runIpBatch(netns.path, ['link set dev eth0 arp off', 'link set dev eth0 addrgenmode none']);
  await configureLink(netns.path, {
    name: 'eth0',
    mac: '02:42:0a:09:00:02',
    mtuBytes: 1450,
    addresses: ['10.9.0.2/24'],
    transmitQueueLength: 777,
  });
  netns.ip('neigh', 'replace', '10.9.0.3', 'lladdr', '02:42:0a:09:00:03', 'dev', 'eth0');
  const script = 'echo hello > /dev/udp/10.9.0.3/9';
  spawnSync('nsenter', [`--net=${netns.path}`, 'bash', '-c', script]);
  const buffer = Buffer.alloc(4096);
  let found = false;
  for (let i = 0; i < 16 && !found; i++) {
    const length = readSync(fd, buffer);
    found = buffer.subarray(VNET_HEADER_BYTES, length).toString('latin1').includes('hello');
    if (found)
      t.equal(buffer.toString('hex', VNET_HEADER_BYTES, VNET_HEADER_BYTES + 6), '02420a090003');
  }
  t.ok(found, 'the datagram came out of the TAP');
  t.equal(writeSync(fd, Buffer.alloc(VNET_HEADER_BYTES + 60)), VNET_HEADER_BYTES + 60);
});

t.test('a link gets its MAC, MTU and addresses, twice without harm', { skip }, async (t) => {
  const netns = makeNetns(t);
  const fd = openTap({ netns: netns.path, name: 'eth0', offloads: true, persist: false });
  t.teardown(() => closeSync(fd));
  const config = {
    name: 'eth0',
    mac: '02:42:0a:09:00:02',
    mtuBytes: 1400,
    addresses: ['10.9.0.2/24', 'fd00:9::2/64'],
    transmitQueueLength: 512,
  };
  await configureLink(netns.path, config);
  await configureLink(netns.path, config);
  const [link] = JSON.parse(netns.ip('-j', 'addr', 'show', 'dev', 'eth0'));
  t.match(link, { address: '02:42:0a:09:00:02', mtu: 1400, txqlen: 512 });
  t.ok(link.flags.includes('UP'));
  const held = link.addr_info.map(
    (a: { local: string; prefixlen: number }) => `${a.local}/${a.prefixlen}`,
  );
  t.ok(held.includes('10.9.0.2/24') && held.includes('fd00:9::2/64'));
  t.notMatch(netns.ip('-6', 'addr', 'show', 'scope', 'global'), /tentative/, 'usable at once');
  t.notMatch(netns.ip('route'), /default/, 'an overlay is no way out');
  t.match(netns.ip('addr', 'show', 'dev', 'lo'), /127\.0\.0\.1/);
});

t.test('a refused change says which line and why', { skip }, async (t) => {
  const netns = makeNetns(t);
  await t.rejects(configureLink(netns.path, { name: 'eth7', mtuBytes: 1400 }), {
    message: /ip link set dev eth7 mtu 1400: .*[Cc]annot find device/,
  });
  await t.rejects(configureLink('/run/netns/shl-none', { name: 'eth0' }), {
    message: /shl-none does not exist/,
  });
});

t.test('free names skip those taken', { skip }, async (t) => {
  const netns = makeNetns(t);
  t.equal(freeLinkName(netns.path), 'eth0');
  netns.ip('link', 'add', 'eth0', 'type', 'bridge');
  netns.ip('link', 'add', 'eth2', 'type', 'bridge');
  t.equal(freeLinkName(netns.path), 'eth1');
});

t.test('a missing or false namespace is said in words', { skip }, async (t) => {
  const gone = refusal(() => inNetns(netnsPathOf('shl-none'), () => 0));
  t.equal(gone.code, 'NETNS_NOT_FOUND');
  t.equal(gone.message, 'network namespace /run/netns/shl-none does not exist');
  t.equal(
    refusal(() => netnsIdentity(netnsPathOfPid(0x3fffffff))).message,
    'process 1073741823 does not exist',
  );
  t.equal(refusal(() => inNetns('/etc/passwd', () => 0)).code, 'NETNS_INVALID');
  t.equal(refusal(() => netnsIdentity('/etc/passwd')).code, 'NETNS_INVALID');
});

t.test('the thread comes back, also when the work fails', { skip }, async (t) => {
  const netns = makeNetns(t);
  const home = netnsIdentity('/proc/thread-self/ns/net');
  t.equal(
    inNetns(netns.path, () => netnsIdentity('/proc/thread-self/ns/net')),
    netnsIdentity(netns.path),
  );
  t.throws(() =>
    inNetns(netns.path, () => {
      throw new Error('no');
    }),
  );
  t.throws(() => openTap({ netns: netns.path, name: 'lo', offloads: false, persist: false }));
  t.equal(netnsIdentity('/proc/thread-self/ns/net'), home);
});

t.test('sockets are bound in the namespace, IPv4 and IPv6', { skip }, async (t) => {
  const netns = makeNetns(t);
  const fds = [
    openUdpInNetns(netns.path, '127.0.0.11', 53),
    openTcpListenerInNetns(netns.path, '127.0.0.11', 53),
    openUdpInNetns(netns.path, '::1', 5353),
    openTcpListenerInNetns(netns.path, '::1', 5353),
  ];
  t.match(refusal(() => openTcpListenerInNetns(netns.path, '127.0.0.11', 53)).detail, {
    errno: 'EADDRINUSE',
  });
  for (const fd of fds) closeSync(fd);
});

t.test('an eventfd counts', { skip: process.platform !== 'linux' }, async (t) => {
  const fd = openEventfd();
  signalEventfd(fd);
  signalEventfd(fd);
  const counter = new BigUint64Array(1);
  readSync(fd, counter);
  t.equal(counter[0], 2n);
  closeSync(fd);
});

t.test('a link is told only what is to change, and comes up last', async (t) => {
  t.strictSame(linkCommands({ name: 'eth0' }), ['link set dev lo up', 'link set dev eth0 up']);
  t.strictSame(linkCommands({ name: 'eth0', mtuBytes: 1400, addresses: ['fd00::2/64'] }), [
    'link set dev lo up',
    'link set dev eth0 mtu 1400',
    'address replace fd00::2/64 dev eth0 nodad',
    'link set dev eth0 up',
  ]);
});
