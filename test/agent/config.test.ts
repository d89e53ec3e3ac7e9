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
    [{ label: ['novalue'] }, /--label/],
  ] as const;
  for (const [flags, pattern] of cases) {
    t.throws(
      () => loadConfig(flags),
      { code: 'CONFIG_INVALID', message: pattern },
      JSON.stringify(flags),
    );
  }
});
