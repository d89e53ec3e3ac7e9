import { formatTimeMs } from './time.js';

/**
 * Output of a task as Docker multiplexes it:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  | stream |         zero             |     size of what follows          |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *
 * The size is big-endian. A frame is one line.
 */
const HEADER_BYTES = 8;
const STREAMS = { stdout: 1, stderr: 2, failure: 3 } as const;
/** Digits of a second's fraction, always all of them. */
const NS_DIGITS = 9;

const encoder = new TextEncoder();

export type LogStream = keyof typeof STREAMS;

export interface LogLine {
  readonly taskId: string;
  readonly nodeId: string;
  readonly serviceId: string;
  readonly stream: 'stdout' | 'stderr';
  /** Nanoseconds since the epoch. */
  readonly atNs: bigint;
  readonly data: Uint8Array;
}

/** What stands before a line: when it came, and in `details` whose it is, by which the CLI tells tasks apart. */
export function linePrefix(
  line: LogLine,
  shown: { readonly timestamps: boolean; readonly details: boolean },
): string {
  const at = shown.timestamps ? `${formatNs(line.atNs)} ` : '';
  if (!shown.details) return at;
  const whose = [
    `com.docker.swarm.node.id=${line.nodeId}`,
    `com.docker.swarm.service.id=${line.serviceId}`,
    `com.docker.swarm.task.id=${line.taskId}`,
  ];
  return `${at}${whose.join(',')} `;
}

function formatNs(atNs: bigint): string {
  const second = formatTimeMs(Number(atNs / 1_000_000_000n) * 1000).replace(/Z$/, '');
  return `${second}.${String(atNs % 1_000_000_000n).padStart(NS_DIGITS, '0')}Z`;
}

/** The frame of `prefix` and `data`; without its header where a terminal made the output. */
export function encodeLine(
  stream: LogStream,
  prefix: string,
  data: Uint8Array,
  framed: boolean,
): Uint8Array {
  const before = encoder.encode(prefix);
  const header = framed ? HEADER_BYTES : 0;
  const bytes = new Uint8Array(header + before.length + data.length);
  if (framed) {
    const view = new DataView(bytes.buffer);
    view.setUint8(0, STREAMS[stream]);
    view.setUint32(4, before.length + data.length);
  }
  bytes.set(before, header);
  bytes.set(data, header + before.length);
  return bytes;
}
