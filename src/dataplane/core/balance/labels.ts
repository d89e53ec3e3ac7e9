import { parseDurationMs } from '../../../base/duration.js';
import { LabelReader } from '../../../base/label-reader.js';
import {
  BALANCE_METHODS,
  type BalanceConfig,
  type BalanceMethod,
  DEFAULT_BALANCE,
} from './config.js';

/**
 * How tasks learn of clients of published ports. `preserve`: they see the client's address where that can
 * be, else, as with `snat`, that of the node which took the connection.
 */
export const CLIENT_ADDRESS_WAYS = ['preserve', 'snat', 'proxy-v1', 'proxy-v2'] as const;
export type ClientAddressWay = (typeof CLIENT_ADDRESS_WAYS)[number];

/** What a service's labels say about balancing, and what of them says nothing. */
export interface BalanceLabels {
  readonly balance: BalanceConfig;
  /** For how long connections to a task that is to end are waited for. */
  readonly drainMs: number;
  readonly clientAddress: ClientAddressWay;
  /** One sentence for each label that is not understood; its default holds. */
  readonly problems: readonly string[];
}

/** Weights are whole numbers, so that turns can be counted. */
const WEIGHT_MAX = 1000;
/** Requests are answered within this, and an update need not wait for connections that stay. */
const DRAIN_MS = 5000;
const DRAIN_MS_MAX = 60_000;

/** Reads the `shoal.*` labels of `docs/service-labels.md`. Never throws: a label is a user's text. */
export function balanceOfLabels(labels: Readonly<Record<string, string>>): BalanceLabels {
  const reader = new LabelReader(labels, 'is ignored');
  const { outlier } = DEFAULT_BALANCE;
  const isOff = labels['shoal.outlier'] === 'off';
  const affinity = reader.read(
    'shoal.affinity',
    'none',
    oneOf('none', 'client-ip'),
    'client-ip or none',
  );
  const lifetime = reader.read(
    'shoal.affinity.lifetime',
    3 * 3_600_000,
    parseDurationMs,
    'a duration',
  );
  const locality = reader.read(
    'shoal.locality',
    'any',
    oneOf('any', 'prefer-local'),
    'prefer-local or any',
  );
  const percent = outlier.ceiling * 100;
  const methods = BALANCE_METHODS.join(', ');
  const method = reader.read('shoal.balance', DEFAULT_BALANCE.method, parseMethod, methods);
  // Where each task has clients of its own, they may just ask for more than those of others.
  const hasOwnClients = affinity !== 'none' || method === 'sh';
  const slowFactor = hasOwnClients ? 0 : outlier.slowFactor;
  const balance: BalanceConfig = {
    method,
    weights: reader.read(
      'shoal.balance.weights',
      DEFAULT_BALANCE.weights,
      parseWeights,
      WEIGHTS_FORM,
    ),
    affinityMs: affinity === 'none' ? 0 : lifetime,
    preferLocal: locality === 'prefer-local',
    overflowAt: reader.read('shoal.locality.overflow', 0, parseCount, 'a number of flows'),
    slowStartMs: reader.read('shoal.slow-start', 0, parseDurationMs, 'a duration'),
    outlier: {
      failures: isOff
        ? 0
        : reader.read(
            'shoal.outlier.failures',
            outlier.failures,
            parseCount,
            'a number of failures',
          ),
      ejectionMs: reader.read(
        'shoal.outlier.ejection',
        outlier.ejectionMs,
        parseDurationMs,
        'a duration',
      ),
      ceiling: reader.read('shoal.outlier.ceiling', percent, parsePercent, 'a percentage') / 100,
      slowFactor: isOff
        ? 0
        : reader.read('shoal.outlier.slow', slowFactor, parseFactor, FACTOR_FORM),
    },
  };
  const drainMs = reader.read('shoal.drain', DRAIN_MS, parseDrain, 'a duration up to 1m');
  const clientAddress = reader.read(
    'shoal.client-address',
    'preserve',
    oneOf(...CLIENT_ADDRESS_WAYS),
    CLIENT_ADDRESS_WAYS.join(', '),
  );
  return { balance, drainMs, clientAddress, problems: reader.problems };
}

const WEIGHTS_FORM = `SLOT=WEIGHT, …, with weights from 1 to ${WEIGHT_MAX}`;

function oneOf<Word extends string>(...words: readonly Word[]): (text: string) => Word | undefined {
  return (text) => words.find((word) => word === text);
}

function parseMethod(text: string): BalanceMethod | undefined {
  return BALANCE_METHODS.find((method) => method === text);
}

function parseDrain(text: string): number | undefined {
  const durationMs = parseDurationMs(text);
  return durationMs !== undefined && durationMs <= DRAIN_MS_MAX ? durationMs : undefined;
}

function parseCount(text: string): number | undefined {
  return /^\d{1,6}$/.test(text) ? Number(text) : undefined;
}

/** Less would eject tasks for noise. */
const FACTOR = { min: 2, max: 1000 };
const FACTOR_FORM = `off, or a factor from ${FACTOR.min} to ${FACTOR.max}`;

function parseFactor(text: string): number | undefined {
  if (text === 'off') return 0;
  const factor = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  return factor >= FACTOR.min && factor <= FACTOR.max ? factor : undefined;
}

function parsePercent(text: string): number | undefined {
  const match = /^(\d{1,3})%?$/.exec(text);
  return match !== null && Number(match[1]) <= 100 ? Number(match[1]) : undefined;
}

function parseWeights(text: string): ReadonlyMap<number, number> | undefined {
  const weights = new Map<number, number>();
  for (const part of text.split(',')) {
    const match = /^\s*(\d{1,6})\s*=\s*(\d{1,4})\s*$/.exec(part);
    const weight = Number(match?.[2]);
    if (match === null || weight < 1 || weight > WEIGHT_MAX) return undefined;
    weights.set(Number(match[1]), weight);
  }
  return weights;
}
