import type { Prng } from '../../base/prng.js';
import type { MemberId } from '../wire/claim.js';
import type { Endpoint } from '../wire/endpoint.js';
import type { Message } from '../wire/packet.js';
import type { Awareness } from './awareness.js';
import { ringPlaceOf } from './claim.js';
import type { SwimConfig } from './config.js';
import { type HeldMember, isActive, isAlive, type MemberTable, toldClaim } from './member-table.js';
import { claimMessage, type Outbox } from './outbox.js';
import { ProbeOrder } from './probe-order.js';

/**
 * What a TCP connection to a member showed. `answered`: its process spoke. `connected`: only its
 * kernel did, as it does for a stalled process. `refused`: the host lives and nobody listens.
 */
export type ConnectResult = 'answered' | 'connected' | 'refused' | 'timeout';

/** A member did not answer; `gone`: and there is evidence that its process is no more. */
export interface Verdict {
  readonly member: MemberId;
  readonly gone: boolean;
}

/** A member answered a direct probe. */
export interface RoundTrip {
  readonly member: MemberId;
  readonly rttMs: number;
}

interface Probe {
  readonly member: MemberId;
  readonly seq: number;
  sentMs: number;
  /** When others are asked; then `undefined`. */
  askAtMs: number | undefined;
  /** A round that our bad health stretches pings again at the usual pace. */
  againAtMs: number;
  endMs: number;
  nacksWanted: number;
}

/** A probe done for another member. */
interface Relay {
  readonly requester: Endpoint;
  readonly requesterSeq: number;
  /** When silence is reported; then `undefined`. */
  nackAtMs: number | undefined;
  endMs: number;
}

/** A look for evidence that a member's process is gone: silence over UDP and a refusal over TCP. */
interface Check {
  readonly member: MemberId;
  /** When silence counts; `undefined` once it does. */
  silentAtMs: number | undefined;
  endMs: number;
  connecting: boolean;
  refused: boolean;
}

export interface ProbeStats {
  probes: number;
  probesFailed: number;
  probesIndirect: number;
  /** Alive by TCP only: UDP to that member is blocked. */
  probesTcpOnly: number;
  checks: number;
  relays: number;
  relaysRefused: number;
}

/** The failure detector's rounds: whom to ask, when silence means something, and what it means. */
export class Prober {
  readonly #config: SwimConfig;
  readonly #self: MemberId;
  readonly #table: MemberTable;
  readonly #out: Outbox;
  readonly #awareness: Awareness;
  readonly #prng: Prng;
  readonly #order: ProbeOrder;
  readonly #ringPlace: number;
  #probe: Probe | undefined;
  readonly #relays = new Map<number, Relay>();
  readonly #checks = new Map<number, Check>();
  readonly #checked = new Set<MemberId>();
  #nextProbeMs: number | undefined;
  #nextWatchMs: number | undefined;
  #seq: number;
  readonly stats: ProbeStats = {
    probes: 0,
    probesFailed: 0,
    probesIndirect: 0,
    probesTcpOnly: 0,
    checks: 0,
    relays: 0,
    relaysRefused: 0,
  };

  constructor(
    config: SwimConfig,
    self: MemberId,
    table: MemberTable,
    out: Outbox,
    awareness: Awareness,
    prng: Prng,
  ) {
    this.#config = config;
    this.#self = self;
    this.#table = table;
    this.#out = out;
    this.#awareness = awareness;
    this.#prng = prng;
    this.#order = new ProbeOrder(prng);
    this.#ringPlace = ringPlaceOf(self);
    this.#seq = prng.nextUint32();
  }

  /** Members become probed, and are no longer, as they become active and inactive. */
  add(member: MemberId, nowMs: number): void {
    this.#order.add(member);
    // Phases differ between members, or a fleet started by one command would probe in step.
    this.#nextProbeMs ??= nowMs + this.#prng.nextFloat() * this.#config.probeIntervalMs;
    this.#nextWatchMs ??= nowMs + this.#prng.nextFloat() * this.#config.watchIntervalMs;
  }

  remove(member: MemberId): void {
    this.#order.remove(member);
    if (this.#probe?.member === member) this.#probe = undefined;
    if (this.#table.activeCount > 0) return;
    this.#nextProbeMs = undefined;
    this.#nextWatchMs = undefined;
  }

  /** A ping whose answer nobody waits for: any packet in return shows life. */
  pingLoosely(member: HeldMember, nowMs: number): void {
    this.#out.send(member.claim.endpoint, this.#ping(member, this.#nextSeq(), nowMs));
  }

  /**
   * Looks for evidence that a member is gone.
   *
   * @param eagerly Try TCP at once, not only after silence.
   */
  check(member: HeldMember, eagerly: boolean, nowMs: number): void {
    const id = member.claim.member;
    if (this.#checked.has(id) || this.#checks.size >= this.#config.checksMax) return;
    const seq = this.#nextSeq();
    const silentAtMs = nowMs + this.#awareness.stretch(this.#config.evidenceMs);
    const check: Check = {
      member: id,
      silentAtMs,
      endMs: silentAtMs + this.#config.probeTimeoutMs,
      connecting: false,
      refused: false,
    };
    this.#checks.set(seq, check);
    this.#checked.add(id);
    this.stats.checks += 1;
    this.#out.send(member.claim.endpoint, this.#ping(member, seq, nowMs));
    if (eagerly) this.#connect(seq, check, member.claim.endpoint);
  }

  onPing(seq: number, target: MemberId | undefined, from: Endpoint): boolean {
    if (target !== undefined && target !== this.#self) return false;
    this.#out.send(from, [{ kind: 'ack', seq }]);
    return true;
  }

  onPingRequest(seq: number, target: MemberId, at: Endpoint, from: Endpoint, nowMs: number): void {
    if (this.#relays.size >= this.#config.relaysMax) {
      this.stats.relaysRefused += 1;
      return;
    }
    const own = this.#nextSeq();
    const { probeTimeoutMs, probeIntervalMs, nackAtShare } = this.#config;
    this.#relays.set(own, {
      requester: from,
      requesterSeq: seq,
      nackAtMs: nowMs + nackAtShare * probeTimeoutMs,
      endMs: nowMs + probeIntervalMs,
    });
    this.stats.relays += 1;
    const held = this.#table.get(target);
    const accusations = held === undefined ? [] : this.#accusation(held, nowMs);
    this.#out.send(at, [{ kind: 'ping', seq: own, target }, ...accusations]);
  }

  /** @returns The round trip, if the answer was to a direct probe. */
  onAck(seq: number, nowMs: number): RoundTrip | undefined {
    const relay = this.#relays.get(seq);
    if (relay !== undefined) {
      this.#relays.delete(seq);
      this.#out.send(relay.requester, [{ kind: 'ack', seq: relay.requesterSeq }]);
      return undefined;
    }
    const check = this.#checks.get(seq);
    if (check !== undefined) return void this.#endCheck(seq, check);
    const probe = this.#probe;
    if (probe?.seq !== seq) return undefined;
    this.#probe = undefined;
    this.#awareness.change(-1);
    const { member, sentMs } = probe;
    // Past the first timeout the answer may be a relay's, or to a repetition.
    const rttMs = nowMs - sentMs;
    if (probe.askAtMs === undefined || rttMs >= this.#config.probeIntervalMs) return undefined;
    return { member, rttMs };
  }

  onNack(seq: number): void {
    if (this.#probe?.seq === seq && this.#probe.nacksWanted > 0) this.#probe.nacksWanted -= 1;
  }

  onConnect(seq: number, result: ConnectResult): Verdict | undefined {
    const check = this.#checks.get(seq);
    if (check !== undefined) {
      if (result === 'refused') {
        check.refused = true;
        return this.#judge(seq, check);
      }
      return void this.#endCheck(seq, check);
    }
    const probe = this.#probe;
    if (probe?.seq !== seq) return undefined;
    if (result === 'answered') {
      this.#probe = undefined;
      this.stats.probesTcpOnly += 1;
      return undefined;
    }
    if (result !== 'refused') return undefined;
    this.#probe = undefined;
    this.stats.probesFailed += 1;
    return { member: probe.member, gone: true };
  }

  onTimeout(nowMs: number): Verdict[] {
    const verdicts: Verdict[] = [];
    this.#onProbeTimeout(nowMs, verdicts);
    this.#onRelayTimeout(nowMs);
    this.#onCheckTimeout(nowMs, verdicts);
    if (this.#nextWatchMs !== undefined && nowMs >= this.#nextWatchMs) {
      this.#nextWatchMs = nowMs + this.#awareness.stretch(this.#config.watchIntervalMs);
      const successor = this.#table.successorOf(this.#ringPlace);
      if (successor !== undefined) this.check(successor, false, nowMs);
    }
    return verdicts;
  }

  /** We slept: answers may be waiting to be read, so that silence during it means nothing. */
  shift(byMs: number): void {
    const probe = this.#probe;
    if (probe !== undefined) {
      if (probe.askAtMs !== undefined) probe.askAtMs += byMs;
      probe.againAtMs += byMs;
      probe.endMs += byMs;
    }
    if (this.#nextProbeMs !== undefined) this.#nextProbeMs += byMs;
    for (const check of this.#checks.values()) {
      if (check.silentAtMs !== undefined) check.silentAtMs += byMs;
      check.endMs += byMs;
    }
  }

  nextDeadlineMs(): number {
    let deadlineMs = Math.min(
      this.#nextProbeMs ?? Number.POSITIVE_INFINITY,
      this.#nextWatchMs ?? Number.POSITIVE_INFINITY,
      this.#probe?.askAtMs ?? Number.POSITIVE_INFINITY,
      this.#probe?.againAtMs ?? Number.POSITIVE_INFINITY,
    );
    for (const { nackAtMs, endMs } of this.#relays.values()) {
      deadlineMs = Math.min(deadlineMs, nackAtMs ?? endMs);
    }
    for (const { silentAtMs, endMs } of this.#checks.values()) {
      deadlineMs = Math.min(deadlineMs, silentAtMs ?? endMs);
    }
    return deadlineMs;
  }

  #onProbeTimeout(nowMs: number, verdicts: Verdict[]): void {
    const probe = this.#probe;
    if (probe?.askAtMs !== undefined && nowMs >= probe.askAtMs) this.#askOthers(probe, nowMs);
    if (probe !== undefined && nowMs >= probe.againAtMs) {
      probe.againAtMs = nowMs + this.#config.probeIntervalMs;
      const member = this.#table.get(probe.member);
      if (member !== undefined && nowMs < probe.endMs) {
        this.#out.send(member.claim.endpoint, this.#ping(member, probe.seq, nowMs));
      }
    }
    if (this.#nextProbeMs === undefined || nowMs < this.#nextProbeMs) return;
    if (probe !== undefined && this.#probe === probe) {
      this.stats.probesFailed += 1;
      // Relays that were asked and did not even say nack: the fault may be ours.
      this.#awareness.change(probe.nacksWanted);
      verdicts.push({ member: probe.member, gone: false });
    }
    this.#startProbe(nowMs);
  }

  #startProbe(nowMs: number): void {
    const { probeIntervalMs, probeTimeoutMs } = this.#config;
    const endMs = nowMs + this.#awareness.stretch(probeIntervalMs);
    this.#nextProbeMs = endMs;
    this.#probe = undefined;
    const member = this.#table.get(this.#order.next() ?? ('' as MemberId));
    if (member === undefined) return;
    const seq = this.#nextSeq();
    this.#probe = {
      member: member.claim.member,
      seq,
      sentMs: nowMs,
      askAtMs: nowMs + this.#awareness.stretch(probeTimeoutMs),
      againAtMs: nowMs + probeIntervalMs,
      endMs,
      nacksWanted: 0,
    };
    this.stats.probes += 1;
    this.#out.send(member.claim.endpoint, this.#ping(member, seq, nowMs));
  }

  #askOthers(probe: Probe, nowMs: number): void {
    probe.askAtMs = undefined;
    const target = this.#table.get(probe.member);
    if (target === undefined) return;
    this.stats.probesIndirect += 1;
    const relays = this.#table.random(
      this.#config.indirectProbesCount,
      this.#prng,
      (member) => isAlive(member) && member !== target,
    );
    // With nobody to ask, silence is as good as a missing nack.
    probe.nacksWanted = Math.max(1, relays.length);
    const { endpoint } = target.claim;
    for (const relay of relays) {
      this.#out.send(relay.claim.endpoint, [
        { kind: 'pingRequest', seq: probe.seq, target: probe.member, endpoint },
      ]);
    }
    this.#out.connect({ id: probe.seq, endpoint, timeoutMs: Math.max(1, probe.endMs - nowMs) });
  }

  #onRelayTimeout(nowMs: number): void {
    for (const [seq, relay] of this.#relays) {
      if (relay.nackAtMs !== undefined && nowMs >= relay.nackAtMs) {
        relay.nackAtMs = undefined;
        this.#out.send(relay.requester, [{ kind: 'nack', seq: relay.requesterSeq }]);
      }
      if (nowMs >= relay.endMs) this.#relays.delete(seq);
    }
  }

  #onCheckTimeout(nowMs: number, verdicts: Verdict[]): void {
    for (const [seq, check] of this.#checks) {
      if (check.silentAtMs !== undefined && nowMs >= check.silentAtMs) {
        check.silentAtMs = undefined;
        const member = this.#table.get(check.member);
        if (member === undefined || !isActive(member)) {
          this.#endCheck(seq, check);
          continue;
        }
        if (!check.connecting) this.#connect(seq, check, member.claim.endpoint);
        const verdict = this.#judge(seq, check);
        if (verdict !== undefined) verdicts.push(verdict);
      }
      if (nowMs >= check.endMs) this.#endCheck(seq, check);
    }
  }

  #connect(seq: number, check: Check, endpoint: Endpoint): void {
    check.connecting = true;
    this.#out.connect({ id: seq, endpoint, timeoutMs: this.#config.probeTimeoutMs });
  }

  /** Both halves of the evidence are needed, in whichever order they come. */
  #judge(seq: number, check: Check): Verdict | undefined {
    if (!check.refused || check.silentAtMs !== undefined) return undefined;
    this.#endCheck(seq, check);
    return { member: check.member, gone: true };
  }

  #endCheck(seq: number, check: Check): void {
    this.#checks.delete(seq);
    this.#checked.delete(check.member);
  }

  #ping(member: HeldMember, seq: number, nowMs: number): Message[] {
    const { member: target } = member.claim;
    return [{ kind: 'ping', seq, target }, ...this.#accusation(member, nowMs)];
  }

  /** Lifeguard's buddy system: whoever is accused hears of it with the very next ping. */
  #accusation(member: HeldMember, nowMs: number): Message[] {
    return isAlive(member) ? [] : [claimMessage(toldClaim(member, nowMs))];
  }

  #nextSeq(): number {
    this.#seq = (this.#seq + 1) >>> 0;
    return this.#seq;
  }
}
