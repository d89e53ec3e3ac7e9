import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { FromMember, LoadResult, ToMember } from './member.js';

const HELP = `committed proposals per second of three members, each a process with its own log on the disk

The clients are in the leader's process; the members speak TCP on loopback, without TLS.

  --clients LIST    numbers of clients (default: 1,16,64,256)
  --seconds N       of each measurement (default: 3)
  --dir DIR         where the logs are (default: a new folder in the system's temporary one)
  --prof            write a CPU profile of each member to the working directory
`;

/** Who answers takes over the next message only. */
class MemberProcess {
  readonly #child: ChildProcess;

  constructor(execArgv: readonly string[]) {
    const path = fileURLToPath(new URL('./member.js', import.meta.url));
    this.#child = fork(path, { execArgv: [...execArgv] });
  }

  receive<Kind extends FromMember['kind']>(
    kind: Kind,
  ): Promise<Extract<FromMember, { readonly kind: Kind }>> {
    return new Promise((resolve, reject) => {
      const onExit = () => reject(new Error('a member has ended'));
      const onMessage = (message: FromMember) => {
        if (message.kind !== kind) return;
        this.#child.off('message', onMessage);
        this.#child.off('exit', onExit);
        resolve(message as Extract<FromMember, { readonly kind: Kind }>);
      };
      this.#child.on('message', onMessage);
      this.#child.once('exit', onExit);
    });
  }

  ask<Kind extends FromMember['kind']>(message: ToMember, kind: Kind) {
    const answer = this.receive(kind);
    this.#child.send(message);
    return answer;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

async function leaderOf(members: readonly MemberProcess[]): Promise<MemberProcess> {
  for (;;) {
    for (const member of members)
      if ((await member.ask({ kind: 'status' }, 'status')).ready) return member;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '1,16,64,256' },
    seconds: { type: 'string', default: '3' },
    dir: { type: 'string' },
    prof: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(HELP);
  process.exit(0);
}
const dir = mkdtempSync(join(values.dir ?? tmpdir(), 'shoal-raft-bench-'));
const members = [1, 2, 3].map(
  () => new MemberProcess(values.prof ? ['--cpu-prof', '--cpu-prof-interval', '500'] : []),
);
try {
  const ports = (await Promise.all(members.map((member) => member.receive('listening')))).map(
    ({ port }) => port,
  );
  await Promise.all(
    members.map((member, i) =>
      member.ask({ kind: 'open', id: i + 1, dir: join(dir, `${i + 1}`), ports }, 'opened'),
    ),
  );
  const leader = await leaderOf(members);
  const seconds = Number(values.seconds);
  await leader.ask({ kind: 'load', clients: 64, seconds: 1, valueBytes: 256 }, 'loaded');
  console.log('clients   writes/s   p50 ms   p99 ms   writes per flush   leader CPU %');
  for (const clients of values.clients.split(',').map(Number)) {
    const { result } = await leader.ask(
      { kind: 'load', clients, seconds, valueBytes: 256 },
      'loaded',
    );
    console.log(lineOf(result, seconds));
  }
  await Promise.all(members.map((member) => member.ask({ kind: 'close' }, 'closed')));
} finally {
  if (!values.prof) for (const member of members) member.kill();
  rmSync(dir, { recursive: true, force: true });
}

function lineOf(result: LoadResult, seconds: number): string {
  const perFlush = (result.perSecond * seconds) / Math.max(1, result.flushes);
  return [
    `${result.clients}`.padStart(7),
    result.perSecond.toFixed(0).padStart(10),
    result.p50Ms.toFixed(2).padStart(8),
    result.p99Ms.toFixed(2).padStart(8),
    perFlush.toFixed(1).padStart(18),
    result.cpuPercent.toFixed(0).padStart(14),
  ].join(' ');
}
