import { randomBytes } from 'node:crypto';
import { connectTls } from '../../src/control/io/connect.js';
import { ForwardClient } from '../../src/control/io/forward-client.js';
import { ALPN_FORWARD } from '../../src/control/wire/forward-messages.js';
import {
  ATTEMPT_MS_MAX,
  FILL_COUNT,
  FILL_VALUE_BYTES,
  type Gap,
  type Load,
  VALUE_BYTES,
} from './cluster.js';
import type { MemberPlace } from './kv-member.js';
import { answer } from './processes.js';

export type ClientQuestion =
  | { readonly kind: 'open'; readonly self: MemberPlace; readonly members: readonly MemberPlace[] }
  | {
      readonly kind: 'load';
      readonly leader: number;
      readonly clients: number;
      readonly seconds: number;
      readonly warmSeconds: number;
    }
  | { readonly kind: 'fill'; readonly leader: number }
  | { readonly kind: 'gap_start'; readonly clients: number }
  | { readonly kind: 'gap_report' }
  | { readonly kind: 'gap_stop' };

const KEYS = 10_000;
const FILL_CLIENTS = 64;
const WRITE_MS_MAX = 5_000;
const GAP_PAUSE_MS = 2;

const log = { debug() {}, info() {}, warn() {}, error() {} };

const keyOf = (prefix: string, n: number) => `${prefix}-${String(n).padStart(8, '0')}`;
/** As many ASCII characters. */
const textOf = (bytes: number) =>
  randomBytes(Math.ceil((bytes * 3) / 4))
    .toString('base64url')
    .slice(0, bytes);

/** Many clients in one process, over one connection with each member, as managers forward. */
class KvClient {
  readonly #members: readonly ForwardClient[];
  #lastDedupe = 0;
  readonly #run = randomBytes(6).toString('hex');
  #watching = false;
  #lastAckMs = 0;
  #longestMs = 0;
  #acked = 0;

  constructor({ self, members }: Extract<ClientQuestion, { kind: 'open' }>) {
    this.#members = members.map(
      ({ address, port }) =>
        new ForwardClient({
          log,
          dial: (signal) =>
            connectTls({
              remote: { address, port },
              alpn: ALPN_FORWARD,
              keyPem: self.keyPem,
              certPem: self.certPem,
              caPem: self.caPem,
              timeoutMs: 1_000,
              signal,
            }),
        }),
    );
  }

  async load(at: number, clients: number, seconds: number, warmSeconds: number): Promise<Load> {
    const member = this.#member(at);
    const value = textOf(VALUE_BYTES);
    const beginMs = performance.now() + warmSeconds * 1_000;
    const endMs = beginMs + seconds * 1_000;
    const tookMs: number[] = [];
    let failed = 0;
    const client = async () => {
      for (let nowMs = performance.now(); nowMs < endMs; ) {
        const key = keyOf('key', Math.floor(Math.random() * KEYS));
        const done = await this.#put(member, key, value, WRITE_MS_MAX);
        const afterMs = performance.now();
        if (!done) failed++;
        else if (nowMs >= beginMs && afterMs <= endMs) tookMs.push(afterMs - nowMs);
        nowMs = afterMs;
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
    tookMs.sort((a, b) => a - b);
    const quantile = (share: number) => tookMs[Math.floor((tookMs.length - 1) * share)] ?? 0;
    return {
      perSecond: tookMs.length / seconds,
      p50Ms: quantile(0.5),
      p99Ms: quantile(0.99),
      failed,
    };
  }

  async fill(at: number): Promise<void> {
    let next = 0;
    const client = async () => {
      while (next < FILL_COUNT) {
        const key = keyOf('fill', next++);
        if (!(await this.#put(this.#member(at), key, textOf(FILL_VALUE_BYTES), WRITE_MS_MAX)))
          throw new Error('a write failed');
      }
    };
    await Promise.all(Array.from({ length: FILL_CLIENTS }, client));
  }

  watchGaps(clients: number): void {
    this.#watching = true;
    this.#lastAckMs = performance.now();
    for (let i = 0; i < clients; i++) void this.#keepWriting(i);
  }

  reportGap(): Gap {
    const gap = {
      longestMs: Math.max(this.#longestMs, performance.now() - this.#lastAckMs),
      acked: this.#acked,
    };
    this.#longestMs = 0;
    this.#acked = 0;
    return gap;
  }

  stopGaps(): void {
    this.#watching = false;
  }

  async #keepWriting(index: number): Promise<void> {
    const value = textOf(VALUE_BYTES);
    for (let turn = index; this.#watching; ) {
      const done = await this.#put(
        this.#member(turn % this.#members.length),
        `gap-${index}`,
        value,
        ATTEMPT_MS_MAX,
      );
      if (done) this.#onAck();
      else turn++;
      await new Promise((resolve) => setTimeout(resolve, GAP_PAUSE_MS));
    }
  }

  #onAck(): void {
    const nowMs = performance.now();
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastAckMs);
    this.#lastAckMs = nowMs;
    this.#acked++;
  }

  #member(at: number): ForwardClient {
    const member = this.#members[at];
    if (member === undefined) throw new Error(`there is no member ${at}`);
    return member;
  }

  async #put(
    member: ForwardClient,
    key: string,
    value: string,
    timeoutMs: number,
  ): Promise<boolean> {
    const dedupe = `${this.#run}${++this.#lastDedupe}`;
    const outcome = await member.propose(dedupe, { kind: 'put', key, value }, { timeoutMs });
    return outcome.kind === 'done';
  }
}

let client: KvClient | undefined;

answer<ClientQuestion>(async (question) => {
  if (question.kind === 'open') client = new KvClient(question);
  else if (client === undefined) throw new Error('this client is not open');
  else return perform(client, question);
  return undefined;
});

async function perform(
  kv: KvClient,
  question: Exclude<ClientQuestion, { readonly kind: 'open' }>,
): Promise<unknown> {
  switch (question.kind) {
    case 'load':
      return kv.load(question.leader, question.clients, question.seconds, question.warmSeconds);
    case 'fill':
      return kv.fill(question.leader);
    case 'gap_start':
      return kv.watchGaps(question.clients);
    case 'gap_report':
      return kv.reportGap();
    case 'gap_stop':
      return kv.stopGaps();
  }
}
