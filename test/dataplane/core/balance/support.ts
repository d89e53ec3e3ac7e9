import type {
  BackendEntry,
  BackendState,
  Ticket,
} from '../../../../src/dataplane/core/balance/backend-set.js';
import { NO_BACKEND } from '../../../../src/dataplane/core/balance/backend-set.js';
import { Balancer } from '../../../../src/dataplane/core/balance/balancer.js';
import {
  type BalanceConfig,
  DEFAULT_BALANCE,
} from '../../../../src/dataplane/core/balance/config.js';

export function entry(
  key: string,
  state: BackendState = 'ready',
  isLocal = false,
  weight = 1,
): BackendEntry {
  return { key, state, isLocal, weight };
}

export function entries(count: number): BackendEntry[] {
  return Array.from({ length: count }, (_, i) => entry(`task${i}`));
}

export function balancerOf(
  config: Partial<BalanceConfig>,
  backends: readonly BackendEntry[],
  seed = 7,
): Balancer {
  const balancer = new Balancer({ ...DEFAULT_BALANCE, ...config }, seed, 99);
  balancer.replace(backends, 0);
  return balancer;
}

/** An IPv4 client, as four words. */
export function client(index: number): Int32Array {
  return Int32Array.of(0, 0, 0xffff, 0x0a00_0000 + index);
}

/** The key of a new flow's backend; the flow goes on. */
export function pick(balancer: Balancer, from = 1, nowMs = 0, ports = 0): string | undefined {
  const ticket = balancer.choose(client(from), ports, nowMs);
  return ticket === NO_BACKEND ? undefined : balancer.keyOf(ticket);
}

/** How many of `count` flows, each from another client and over at once, went where. */
export function shares(balancer: Balancer, count: number, nowMs = 0): Map<string, number> {
  const counts = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const ticket: Ticket = balancer.choose(client(i), i, nowMs);
    const key = balancer.keyOf(ticket) ?? 'none';
    counts.set(key, (counts.get(key) ?? 0) + 1);
    balancer.ended(ticket);
  }
  return counts;
}
