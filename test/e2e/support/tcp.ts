import type { Netns } from './netns.js';
import { type Running, type Teardown, until } from './process.js';

const SERVER = `
require('node:net').createServer((s) => { s.pipe(s); s.on('error', () => {}); }).listen(7007, '::', () => console.log('listening'));
`;

/**
 * One connection, kept for the whole run: a counter goes out, comes back, and the next follows.
 * Prints each answer; ends with 1 when the connection breaks.
 */
const CLIENT = `
const s = require('node:net').connect(7007, process.argv[1]);
s.setNoDelay(true);
let n = 0;
const next = () => s.write(String(++n) + '\\n');
s.on('connect', next);
let text = '';
s.on('data', (d) => {
  text += d;
  if (!text.endsWith('\\n')) return;
  if (text !== n + '\\n') { console.log('wrong ' + text); process.exit(2); }
  text = '';
  console.log('answer ' + n);
  setTimeout(next, 20);
});
s.on('error', (e) => { console.log('broken ' + e.code); process.exit(1); });
s.on('close', () => { console.log('closed'); process.exit(1); });
`;

/** A TCP connection between two namespaces that sends and gets answers all the time. */
export class EchoStream {
  readonly #client: Running;

  private constructor(client: Running) {
    this.#client = client;
  }

  static async open(t: Teardown, from: Netns, to: Netns, address: string): Promise<EchoStream> {
    const server = to.start(t, [process.execPath, '-e', SERVER]);
    await until('the echo server listens', 5_000, () => server.output().includes('listening'));
    const client = from.start(t, [process.execPath, '-e', CLIENT, address]);
    const stream = new EchoStream(client);
    await stream.untilAnswers(3, 5_000);
    return stream;
  }

  get answers(): number {
    return Number(/answer (\d+)\n$/.exec(this.#client.output())?.[1] ?? 0);
  }

  /** Whether the connection is the one that was opened. */
  get lives(): boolean {
    return this.#client.child.exitCode === null;
  }

  /** What was said last: why it broke. */
  get lastWords(): string {
    return this.#client.output().trim().split('\n').at(-1) ?? '';
  }

  /** Waits until so many more answers have come. @returns ms that it took. */
  async untilAnswers(count: number, timeoutMs: number): Promise<number> {
    const target = this.answers + count;
    const beganMs = performance.now();
    await until(`${count} more answers (${this.lastWords})`, timeoutMs, () => {
      if (!this.lives) throw new Error(`the connection broke: ${this.lastWords}`);
      return this.answers >= target;
    });
    return performance.now() - beganMs;
  }
}

export interface IperfResult {
  readonly bitsPerSecond: number;
  readonly retransmits: number;
  readonly lostPercent: number;
  readonly packets: number;
}

/** Runs of which iperf3 itself makes nothing: rarely, it ends one before it has begun. */
const EMPTY_RUNS_MAX = 2;

/** One run of iperf3 between two namespaces, with a server of its own. */
export async function iperf(
  client: Netns,
  server: Netns,
  address: string,
  ...flags: readonly string[]
): Promise<IperfResult> {
  for (let run = 1; ; run++) {
    const result = await runIperf(client, server, address, flags);
    if (result.bitsPerSecond > 0 || run === EMPTY_RUNS_MAX) return result;
  }
}

/** Runs of iperf3 until one is good. */
const ATTEMPTS_MAX = 3;

/** Asks again if the result is bad: a busy machine is slow by chance, a broken path each time. */
export async function iperfUntil(
  isGood: (result: IperfResult) => boolean,
  ...run: Parameters<typeof iperf>
): Promise<IperfResult> {
  for (let attempt = 1; ; attempt++) {
    const result = await iperf(...run);
    if (isGood(result) || attempt === ATTEMPTS_MAX) return result;
  }
}

async function runIperf(
  client: Netns,
  server: Netns,
  address: string,
  flags: readonly string[],
): Promise<IperfResult> {
  const serving = server.launch(['iperf3', '-s', '-1', '--forceflush']);
  try {
    await until('iperf3 listens', 5_000, () => serving.output().includes('Server listening'));
    const argv = ['iperf3', '-J', '-c', address, '--connect-timeout', '3000', ...flags];
    return parseIperf(await client.must(argv));
  } finally {
    await serving.stop('SIGKILL');
  }
}

function parseIperf(text: string): IperfResult {
  const { end } = JSON.parse(text) as {
    end: {
      sum?: { bits_per_second: number; lost_percent: number; packets: number };
      sum_received?: { bits_per_second: number };
      sum_sent?: { retransmits?: number };
    };
  };
  return {
    bitsPerSecond: (end.sum_received ?? end.sum)?.bits_per_second ?? 0,
    retransmits: end.sum_sent?.retransmits ?? 0,
    lostPercent: end.sum?.lost_percent ?? 0,
    packets: end.sum?.packets ?? 0,
  };
}

/** For comments: `1.25 Gbit/s`. */
export function formatRate(bitsPerSecond: number): string {
  return `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`;
}
