// The hostile clients of `npm run chaos -- hostile`: `hostile-client.mjs '{"mode": "hold", "host": "10.0.0.1", …}'`.
// Each goes on for `seconds` and then says what it did as one line of JSON.
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
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

/** Connections that say `say` so many times (nothing, half a request, a request) and never read what comes. */
async function hold({ host, port, count, say = '', times = 1, halfClose = false }) {
  const all = say.repeat(times);
  const sockets = [];
  let opened = 0;
  let lost = 0;
  await often(count / wish.seconds, () => {
    const socket = connect({ host, port, noDelay: true });
    socket.pause();
    socket.on('error', () => undefined);
    socket.on('connect', () => {
      opened += 1;
      if (all !== '') socket.write(all);
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
async function datagrams({
  host,
  port,
  bytes,
  perSecond,
  sockets: count = 1,
  garbage = false,
  hex,
}) {
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
    const payload = hex === undefined ? Buffer.alloc(bytes, number) : Buffer.from(hex, 'hex');
    if (garbage)
      for (let at = 0; at < bytes; at += 1) {
        dice = (Math.imul(dice, 1_664_525) + 1_013_904_223) >>> 0;
        payload[at] = dice >>> 24;
      }
    sentBytes += payload.length;
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

const bytesOfMac = (mac) => mac.split(':').map((byte) => Number.parseInt(byte, 16));
const bytesOfAddress = (address) => address.split('.').map(Number);

/** A VXLAN datagram with a UDP datagram from `from` to `to` in it; its inner checksum is none. */
function forgedFrame(vni, from, to, payload) {
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(from.port, 0);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(8 + payload.length, 4);
  const ip = Buffer.alloc(20);
  ip.set([0x45, 0, 0, 28 + payload.length, 0, 0, 0, 0, 64, 17]);
  ip.set([...bytesOfAddress(from.address), ...bytesOfAddress(to.address)], 12);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  ip.writeUInt16BE(~sum & 0xffff, 10);
  const vxlan = [8, 0, 0, 0, vni >>> 16, (vni >>> 8) & 255, vni & 255, 0];
  const ethernet = [...bytesOfMac(to.mac), ...bytesOfMac(from.mac), 8, 0];
  return Buffer.concat([Buffer.from([...vxlan, ...ethernet]), ip, udp, payload]);
}

/** Answers nobody gave, inside the tunnel's datagrams: from each of `sources` to all ports of `to` that clients may have. */
async function forge({ host, port, vni, sources, to, perSecond }) {
  const socket = createSocket('udp4');
  socket.on('error', () => undefined);
  const payload = Buffer.from('forged');
  const sent = await often(perSecond, (number) => {
    const source = sources[number % sources.length];
    const target = { ...to, port: 32_768 + (Math.floor(number / sources.length) % 28_232) };
    socket.send(forgedFrame(vni, source, target, payload), port, host);
  });
  socket.close();
  return { sent };
}

/** Datagrams from each own address to all ports that clients, and the sockets that speak for them, may have. */
async function spray({ hosts, from, perSecond }) {
  const addresses = Object.values(networkInterfaces())
    .flat()
    .filter(({ internal, family }) => !internal && family === 'IPv4');
  const sockets = addresses.map(({ address }) => {
    const socket = createSocket('udp4');
    socket.on('error', () => undefined);
    socket.bind(from, address);
    return socket;
  });
  const ways = sockets.flatMap((socket) => hosts.map((host) => ({ socket, host })));
  const sent = await often(perSecond, (number) => {
    const { socket, host } = ways[number % ways.length];
    socket.send('forged', 32_768 + (Math.floor(number / ways.length) % 28_232), host);
  });
  for (const socket of sockets) socket.close();
  return { sent, sources: sockets.length };
}

const modes = { hold, churn, datagrams, questions, forge, spray };
process.stdout.write(`${JSON.stringify(await modes[wish.mode](wish))}\n`);
process.exit(0);
