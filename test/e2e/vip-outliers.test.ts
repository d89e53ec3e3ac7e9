import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { shoalArgv, skipUnless, TestLab } from './support/lab.js';
import { start, until } from './support/process.js';

/** A program on an overlay asks a service by its name, and one of the tasks hangs for a while. */

const REPLICAS = 3;
/** Requests that reach a hanging task are told after a second; five of them take a quarter more at this rate. */
const RATE = 60;
/** Two seconds, and one for a machine with other things to do. */
const LAST_GIVEN_MS_MAX = 3_000;
const SLOW_MS = 900;
/** After this a request is given up; longer than silence, shorter than a task is passed over. */
const GIVEN_UP_MS = 1_500;

/** Answers with its slot, a connection each. */
const SERVER = `
import os, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        if self.request.recv(100): self.request.sendall(os.environ['SLOT'].encode())
socketserver.ThreadingTCPServer.request_queue_size = 256
socketserver.ThreadingTCPServer(('0.0.0.0', 80), Handler).serve_forever()
`;

/** New connections at a rate, however long they take; one line each: when it began, how long it took, who answered. */
const LOAD = `
import os, socket, sys, threading, time
def ask():
    began = time.monotonic()
    who = '?'
    try:
        with socket.create_connection((sys.argv[1], 80), timeout=float(sys.argv[3]) / 1000) as s:
            s.sendall(b'who')
            who = s.recv(100).decode() or '?'
    except OSError:
        pass
    print(f'{began * 1000:.0f} {(time.monotonic() - began) * 1000:.0f} {who}', flush=True)
next = time.monotonic()
while not os.path.exists(sys.argv[4]):
    threading.Thread(target=ask).start()
    next += 1 / float(sys.argv[2])
    time.sleep(max(0, next - time.monotonic()))
`;

interface Asked {
  readonly beganMs: number;
  readonly tookMs: number;
  readonly who: string;
}

/** By the clock that the load has, too. */
const nowMs = () => Number(process.hrtime.bigint() / 1_000_000n);

function askedIn(output: string): Asked[] {
  return [...output.matchAll(/^(\d+) (\d+) (\S+)$/gm)].map(([, began, took, who = '']) => ({
    beganMs: Number(began),
    tookMs: Number(took),
    who,
  }));
}

t.test(
  'a task that hangs is passed over by programs that ask by the name of its service',
  { skip: skipUnless('docker', 'python3') },
  async (t) => {
    const lab = await TestLab.up(t, { nodes: 2 });
    await lab.createNetwork('mesh');
    const [serverPath, loadPath, stopPath] = ['server.py', 'load.py', 'stop'].map((name) =>
      join(lab.dir, name),
    ) as [string, string, string];
    writeFileSync(serverPath, SERVER);
    writeFileSync(loadPath, LOAD);
    const docker = (...args: readonly string[]) => lab.dockerMust('node1', ...args);
    await docker(
      ...['service', 'create', '--detach', '--name', 'web', '--replicas', String(REPLICAS)],
      ...['--network', 'mesh', '--env', 'SLOT={{.Task.Slot}}'],
      ...['--label', 'shoal.outlier.ejection=3s', 'host', 'python3', serverPath],
    );
    const what = ['run', '--network', 'mesh', '--', 'python3', loadPath, 'web'];
    const how = [String(RATE), String(GIVEN_UP_MS), stopPath];
    const argv = lab.lab.commandIn('node1', [...shoalArgv, ...what, ...how]);
    await until('all tasks run', 30_000, async () =>
      (await docker('service', 'ls', '--format', '{{.Replicas}}')).includes(`${REPLICAS}/`),
    );
    const load = start(t, argv, { env: lab.lab.envOf('node1') });
    const asked = (afterMs: number) =>
      askedIn(load.output()).filter(({ beganMs }) => beganMs >= afterMs);
    const startedMs = nowMs();
    await until('every task answers', 20_000, () => {
      const last = asked(startedMs).slice(-10 * REPLICAS);
      return last.length === 10 * REPLICAS && new Set(last.map(({ who }) => who)).size === REPLICAS;
    });

    const ids = (await docker('service', 'ps', '--no-trunc', '-q', 'web')).split('\n');
    const format = '{{.Slot}} {{.Status.ContainerStatus.PID}}';
    const [slot, pid] = (
      await docker('inspect', '--type', 'task', '--format', format, ids[0] ?? '')
    ).split(' ');
    const ejections = async () => (await lab.status('node1')).counters.totals['vipEjections'] ?? 0;
    t.equal(await ejections(), 0, 'nobody is passed over before');
    const fellMs = nowMs();
    process.kill(Number(pid), 'SIGSTOP');
    t.teardown(() => {
      try {
        process.kill(Number(pid), 'SIGCONT');
      } catch {
        // It has ended with its lab.
      }
    });
    await until('it is passed over', 10_000, async () => (await ejections()) > 0);
    const seenMs = nowMs();
    t.match(
      await until('it is named', 5_000, async () => {
        const { vipOutliers } = await lab.status('node1');
        return vipOutliers.length > 0 && vipOutliers;
      }),
      [{ service: 'web', network: 'mesh', ejections: 1, passedOver: [ids[0]] }],
    );
    await until('all are known that it got', 10_000, () => nowMs() > seenMs + GIVEN_UP_MS + 300);
    const lost = asked(fellMs).filter(({ who, tookMs }) => who === '?' || tookMs >= SLOW_MS);
    const lastMs = Math.max(...lost.map(({ beganMs }) => beganMs - fellMs));
    const text = `it got ${lost.length} requests, the last one ${lastMs} ms after it had stopped`;
    t.ok(lost.length >= 5 && lastMs < LAST_GIVEN_MS_MAX, text);
    t.comment(text);

    const wellMs = nowMs();
    process.kill(Number(pid), 'SIGCONT');
    await until('it is back', 20_000, () => {
      return asked(wellMs).filter(({ who }) => who === slot).length >= 10;
    });
    writeFileSync(stopPath, '');
    await load.finished;
    const named = await until('it is not passed over any more', 20_000, async () => {
      const { vipOutliers } = await lab.status('node1');
      return vipOutliers[0]?.passedOver.length === 0 && vipOutliers;
    });
    t.equal(named.length, 1, 'the service stays named');
  },
);
