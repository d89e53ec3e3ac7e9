import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import { type ControlAddress, controlAddressSchema } from '../../wire/model.js';
import { type Assignments, applyChange, fullChange } from '../core/assignments.js';
import { parseAssignmentsChange } from '../wire/messages.js';

export const ASSIGNMENTS_NAME = 'assignments.json';

/** What is kept: the assignments, and the manager that served the node last. */
export interface KeptAssignments {
  readonly assignments: Assignments;
  readonly manager: ControlAddress | undefined;
}

/** Nothing that is secret is left on the disk: a session brings it again. */
function withoutSecrets(assignments: Assignments): Assignments {
  const tasks = [...assignments.tasks].map(
    ([id, { registryAuth: _, ...task }]) => [id, task] as const,
  );
  return { ...assignments, secrets: new Map(), tasks: new Map(tasks) };
}

/** Keeps the latest assignments on disk, for a start without a manager. */
export class AssignmentsFile {
  readonly #path: string;
  readonly #dataDir: string;
  readonly #log: Logger;
  #next: KeptAssignments | undefined;
  #writing: Promise<void> | undefined;

  constructor(dataDir: string, log: Logger) {
    this.#path = join(dataDir, ASSIGNMENTS_NAME);
    this.#dataDir = dataDir;
    this.#log = log;
  }

  /** `undefined`: there are none, or none that can be read, which a session will mend. */
  async read(): Promise<KeptAssignments | undefined> {
    const bytes = await readFileIfAny(this.#path);
    if (bytes === undefined) return undefined;
    try {
      const value = JSON.parse(bytes.toString()) as { readonly manager?: unknown };
      const change = parseAssignmentsChange(value);
      const assignments = change && applyChange(undefined, change);
      if (assignments === undefined) throw new Error('not assignments');
      return { assignments, manager: controlAddressSchema.safeParse(value.manager).data };
    } catch (error) {
      this.#log.warn({ file: this.#path, err: error }, 'assignments on disk are of no use');
      return undefined;
    }
  }

  /** While one write runs, only the latest of the others is kept. */
  write(kept: KeptAssignments): void {
    this.#next = kept;
    this.#writing ??= this.#run();
  }

  async flushed(): Promise<void> {
    await this.#writing;
  }

  async #run(): Promise<void> {
    while (this.#next !== undefined) {
      const { assignments, manager } = this.#next;
      const text = JSON.stringify({ ...fullChange(withoutSecrets(assignments)), manager });
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
