import { assert } from '../../base/assert.js';

/**
 * The times and counts of the failure detector. `lanConfig` is the reference, the others are
 * written as differences from it.
 */
export interface SwimConfig {
  /** One ordinary probe per interval. Shorter: silence is noticed sooner, for more packets. */
  readonly probeIntervalMs: number;
  /** Silence after which others are asked to probe, too. Above the 99th percentile of round trips. */
  readonly probeTimeoutMs: number;
  /** Others asked. More: fewer false suspicions on lossy networks. */
  readonly indirectProbesCount: number;
  /** A relay without an answer says `nack` after this share of `probeTimeoutMs` (Lifeguard: 80 %). */
  readonly nackAtShare: number;

  /**
   * Each member also pings its successor on the ring of hashed ids this often, so that a process
   * that is gone is noticed within one interval, whoever is at the front of the probe lists.
   */
  readonly watchIntervalMs: number;
  /** Silence after which a watched or re-checked member's TCP port is tried for evidence. */
  readonly evidenceMs: number;
  /** From the last needed report of evidence to death: the time to refute it. */
  readonly evidenceGraceMs: number;
  /** Distinct reporters needed: a forged reset seen by one member kills nobody. */
  readonly evidenceReportersCount: number;
  /** About how many of those who hear of evidence at second hand look for themselves. */
  readonly recheckersCount: number;

  /** Suspicion lasts `suspicionMult` * max(1, log10 members) * `probeIntervalMs` if confirmed. */
  readonly suspicionMult: number;
  /** Unconfirmed, it lasts this many times longer. */
  readonly suspicionMaxMult: number;
  /**
   * A death for silence alone that others report is believed only this long after we first heard
   * the accusation: one who was cut off thinks everybody dead, and must kill nobody on his return.
   */
  readonly disputeMs: number;

  /** Highest awareness score; timeouts stretch by 1 + score. */
  readonly awarenessMax: number;
  /** A wake-up later than this means that we, not the others, were asleep. */
  readonly lateMs: number;

  readonly gossipIntervalMs: number;
  /** Members gossiped to per interval. */
  readonly gossipFanout: number;
  /** Each claim is sent `retransmitMult` * ceil(log10(members + 1)) times. */
  readonly retransmitMult: number;
  /** The dead are gossiped to this long, to give them the chance to refute. */
  readonly gossipToTheDeadMs: number;

  /** Members that died within `reconnectFastForMs` are tried at the first pace, older at the second. */
  readonly reconnectFastIntervalMs: number;
  readonly reconnectSlowIntervalMs: number;
  readonly reconnectFastForMs: number;
  /** Dead members tried at once. */
  readonly reconnectFanout: number;
  /** The dead and the left are forgotten after this. */
  readonly forgetAfterMs: number;

  /** Digest exchange with a random member. */
  readonly syncIntervalMs: number;
  /** Repeated with the same member this soon while something still differs. */
  readonly syncRetryMs: number;
  readonly syncRoundsMax: number;
  /** Exchanges begun and not yet equal. */
  readonly syncsMax: number;
  /** Packets of claims in answer to one digest, and to all digests of a second. */
  readonly syncPacketsMax: number;
  readonly syncPacketsPerSecondMax: number;
  /** Seeds are asked again this often until a member answers. */
  readonly joinRetryMs: number;

  /** Largest sealed datagram: below any path MTU met in practice. */
  readonly packetBytesMax: number;
  readonly membersMax: number;
  /** Probes being relayed for others. */
  readonly relaysMax: number;
  /** Members being checked for evidence. */
  readonly checksMax: number;
  /** A seed list longer than this is cut. */
  readonly seedsMax: number;
}

/** One data centre: round trips below 10 ms, little loss. */
export function lanConfig(): SwimConfig {
  return validated({
    probeIntervalMs: 1_000,
    probeTimeoutMs: 500,
    indirectProbesCount: 3,
    nackAtShare: 0.8,
    watchIntervalMs: 1_000,
    evidenceMs: 200,
    evidenceGraceMs: 300,
    evidenceReportersCount: 2,
    recheckersCount: 4,
    suspicionMult: 4,
    suspicionMaxMult: 6,
    disputeMs: 1_000,
    awarenessMax: 8,
    lateMs: 100,
    gossipIntervalMs: 200,
    gossipFanout: 3,
    retransmitMult: 4,
    gossipToTheDeadMs: 30_000,
    reconnectFastIntervalMs: 1_000,
    reconnectSlowIntervalMs: 10_000,
    reconnectFastForMs: 300_000,
    reconnectFanout: 3,
    forgetAfterMs: 86_400_000,
    syncIntervalMs: 30_000,
    syncRetryMs: 250,
    syncRoundsMax: 40,
    syncsMax: 16,
    syncPacketsMax: 16,
    syncPacketsPerSecondMax: 500,
    joinRetryMs: 1_000,
    packetBytesMax: 1_400,
    membersMax: 10_000,
    relaysMax: 256,
    checksMax: 64,
    seedsMax: 64,
  });
}

/** Sites far apart: round trips of hundreds of milliseconds, bursts of loss, smaller path MTUs. */
export function wanConfig(): SwimConfig {
  return validated({
    ...lanConfig(),
    probeIntervalMs: 5_000,
    probeTimeoutMs: 3_000,
    watchIntervalMs: 5_000,
    evidenceMs: 1_000,
    evidenceGraceMs: 1_500,
    suspicionMult: 6,
    disputeMs: 3_000,
    gossipIntervalMs: 500,
    gossipFanout: 4,
    gossipToTheDeadMs: 60_000,
    syncIntervalMs: 60_000,
    syncRetryMs: 1_000,
    packetBytesMax: 1_280,
  });
}

/** All members on one machine: no loss, round trips below 1 ms. */
export function localConfig(): SwimConfig {
  return validated({
    ...lanConfig(),
    probeTimeoutMs: 200,
    evidenceMs: 100,
    suspicionMult: 3,
    disputeMs: 500,
    gossipIntervalMs: 100,
    retransmitMult: 2,
    syncIntervalMs: 15_000,
  });
}

/** The relations that the algorithm relies on. */
function validated(config: SwimConfig): SwimConfig {
  assert(config.probeTimeoutMs < config.probeIntervalMs, 'a probe times out within its interval');
  assert(config.evidenceMs < config.watchIntervalMs, 'a check ends before the next one');
  assert(config.nackAtShare > 0 && config.nackAtShare < 1, 'a nack comes before the timeout');
  assert(config.suspicionMult >= 2, 'the confirmations needed are not negative');
  assert(config.suspicionMaxMult >= 1, 'a suspicion only gets shorter');
  assert(config.packetBytesMax <= 1_472, 'a datagram fits an Ethernet frame');
  return config;
}
