import {
  closeSync,
  constants,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { TaskRecord } from '../core/task-record.js';
import type { ProcessId } from './shim.js';

/** Runs of a command count from 1. */
export interface Start {
  readonly run: number;
  readonly first: ProcessId;
  readonly atMs: number;
}

/** How a run ended. */
export interface Exit {
  readonly run: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly error?: string;
}

const RECORD_FILE = 'task.json';
const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;

/** The folder in which a task's supervisor and its agent meet; `native/supervisor.cc` lists the files. */
export class TaskFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  #read(name: string): string | undefined {
    try {
      return readFileSync(this.file(name), 'utf8');
    } catch {
      return undefined;
    }
  }

  /** `undefined` where the preparation never got that far, or the machine went down in it. */
  record(): TaskRecord | undefined {
    return this.readJson(RECORD_FILE);
  }

  writeRecord(record: TaskRecord): void {
    this.writeJson(RECORD_FILE, record);
  }

  readJson<T>(name: string): T | undefined {
    try {
      return JSON.parse(this.#read(name) ?? '') as T;
    } catch {
      return undefined;
    }
  }

  /** As a whole, against a crash of the agent; when the machine goes down its tasks do too. */
  writeJson(name: string, value: object): void {
    const partial = this.file(`${name}.partial`);
    writeFileSync(partial, JSON.stringify(value), { mode: 0o600 });
    renameSync(partial, this.file(name));
  }

  supervisor(): ProcessId | undefined {
    const match = /^(\d+) (\d+)\n/.exec(this.#read('prepared') ?? '');
    return match === null ? undefined : { pid: Number(match[1]), startTime: match[2] ?? '' };
  }

  start(): Start | undefined {
    const match = /^(\d+) (\d+) (\d+) (\d+)\n/.exec(this.#read('started') ?? '');
    if (match === null) return undefined;
    const [, run, pid, startTime = '', atNs = ''] = match;
    return {
      run: Number(run),
      first: { pid: Number(pid), startTime },
      atMs: Number(BigInt(atNs) / 1_000_000n),
    };
  }

  exit(): Exit | undefined {
    const match = /^(\d+) (\d+) (\d+) \d+\n(.*)\n/.exec(this.#read('exited') ?? '');
    if (match === null) return undefined;
    const [, run, code, kills, error = ''] = match;
    return {
      run: Number(run),
      exitCode: Number(code),
      oomKilled: Number(kills) > 0,
      ...(error === '' ? {} : { error }),
    };
  }

  /** @returns Whether there is a supervisor to hear it. */
  order(words: string): boolean {
    try {
      const fd = openSync(this.file('ctl'), O_WRONLY | O_NONBLOCK);
      try {
        writeSync(fd, `${words}\n`);
      } finally {
        closeSync(fd);
      }
      return true;
    } catch {
      // No such pipe, or nobody at its other end.
      return false;
    }
  }

  /**
   * Watches the supervisor: `onWord` when it has done something, `onGone` once when it has ended, however.
   *
   * @returns What ends the watch.
   */
  watch(onWord: () => void, onGone: () => void): () => void {
    const fd = this.#openLife();
    if (fd === undefined) {
      const timer = setImmediate(onGone);
      return () => clearImmediate(timer);
    }
    const socket = new Socket({ fd, readable: true, writable: false });
    let isOver = false;
    socket.on('data', onWord);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (!isOver) onGone();
    });
    return () => {
      isOver = true;
      socket.destroy();
    };
  }

  /** `undefined`: its writing end is closed, or it never was. */
  #openLife(): number | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(this.file('life'), O_RDONLY | O_NONBLOCK);
      // Zero bytes are the end; bytes, which only say "look", are taken; else EAGAIN is thrown.
      if (readSync(fd, Buffer.alloc(4096)) > 0) return fd;
      closeSync(fd);
      return undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return fd;
      if (fd !== undefined) closeSync(fd);
      return undefined;
    }
  }
}
