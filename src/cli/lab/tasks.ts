import { existsSync } from 'node:fs';
import { join } from 'node:path';

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** Tasks outlive their agent, but not their lab: ends those of a node whose agent has ended. */
export async function endTasks(dataDir: string): Promise<void> {
  const folder = join(dataDir, 'host');
  if (!existsSync(folder)) return;
  // Loaded only here: the other commands start faster.
  const { openHostRuntime } = await import('../../runtime/index.js');
  const runtime = await openHostRuntime({ dataDir: folder, log: SILENT });
  try {
    const tasks = await runtime.list();
    await Promise.all(tasks.map(({ id }) => runtime.remove(id)));
  } finally {
    await runtime.close();
  }
}
