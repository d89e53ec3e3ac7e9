import { mkdtempSync, rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import { EngineRuntime } from '../../src/runtime/engine/index.js';
import { Dockerd, TEST_IMAGE, whyNoDockerd } from '../support/dockerd.js';
import { type RuntimeFeature, runtimeConformance } from './runtime.js';

const reason = whyNoDockerd();
if (reason !== undefined) t.plan(0, reason);
else {
  const engine = await Dockerd.raise();
  // In memory, and seen by the engine, whose mount namespace is another.
  const filesDir = mkdtempSync('/dev/shm/shoal-files-');
  t.teardown(async () => {
    await engine.remove();
    rmSync(filesDir, { recursive: true, force: true });
  });
  const features: readonly RuntimeFeature[] = ['netns', 'health', 'limits', 'mounts', 'tty'];
  runtimeConformance(t, {
    features: new Set(features),
    stoppedExitCode: 137,
    atOnce: 8,
    command: (...words) => ({
      image: TEST_IMAGE,
      command: words.slice(0, 1),
      args: words.slice(1),
    }),
    async open(t: Test) {
      const log = { info: () => undefined, warn: () => undefined };
      const config = { socketPath: engine.socket, owner: 'suite', filesDir };
      const runtime = new EngineRuntime({ ...config, prefersLocalImages: true }, log);
      t.teardown(async () => {
        for (const { id } of await runtime.list()) await runtime.remove(id);
        await runtime.close();
      });
      return runtime;
    },
  });
}
