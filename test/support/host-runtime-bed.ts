import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { openHostRuntime } from '../../src/runtime/index.js';
import type { RuntimeBed, RuntimeFeature } from '../conformance/runtime.js';

const descriptors = { soft: 700, hard: 900 };
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

/** The host runtime for the suite of runtimes, with one of its two supervisors. */
export function hostRuntimeBed(
  shim: 'native' | 'portable',
  features: readonly RuntimeFeature[],
): RuntimeBed {
  // Of one test: runtimes that are opened one after the other find each other's tasks.
  const folders = new Map<Test, string>();
  const dataDirOf = (t: Test): string => {
    const known = folders.get(t);
    if (known !== undefined) return known;
    const folder = mkdtempSync(join(tmpdir(), 'shl-runtime-'));
    folders.set(t, folder);
    t.teardown(async () => {
      const last = await openHostRuntime({ dataDir: folder, log: quiet, shim });
      for (const { id } of await last.list()) await last.remove(id);
      await last.close();
      rmSync(folder, { recursive: true });
    });
    return folder;
  };
  return {
    open: async (t) => {
      const dataDir = dataDirOf(t);
      const runtime = await openHostRuntime({ dataDir, log: quiet, shim, descriptors });
      t.teardown(() => runtime.close());
      return runtime;
    },
    command: (...words) => ({ image: 'host', args: words }),
    descriptors,
    features: new Set(features),
  };
}
