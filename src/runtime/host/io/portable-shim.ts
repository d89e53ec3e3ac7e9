/**
 * The shim for machines without a compiler: `task` supervises one task, `exec` runs a command inside one. It speaks as
 * `native/supervisor.cc` does, with `sh` and the tools of util-linux in place of system calls.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { type PortableScripts, portableScriptsOf, quote } from '../core/portable-script.js';
import { decodePlan } from '../wire/plan.js';
import { LineCutter, LogWriter } from './log-writer.js';
import { killProcess, startTimeOf } from './process.js';

const AGENT = 3;
const EXIT_SHIM = 125;
const EXIT_KILLED = 137;
const FOLDER_CHECK_MS = 10_000;
const CLONE_NEWNET = 0x4000_0000;
const PLAN_BYTES_MAX = 64 * 1024 * 1024;
const { O_RDONLY, O_RDWR, O_WRONLY, O_NONBLOCK } = constants;

function readAll(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let done = 0; done < size; ) {
    const got = readSync(AGENT, bytes, done, size - done, null);
    if (got === 0) process.exit(EXIT_SHIM);
    done += got;
  }
  return bytes;
}

function readScripts(): PortableScripts {
  const size = readAll(4).readUInt32LE();
  if (size > PLAN_BYTES_MAX) refuse('the plan is too large');
  const records = decodePlan(readAll(size));
  const scripts = records === undefined ? undefined : portableScriptsOf(records);
  return scripts ?? refuse('the plan makes no sense');
}

function answer(text: string): void {
  try {
    writeSync(AGENT, `${text}\n`);
  } catch {
    // The agent has died meanwhile.
  }
}

function refuse(why: string): never {
  answer(`E ${why}`);
  process.exit(EXIT_SHIM);
}

function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (signal === null ? 0 : osConstants.signals[signal]);
}

const joinCgroups = (scripts: PortableScripts) =>
  scripts.cgroups.map((path) => `echo 0 > ${quote(path)} || exit ${EXIT_SHIM}\n`).join('');

class Supervisor {
  readonly #scripts: PortableScripts;
  readonly #log: LogWriter | undefined;
  #life = -1;
  #holder: ChildProcess | undefined;
  #run = 0;
  /** Of the present run: what started it, and whether it is under way to the command. */
  #child: ChildProcess | undefined;
  #first: { readonly pid: number; readonly startTime: string } | undefined;
  #waitingSignal = 0;
  #isEnding = false;
  #isKilled = false;
  #oomKills = 0;

  constructor(scripts: PortableScripts) {
    this.#scripts = scripts;
    this.#log = scripts.log === undefined ? undefined : new LogWriter(scripts.folder, scripts.log);
  }

  #file(name: string): string {
    return join(this.#scripts.folder, name);
  }

  async start(): Promise<void> {
    const pipes = [this.#file('ctl'), this.#file('life')];
    if (spawnSync('mkfifo', ['-m', '600', ...pipes]).status !== 0) refuse('mkfifo does not work');
    this.#life = openSync(this.#file('life'), O_RDWR | O_NONBLOCK);
    // Open before the agent hears that all is ready: an order that comes at once waits in it.
    const ctl = openSync(this.#file('ctl'), O_RDWR | O_NONBLOCK);
    this.#oomKills = this.#readOomKills();
    // No secrets are in it.
    writeFileSync(this.#file('run.sh'), this.#scripts.run, { mode: 0o600 });
    const holder = await this.#startHolder();
    this.#keep('prepared', `${holder}\n`);
    answer(`R ${holder}`);
    closeSync(AGENT);
    const orders = new Socket({ fd: ctl, writable: false });
    // As the native one: without its folder a task is nobody's.
    setInterval(() => {
      if (!existsSync(this.#file('ctl'))) this.#end();
    }, FOLDER_CHECK_MS);
    let text = '';
    orders.on('data', (chunk) => {
      const lines = (text + String(chunk)).split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#obey(line);
    });
  }

  /** What keeps the namespaces: a process that sleeps in them. */
  async #startHolder(): Promise<string> {
    const { namespaces, hostname, setup } = this.#scripts;
    const net = (namespaces & CLONE_NEWNET) !== 0 ? ['--net'] : [];
    const child = spawn(
      'setpriv',
      [
        '--pdeathsig',
        'KILL',
        'unshare',
        '--mount',
        '--uts',
        '--ipc',
        ...net,
        '--propagation',
        'unchanged',
        'sh',
        '-s',
      ],
      { cwd: '/', stdio: ['pipe', 'ignore', 'ignore', 'pipe'] },
    );
    this.#holder = child;
    child.on('error', () => refuse('setpriv and unshare of util-linux are needed'));
    child.stdin?.on('error', () => {});
    const name =
      hostname === ''
        ? ''
        : `hostname ${quote(hostname)} || echo ${quote(hostname)} > /proc/sys/kernel/hostname\n`;
    child.stdin?.end(name + setup);
    let said = '';
    for await (const chunk of (child.stdio[3] as Socket) ?? []) {
      said += String(chunk);
      if (said.includes('\n')) break;
    }
    if (!said.startsWith('R'))
      refuse(said.replace(/^E /, '').trim() || 'the namespaces could not be made');
    const pid = child.pid ?? 0;
    child.on('exit', () => process.exit(EXIT_SHIM));
    return `${pid} ${startTimeOf(pid) ?? 0}`;
  }

  #keep(name: string, text: string, durably = false): void {
    const partial = this.#file(`${name}.partial`);
    const fd = openSync(partial, 'w', 0o600);
    writeSync(fd, text);
    if (durably) fsyncSync(fd);
    closeSync(fd);
    renameSync(partial, this.#file(name));
  }

  #wake(): void {
    try {
      writeSync(this.#life, '!');
    } catch {
      // Nobody reads it, and it is full: that wakes him too.
    }
  }

  #readOomKills(): number {
    const { oomEvents } = this.#scripts;
    if (oomEvents === undefined) return 0;
    try {
      return Number(/^oom_kill (\d+)/m.exec(readFileSync(oomEvents, 'utf8'))?.[1] ?? 0);
    } catch {
      return 0;
    }
  }

  #obey(order: string): void {
    const [word, value = ''] = order.split(' ');
    if (word === 'go') {
      if (this.#child === undefined && Number(value) === this.#run + 1) this.#startRun();
    } else if (word === 'end') {
      this.#isEnding = true;
      if (this.#child === undefined) this.#end();
      else this.#kill();
    } else if (word === 'sig') {
      if (this.#child === undefined) return;
      if (Number(value) === osConstants.signals.SIGKILL) this.#kill();
      else if (this.#first === undefined) this.#waitingSignal = Number(value);
      else this.#signal(Number(value));
    }
  }

  #signal(number: number): void {
    const first = this.#first;
    if (first === undefined || startTimeOf(first.pid) !== first.startTime) return;
    try {
      process.kill(first.pid, number);
    } catch {
      // It ended in between.
    }
  }

  #kill(): void {
    this.#isKilled = true;
    if (this.#first !== undefined) killProcess(this.#first);
    else this.#child?.kill('SIGKILL');
  }

  #end(): never {
    this.#holder?.removeAllListeners('exit');
    this.#holder?.kill('SIGKILL');
    process.exit(0);
  }

  #startRun(): void {
    this.#run += 1;
    this.#first = undefined;
    this.#isKilled = false;
    this.#waitingSignal = 0;
    const outputs =
      this.#log === undefined ? [] : ['stdout', 'stderr'].map((name) => this.#openOutput(name));
    const chain =
      joinCgroups(this.#scripts) +
      `exec 5< ${quote(this.#file('run.sh'))}\n` +
      `exec nsenter -t ${this.#holder?.pid} -m -u -i -n unshare --pid --mount --propagation unchanged --fork --kill-child=KILL sh /dev/fd/5\n`;
    const [out = 'ignore', err = 'ignore'] = outputs.map(({ writeFd }) => writeFd);
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'sh', '-c', chain], {
      cwd: '/',
      stdio: ['ignore', out, err, 'pipe'],
    });
    for (const { writeFd } of outputs) closeSync(writeFd);
    this.#child = child;
    let words = '';
    const report = child.stdio[3] as Socket;
    // `unshare` holds its end open as long as the command runs: so a word says that all is well.
    report.on('data', (chunk) => {
      words += String(chunk);
      if (words === 'S\n') this.#onStarted(child);
    });
    const reported = new Promise<void>((resolve) => {
      report.on('end', resolve);
      report.on('close', resolve);
    });
    child.on('exit', (code, signal) => {
      void Promise.all([reported, ...outputs.map(({ ended }) => ended)]).then(() => {
        this.#conclude(exitCodeOf(code, signal), words);
      });
    });
  }

  /** A pipe of the kind that programs may open once more by its name, which sockets are not. */
  #openOutput(stream: string): { readonly writeFd: number; readonly ended: Promise<void> } {
    const path = this.#file(`${stream}.pipe`);
    rmSync(path, { force: true });
    spawnSync('mkfifo', ['-m', '600', path]);
    const readFd = openSync(path, O_RDONLY | O_NONBLOCK);
    const writeFd = openSync(path, O_WRONLY);
    rmSync(path, { force: true });
    const socket = new Socket({ fd: readFd, writable: false });
    const cutter = new LineCutter((text, isWhole) => this.#log?.line(stream, text, isWhole));
    const ended = new Promise<void>((resolve) => {
      socket.on('data', (chunk) => cutter.push(chunk));
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        cutter.finish();
        resolve();
      });
    });
    return { writeFd, ended };
  }

  #onStarted(child: ChildProcess): void {
    // `unshare` has one child: the first process of the namespace.
    const pid = Number(
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim(),
    );
    const startTime = startTimeOf(pid);
    if (startTime === undefined) {
      this.#keepStart(child.pid ?? 0, '0');
      return;
    }
    this.#first = { pid, startTime };
    this.#keepStart(pid, startTime);
    if (this.#waitingSignal !== 0) this.#signal(this.#waitingSignal);
  }

  #keepStart(pid: number, startTime: string): void {
    this.#keep('started', `${this.#run} ${pid} ${startTime} ${BigInt(Date.now()) * 1_000_000n}\n`);
    this.#wake();
  }

  #conclude(code: number, words: string): void {
    const kills = this.#readOomKills();
    const failed = /^[XE](\d*) ?(.*)/.exec(words);
    // `unshare` cannot end itself by the signal that none can handle, and says 1.
    const own = this.#isKilled && code === 1 ? EXIT_KILLED : code;
    const exitCode = failed === null ? own : Number(failed[1] || EXIT_SHIM);
    const line = `${this.#run} ${exitCode} ${kills - this.#oomKills} ${BigInt(Date.now()) * 1_000_000n}`;
    this.#oomKills = kills;
    this.#child = undefined;
    this.#first = undefined;
    this.#keep('exited', `${line}\n${failed?.[2] ?? ''}\n`, true);
    this.#wake();
    if (this.#isEnding) this.#end();
  }
}

async function runExec(): Promise<void> {
  const scripts = readScripts();
  const { target, folder, command } = scripts;
  if (scripts.hasTerminal) refuse('a terminal needs the native supervisor');
  if (target === undefined || startTimeOf(target.pid) !== target.startTime) {
    refuse('the task does not run');
  }
  const file = join(folder, `exec-${process.pid}.sh`);
  writeFileSync(file, `${command}become "$@"\n`, { mode: 0o600 });
  const chain =
    joinCgroups(scripts) +
    `exec 5< ${quote(file)} 3>&-\nrm -f ${quote(file)}\n` +
    `exec nsenter -t ${target.pid} -m -u -i -n -p setpriv --pdeathsig KILL sh /dev/fd/5\n`;
  const child = spawn('sh', ['-c', chain], { cwd: '/', stdio: 'inherit', detached: true });
  answer(`R ${child.pid} 0`);
  const agent = new Socket({ fd: AGENT });
  const kill = () => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL');
    } catch {
      // It has ended already.
    }
  };
  agent.on('data', () => {});
  agent.on('error', kill);
  agent.on('close', kill);
  child.on('error', () => process.exit(EXIT_SHIM));
  child.on('exit', (code, signal) => {
    rmSync(file, { force: true });
    process.exit(exitCodeOf(code, signal));
  });
}

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGPIPE'] as const)
  process.on(signal, () => {});
if (process.argv[2] === 'exec') await runExec();
else await new Supervisor(readScripts()).start();
