import type { RuntimeTask } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';

/** Where the output of a task goes; `undefined`: nowhere. */
export type LogOptions = { readonly fileBytesMax: number; readonly filesMax: number } | undefined;

/** As Docker's `local` driver bounds them, with fewer files: a node may have many tasks. */
const FILE_BYTES_DEFAULT = 20 * 1024 * 1024;
const FILES_DEFAULT = 3;
/** Files of one task. */
const LOG_FILES_MAX = 1000;
/** Bytes of one file. */
const LOG_FILE_BYTES_MAX = 2 ** 40;

/** Options that say how a reader is to show records, or how writing is sped up; nothing to do here. */
const WITHOUT_EFFECT = new Set([
  'compress',
  'mode',
  'max-buffer-size',
  'labels',
  'labels-regex',
  'env',
  'env-regex',
  'tag',
]);

const UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** `10m`, `1.5g`, `512`: as Docker reads sizes. */
function sizeOf(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?$/i.exec(text);
  if (match === null) return undefined;
  return Math.floor(Number(match[1]) * (UNITS[(match[2] ?? '').toLowerCase()] ?? 1));
}

/** @throws RuntimeError RUNTIME_REJECTED for a driver or an option that is not had here. */
export function logOptionsOf(driver: RuntimeTask['logDriver']): LogOptions {
  const name = driver?.name || 'json-file';
  if (name === 'none') return undefined;
  if (name !== 'json-file' && name !== 'local') {
    throw rejected(
      `log driver ${name} is not one of the host runtime: use json-file, local or none`,
    );
  }
  const options = driver?.options ?? {};
  for (const key of Object.keys(options)) {
    if (key !== 'max-size' && key !== 'max-file' && !WITHOUT_EFFECT.has(key)) {
      throw rejected(`unknown log opt '${key}' for ${name} log driver`);
    }
  }
  const { 'max-size': size, 'max-file': files } = options;
  const fileBytesMax = size === undefined || size === '-1' ? FILE_BYTES_DEFAULT : sizeOf(size);
  if (fileBytesMax === undefined || fileBytesMax < 1 || fileBytesMax > LOG_FILE_BYTES_MAX) {
    throw rejected(`invalid value for max-size: ${size}`);
  }
  const filesMax = files === undefined ? FILES_DEFAULT : Number(files);
  if (!Number.isInteger(filesMax) || filesMax < 1 || filesMax > LOG_FILES_MAX) {
    throw rejected(`invalid value for max-file: ${files}`);
  }
  return { fileBytesMax, filesMax };
}

function rejected(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_REJECTED' }, message);
}
