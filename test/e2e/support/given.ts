import type { TestLab } from './lab.js';
import type { Netns } from './netns.js';
import { run, until } from './process.js';

/** What a busy machine may take for what is a matter of two seconds. */
const SOON_MS = 20_000;

/** A check that notices within a second, and is patient with a busy machine. */
const CHECK = [
  ...['--label', 'shoal.check=http', '--label', 'shoal.check.path=/health'],
  ...['--label', 'shoal.check.port=80', '--label', 'shoal.check.interval=300ms'],
  ...['--label', 'shoal.check.timeout=5s', '--label', 'shoal.check.fall=2'],
];

/** Says which task it is, and which run of it, also while it is ill; who asks decides what becomes of it. */
const SERVER = `let isIll = false;
const run = Math.random().toString(36).slice(2);
require('http').createServer((request, response) => {
  if (request.url === '/die') process.exit(1);
  if (request.url === '/ill' || request.url === '/well') isIll = request.url === '/ill';
  response.statusCode = request.url === '/health' && isIll ? 500 : 200;
  response.setHeader('Connection', 'close');
  response.end(process.env.SLOT + ' ' + run + '\\n');
}).listen(80)`;

/** A service of host tasks with a check, for `docker service create`. */
export function checkedService(name: string, ...more: readonly string[]): readonly string[] {
  return [
    ...['service', 'create', '--detach', '--name', name, '--replicas', '3'],
    ...['--env', 'SLOT={{.Task.Slot}}', ...CHECK, ...more, 'host', process.execPath, '-e', SERVER],
  ];
}

const lines = (text: string) => text.split('\n').filter(Boolean);
const slotsOf = (answers: readonly string[]) =>
  [...new Set(answers.map((answer) => answer.split(' ')[0] ?? ''))].sort().join('');

/** Which tasks of a checked service are given to those who come, by each way to it. */
export class Given {
  readonly #lab: TestLab;
  readonly #inside: Netns;

  /** @param inside Attached to the network of the services. */
  constructor(lab: TestLab, inside: Netns) {
    this.#lab = lab;
    this.#inside = inside;
  }

  async dig(...question: readonly string[]): Promise<readonly string[]> {
    const argv = ['dig', '@127.0.0.11', '+short', ...question];
    return lines(await this.#inside.must(argv)).sort();
  }

  /** The address of the task in this place, whatever its state. */
  async #addressOf(name: string): Promise<string> {
    return (await this.dig(name))[0] ?? '';
  }

  /** Asks one task, by the name of its place. @returns Its place and run. */
  async tell(place: string, path: string): Promise<string> {
    const url = `${await this.#addressOf(place)}${path}`;
    const { stdout } = await this.#inside.run(['curl', '-sS', '--max-time', '10', url]);
    return stdout.trim();
  }

  /** As slots: `123` is all three tasks. Each of so many new connections counts. */
  async byPort(node: string, port: number, count: number): Promise<string> {
    const argv = this.#lab.lab.commandIn(node, curl(`127.0.0.1:${port}`, count));
    return slotsOf(lines((await run(argv)).stdout));
  }

  async byVip(service: string, count: number): Promise<string> {
    const vip = await this.#addressOf(service);
    return slotsOf(lines((await this.#inside.run(curl(vip, count))).stdout));
  }

  /** What a name gives, as slots of the service. */
  async byName(name: string, service: string): Promise<string> {
    const [found, ...places] = await Promise.all([
      this.dig(name),
      ...[1, 2, 3].map((slot) => this.#addressOf(`${service}.${slot}`)),
    ]);
    return slotsOf(found.map((address) => String(places.indexOf(address) + 1)));
  }

  async bySrv(name: string): Promise<string> {
    const targets = await this.dig(name, 'SRV');
    return slotsOf(targets.map((target) => /\.(\d)\./.exec(target)?.[1] ?? target));
  }
}

const curl = (host: string, count: number) =>
  ['curl', '-sS', '--max-time', '5', `http://${host}/?[1-${count}]`] as const;

export type Ways = Readonly<Record<string, Promise<string>>>;

/** What comes of all ways. */
export async function settle(ways: Ways): Promise<Readonly<Record<string, string>>> {
  const all = Object.entries(ways).map(async ([way, given]) => [way, await given] as const);
  return Object.fromEntries(await Promise.all(all));
}

/** Waits until all ways give these slots. @returns ms that it took. */
export async function untilGiven(want: string, ask: () => Ways): Promise<number> {
  const beganMs = performance.now();
  let last: Readonly<Record<string, string>> = {};
  await until(`each way gives ${want}`, SOON_MS, async () => {
    last = await settle(ask());
    return Object.values(last).every((slots) => slots === want);
  }).catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`);
  });
  return Math.round(performance.now() - beganMs);
}
