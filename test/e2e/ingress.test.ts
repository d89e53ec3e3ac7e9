import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { run, start, type Teardown, until } from './support/process.js';

/**
 * Published ports, virtual addresses and names of services whose tasks are programs of the host: what
 * users see of them, from every node, while tasks come and go.
 */

const skip = skipUnless('docker', 'curl', 'python3', 'getent');

/** Answers by HTTP and by UDP with its slot and version; ends in good order when told to. */
const SERVER = `
import http.server, os, signal, socket, threading
name = (os.environ['SLOT'] + ' ' + os.environ.get('VERSION', '1')).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(name)))
        self.end_headers()
        self.wfile.write(name)
    def log_message(self, *_):
        pass
def echo():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(('0.0.0.0', 81))
    while True:
        _, client = udp.recvfrom(2048)
        udp.sendto(name, client)
threading.Thread(target=echo, daemon=True).start()
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer.daemon_threads = False
server = http.server.ThreadingHTTPServer(('0.0.0.0', 80), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
`;

/** New connections, four at a time, until it is told to stop, and forty of them at least. */
const LOAD = `
import http.client, json, signal, sys, threading, time
stop = False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
host, port = sys.argv[1], int(sys.argv[2])
took, failures = [], []
def ask():
    while not stop or len(took) < 40:
        began = time.monotonic()
        try:
            c = http.client.HTTPConnection(host, port, timeout=10)
            c.request('GET', '/')
            r = c.getresponse()
            r.read()
            if r.status != 200: failures.append(str(r.status))
            c.close()
        except Exception as e:
            failures.append(type(e).__name__ + ' ' + str(e))
        took.append(time.monotonic() - began)
        time.sleep(0.01)
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads): time.sleep(0.05)
print(json.dumps({'count': len(took), 'failures': failures, 'slowestMs': round(max(took) * 1000)}), flush=True)
`;

const UDP = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((sys.argv[1], int(sys.argv[2])))
for _ in range(10):
    try:
        s.send(b'x')
        print(s.recv(100).decode())
        break
    except (TimeoutError, ConnectionRefusedError):
        pass
`;

interface Load {
  readonly count: number;
  readonly failures: readonly string[];
  readonly slowestMs: number;
}

class Services {
  readonly lab: TestLab;
  readonly #script: (name: string) => string;

  private constructor(lab: TestLab) {
    this.lab = lab;
    this.#script = (name) => join(lab.dir, name);
    writeFileSync(this.#script('server.py'), SERVER);
    writeFileSync(this.#script('load.py'), LOAD);
    writeFileSync(this.#script('udp.py'), UDP);
  }

  static async up(t: Teardown): Promise<Services> {
    const lab = await TestLab.up(t, { nodes: 3 });
    await lab.createNetwork('mesh');
    return new Services(lab);
  }

  docker(...args: readonly string[]): Promise<string> {
    return this.lab.dockerMust('node1', ...args);
  }

  create(name: string, ...options: readonly string[]): Promise<string> {
    const env = ['--env', 'SLOT={{.Task.Slot}}'];
    const what = ['host', 'python3', this.#script('server.py')];
    return this.docker(
      'service',
      'create',
      '--detach',
      '--name',
      name,
      ...env,
      ...options,
      ...what,
    );
  }

  async converged(name: string, replicas: string): Promise<void> {
    await until(`${name} has ${replicas}`, 60_000, async () => {
      const listed = await this.docker('service', 'ls', '--format', '{{.Name}} {{.Replicas}}');
      return listed.split('\n').includes(`${name} ${replicas}`);
    });
  }

  /** As many tasks run as shall, and all others have ended. */
  async running(name: string, count: number): Promise<void> {
    await until(`${name} has ${count} running tasks`, 60_000, async () => {
      const states = await this.docker('service', 'ps', '--format', '{{.CurrentState}}', name);
      return states.split('\n').filter((state) => state.startsWith('Running')).length === count;
    });
  }

  async in(node: string, ...command: readonly string[]): Promise<string> {
    const { stdout } = await run(this.lab.lab.commandIn(node, command), {
      env: this.lab.lab.envOf(node),
    });
    return stdout.trim();
  }

  curl(node: string, url: string): Promise<string> {
    return this.in(node, 'curl', '-gsS', '--max-time', '10', url);
  }

  udp(node: string, host: string, port: number): Promise<string> {
    return this.in(node, 'python3', this.#script('udp.py'), host, String(port));
  }

  /** Requests go on while `work` does; what became of them. */
  async under(t: Teardown, node: string, port: number, work: () => Promise<void>): Promise<Load> {
    const argv = ['python3', this.#script('load.py'), '127.0.0.1', String(port)];
    const load = start(t, this.lab.lab.commandIn(node, argv), { env: this.lab.lab.envOf(node) });
    await work();
    const { stdout, stderr } = await load.stop();
    if (stdout === '') throw new Error(`the load failed: ${stderr}`);
    return JSON.parse(stdout);
  }
}

const slots = (answers: readonly string[]) => answers.map((answer) => answer.split(' ')[0]).sort();

t.test('services are reached from everywhere, while their tasks change', { skip }, async (t) => {
  const services = await Services.up(t);
  const nodes = services.lab.lab.nodes;
  const ports = ['--publish', '8080:80', '--publish', '8081:81/udp'];
  await services.create('web', '--replicas', '3', '--network', 'mesh', ...ports);
  await services.converged('web', '3/3');

  await t.test('three requests reach three tasks, at any address of any node', async (t) => {
    for (const { name, address } of nodes) {
      await until(`${name} reaches three tasks`, 10_000, async () => {
        const seen = [];
        for (let i = 0; i < 3; i++) seen.push(await services.curl(name, 'http://127.0.0.1:8080/'));
        return slots(seen).join() === '1,2,3';
      });
      for (const host of ['127.0.0.1', '[::1]', address, 'localhost']) {
        const seen = [];
        for (let i = 0; i < 3; i++) seen.push(await services.curl(name, `http://${host}:8080/`));
        t.strictSame(slots(seen), ['1', '2', '3'], `${name} at ${host}`);
      }
    }
  });

  await t.test('datagrams too', async (t) => {
    for (const { name } of nodes) {
      const seen = [];
      for (let i = 0; i < 3; i++) seen.push(await services.udp(name, '127.0.0.1', 8081));
      t.strictSame(slots(seen), ['1', '2', '3'], name);
    }
  });

  await t.test('by name and VIP from inside the network', async (t) => {
    const inside = (...command: readonly string[]) =>
      services.lab.shoal('node2', 'run', '--network', 'mesh', '--', ...command);
    const loop = 'for i in 1 2 3; do curl -sS --max-time 10 http://web/; echo; done';
    const { stdout, stderr } = await inside('sh', '-c', loop);
    t.strictSame(slots(stdout.trim().split('\n')), ['1', '2', '3'], stderr);
    const vip = await inside('getent', 'ahostsv4', 'web');
    t.equal(new Set(vip.stdout.match(/^\S+/gm)).size, 1, 'one address');
    const tasks = await inside('getent', 'ahostsv4', 'tasks.web');
    t.equal(new Set(tasks.stdout.match(/^\S+/gm)).size, 3, 'three tasks');
    const second = await inside('curl', '-sS', '--max-time', '10', 'http://web.2/');
    t.match(second.stdout, /^2 /, second.stderr);
    const ping = await inside('ping', '-c', '1', '-W', '5', 'web');
    t.equal(ping.code, 0, ping.stdout);
  });

  await t.test('no request is lost while the service shrinks and grows', async (t) => {
    const { count, failures, slowestMs } = await services.under(t, 'node2', 8080, async () => {
      await services.docker('service', 'scale', '--detach', 'web=1');
      await services.running('web', 1);
      await services.docker('service', 'scale', '--detach', 'web=4');
      await services.converged('web', '4/4');
    });
    t.strictSame(
      failures,
      [],
      `of ${count} requests none failed, the slowest took ${slowestMs} ms`,
    );
  });

  await t.test('no request is lost during a rolling update', async (t) => {
    const { count, failures, slowestMs } = await services.under(t, 'node3', 8080, async () => {
      const order = ['--update-order', 'start-first', '--update-parallelism', '2'];
      await services.docker(
        'service',
        'update',
        '--detach',
        ...order,
        '--env-add',
        'VERSION=2',
        'web',
      );
      await until('all tasks are new', 60_000, async () => {
        const seen = [];
        for (let i = 0; i < 4; i++)
          seen.push(await services.curl('node1', 'http://127.0.0.1:8080/'));
        return seen.every((answer) => answer.endsWith(' 2'));
      });
      await services.converged('web', '4/4');
    });
    t.strictSame(
      failures,
      [],
      `of ${count} requests none failed, the slowest took ${slowestMs} ms`,
    );
  });

  await t.test('a removed service frees its port everywhere', async (t) => {
    await services.docker('service', 'rm', 'web');
    for (const { name } of nodes)
      await until(
        `${name} refuses`,
        10_000,
        async () => (await services.curl(name, 'http://127.0.0.1:8080/')) === '',
      );
    t.pass('freed');
  });
});
