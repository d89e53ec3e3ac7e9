// The hostile clients of `npm run chaos -- hostile`: `hostile-client.mjs '{"mode": "hold", "host": "10.0.0.1", …}'`.
// Each goes on for `seconds` and then says what it did as one line of JSON.
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const wish = JSON.parse(process.argv[2] ?? '{}');
const endMs = performance.now() + wish.seconds * 1_000;
const isOver = () => performance.now() >= endMs;
const TICK_MS = 5;

/** Calls `act` so often a second, whatever became of the calls before. */
async function often(perSecond, act) {
  const beganMs = performance.now();
  let done = 0;
  while (!isOver()) {
    const due = ((performance.now() - beganMs) * perSecond) / 1_000;
    for (; done < due; done += 1) act(done);
    await delay(TICK_MS);
  }
  return done;
}

/** Connections that say `say` (nothing, half a request, a request) and never read what comes. */
async function hold({ host, port, count, say = '', halfClose = false }) {
  const sockets = [];
  let opened = 0;
  let lost = 0;
  await often(count / wish.seconds, () => {
    const socket = connect({ host, port, noDelay: true });
    socket.pause();
    socket.on('error', () => undefined);
    socket.on('connect', () => {
      opened += 1;
      if (say !== '') socket.write(say);
      if (halfClose) socket.end();
    });
    socket.on('close', () => {
      lost += 1;
    });
    sockets.push(socket);
  });
  const held = sockets.filter(({ destroyed }) => !destroyed).length;
  for (const socket of sockets) socket.resetAndDestroy();
  return { opened, lost, held };
}

/** Connections that come and go as fast as they can. */
async function churn({ host, port, together }) {
  let opened = 0;
  let failed = 0;
  const one = () =>
    new Promise((resolve) => {
      const socket = connect({ host, port, noDelay: true });
      socket.on('error', () => {
        failed += 1;
      });
      socket.on('connect', () => {
        opened += 1;
        socket.resetAndDestroy();
      });
      socket.on('close', resolve);
    });
  const worker = async () => {
    while (!isOver()) await one();
  };
  await Promise.all(Array.from({ length: together }, worker));
  return { opened, failed };
}

/** Datagrams, from a socket each where `sockets` is not 1. */
async function datagrams({ host, port, bytes, perSecond, sockets: count = 1, garbage = false }) {
  const sockets = Array.from({ length: count }, () => createSocket('udp4'));
  let answers = 0;
  let answerBytes = 0;
  let sentBytes = 0;
  for (const socket of sockets) {
    socket.on('error', () => undefined);
    socket.on('message', (message) => {
      answers += 1;
      answerBytes += message.length;
    });
  }
  let dice = 1;
  const sent = await often(perSecond, (number) => {
    const payload = Buffer.alloc(bytes, number);
    if (garbage)
      for (let at = 0; at < bytes; at += 1) {
        dice = (Math.imul(dice, 1_664_525) + 1_013_904_223) >>> 0;
        payload[at] = dice >>> 24;
      }
    sentBytes += bytes;
    sockets[number % count].send(payload, port, host);
  });
  for (const socket of sockets) socket.close();
  return { sent, sentBytes, answers, answerBytes };
}

/** Small questions for names with large answers. */
async function questions({ host, port, perSecond, name }) {
  const labels = name.split('.').map((label) => Buffer.from(label));
  const question = Buffer.concat([
    Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
    ...labels.map((label) => Buffer.concat([Buffer.from([label.length]), label])),
    Buffer.from([0, 0, 255, 0, 1]),
  ]);
  const socket = createSocket('udp4');
  let answers = 0;
  let answerBytes = 0;
  socket.on('error', () => undefined);
  socket.on('message', (message) => {
    answers += 1;
    answerBytes += message.length;
  });
  const sent = await often(perSecond, () => socket.send(question, port, host));
  socket.close();
  return { sent, sentBytes: sent * question.length, answers, answerBytes };
}

const modes = { hold, churn, datagrams, questions };
process.stdout.write(`${JSON.stringify(await modes[wish.mode](wish))}\n`);
process.exit(0);
