import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import type { Transport } from '../core/resolver.js';
import { isLameResponse, isResponseTo, messageId, withMessageId } from '../wire/dns.js';
import { frameMessage, MessageSplitter } from './stream-messages.js';

const DNS_PORT = 53;
/** Patience with one upstream, ms; the C library gives up on us after 5 s. */
const ATTEMPT_TIMEOUT_MS = 1_500;
/** Times that the whole list of upstreams is gone through, since datagrams get lost. */
const ROUNDS = 2;
/** Patience with one query altogether, ms. */
const QUERY_TIMEOUT_MS = 4_500;

type Attempt = (upstream: Upstream, request: Buffer, signal: AbortSignal) => Promise<Buffer>;

export interface Upstream {
  readonly address: string;
  readonly port: number;
}

/** `10.0.0.1`, or with a port of its own `10.0.0.1#5353` as dnsmasq writes it. */
export function parseUpstream(text: string): Upstream {
  const [address = '', port] = text.split('#');
  return { address, port: port === undefined ? DNS_PORT : Number(port) };
}

/**
 * Asks the upstreams, one after the other, until one has an answer.
 *
 * Each attempt has a socket of its own, connected, and a random id: a forged answer must guess both
 * port and id, and come from the upstream's address (RFC 5452).
 *
 * @param signal Ends everything: sockets are closed and there is no answer.
 * @returns The answer under the id of `message`, or `undefined` if there was none in time.
 */
export async function forwardQuery(
  upstreams: readonly string[],
  message: Buffer,
  transport: Transport,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const attempt: Attempt = transport === 'udp' ? askByUdp : askByTcp;
  return withPatience(signal, QUERY_TIMEOUT_MS, (deadline) =>
    askInTurn(upstreams, message, attempt, deadline),
  );
}

async function askInTurn(
  upstreams: readonly string[],
  message: Buffer,
  attempt: Attempt,
  deadline: AbortSignal,
): Promise<Buffer | undefined> {
  let lame: Buffer | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    for (const upstream of upstreams) {
      if (deadline.aborted) return lame;
      const request = withMessageId(message, randomInt(0x1_0000));
      try {
        const response = await withPatience(deadline, ATTEMPT_TIMEOUT_MS, (patience) =>
          attempt(parseUpstream(upstream), request, patience),
        );
        const answer = withMessageId(response, messageId(message));
        if (!isLameResponse(answer)) return answer;
        lame = answer;
      } catch {
        // Refused, unreachable or silent: the next one is asked.
      }
    }
    // All answered, though none with anything useful: asking again would say the same.
    if (lame !== undefined) return lame;
  }
  return undefined;
}

/** Runs `work` with a signal that is raised after `ms`, or when `outer` is. */
async function withPatience<Result>(
  outer: AbortSignal,
  ms: number,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, ms);
  outer.addEventListener('abort', abort, { once: true });
  if (outer.aborted) abort();
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    outer.removeEventListener('abort', abort);
  }
}

function askByUdp(upstream: Upstream, request: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(upstream.address) ? 'udp6' : 'udp4');
    let finished = false;
    const finish = (settle: () => void) => {
      if (finished) return;
      finished = true;
      signal.removeEventListener('abort', onAbort);
      socket.close();
      settle();
    };
    const onAbort = () => finish(() => reject(new Error('no answer in time')));
    socket.on('error', (error) => finish(() => reject(error)));
    socket.on('message', (response) => {
      // A stranger's answer is not the end: the true one may still come.
      if (isResponseTo(response, request)) finish(() => resolve(response));
    });
    signal.addEventListener('abort', onAbort, { once: true });
    socket.on('connect', () => socket.send(request));
    socket.connect(upstream.port, upstream.address);
  });
}

function askByTcp(upstream: Upstream, request: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: upstream.address, port: upstream.port });
    const splitter = new MessageSplitter();
    const onAbort = () => socket.destroy(new Error('no answer in time'));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.on('connect', () => socket.write(frameMessage(request)));
    socket.on('data', (chunk) => {
      splitter.push(chunk);
      for (let message = splitter.take(); message !== undefined; message = splitter.take()) {
        if (!isResponseTo(message, request)) continue;
        resolve(message);
        socket.destroy();
        return;
      }
    });
    socket.on('error', reject);
    socket.on('close', () => {
      signal.removeEventListener('abort', onAbort);
      reject(new Error('closed without an answer'));
    });
  });
}
