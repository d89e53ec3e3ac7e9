// The load of `npm run chaos -- ingress`, in an open loop: requests begin when they are due, whatever
// became of those before. `http-load.mjs '{"targets": ["10.0.0.1:8080"], "rate": 1000}'`; it prints a line
// when all its connections are there, and on SIGTERM what became of its requests, as JSON.
//
//   rate        requests a second, each on a connection of its own
//   keepAlive   connections that stay, of which each asks `keepAliveRate` times a second
//   downloads   answers at a time that take `downloadMs` each
//   udpRate     questions a second to `udpTarget`, which sends them back: half from one socket, half from one each;
//               asked up to three times, as a resolver does
//   onceTool    the program of `bench/load/http-once.c`, which makes those of `rate` at a fifth of the cost
//   keepsAll    tells of each new request when it began, how long it took and who answered (or `null`)
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const {
  targets,
  rate = 0,
  keepAlive = 0,
  keepAliveRate = 10,
  downloads = 0,
  downloadMs = 3_000,
  udpTarget = '',
  udpRate = 0,
  timeoutMs = 10_000,
  onceTool = '',
  keepsAll = false,
} = JSON.parse(process.argv[2] ?? '{}');

const TICK_MS = 2;
/** Time for what is under way at the end, downloads apart. */
const LAST_ONES_MS = 15_000;
const FAILURES_TOLD_MAX = 50;
const beganMs = performance.now();
const kinds = new Map();
const all = [];
let next = 0;
let isEnding = false;
let underWay = 0;

function kindOf(name) {
  let kind = kinds.get(name);
  if (kind === undefined) {
    kind = { took: [], again: 0, failed: 0, failures: [], firstFailedMs: null, lastFailedMs: null };
    kinds.set(name, kind);
  }
  return kind;
}

function done(name, startMs, target, error, who = null, nowMs = performance.now()) {
  const kind = kindOf(name);
  if (keepsAll && name === 'new')
    all.push([Math.round(startMs - beganMs), Math.round(nowMs - startMs), who]);
  kind.took.push(nowMs - startMs);
  if (error === undefined) return;
  kind.failed += 1;
  // When they began, since a timeout is told late.
  const atMs = Math.round(startMs - beganMs);
  kind.firstFailedMs = Math.min(kind.firstFailedMs ?? atMs, atMs);
  kind.lastFailedMs = Math.max(kind.lastFailedMs ?? atMs, atMs);
  if (kind.failures.length < FAILURES_TOLD_MAX)
    kind.failures.push(`${atMs} ms ${target}: ${error} after ${Math.round(nowMs - startMs)} ms`);
}

function nextTarget() {
  next = (next + 1) % targets.length;
  return targets[next];
}

function open(target) {
  const at = target.lastIndexOf(':');
  const host = target.slice(0, at).replace(/^\[|\]$/g, '');
  const socket = connect({ host, port: Number(target.slice(at + 1)), noDelay: true });
  return socket;
}

/** Asks on a connection. @returns Whether the other end keeps it, and who it is, by the answer's first word. */
function ask(socket, path, isLast, patienceMs = timeoutMs) {
  return new Promise((resolve, reject) => {
    let head = '';
    let left = -1;
    let keeps = !isLast;
    let who;
    const settle = (error) => {
      clearTimeout(timer);
      socket.off('data', onData).off('error', onError).off('close', onClose);
      if (error === undefined) resolve({ keeps, who });
      else reject(error);
    };
    const onError = (error) => settle(error);
    const onClose = () =>
      settle(new Error(left === -1 ? 'closed without an answer' : `closed ${left} bytes too soon`));
    const onData = (chunk) => {
      if (left === -1) {
        head += chunk.toString('latin1');
        const end = head.indexOf('\r\n\r\n');
        if (end === -1) return;
        if (!head.startsWith('HTTP/1.1 200')) return settle(new Error(head.slice(0, 40)));
        if (/\r\nconnection: close/i.test(head)) keeps = false;
        const length = /\r\ncontent-length: (\d+)/i.exec(head);
        if (length === null) return settle(new Error('an answer without length'));
        left = Number(length[1]) - (head.length - end - 4);
        who = /^\w+/.exec(head.slice(end + 4))?.[0];
      } else left -= chunk.length;
      if (left === 0) settle();
    };
    const timer = setTimeout(() => settle(new Error('timeout')), patienceMs);
    socket.on('data', onData).on('error', onError).on('close', onClose);
    const connection = isLast ? 'close' : 'keep-alive';
    socket.write(`GET ${path} HTTP/1.1\r\nHost: chaos\r\nConnection: ${connection}\r\n\r\n`);
  });
}

async function once(kind, path, startMs, patienceMs) {
  underWay += 1;
  const target = nextTarget();
  const socket = open(target);
  socket.on('error', () => undefined);
  try {
    const { who } = await ask(socket, path, true, patienceMs);
    done(kind, startMs, target, undefined, who);
  } catch (error) {
    done(kind, startMs, target, error.message);
  } finally {
    socket.destroy();
    underWay -= 1;
  }
}

/** Those of `rate` by a program of its own. */
function onceByTool() {
  const argv = [rate, timeoutMs, ...targets].map(String);
  const child = spawn(onceTool, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  // Its clock is the monotonic one.
  const clockMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();
  underWay += 1;
  createInterface({ input: child.stdout }).on('line', (line) => {
    const [dueUs, tookUs, at, who, ...error] = line.split(' ');
    const startMs = Number(dueUs) / 1_000 - clockMs;
    const why = error.join(' ');
    const endMs = startMs + Number(tookUs) / 1_000;
    const whoOrNull = who === '-' ? null : who;
    done('new', startMs, targets[Number(at)], why === '-' ? undefined : why, whoOrNull, endMs);
  });
  child.once('close', (code) => {
    underWay -= 1;
    if (isEnding && code === 0) return;
    process.stderr.write(`http-load: ${onceTool} ended (${code})\n`);
    process.exit(1);
  });
  process.once('SIGTERM', () => child.kill('SIGTERM'));
}

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** One connection that stays, and is made anew when the other end closes it. */
async function stay(offsetMs) {
  const everyMs = 1_000 / keepAliveRate;
  let socket;
  let target;
  await wait(offsetMs);
  while (!isEnding) {
    const startMs = performance.now();
    if (socket === undefined || socket.destroyed || socket.readyState !== 'open') {
      socket?.destroy();
      target = nextTarget();
      socket = open(target);
      socket.on('error', () => undefined);
    }
    underWay += 1;
    try {
      const { keeps } = await ask(socket, '/', false);
      done('kept', startMs, target);
      if (!keeps) {
        socket.destroy();
        socket = undefined;
      }
    } catch (error) {
      done('kept', startMs, target, error.message);
      socket.destroy();
      socket = undefined;
    }
    underWay -= 1;
    await wait(Math.max(0, everyMs - (performance.now() - startMs)));
  }
  socket?.destroy();
}

async function download() {
  while (!isEnding)
    await once('download', `/slow?ms=${downloadMs}`, performance.now(), downloadMs + timeoutMs);
}

const UDP_TRIES = 3;
const UDP_TRY_MS = 1_000;
let keptSocket;

/** What waits at a socket, by question. */
function udpSocket() {
  const socket = createSocket('udp4');
  socket.waiting = new Map();
  socket.on('error', () => undefined);
  socket.on('message', (answer, { address, port }) => {
    // As a resolver, or the kernel of a socket that is connected.
    if (`${address}:${port}` !== udpTarget) return;
    const text = answer.toString();
    const settle = socket.waiting.get(text);
    // Nobody asked it: said by somebody else, unless it is the second answer to a question that was sent twice.
    if (settle !== undefined) settle();
    else if (!text.startsWith('question '))
      done('forged answer', performance.now(), '', text.slice(0, 40));
  });
  return socket;
}

async function question(number, startMs) {
  underWay += 1;
  const isNew = number % 2 === 1;
  keptSocket ??= udpSocket();
  const socket = isNew ? udpSocket() : keptSocket;
  const at = udpTarget.lastIndexOf(':');
  const text = `question ${number}`;
  let isAnswered = false;
  for (let tries = 0; tries < UDP_TRIES && !isAnswered; tries += 1) {
    if (tries > 0) kindOf(isNew ? 'udp new' : 'udp kept').again += 1;
    isAnswered = await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), UDP_TRY_MS);
      socket.waiting.set(text, () => {
        clearTimeout(timer);
        resolve(true);
      });
      socket.send(text, Number(udpTarget.slice(at + 1)), udpTarget.slice(0, at));
    });
  }
  socket.waiting.delete(text);
  done(isNew ? 'udp new' : 'udp kept', startMs, udpTarget, isAnswered ? undefined : 'no answer');
  if (isNew) socket.close();
  underWay -= 1;
}

/** Calls `act` as often as it is due. */
function beat(perSecond, act) {
  const startMs = performance.now();
  let begun = 0;
  const timer = setInterval(() => {
    if (isEnding) return clearInterval(timer);
    const due = Math.floor(((performance.now() - startMs) * perSecond) / 1_000);
    for (; begun < due; begun += 1) void act(begun, startMs + (begun * 1_000) / perSecond);
  }, TICK_MS);
}

function report() {
  const told = {};
  for (const [name, { took, ...rest }] of kinds) {
    took.sort((a, b) => a - b);
    const at = (q) => Math.round(took[Math.min(took.length - 1, Math.floor(took.length * q))] ?? 0);
    told[name] = { count: took.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1), ...rest };
  }
  return new Promise((resolve) => {
    process.stdout.write(`${JSON.stringify(keepsAll ? { ...told, all } : told)}\n`, resolve);
  });
}

process.on('SIGTERM', async () => {
  isEnding = true;
  const endMs = performance.now() + LAST_ONES_MS + (downloads > 0 ? downloadMs : 0);
  while (underWay > 0 && performance.now() < endMs) await wait(100);
  await report();
  process.exit(0);
});

for (let i = 0; i < keepAlive; i += 1) void stay((i * 1_000) / keepAliveRate / keepAlive);
for (let i = 0; i < downloads; i += 1) void download();
if (onceTool === '') beat(rate, (_number, startMs) => once('new', '/', startMs));
else if (rate > 0) onceByTool();
beat(udpRate, question);
process.stderr.write('load is on\n');
