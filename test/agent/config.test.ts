import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadConfig } from '../../src/agent/config.js';

t.test('a flag wins over the file, and the file over the default', async (t) => {
  const file = join(t.testdir(), 'agent.json');
  writeFileSync(
    file,
    JSON.stringify({ 'data-dir': '/a', 'log-level': 'debug', 'gossip-port': 8000 }),
  );
  const config = loadConfig({ config: file, 'data-dir': '/b', label: ['rack=1=2'] });
  t.equal(config.dataDir, '/b');
  t.equal(config.logLevel, 'debug');
  t.equal(config.gossipPort, 8000);
  t.strictSame(config.labels, { rack: '1=2' });
  t.equal(config.socket, '/run/shoal/docker.sock');
  t.strictSame(config.metricsAddress, { host: '127.0.0.1', port: 9477 });
});

t.test('each mistake is one sentence that names the place', async (t) => {
  const dir = t.testdir({
    'broken.json': '{',
    'list.json': '[]',
    'unknown.json': '{"datadir":"/x"}',
  });
  const cases = [
    [{ config: join(dir, 'none.json') }, /does not exist/],
    [{ config: join(dir, 'broken.json') }, /is not JSON/],
    [{ config: join(dir, 'list.json') }, /must hold a JSON object/],
    [{ config: join(dir, 'unknown.json') }, /'datadir' in/],
    [{ 'log-level': 'loud' }, /--log-level/],
    [{ 'gossip-port': '99999' }, /--gossip-port/],
    [{ 'gossip-port': 'x' }, /--gossip-port/],
    [{ 'metrics-address': 'nine' }, /host:port or none/],
    [
      { 'ingress-bind': '10.0.0' },
      /ingress-bind must be 1 to 256 addresses, CIDRs .* not '10.0.0'/,
    ],
    [{ label: ['novalue'] }, /--label/],
    [{ 'generic-resource': ['gpu'] }, /'gpu' must be KIND=VALUE/],
    [{ 'generic-resource': ['gpu=A', 'gpu=A'] }, /two pieces of gpu have the same name/],
    [{ 'generic-resource': ['gpu=A', 'gpu=2'] }, /gpu is given more than once/],
    [{ 'generic-resource': ['ssd=-1'] }, /'ssd=-1' must be a number from 0 up/],
    [{ 'tls-address': 'x' }, /tls-address must be host:port/],
    [{ 'tls-cert': '/c' }, /needs --tls-address/],
    [{ 'tls-address': '0.0.0.0:2376', 'tls-cert': '/c' }, /together, or none/],
    [{ 'tcp-address': '0.0.0.0:2375' }, /root of this host: use --tls-address/],
    [{ 'tcp-address': '127.0.0.1.example:2375' }, /root of this host/],
  ] as const;
  for (const [flags, pattern] of cases) {
    t.throws(
      () => loadConfig(flags),
      { code: 'CONFIG_INVALID', message: pattern },
      JSON.stringify(flags),
    );
  }
});

t.test('generic resources are pieces with names, or so many that are alike', async (t) => {
  const given = { 'generic-resource': ['gpu=UUID1', 'ssd=3', 'gpu=UUID2'] };
  const file = join(t.testdir(), 'agent.json');
  writeFileSync(file, JSON.stringify(given));
  for (const flags of [given, { config: file }])
    t.strictSame(loadConfig(flags).genericResources, [
      { kind: 'named', name: 'gpu', value: 'UUID1' },
      { kind: 'named', name: 'gpu', value: 'UUID2' },
      { kind: 'discrete', name: 'ssd', value: 3 },
    ]);
  t.strictSame(loadConfig({}).genericResources, []);
});

t.test(
  'the API by TCP is off, by TLS wherever it is asked for, and without only at home',
  async (t) => {
    const off = loadConfig({});
    t.strictSame([off.tls, off.tcpAddress], [undefined, undefined]);
    const address = { host: '0.0.0.0', port: 2376 };
    t.strictSame(loadConfig({ 'tls-address': '0.0.0.0:2376' }).tls, { address });
    const files = { 'tls-cert': '/c', 'tls-key': '/k', 'tls-ca': '/a' };
    t.strictSame(loadConfig({ 'tls-address': '0.0.0.0:2376', ...files }).tls, {
      address,
      files: { cert: '/c', key: '/k', ca: '/a' },
    });
    for (const host of ['127.0.0.1', 'localhost', '[::1]'])
      t.equal(loadConfig({ 'tcp-address': `${host}:2375` }).tcpAddress?.port, 2375, host);
    const insecure = loadConfig({ 'tcp-address': '0.0.0.0:2375', 'tcp-insecure': true });
    t.equal(insecure.tcpAddress?.host, '0.0.0.0');
  },
);
