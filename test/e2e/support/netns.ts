import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  type Finished,
  launch,
  must,
  type Running,
  type RunOptions,
  run,
  start,
  type Teardown,
} from './process.js';

export interface PingOptions {
  readonly count?: number;
  /** Bytes of payload, behind the ICMP header. */
  readonly payloadBytes?: number;
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly dontFragment?: boolean;
}

const alive = new Set<string>();

// A file that is ended from outside has no teardown.
process.on('exit', () => {
  for (const name of alive) spawnSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
});

/** A network namespace of a test: an application's host. */
export class Netns {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** Gone with the test, also when it fails. */
  static async make(t: Teardown): Promise<Netns> {
    const netns = new Netns(`she-${randomBytes(4).toString('hex')}`);
    alive.add(netns.name);
    t.teardown(() => netns.remove());
    await must(['ip', 'netns', 'add', netns.name]);
    return netns;
  }

  get path(): string {
    return `/run/netns/${this.name}`;
  }

  async remove(): Promise<void> {
    if (!alive.delete(this.name)) return;
    await run(['ip', 'netns', 'delete', this.name]);
  }

  argv(command: readonly string[]): readonly string[] {
    return ['nsenter', `--net=${this.path}`, '--', ...command];
  }

  run(command: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return run(this.argv(command), options);
  }

  must(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return must(this.argv(command), options);
  }

  start(t: Teardown, command: readonly string[], options: RunOptions = {}): Running {
    return start(t, this.argv(command), options);
  }

  launch(command: readonly string[]): Running {
    return launch(this.argv(command));
  }

  /** Names of the interfaces but the loopback. */
  async links(): Promise<readonly string[]> {
    const links = JSON.parse(await must(['ip', '-n', this.name, '-j', 'link'])) as {
      ifname: string;
    }[];
    return links.map((link) => link.ifname).filter((name) => name !== 'lo');
  }

  pingArgv(address: string, options: PingOptions = {}): readonly string[] {
    const { count = 1, payloadBytes = 56, intervalMs = 200, timeoutMs = 1000 } = options;
    return [
      ...['ping', '-n', '-c', `${count}`, '-s', `${payloadBytes}`, '-i', `${intervalMs / 1000}`],
      ...['-W', `${timeoutMs / 1000}`, ...(options.dontFragment ? ['-M', 'do'] : []), address],
    ];
  }

  /** @returns How many of the pings were answered. */
  async ping(address: string, options: PingOptions = {}): Promise<number> {
    const { count = 1, intervalMs = 200, timeoutMs = 1000 } = options;
    const argv = [...this.pingArgv(address, options)];
    // By itself it waits two round trips for the last answer, which is nothing on a busy machine.
    const deadline = Math.ceil((count * intervalMs + timeoutMs) / 1000);
    if (count > 1) argv.splice(-1, 0, '-w', String(deadline));
    const { stdout } = await this.run(argv);
    return sequencesOf(stdout).filter((sequence) => sequence <= count).length;
  }
}

function sequencesOf(output: string): readonly number[] {
  return [
    ...new Set([...output.matchAll(/icmp_seq=(\d+) ttl=/g)].map((match) => Number(match[1]))),
  ];
}

/** How many were answered, from what ping wrote at its end. */
export function answeredOf(output: string): number {
  return Number(/, (\d+) received/.exec(output)?.[1] ?? 0);
}

/** How many were sent, from what ping wrote at its end. */
export function sentOf(output: string): number {
  return Number(/(\d+) packets transmitted/.exec(output)?.[1] ?? 0);
}

/** Those before the last answered one that were not: one that was on its way at the end is none. */
export function lostOf(output: string): readonly number[] {
  const answered = new Set(sequencesOf(output));
  const sent = Array.from({ length: Math.max(0, ...answered) }, (_, index) => index + 1);
  return sent.filter((sequence) => !answered.has(sequence));
}
