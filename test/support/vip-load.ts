import type { BalanceConfig } from '../../src/dataplane/core/balance/config.js';
import { DEFAULT_BALANCE } from '../../src/dataplane/core/balance/config.js';
import { endpointOf, macOfEndpoint, NETWORK_ID, portOf } from './overlay.js';
import {
  ACK,
  FIN,
  frameOf,
  ofService,
  RST,
  readFrame,
  SYN,
  tcpPacket,
  toVip,
  VIP,
  VipBench,
  vipInputs,
} from './vips.js';

/**
 * What a task does with a connection that begins now: answers so many milliseconds after it was asked (infinite:
 * never), speaks first, resets it when it is asked or taken, or ends it without a word.
 */
export type Manner = number | 'greets' | 'resets-asked' | 'resets-taken' | 'closes';
export type MannerAt = (nowMs: number, port: number) => Manner;

/** How often the packet thread looks at the clock while no packets come. */
const TICK_MS = 100;
/** Where the first task is; they live at `b`. */
const FIRST_TASK = 10;
const REMOTE = '192.0.2.98';

interface LoadOptions {
  /** New connections a second, evenly spaced. */
  readonly rate: number;
  readonly balance?: Partial<BalanceConfig>;
  /** For how long a client waits for an answer; then it ends the connection. */
  readonly patienceMs?: number;
}

/** Connections of one client to a service behind a VIP, packet by packet in virtual time. */
export class VipLoad {
  readonly bench: VipBench;
  readonly #tasks: readonly MannerAt[];
  readonly #everyMs: number;
  readonly #patienceMs: number;
  readonly #due = new Map<number, (() => void)[]>();
  /** New connections by task, and when the last one began. */
  readonly given: number[];
  readonly lastMs: number[];
  /** Changes the service's port by connection. */
  portOf: (port: number) => number = () => 80;
  #nextMs = 0;
  #port = 20_000;

  constructor(tasks: readonly MannerAt[], { rate, balance, patienceMs = 5000 }: LoadOptions) {
    this.#tasks = tasks;
    this.#everyMs = 1000 / rate;
    this.#patienceMs = patienceMs;
    this.given = tasks.map(() => 0);
    this.lastMs = tasks.map(() => Number.NEGATIVE_INFINITY);
    this.bench = new VipBench(
      vipInputs({
        ports: [portOf(1)],
        endpoints: tasks.map((_, i) => endpointOf('b', FIRST_TASK + i, ofService(FIRST_TASK + i))),
        services: [
          {
            id: 's1',
            vips: [{ networkId: NETWORK_ID, address: VIP }],
            balance: { ...DEFAULT_BALANCE, ...balance },
          },
        ],
      }),
    );
  }

  get totals() {
    return this.bench.stats.totals;
  }

  run(untilMs: number): this {
    for (; this.bench.nowMs < untilMs; this.bench.nowMs += 1) {
      const nowMs = this.bench.nowMs;
      for (const act of this.#due.get(nowMs) ?? []) act();
      this.#due.delete(nowMs);
      if (nowMs % TICK_MS === 0) this.bench.vtep.tick();
      for (; this.#nextMs <= nowMs; this.#nextMs += this.#everyMs) this.#connect();
    }
    return this;
  }

  #after(ms: number, act: () => void): void {
    const atMs = this.bench.nowMs + Math.max(1, Math.round(ms));
    const others = this.#due.get(atMs);
    if (others === undefined) this.#due.set(atMs, [act]);
    else others.push(act);
  }

  #connect(): void {
    const fromPort = this.#port;
    // Far more than are open at once.
    this.#port = fromPort === 59_999 ? 20_000 : fromPort + 1;
    const toPort = this.portOf(fromPort);
    let task = -1;
    const up = (flags: number, sequence: number, payload = '') => {
      const packet = tcpPacket({
        from: '10.0.1.1',
        to: VIP,
        fromPort,
        toPort,
        flags,
        sequence,
        payload,
      });
      const [sent] = this.bench.egress('port-1', toVip(1, packet));
      if (sent?.to === REMOTE)
        task = Number.parseInt(readFrame(sent.frame).toMac.slice(-2), 16) - FIRST_TASK;
    };
    const down = (flags: number, sequence: number, payload = '') => {
      const from = `10.0.1.${FIRST_TASK + task}`;
      const packet = tcpPacket({
        from,
        to: '10.0.1.1',
        fromPort: toPort,
        toPort: fromPort,
        flags,
        sequence,
        payload,
      });
      const frame = frameOf(macOfEndpoint(FIRST_TASK + task), macOfEndpoint(1), packet, VIP);
      this.bench.ingress(REMOTE, frame);
    };
    up(SYN, 100);
    const manner = (this.#tasks[task] as MannerAt)(this.bench.nowMs, fromPort);
    this.given[task] = (this.given[task] as number) + 1;
    this.lastMs[task] = this.bench.nowMs;
    let isOver = false;
    this.#after(1, () => {
      down(SYN | ACK, 500);
      up(ACK, 101);
      if (manner === 'resets-taken') return down(RST, 501);
      if (manner === 'closes') {
        down(FIN | ACK, 501);
        up(FIN | ACK, 101);
        return;
      }
      if (manner === 'greets') down(ACK, 501, 'hello');
      up(ACK, 101, 'question');
      // Its kernel takes it in any case.
      this.#after(1, () => down(ACK, manner === 'greets' ? 506 : 501));
      if (manner === 'resets-asked') return this.#after(2, () => down(RST, 501));
      const answersMs = manner === 'greets' ? this.#patienceMs * 2 : manner;
      const end = () => {
        isOver = true;
        up(FIN | ACK, 109);
      };
      if (answersMs < this.#patienceMs)
        this.#after(answersMs, () => {
          down(ACK, 501, 'answer');
          end();
          down(FIN | ACK, 507);
          up(ACK, 110);
        });
      else
        this.#after(this.#patienceMs, () => {
          if (!isOver) end();
        });
    });
  }
}
