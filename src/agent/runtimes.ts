import { join } from 'node:path';
import type { DescriptorLimits } from '../base/descriptor-limits.js';
import {
  EngineRuntime,
  openHostRuntime,
  type Runtime,
  type RuntimeDescription,
} from '../runtime/index.js';
import type { AgentConfig } from './config.js';
import type { Engine } from './engine.js';
import type { StaticFacts } from './facts.js';
import type { Log } from './log.js';

/** Where an engine finds the secrets of its containers: in memory, and under the same name. */
const ENGINE_FILES = '/run/shoal/files';

/** What runs this node's tasks: commands of the host always, containers where there is an engine. */
export class Runtimes {
  readonly all: readonly Runtime[];
  readonly descriptions: readonly RuntimeDescription[];

  private constructor(all: readonly Runtime[], descriptions: readonly RuntimeDescription[]) {
    this.all = all;
    this.descriptions = descriptions;
  }

  get kinds(): readonly Runtime['kind'][] {
    return this.all.map(({ kind }) => kind);
  }

  /**
   * One that cannot be opened is left out, and the log says why: tasks for it are rejected.
   *
   * @param descriptors What commands of the host get, where that is not what this process has.
   */
  static async open(
    config: AgentConfig,
    facts: StaticFacts,
    engine: Engine | undefined,
    descriptors: DescriptorLimits | undefined,
    log: Log,
  ): Promise<Runtimes> {
    const part = log.child({ part: 'runtime' });
    const all: Runtime[] = [];
    try {
      const dataDir = join(config.dataDir, 'host');
      all.push(await openHostRuntime({ dataDir, descriptors, log: part }));
    } catch (error) {
      log.error(
        { error: (error as Error).message },
        'commands of this host cannot be run as tasks',
      );
    }
    if (engine !== undefined) {
      const { socketPath } = engine;
      const filesDir = join(ENGINE_FILES, facts.id);
      // Docker's own word for it.
      const prefersLocalImages = process.env['DOCKER_SERVICE_PREFER_OFFLINE_IMAGE'] === '1';
      const engineConfig = { socketPath, owner: facts.id, filesDir, prefersLocalImages };
      all.push(new EngineRuntime(engineConfig, part));
    }
    const descriptions: RuntimeDescription[] = [];
    for (const runtime of all) {
      try {
        descriptions.push(await runtime.describe());
      } catch (error) {
        const detail = { runtime: runtime.kind, error: (error as Error).message };
        log.warn(detail, 'a runtime does not say what it can');
      }
    }
    return new Runtimes(all, descriptions);
  }

  /** Tasks go on. */
  async close(): Promise<void> {
    await Promise.allSettled(this.all.map((runtime) => runtime.close()));
  }
}
