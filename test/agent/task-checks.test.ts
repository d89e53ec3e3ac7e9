import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createTcpServer, type Server } from 'node:net';
import t, { type Test } from 'tap';
import { NodeChecks } from '../../src/agent/task-checks.js';
import { readCheck } from '../../src/base/check-labels.js';
import { openTcpClientInNetns } from '../../src/dataplane/io/index.js';

async function listening(t: Test, server: Server, port = 0): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as { readonly port: number }).port;
}

/** Checks of one task in this namespace; tells each change. */
function checked(t: Test, labels: Readonly<Record<string, string>>) {
  let tell: (isFailing: boolean) => void = () => undefined;
  const checks = new NodeChecks({
    seed: 1,
    checkOf: () =>
      readCheck({ 'shoal.check.interval': '100ms', 'shoal.check.timeout': '200ms', ...labels }, [])
        .check,
    openIn: (netns, address) => {
      if (netns === 'gone') throw new Error('gone');
      return openTcpClientInNetns(undefined, address);
    },
    changed: (_id, isFailing) => tell(isFailing),
  });
  t.teardown(() => checks.close());
  const next = () => new Promise<boolean>((resolve) => (tell = resolve));
  return { checks, next };
}

t.test('a task is asked by HTTP, and only the status counts', async (t) => {
  let status = 500;
  let asked = '';
  const server = createServer(({ method, url, headers: { host } }, response) => {
    asked = `${method} ${url} ${host}`;
    // Its answer has no end.
    response.writeHead(status).write('x');
  });
  const port = await listening(t, server);
  const labels = {
    'shoal.check': 'http',
    'shoal.check.port': `${port}`,
    'shoal.check.path': '/up',
  };
  const { checks, next } = checked(t, labels);
  checks.add('a', { serviceId: 's', netns: '', address: '127.0.0.1' });
  t.equal(await next(), true);
  t.equal(asked, `GET /up 127.0.0.1:${port}`);
  status = 201;
  t.equal(await next(), false);
  t.match(checks.stats(), { checked: 1, failing: 0 });
  t.teardown(() => server.closeAllConnections());
});

t.test('one that takes connections passes, by TCP; one that hangs does not, by HTTP', async (t) => {
  const server = createTcpServer((socket) => socket.on('error', () => undefined));
  const port = await listening(t, server);
  const labels: Record<string, string> = { 'shoal.check': 'http', 'shoal.check.port': `${port}` };
  const { checks, next } = checked(t, labels);
  checks.add('a', { serviceId: 's', netns: '', address: '127.0.0.1' });
  t.equal(await next(), true);
  labels['shoal.check'] = 'tcp';
  const passes = next();
  checks.follow();
  t.equal(await passes, false);
  server.close();
  t.equal(await next(), true, 'nobody listens');
  const over = next();
  checks.remove('a');
  t.equal(await over, false);
  checks.add('b', { serviceId: 's', netns: 'gone', address: '127.0.0.1' });
  t.equal(await next(), true, 'its namespace is gone');
});
