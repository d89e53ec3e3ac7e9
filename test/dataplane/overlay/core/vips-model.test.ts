import fc from 'fast-check';
import t from 'tap';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import type { OverlayInputs } from '../../../../src/dataplane/overlay/core/derive.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { endpointOf, macOfEndpoint, NETWORK_ID, portOf } from '../../../support/overlay.js';
import {
  ACK,
  FIN,
  frameOf,
  ofService,
  RST,
  readFrame,
  type Seen,
  SYN,
  tcpPacket,
  toVip,
  udpPacket,
  VIP,
  VIP6,
  VipBench,
  vipInputs,
} from '../../../support/vips.js';

const M = macOfEndpoint;
const TASKS = [3, 4, 5] as const;
const address = (n: number, isV6: boolean) => (isV6 ? `fd00:1::${n}` : `10.0.1.${n}`);
const numberOfMac = (mac: string) => Number.parseInt(mac.slice(-2), 16);

/** Longer after its end a connection may be forgotten. */
const WAITED_MS_MAX = 9000;

type State = 'ready' | 'draining' | 'gone';

/** Tasks 3 at `b`, 4 at `c`, 5 at this node; whoever is not gone. */
function inputsFor(states: Readonly<Record<number, State>>): OverlayInputs {
  const what = (n: number) => {
    const state = states[n] ?? 'gone';
    return state === 'gone' ? {} : ofService(n, state);
  };
  return vipInputs({
    ports: [portOf(1), portOf(2), portOf(5, what(5))],
    endpoints: [endpointOf('b', 3, what(3)), endpointOf('c', 4, what(4))],
    services: [
      {
        id: 's1',
        vips: [VIP, VIP6].map((vip) => ({ networkId: NETWORK_ID, address: vip })),
        balance: DEFAULT_BALANCE,
      },
    ],
  });
}

/** What one end of a connection sends: something it has sent before, too, or the first or last of it. */
type Sends = 'syn' | 'bytes' | 'again' | 'fin' | 'reset';

type Step =
  | {
      readonly kind: 'send';
      readonly client: number;
      readonly port: number;
      readonly isTcp: boolean;
      readonly isV6: boolean;
      readonly sends: Sends;
    }
  | { readonly kind: 'answer'; readonly flow: number; readonly sends: Sends }
  | { readonly kind: 'state'; readonly task: number; readonly state: State }
  | { readonly kind: 'wait'; readonly ms: number; readonly isTold: boolean };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      client: fc.constantFrom(1, 1, 2, 5),
      port: fc.integer({ min: 4000, max: 4001 }),
      isTcp: fc.constantFrom(true, true, true, false),
      isV6: fc.constantFrom(false, false, false, true),
      sends: fc.constantFrom<Sends>(
        'syn',
        'syn',
        'bytes',
        'bytes',
        'bytes',
        'again',
        'fin',
        'reset',
      ),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('answer' as const),
      flow: fc.nat(),
      sends: fc.constantFrom<Sends>('syn', 'syn', 'syn', 'syn', 'bytes', 'again', 'fin', 'reset'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('state' as const),
      task: fc.constantFrom(...TASKS),
      state: fc.constantFrom<State>('ready', 'ready', 'draining', 'gone'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      ms: fc.integer({ min: 1, max: 400 }),
      isTold: fc.boolean(),
    }),
  },
);

interface Flow {
  readonly client: number;
  readonly port: number;
  readonly isTcp: boolean;
  readonly isV6: boolean;
  task: number;
  // Of TCP:
  readonly openedMs: number;
  isTaken: boolean;
  isOver: boolean;
  hasClientEnded: boolean;
  hasTaskEnded: boolean;
  isSettled: boolean;
  askedMs: number | undefined;
  up: number;
  down: number;
}

const FLAGS: Readonly<Record<Sends, number>> = {
  syn: SYN,
  bytes: ACK,
  again: ACK,
  fin: FIN | ACK,
  reset: RST | ACK,
};

/** What the plane does, slowly: flows as a map of texts, tasks as a table. */
class World {
  readonly bench = new VipBench(inputsFor({ 3: 'ready', 4: 'ready', 5: 'ready' }));
  readonly states: Record<number, State> = { 3: 'ready', 4: 'ready', 5: 'ready' };
  readonly flows = new Map<string, Flow>();
  #failures = 0;
  #silences = 0;

  send({ client, port, isTcp, isV6, sends }: Extract<Step, { kind: 'send' }>): string | undefined {
    this.#pass();
    const vip = isV6 ? VIP6 : VIP;
    const key = `${client} ${port} ${isTcp} ${isV6}`;
    let held = this.flows.get(key);
    if (held !== undefined && this.states[held.task] === 'gone') held = undefined;
    // Nothing but a SYN again before the connection is there.
    const what = held === undefined || held.isTaken || sends === 'reset' ? sends : 'syn';
    const isSyn = isTcp && what === 'syn';
    const tried = isSyn && held !== undefined ? this.#isDue(held) : undefined;
    const isKept = held !== undefined && tried === undefined;
    if (!isKept) this.flows.delete(key);

    const ends = { from: address(client, isV6), to: vip, fromPort: port, toPort: 80 };
    const carried = what === 'bytes' || what === 'again' ? 'abc' : '';
    const sequence = isSyn ? 99 : (held?.up ?? 100) - (what === 'again' ? carried.length : 0);
    const packet = isTcp
      ? tcpPacket({ ...ends, flags: FLAGS[what], sequence, payload: carried })
      : udpPacket({ ...ends, payload: 'odd' });
    const sent = this.bench.egress(`port-${client}`, toVip(client, packet, vip));
    const anyReady = TASKS.some((n) => this.states[n] === 'ready' && n !== tried);
    if (isTcp && !isKept && what === 'reset')
      return sent.length === 0 ? undefined : 'a reset is answered';
    const isReset = isTcp && !isKept && (!isSyn || !anyReady);
    if (isReset) return this.#expectReset(sent, client, vip);
    if (!isKept && !anyReady)
      return sent.length === 0 ? undefined : 'a datagram with nobody to take it';
    const [only] = sent;
    if (only === undefined || sent.length !== 1) return `${sent.length} frames`;
    const seen = readFrame(only.frame);
    const task = numberOfMac(seen.toMac);
    if (held !== undefined && isKept) {
      if (task !== held.task) return `the flow went from ${held.task} to ${task}`;
      this.#noteUp(held, what);
    } else {
      if (this.states[task] !== 'ready' || task === tried) return `${task} got a new flow`;
      this.flows.set(key, { client, port, isTcp, isV6, task, ...this.#newFlow() });
    }
    const wantFrom = task === client ? vip : address(client, isV6);
    if (seen.from !== wantFrom || seen.to !== address(task, isV6))
      return `${seen.from} to ${seen.to}`;
    const wantTo = { 3: '192.0.2.98', 4: '192.0.2.99', 5: 'port-5' }[task];
    if (only.to !== wantTo) return `sent to ${only.to}`;
    return soundness(seen, port, 80);
  }

  answer({ flow, sends }: Extract<Step, { kind: 'answer' }>): string | undefined {
    const flows = [...this.flows.values()].filter(({ task }) => this.states[task] !== 'gone');
    const held = flows[flow % Math.max(flows.length, 1)];
    if (held === undefined) return undefined;
    this.#pass();
    const { client, port, isTcp, isV6, task } = held;
    const what = held.isTaken || sends === 'reset' ? sends : 'syn';
    const carried = what === 'bytes' || what === 'again' ? 'answer' : '';
    const vip = isV6 ? VIP6 : VIP;
    const isSelf = task === client;
    const ends = {
      from: address(task, isV6),
      to: isSelf ? vip : address(client, isV6),
      fromPort: 80,
      toPort: port,
    };
    const sequence = what === 'syn' ? 499 : held.down - (what === 'again' ? carried.length : 0);
    const flags = what === 'syn' ? SYN | ACK : FLAGS[what];
    const packet = isTcp
      ? tcpPacket({ ...ends, flags, sequence, payload: carried })
      : udpPacket(ends);
    const frame = isSelf ? toVip(task, packet, vip) : frameOf(M(task), M(client), packet, vip);
    const sent =
      task === 5
        ? this.bench.egress('port-5', frame)
        : this.bench.ingress(task === 3 ? '192.0.2.98' : '192.0.2.99', frame);
    if (isTcp) this.#noteDown(held, what);
    const [only] = sent;
    if (only === undefined || sent.length !== 1) return `${sent.length} frames for an answer`;
    if (only.to !== `port-${client}`) return `an answer to ${only.to}`;
    const seen = readFrame(only.frame);
    if (seen.from !== vip || seen.to !== address(client, isV6))
      return `answer ${seen.from} to ${seen.to}`;
    return soundness(seen, 80, port);
  }

  wait({ ms, isTold }: Extract<Step, { kind: 'wait' }>): undefined {
    if (this.bench.nowMs + ms > WAITED_MS_MAX) return;
    this.bench.nowMs += ms;
    if (!isTold) return;
    this.bench.vtep.tick();
    this.#pass();
  }

  do(one: Step): string | undefined {
    switch (one.kind) {
      case 'send':
        return this.send(one);
      case 'answer':
        return this.answer(one);
      case 'wait':
        return this.wait(one);
      case 'state':
        return this.set(one);
    }
  }

  /** Whether as many flows were found to fail, or to be silent, as did and were. */
  counts(): string | undefined {
    const { vipFailures, vipSilences } = this.bench.stats.totals;
    if (vipFailures !== this.#failures) return `${vipFailures} failed, not ${this.#failures}`;
    return vipSilences === this.#silences
      ? undefined
      : `${vipSilences} were silent, not ${this.#silences}`;
  }

  #newFlow() {
    return {
      openedMs: this.bench.nowMs,
      isTaken: false,
      isOver: false,
      hasClientEnded: false,
      hasTaskEnded: false,
      isSettled: false,
      askedMs: undefined,
      up: 100,
      down: 500,
    };
  }

  /** What is silent is found with every batch. */
  #pass(): void {
    for (const flow of this.flows.values()) {
      const { askedMs, isSettled } = flow;
      if (isSettled || askedMs === undefined || this.bench.nowMs - askedMs < 1000) continue;
      flow.isSettled = true;
      this.#silences += 1;
    }
  }

  /** Whether a SYN begins another connection now; 0, or the task that did not take this one in time. */
  #isDue(flow: Flow): number | undefined {
    const ageMs = this.bench.nowMs - flow.openedMs;
    if (flow.isOver) return 0;
    if (flow.isTaken) return ageMs < 5000 ? undefined : 0;
    if (ageMs < 900) return undefined;
    this.#failures += 1;
    return flow.task;
  }

  #noteUp(flow: Flow, what: Sends): void {
    if (what === 'bytes') flow.up += 3;
    if (what === 'fin') flow.up += 1;
    if (what === 'bytes' && flow.isTaken && !flow.isOver) flow.askedMs ??= this.bench.nowMs;
    if (what === 'fin') flow.hasClientEnded = true;
    this.#noteEnd(flow, what);
  }

  #noteDown(flow: Flow, what: Sends): void {
    const isEarly = !flow.isOver && (!flow.isTaken || (!flow.isSettled && !flow.hasClientEnded));
    if (what === 'reset' && isEarly) this.#failures += 1;
    if (what === 'syn' && !flow.isOver) flow.isTaken = true;
    if (what === 'bytes') flow.down += 6;
    if (what === 'fin') flow.down += 1;
    if (what === 'fin') flow.hasTaskEnded = true;
    if (what === 'bytes' || what === 'fin') flow.isSettled = true;
    this.#noteEnd(flow, what);
  }

  #noteEnd(flow: Flow, what: Sends): void {
    flow.isOver ||= what === 'reset' || (flow.hasClientEnded && flow.hasTaskEnded);
    flow.isSettled ||= flow.isOver;
  }

  set({ task, state }: Extract<Step, { kind: 'state' }>): undefined {
    if (state === 'gone') {
      for (const flow of this.flows.values()) if (flow.task === task) flow.task = 0;
    }
    this.states[task] = state;
    this.states[0] = 'gone';
    this.bench.publish(inputsFor(this.states));
  }

  #expectReset(
    sent: readonly { to: string; frame: Buffer }[],
    client: number,
    vip: string,
  ): string | undefined {
    const [only] = sent;
    if (only === undefined || sent.length !== 1) return `${sent.length} frames for a reset`;
    const seen = readFrame(only.frame);
    const isRight = only.to === `port-${client}` && seen.from === vip && (seen.flags & RST) !== 0;
    return isRight && seen.isSound ? undefined : 'no good reset';
  }
}

function soundness(seen: Seen, fromPort: number, toPort: number): string | undefined {
  if (seen.fromPort !== fromPort || seen.toPort !== toPort) return 'wrong ports';
  return seen.isSound ? undefined : 'a checksum is wrong';
}

t.test('the plane does what a map of flows would', async () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 120, size: 'max' }), (steps) => {
      const world = new World();
      for (const [i, one] of steps.entries()) {
        const fault = world.do(one) ?? world.counts();
        if (fault !== undefined) throw new Error(`step ${i}: ${fault}`);
      }
    }),
    { numRuns: fuzzRuns(150) },
  );
});

t.test('bytes of any kind are survived', async () => {
  const bench = new VipBench();
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.constantFrom(0x0800, 0x86dd, 0x0806, 0x1234),
      fc.boolean(),
      (noise, etherType, isShaped) => {
        const packet = Buffer.from(noise);
        if (isShaped && packet.length > 40) {
          packet[0] = etherType === 0x0800 ? 0x45 : 0x60;
          packet[9] = [1, 6, 17][(packet[9] ?? 0) % 3] ?? 6;
          packet[6] = [6, 17, 58, 44][(packet[6] ?? 0) % 4] ?? 6;
          Buffer.from(VIP.split('.').map(Number)).copy(packet, 16);
        }
        const type = Buffer.from([etherType >> 8, etherType & 0xff]);
        const head = Buffer.from('025348 4f414c 02420a000101'.replaceAll(' ', ''), 'hex');
        bench.egress('port-1', Buffer.concat([head, type, packet]));
        const back = Buffer.from('02420a00010102420a000103', 'hex');
        bench.ingress('192.0.2.98', Buffer.concat([back, type, packet]));
      },
    ),
    { numRuns: fuzzRuns(2000) },
  );
});
