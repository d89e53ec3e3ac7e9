import { parseDurationMs } from './duration.js';
import { LabelReader } from './label-reader.js';

/** Ranges of HTTP status codes of one check. */
const STATUS_RANGES_MAX = 16;
/** A path, as it goes into the request. */
const PATH_CHARS_MAX = 1024;
const INTERVAL_MS = { min: 100, max: 3_600_000 };
const TIMEOUT_MS = { min: 10, max: 60_000 };
const IN_A_ROW_MAX = 100;

/** How a service's tasks are checked by their nodes, beside their own health checks. */
export interface CheckConfig {
  readonly kind: 'tcp' | 'http';
  /** In the task. */
  readonly port: number;
  readonly path: string;
  /** Codes that are good, as ranges. */
  readonly status: readonly (readonly [number, number])[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Good ones in a row after which it gets flows again; bad ones after which it is passed over. */
  readonly rise: number;
  readonly fall: number;
}

interface TargetPort {
  readonly protocol: string;
  readonly targetPort: number;
}

/**
 * Reads `shoal.check` and `shoal.check.*`.
 *
 * @returns No check where there is none, or where something is wrong with it, which is told in sentences; managers
 *   refuse such labels.
 */
export function readCheck(
  labels: Readonly<Record<string, string>>,
  ports: readonly TargetPort[],
): { readonly check: CheckConfig | undefined; readonly problems: readonly string[] } {
  const reader = new LabelReader(labels, 'is not valid');
  const kind = reader.read<CheckConfig['kind'] | ''>('shoal.check', '', parseKind, 'tcp or http');
  const published = ports.find(({ protocol }) => protocol === 'tcp')?.targetPort ?? 0;
  const port = reader.read('shoal.check.port', published, numberTo(65_535), 'a port of the task');
  const check = {
    port,
    path: reader.read(
      'shoal.check.path',
      '/',
      parsePath,
      'a path that begins with /, as in /healthz',
    ),
    status: reader.read(
      'shoal.check.status',
      [[200, 399]],
      parseStatus,
      'codes, as in 200,300-399',
    ),
    intervalMs: reader.read(
      'shoal.check.interval',
      5000,
      within(INTERVAL_MS),
      'from 100ms up to 1h',
    ),
    timeoutMs: reader.read('shoal.check.timeout', 2000, within(TIMEOUT_MS), 'from 10ms up to 1m'),
    rise: reader.read(
      'shoal.check.rise',
      2,
      numberTo(IN_A_ROW_MAX),
      `from 1 up to ${IN_A_ROW_MAX}`,
    ),
    fall: reader.read(
      'shoal.check.fall',
      3,
      numberTo(IN_A_ROW_MAX),
      `from 1 up to ${IN_A_ROW_MAX}`,
    ),
  };
  const { problems } = reader;
  if (kind !== '' && port === 0)
    problems.push(
      `label shoal.check=${kind} needs shoal.check.port: the service publishes no TCP port`,
    );
  return { check: kind === '' || problems.length > 0 ? undefined : { kind, ...check }, problems };
}

function parseKind(text: string): CheckConfig['kind'] | undefined {
  return text === 'tcp' || text === 'http' ? text : undefined;
}

function numberTo(most: number): (text: string) => number | undefined {
  return (text) => (/^[1-9]\d{0,4}$/.test(text) && Number(text) <= most ? Number(text) : undefined);
}

function within({ min, max }: { readonly min: number; readonly max: number }) {
  return (text: string): number | undefined => {
    const durationMs = parseDurationMs(text);
    return durationMs !== undefined && durationMs >= min && durationMs <= max
      ? durationMs
      : undefined;
  };
}

function parsePath(text: string): string | undefined {
  return text.length <= PATH_CHARS_MAX && /^\/[\x21-\x7e]*$/.test(text) ? text : undefined;
}

function parseStatus(text: string): CheckConfig['status'] | undefined {
  const ranges: (readonly [number, number])[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*([1-5]\d\d)(?:-([1-5]\d\d))?\s*$/.exec(part);
    const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (match === null || from > to || ranges.length === STATUS_RANGES_MAX) return undefined;
    ranges.push([from, to]);
  }
  return ranges;
}
