import { Duplex } from 'node:stream';

/** How a pipe treats what is written: `stuck` keeps it and takes no more, `lost` swallows it. */
export type PipeMode = 'open' | 'stuck' | 'lost';

type Done = (error?: Error | null) => void;

/** One direction pair in memory, with the back-pressure of a socket and the ways in which networks fail. */
export class Pipe {
  readonly a: Duplex;
  readonly b: Duplex;
  #mode: PipeMode = 'open';
  readonly #held: (() => void)[] = [];
  /** Bytes that went through, both ways. */
  bytes = 0;
  /** Called with every chunk before it goes through. */
  onChunk: ((pipe: Pipe) => void) | undefined;

  constructor() {
    const a = new End(this);
    const b = new End(this);
    a.other = b;
    b.other = a;
    this.a = a;
    this.b = b;
  }

  get mode(): PipeMode {
    return this.#mode;
  }

  set mode(mode: PipeMode) {
    this.#mode = mode;
    for (const held of this.#held.splice(0)) held();
  }

  get alive(): boolean {
    return !this.a.destroyed && !this.b.destroyed;
  }

  hold(write: () => void): void {
    this.#held.push(write);
  }

  /** As a reset of the connection. */
  cut(): void {
    this.a.destroy();
    this.b.destroy();
  }
}

class End extends Duplex {
  other: End | undefined;
  readonly #pipe: Pipe;
  #resume: Done | undefined;

  constructor(pipe: Pipe) {
    super();
    this.#pipe = pipe;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: Done): void {
    const pipe = this.#pipe;
    const other = this.other as End;
    if (pipe.mode === 'lost') {
      done();
      return;
    }
    if (pipe.mode === 'stuck') {
      pipe.hold(() => this._write(chunk, encoding, done));
      return;
    }
    if (other.destroyed) {
      done(new Error('reset'));
      return;
    }
    pipe.bytes += chunk.length;
    pipe.onChunk?.(pipe);
    if (other.destroyed) {
      done(new Error('reset'));
      return;
    }
    if (other.push(Buffer.from(chunk))) setImmediate(done);
    else other.#resume = done;
  }

  override _read(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  }

  override _final(done: Done): void {
    if (!this.other?.destroyed && this.#pipe.mode !== 'lost') this.other?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    const { other } = this;
    if (this.#pipe.mode === 'open')
      setImmediate(() => {
        if (other !== undefined && !other.destroyed) other.destroy();
      });
    done(error);
  }
}
