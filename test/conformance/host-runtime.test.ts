import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openHostRuntime } from '../../src/runtime/index.js';
import { cannotMakeNamespaces } from '../dataplane/sys/netns-fixture.js';
import { runtimeConformance } from './runtime.js';

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

/** A folder of the test's own: runtimes that are opened one after the other find each other's tasks. */
function dataDirOf(t: Test, folders: Map<Test, string>): string {
  const known = folders.get(t);
  if (known !== undefined) return known;
  const folder = mkdtempSync(join(tmpdir(), 'shl-runtime-'));
  folders.set(t, folder);
  t.teardown(async () => {
    const last = await openHostRuntime({ dataDir: folder, log: quiet });
    for (const { id } of await last.list()) await last.remove(id);
    await last.close();
    rmSync(folder, { recursive: true });
  });
  return folder;
}

if (cannotMakeNamespaces) t.plan(0, cannotMakeNamespaces);
else {
  const folders = new Map<Test, string>();
  runtimeConformance(t, {
    open: async (t) => {
      const dataDir = dataDirOf(t, folders);
      const runtime = await openHostRuntime({ dataDir, log: quiet });
      t.teardown(() => runtime.close());
      return runtime;
    },
    command: (...words) => ({ image: 'host', args: words }),
    features: new Set(['netns', 'health', 'limits', 'mounts', 'tty', 'exec']),
  });
}
