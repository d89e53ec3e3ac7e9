import type { Duplex } from 'node:stream';
import type { Logger } from '../../core/logger.js';
import type { RaftId, SnapshotMeta, Term } from '../core/types.js';
import { SnapshotStream, SnapshotStreamEnd } from './snapshot-stream.js';
import type { SnapshotWriter } from './storage.js';
import { encodeSnapshotFrame, SNAPSHOT_BYTES_MAX, type SnapshotFrame } from './stream-frames.js';

/** How long a sender may take with its first words, and with each chunk. */
const FIRST_MS_MAX = 5_000;
const CHUNK_MS_MAX = 30_000;
/** Connections at once; all but one are on their way out. */
const STREAMS_MAX = 8;

export interface SnapshotReceiverConfig {
  readonly self: RaftId;
  readonly log: Logger;
  /** `have`: the own log covers it already. `stale`: the sender leads no more. */
  readonly judge: (term: Term, meta: SnapshotMeta) => 'wanted' | 'have' | 'stale';
  readonly open: (
    meta: SnapshotMeta,
    sizeBytes: number,
    digest: Uint8Array,
  ) => Promise<SnapshotWriter>;
  /** It is durable here, or was not needed. Resolves when another may take its place. */
  readonly onReceived: (from: RaftId, term: Term, meta: SnapshotMeta) => Promise<void>;
}

export interface SnapshotReceiverStats {
  readonly received: number;
  readonly failed: number;
  readonly receivedBytes: number;
  /** Bytes that an earlier attempt had brought already. */
  readonly resumedBytes: number;
}

type Offer = Extract<SnapshotFrame, { readonly kind: 'offer' }>;

/** Receives the snapshots of leaders, one at a time: a newer sender takes the place of an older one. */
export class SnapshotReceiver {
  readonly #config: SnapshotReceiverConfig;
  readonly #streams = new Set<SnapshotStream>();
  #current:
    | { readonly stream: SnapshotStream; readonly term: Term; readonly done: Promise<void> }
    | undefined;
  #stopped = false;
  #received = 0;
  #failed = 0;
  #receivedBytes = 0;
  #resumedBytes = 0;

  constructor(config: SnapshotReceiverConfig) {
    this.#config = config;
  }

  stats(): SnapshotReceiverStats {
    return {
      received: this.#received,
      failed: this.#failed,
      receivedBytes: this.#receivedBytes,
      resumedBytes: this.#resumedBytes,
    };
  }

  /** An incoming connection. @param from Whose the certificate says it is. */
  accept(duplex: Duplex, from?: RaftId): void {
    if (this.#stopped || this.#streams.size >= STREAMS_MAX) {
      this.#failed++;
      duplex.on('error', () => {});
      duplex.destroy();
      return;
    }
    const stream = new SnapshotStream(duplex);
    this.#streams.add(stream);
    this.#serve(stream, from)
      .catch((error: unknown) => {
        this.#failed++;
        this.#config.log.warn({ from, err: error }, 'snapshot not received');
        stream.end();
      })
      .finally(() => this.#streams.delete(stream));
  }

  tick(): void {
    for (const stream of this.#streams) stream.tick();
  }

  /** Resolves when nothing writes any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const stream of this.#streams) stream.end();
    await this.#current?.done;
  }

  async #serve(stream: SnapshotStream, expected?: RaftId): Promise<void> {
    const { from, to } = await stream.receiveHello(FIRST_MS_MAX);
    if (to !== this.#config.self || from === to || from !== (expected ?? from))
      throw new SnapshotStreamEnd('wrong_hello');
    const offer = await stream.receive(FIRST_MS_MAX);
    if (offer.kind !== 'offer') throw new SnapshotStreamEnd('malformed_frame');
    const verdict = this.#judge(offer);
    if (verdict === 'wanted') await this.#receiveInTurn(stream, from, offer);
    else if (verdict === 'have') await this.#confirm(stream, from, offer);
    else {
      await stream.write(encodeSnapshotFrame({ kind: 'refuse', why: verdict }));
      stream.finish();
      throw new SnapshotStreamEnd(verdict);
    }
  }

  async #confirm(stream: SnapshotStream, from: RaftId, { term, meta }: Offer): Promise<void> {
    await stream.write(encodeSnapshotFrame({ kind: 'done' }));
    stream.finish();
    if (!this.#stopped) await this.#config.onReceived(from, term, meta);
  }

  #judge({ term, meta, sizeBytes }: Offer): 'wanted' | 'have' | 'stale' | 'busy' | 'too_large' {
    if (sizeBytes > SNAPSHOT_BYTES_MAX) return 'too_large';
    const verdict = this.#config.judge(term, meta);
    if (verdict !== 'wanted') return verdict;
    return this.#current !== undefined && this.#current.term > term ? 'busy' : 'wanted';
  }

  async #receiveInTurn(stream: SnapshotStream, from: RaftId, offer: Offer): Promise<void> {
    const before = this.#current;
    before?.stream.end();
    let finished = () => {};
    const done = new Promise<void>((resolve) => {
      finished = resolve;
    });
    const current = { stream, term: offer.term, done };
    this.#current = current;
    try {
      await before?.done;
      if (this.#stopped || stream.ended) throw new SnapshotStreamEnd('replaced');
      await this.#receive(stream, offer);
      await this.#confirm(stream, from, offer);
    } finally {
      if (this.#current === current) this.#current = undefined;
      finished();
    }
  }

  async #receive(stream: SnapshotStream, { meta, sizeBytes, digest }: Offer): Promise<void> {
    const writer = await this.#config.open(meta, sizeBytes, digest);
    let offsetBytes = writer.offsetBytes;
    this.#resumedBytes += offsetBytes;
    try {
      await stream.write(encodeSnapshotFrame({ kind: 'want', offsetBytes }));
      while (offsetBytes < sizeBytes) {
        const chunk = await stream.receive(CHUNK_MS_MAX);
        if (chunk.kind !== 'chunk' || chunk.offsetBytes !== offsetBytes) {
          await stream.write(encodeSnapshotFrame({ kind: 'refuse', why: 'damaged' }));
          throw new SnapshotStreamEnd('damaged');
        }
        await this.#disk(stream, writer.write(chunk.data));
        offsetBytes += chunk.data.length;
        this.#receivedBytes += chunk.data.length;
        await stream.write(encodeSnapshotFrame({ kind: 'have', offsetBytes }));
      }
      await this.#disk(stream, writer.finish());
      this.#received++;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  /** Tells the sender why, so that its operator sees it too. */
  async #disk(stream: SnapshotStream, writing: Promise<void>): Promise<void> {
    try {
      await writing;
    } catch (error) {
      await stream.write(encodeSnapshotFrame({ kind: 'refuse', why: 'disk' }));
      stream.finish();
      throw error;
    }
  }
}
