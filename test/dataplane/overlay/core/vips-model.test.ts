import fc from 'fast-check';
import t from 'tap';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import type { OverlayInputs } from '../../../../src/dataplane/overlay/core/derive.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { endpointOf, macOfEndpoint, NETWORK_ID, portOf } from '../../../support/overlay.js';
import {
  ACK,
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

type Step =
  | {
      readonly kind: 'send';
      readonly client: number;
      readonly port: number;
      readonly isTcp: boolean;
      readonly isV6: boolean;
      readonly isSyn: boolean;
    }
  | { readonly kind: 'answer'; readonly flow: number; readonly isReset: boolean }
  | { readonly kind: 'state'; readonly task: number; readonly state: State };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      client: fc.constantFrom(1, 2, 5),
      port: fc.integer({ min: 4000, max: 4003 }),
      isTcp: fc.boolean(),
      isV6: fc.boolean(),
      isSyn: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('answer' as const),
      flow: fc.nat(),
      isReset: fc.constant(false),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('state' as const),
      task: fc.constantFrom(...TASKS),
      state: fc.constantFrom<State>('ready', 'ready', 'draining', 'gone'),
    }),
  },
);

interface Flow {
  readonly client: number;
  readonly port: number;
  readonly isTcp: boolean;
  readonly isV6: boolean;
  task: number;
}

/** What the plane does, slowly: flows as a map of texts, tasks as a table. */
class World {
  readonly bench = new VipBench(inputsFor({ 3: 'ready', 4: 'ready', 5: 'ready' }));
  readonly states: Record<number, State> = { 3: 'ready', 4: 'ready', 5: 'ready' };
  readonly flows = new Map<string, Flow>();

  send({ client, port, isTcp, isV6, isSyn }: Extract<Step, { kind: 'send' }>): string | undefined {
    const vip = isV6 ? VIP6 : VIP;
    const what = { from: address(client, isV6), to: vip, fromPort: port, toPort: 80 };
    const packet = isTcp
      ? tcpPacket({ ...what, flags: isSyn ? SYN : ACK, payload: 'abc' })
      : udpPacket({ ...what, payload: 'odd' });
    const sent = this.bench.egress(`port-${client}`, toVip(client, packet, vip));
    const key = `${client} ${port} ${isTcp} ${isV6}`;
    const held = this.flows.get(key);
    const isKept = held !== undefined && this.states[held.task] !== 'gone';
    if (held !== undefined && !isKept) this.flows.delete(key);
    const anyReady = TASKS.some((n) => this.states[n] === 'ready');
    const isReset = isTcp && !isKept && (!isSyn || !anyReady);
    if (isReset) return this.#expectReset(sent, client, vip);
    if (!isKept && !anyReady)
      return sent.length === 0 ? undefined : 'a datagram with nobody to take it';
    const [only] = sent;
    if (only === undefined || sent.length !== 1) return `${sent.length} frames`;
    const seen = readFrame(only.frame);
    const task = numberOfMac(seen.toMac);
    if (isKept && task !== held.task) return `the flow went from ${held.task} to ${task}`;
    if (!isKept && this.states[task] !== 'ready') return `${task} got a new flow`;
    this.flows.set(key, { client, port, isTcp, isV6, task });
    const wantFrom = task === client ? vip : address(client, isV6);
    if (seen.from !== wantFrom || seen.to !== address(task, isV6))
      return `${seen.from} to ${seen.to}`;
    const wantTo = { 3: '192.0.2.98', 4: '192.0.2.99', 5: 'port-5' }[task];
    if (only.to !== wantTo) return `sent to ${only.to}`;
    return soundness(seen, port, 80);
  }

  answer({ flow }: Extract<Step, { kind: 'answer' }>): string | undefined {
    const flows = [...this.flows.values()].filter(({ task }) => this.states[task] !== 'gone');
    const held = flows[flow % Math.max(flows.length, 1)];
    if (held === undefined) return undefined;
    const { client, port, isTcp, isV6, task } = held;
    const vip = isV6 ? VIP6 : VIP;
    const isSelf = task === client;
    const what = {
      from: address(task, isV6),
      to: isSelf ? vip : address(client, isV6),
      fromPort: 80,
      toPort: port,
    };
    const packet = isTcp ? tcpPacket({ ...what, flags: ACK, payload: 'answer' }) : udpPacket(what);
    const frame = isSelf ? toVip(task, packet, vip) : frameOf(M(task), M(client), packet, vip);
    const sent =
      task === 5
        ? this.bench.egress('port-5', frame)
        : this.bench.ingress(task === 3 ? '192.0.2.98' : '192.0.2.99', frame);
    const [only] = sent;
    if (only === undefined || sent.length !== 1) return `${sent.length} frames for an answer`;
    if (only.to !== `port-${client}`) return `an answer to ${only.to}`;
    const seen = readFrame(only.frame);
    if (seen.from !== vip || seen.to !== address(client, isV6))
      return `answer ${seen.from} to ${seen.to}`;
    return soundness(seen, 80, port);
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
    fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
      const world = new World();
      for (const [i, one] of steps.entries()) {
        const fault =
          one.kind === 'send'
            ? world.send(one)
            : one.kind === 'answer'
              ? world.answer(one)
              : world.set(one);
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
