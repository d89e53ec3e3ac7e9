import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import type { FileTarget } from '../../../base/service-model.js';
import type { RuntimeTask } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import type { TaskFile } from '../wire/container-json.js';

/** linux/magic.h */
const TMPFS_MAGIC = 0x0102_1994;
const SECRETS_DIR = '/run/secrets';

/**
 * Secrets and configs as files that the engine binds into containers. They are in memory only: where
 * the folder is not on a tmpfs already, one is mounted there.
 */
export class TaskFiles {
  readonly #root: string;
  #ready: Promise<void> | undefined;

  constructor(root: string) {
    this.#root = root;
  }

  /** Writes the files of a task anew. @throws RuntimeError `RUNTIME_REJECTED` */
  async write(task: RuntimeTask): Promise<readonly TaskFile[]> {
    const wanted = wantedFiles(task);
    if (wanted.length === 0) return [];
    this.#ready ??= prepareRoot(this.#root);
    await this.#ready;
    const folder = join(this.#root, task.id);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { mode: 0o711 });
    const files: TaskFile[] = [];
    for (const [place, { content, file, base }] of wanted.entries()) {
      const source = join(folder, String(place));
      await writeFile(source, content, { mode: 0o600 });
      await chown(source, idOf(file.uid), idOf(file.gid));
      await chmod(source, file.mode & 0o7777);
      files.push({ source, target: isAbsolute(file.name) ? file.name : join(base, file.name) });
    }
    return files;
  }

  async remove(id: string): Promise<void> {
    await rm(join(this.#root, id), { recursive: true, force: true });
  }
}

interface WantedFile {
  readonly content: Uint8Array;
  readonly file: FileTarget;
  /** What a name that is not absolute is below of. */
  readonly base: string;
}

function wantedFiles({ container, secrets, configs }: RuntimeTask): WantedFile[] {
  const files: WantedFile[] = [];
  for (const { secretId, secretName, file } of container.secrets ?? []) {
    const content = secrets.get(secretId);
    if (content === undefined) throw missing('secret', secretName);
    if (file !== undefined) files.push({ content, file, base: SECRETS_DIR });
  }
  for (const { configId, configName, file } of container.configs ?? []) {
    const content = configs.get(configId);
    if (content === undefined) throw missing('config', configName);
    if (file !== undefined) files.push({ content, file, base: '/' });
  }
  return files;
}

function missing(kind: string, name: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_FAILED' }, `${kind} ${name} did not come with the task`);
}

const idOf = (text: string): number => {
  const id = Number.parseInt(text, 10);
  return Number.isInteger(id) && id >= 0 ? id : 0;
};

async function prepareRoot(root: string): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o711 });
  const { type } = await statfs(root);
  if (type === TMPFS_MAGIC) return;
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'mode=711', 'shoal', root]);
}
