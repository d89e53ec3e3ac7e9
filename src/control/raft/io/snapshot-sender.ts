import type { Duplex } from 'node:stream';
import { nowMs } from '../../../base/io/driver.js';
import type { Logger } from '../../core/logger.js';
import type { Member, RaftId, Term } from '../core/types.js';
import { SnapshotStream, SnapshotStreamEnd } from './snapshot-stream.js';
import type { SnapshotReader } from './storage.js';
import { CHUNK_BYTES_MAX, encodeHello, encodeSnapshotFrame } from './stream-frames.js';

/** Chunks that are on their way and not confirmed. */
const WINDOW_BYTES_MAX = 8 * CHUNK_BYTES_MAX;
/** So that a snapshot leaves room for the log on the same network and disks. */
const BYTES_PER_SECOND_MAX = 64 << 20;
const DIAL_MS_MAX = 5_000;
/** How long the receiver's disk may take with a chunk, or with finishing. */
const ANSWER_MS_MAX = 30_000;
/** The core may ask again at once: not sooner than this after a failure. */
const RETRY_MS_MIN = 250;

export interface SnapshotSenderConfig {
  readonly self: RaftId;
  readonly log: Logger;
  readonly dial: (member: Member, signal: AbortSignal) => Promise<Duplex>;
  /** The latest snapshot, or a new one if that is too old to go on from with the log. */
  readonly open: () => Promise<SnapshotReader>;
  readonly onSent: (to: RaftId, ok: boolean) => void;
}

export interface SnapshotSenderStats {
  readonly sent: number;
  readonly failed: number;
  readonly sentBytes: number;
}

interface Transmission {
  readonly abort: AbortController;
  stream?: SnapshotStream;
}

/** Sends snapshots to followers that are too far behind for the log: at most one to each at a time. */
export class SnapshotSender {
  readonly #config: SnapshotSenderConfig;
  readonly #running = new Map<RaftId, Transmission>();
  readonly #retries = new Set<NodeJS.Timeout>();
  #stopped = false;
  #sent = 0;
  #failed = 0;
  #sentBytes = 0;

  constructor(config: SnapshotSenderConfig) {
    this.#config = config;
  }

  stats(): SnapshotSenderStats {
    return { sent: this.#sent, failed: this.#failed, sentBytes: this.#sentBytes };
  }

  /** The outcome goes to `onSent`, once. @param term In which this member leads. */
  send(member: Member, term: Term): void {
    if (this.#stopped || this.#running.has(member.id)) return;
    const transmission: Transmission = { abort: new AbortController() };
    this.#running.set(member.id, transmission);
    const { log, onSent } = this.#config;
    this.#transmit(member, term, transmission).then(
      () => {
        this.#running.delete(member.id);
        this.#sent++;
        log.info({ to: member.id }, 'snapshot sent');
        onSent(member.id, true);
      },
      (error: unknown) => {
        this.#failed++;
        log.warn({ to: member.id, err: error }, 'snapshot not sent, will be tried again');
        const timer = setTimeout(() => {
          this.#retries.delete(timer);
          this.#running.delete(member.id);
          if (!this.#stopped) onSent(member.id, false);
        }, RETRY_MS_MIN);
        this.#retries.add(timer);
      },
    );
  }

  /** Leadership is lost: whoever leads now sends its own. */
  abort(): void {
    for (const { abort, stream } of this.#running.values()) {
      abort.abort();
      stream?.end();
    }
  }

  tick(): void {
    for (const { stream } of this.#running.values()) stream?.tick();
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#retries) clearTimeout(timer);
    this.abort();
  }

  async #transmit(member: Member, term: Term, transmission: Transmission): Promise<void> {
    const reader = await this.#config.open();
    try {
      const duplex = await this.#dial(member, transmission.abort);
      const stream = new SnapshotStream(duplex);
      transmission.stream = stream;
      try {
        await this.#offer(stream, reader, member.id, term);
      } finally {
        stream.end();
      }
    } finally {
      await reader.close();
    }
  }

  async #dial(member: Member, abort: AbortController): Promise<Duplex> {
    const timer = setTimeout(() => abort.abort(), DIAL_MS_MAX);
    try {
      const stream = await this.#config.dial(member, abort.signal);
      if (!abort.signal.aborted) return stream;
      stream.on('error', () => {});
      stream.destroy();
      throw new SnapshotStreamEnd('closed');
    } finally {
      clearTimeout(timer);
    }
  }

  async #offer(
    stream: SnapshotStream,
    reader: SnapshotReader,
    to: RaftId,
    term: Term,
  ): Promise<void> {
    const { meta, sizeBytes, digest } = reader;
    void stream.write(encodeHello({ from: this.#config.self, to }));
    await stream.write(encodeSnapshotFrame({ kind: 'offer', term, meta, sizeBytes, digest }));
    const answer = await stream.receive(ANSWER_MS_MAX);
    if (answer.kind === 'done') return;
    if (answer.kind !== 'want' || answer.offsetBytes > sizeBytes)
      throw new SnapshotStreamEnd(answer.kind === 'refuse' ? answer.why : 'malformed_frame');
    await this.#sendFrom(answer.offsetBytes, stream, reader);
  }

  async #sendFrom(from: number, stream: SnapshotStream, reader: SnapshotReader): Promise<void> {
    const startMs = nowMs();
    let sent = from;
    let confirmed = from;
    for (;;) {
      while (
        sent < reader.sizeBytes &&
        sent - confirmed < WINDOW_BYTES_MAX &&
        stream.pending === 0
      ) {
        const data = await reader.read(sent, CHUNK_BYTES_MAX);
        if (data.length === 0) throw new Error('the snapshot is shorter than it says');
        await stream.write(encodeSnapshotFrame({ kind: 'chunk', offsetBytes: sent, data }));
        if (stream.ended) break;
        sent += data.length;
        this.#sentBytes += data.length;
        const aheadMs = ((sent - from) / BYTES_PER_SECOND_MAX) * 1_000 - (nowMs() - startMs);
        if (aheadMs >= 1) await new Promise((resolve) => setTimeout(resolve, aheadMs));
      }
      const answer = await stream.receive(ANSWER_MS_MAX);
      if (answer.kind === 'done' && sent === reader.sizeBytes) return;
      if (answer.kind !== 'have' || answer.offsetBytes > sent)
        throw new SnapshotStreamEnd(answer.kind === 'refuse' ? answer.why : 'malformed_frame');
      confirmed = answer.offsetBytes;
    }
  }
}
