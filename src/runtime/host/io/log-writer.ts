import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** Longest part of a line, as in Docker. */
const PART_BYTES_MAX = 16_384;
const NEWLINE = 10;

/** Writes the log files of a task, as `native/log-writer.h` does. */
export class LogWriter {
  readonly #folder: string;
  readonly #fileBytesMax: number;
  readonly #filesMax: number;
  #number = 0;
  #fd: number | undefined;
  #size = 0;

  constructor(
    folder: string,
    options: { readonly fileBytesMax: number; readonly filesMax: number },
  ) {
    this.#folder = folder;
    this.#fileBytesMax = options.fileBytesMax;
    this.#filesMax = options.filesMax;
    this.#nextFile();
  }

  #nextFile(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#number += 1;
    this.#fd = openSync(join(this.#folder, `log.${this.#number}`), 'a', 0o600);
    this.#size = 0;
    const oldest = this.#number - this.#filesMax;
    if (oldest > 0) rmSync(join(this.#folder, `log.${oldest}`), { force: true });
  }

  line(stream: string, text: Uint8Array, isWhole: boolean): void {
    const now = performance.timeOrigin + performance.now();
    const second = new Date(now).toISOString().slice(0, 19);
    const fraction = `${Math.floor((now % 1000) * 1e6)}`.padStart(9, '0');
    const record = Buffer.concat([
      Buffer.from(`${second}.${fraction}Z ${stream} ${isWhole ? 'F' : 'P'} `),
      text,
      Buffer.from('\n'),
    ]);
    if (this.#size > 0 && this.#size + record.length > this.#fileBytesMax) this.#nextFile();
    if (this.#fd === undefined) return;
    try {
      writeSync(this.#fd, record);
      this.#size += record.length;
    } catch {
      // A full disk costs lines, and never stops the task.
      ftruncateSync(this.#fd, this.#size);
    }
  }
}

/** Cuts one output of a task into lines. */
export class LineCutter {
  readonly #write: (text: Uint8Array, isWhole: boolean) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(write: (text: Uint8Array, isWhole: boolean) => void) {
    this.#write = write;
  }

  push(chunk: Buffer): void {
    const text = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : chunk;
    let at = 0;
    for (;;) {
      const end = text.indexOf(NEWLINE, at);
      const size = (end < 0 ? text.length : end) - at;
      if (size >= PART_BYTES_MAX) {
        this.#write(text.subarray(at, at + PART_BYTES_MAX), false);
        at += PART_BYTES_MAX;
      } else if (end >= 0) {
        this.#write(text.subarray(at, end), true);
        at = end + 1;
      } else break;
    }
    this.#held = Buffer.from(text.subarray(at));
  }

  finish(): void {
    if (this.#held.length > 0) this.#write(this.#held, false);
    this.#held = Buffer.alloc(0);
  }
}
