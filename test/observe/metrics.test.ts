import { request } from 'node:http';
import { createServer } from 'node:net';
import t from 'tap';
import { Metrics, MetricsServer } from '../../src/observe/index.js';

function get(port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    })
      .on('error', reject)
      .end();
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

t.test('a source is read when scraped, and shows its labels', async (t) => {
  const metrics = new Metrics();
  let drops = 3;
  metrics.add({
    name: 'shoal_drops_total',
    help: 'drops',
    kind: 'counter',
    labelNames: ['reason'],
    read: () => [{ labels: { reason: 'looped' }, value: drops }],
  });
  metrics.add({
    name: 'shoal_members',
    help: 'members',
    kind: 'gauge',
    read: () => [{ value: 2 }],
  });
  t.match(await metrics.text(), 'shoal_drops_total{reason="looped"} 3');
  drops = 5;
  const text = await metrics.text();
  t.match(text, 'shoal_drops_total{reason="looped"} 5', 'not added up over scrapes');
  t.match(text, 'shoal_members 2');
  t.match(text, /^nodejs_eventloop_lag_seconds /m);
  t.notMatch(
    text,
    'nodejs_eventloop_lag_p99',
    'nothing that its own sampling interval makes large',
  );
});

t.test('health decides the status, and other paths are not found', async (t) => {
  const port = await freePort();
  let ok = true;
  const server = await MetricsServer.listen(
    { host: '127.0.0.1', port },
    {
      contentType: 'text/plain',
      metrics: async () => 'm 1\n',
      health: () => ({ ok, detail: { ok } }),
    },
  );
  t.teardown(() => server.close());
  t.strictSame(await get(port, '/metrics'), { status: 200, body: 'm 1\n' });
  t.equal((await get(port, '/healthz')).status, 200);
  ok = false;
  t.equal((await get(port, '/healthz')).status, 503);
  t.equal((await get(port, '/x')).status, 404);
  await t.rejects(
    MetricsServer.listen(
      { host: '127.0.0.1', port },
      { contentType: '', metrics: async () => '', health: () => ({ ok, detail: {} }) },
    ),
    { code: 'SWARM_PORT_TAKEN', message: `process ${process.pid}` },
    'a taken port is refused with its holder',
  );
});
