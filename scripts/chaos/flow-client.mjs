// The clients of `npm run chaos -- flows`: `flow-client.mjs '{"mode": "even", "target": "10.0.0.1:8080", …}'`.
// Says what it saw as one line of JSON.
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const wish = JSON.parse(process.argv[2] ?? '{}');
const ANSWER_MS_MAX = 5_000;

function open(target, localAddress) {
  const at = target.lastIndexOf(':');
  const host = target.slice(0, at);
  return connect({ host, port: Number(target.slice(at + 1)), noDelay: true, localAddress });
}

/** Many short connections: how many each task got. */
async function even({ target, count, together, hasManyAddresses }) {
  const tasks = {};
  let failed = 0;
  let left = count;
  const one = (number) =>
    new Promise((resolve) => {
      let text = '';
      const from = `127.${1 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
      const socket = open(target, hasManyAddresses ? from : undefined);
      socket.on('data', (chunk) => {
        text += chunk;
      });
      socket.on('error', () => undefined);
      socket.on('close', () => {
        const task = text.trim();
        if (task === '') failed += 1;
        else tasks[task] = (tasks[task] ?? 0) + 1;
        resolve();
      });
    });
  const worker = async () => {
    for (; left > 0; ) {
      left -= 1;
      await one(left);
    }
  };
  const beganMs = performance.now();
  await Promise.all(Array.from({ length: together }, worker));
  return { tasks, failed, tookMs: Math.round(performance.now() - beganMs) };
}

/** @returns The round trip in milliseconds. */
function echo(socket, text) {
  return new Promise((resolve, reject) => {
    const beganMs = performance.now();
    const timer = setTimeout(() => settle(new Error('no answer')), ANSWER_MS_MAX);
    const settle = (error) => {
      clearTimeout(timer);
      socket.off('data', onData).off('error', settle).off('end', onEnd);
      if (error === undefined) resolve(Number((performance.now() - beganMs).toFixed(2)));
      else reject(error);
    };
    const onData = (chunk) =>
      settle(chunk.toString() === text ? undefined : new Error(`got '${chunk}'`));
    const onEnd = () => settle(new Error('ended'));
    socket.on('data', onData).on('error', settle).on('end', onEnd);
    socket.write(text);
  });
}

/** Connections on which nothing is said for a while. */
async function idle({ targets, minutes }) {
  const held = targets.map((target) => ({ target, socket: open(target) }));
  for (const { socket } of held) await echo(socket, 'before');
  await delay(minutes * 60_000);
  const results = [];
  for (const { target, socket } of held) {
    const answer = await echo(socket, 'after').then(
      (ms) => ({ ms }),
      ({ message }) => ({ error: message }),
    );
    results.push({ target, ...answer });
    socket.destroy();
  }
  return results;
}

/** A silent connection, and then so many flows of others that it has to go. */
async function evict({ target, flows }) {
  const socket = open(target);
  const roundTripMs = await echo(socket, 'before');
  const reset = new Promise((resolve) => {
    socket.on('error', ({ code }) => resolve({ code, atMs: Date.now() }));
    socket.on('close', () => resolve({ code: 'closed', atMs: Date.now() }));
  });
  const host = target.slice(0, target.lastIndexOf(':'));
  let isOver = false;
  void reset.then(() => {
    isOver = true;
  });
  let sent = 0;
  // Each pair of ports is a flow of its own.
  for (; sent < flows && !isOver; ) {
    const others = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    others.on('error', () => undefined);
    for (let port = 1_024; port < 65_536 && sent < flows && !isOver; port += 1) {
      others.send('x', port, host);
      sent += 1;
      if (sent % 50 === 0) await delay(1);
    }
    others.close();
  }
  const seen = await Promise.race([reset, delay(ANSWER_MS_MAX)]);
  return { roundTripMs, sent, reset: seen ?? null };
}

const modes = { even, idle, evict };
process.stdout.write(`${JSON.stringify(await modes[wish.mode](wish))}\n`);
process.exit(0);
