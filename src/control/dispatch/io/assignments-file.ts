import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import { type Assignments, applyChange, fullChange } from '../core/assignments.js';
import { parseAssignmentsChange } from '../wire/messages.js';

export const ASSIGNMENTS_NAME = 'assignments.json';

/** Keeps the latest assignments on disk, for a start without a manager. */
export class AssignmentsFile {
  readonly #path: string;
  readonly #dataDir: string;
  readonly #log: Logger;
  #next: Assignments | undefined;
  #writing: Promise<void> | undefined;

  constructor(dataDir: string, log: Logger) {
    this.#path = join(dataDir, ASSIGNMENTS_NAME);
    this.#dataDir = dataDir;
    this.#log = log;
  }

  /** `undefined`: there are none, or none that can be read, which a session will mend. */
  async read(): Promise<Assignments | undefined> {
    const bytes = await readFileIfAny(this.#path);
    if (bytes === undefined) return undefined;
    try {
      const change = parseAssignmentsChange(JSON.parse(bytes.toString()));
      if (change === undefined) throw new Error('not assignments');
      return applyChange(undefined, change);
    } catch (error) {
      this.#log.warn({ file: this.#path, err: error }, 'assignments on disk are of no use');
      return undefined;
    }
  }

  /** While one write runs, only the latest of the others is kept. */
  write(assignments: Assignments): void {
    this.#next = assignments;
    this.#writing ??= this.#run();
  }

  async flushed(): Promise<void> {
    await this.#writing;
  }

  async #run(): Promise<void> {
    while (this.#next !== undefined) {
      const text = JSON.stringify(fullChange(this.#next));
      this.#next = undefined;
      try {
        await makePrivateFolder(this.#dataDir);
        await writeFileAtomic(this.#path, text);
      } catch (error) {
        this.#log.warn({ file: this.#path, err: error }, 'assignments were not kept on disk');
      }
    }
    this.#writing = undefined;
  }
}
