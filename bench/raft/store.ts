import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ControlAddress } from '../../src/control/index.js';
import { delay } from '../support/run.js';
import type { Load } from './cluster.js';
import { freePort, Worker } from './processes.js';
import type { StoreQuestion } from './store-member.js';

const WARM_SECONDS = 0.5;

/** By number of clients. */
export type StoreFigures = Record<string, { readonly leader: Load; readonly follower: Load }>;

/**
 * A swarm of three managers, each a process; clients are inside one, where Docker's API is served, and
 * change the labels of nodes: the whole way through the store, which has no counterpart in etcd.
 */
export class StoreSwarm {
  readonly #dir: string;
  readonly #managers: Worker<StoreQuestion>[] = [];

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async open(dir: string, execArgv: readonly string[] = []): Promise<StoreSwarm> {
    mkdirSync(dir, { recursive: true });
    const swarm = new StoreSwarm(dir);
    try {
      let token: string | undefined;
      let remote: ControlAddress | undefined;
      for (let i = 1; i <= 3; i++) {
        const manager = new Worker<StoreQuestion>('store-member', execArgv);
        swarm.#managers.push(manager);
        const address = `127.0.0.${20 + i}`;
        const at = { address, port: await freePort(address) };
        const folder = join(dir, `m${i}`);
        if (token === undefined || remote === undefined) {
          token = await manager.ask<string>({ kind: 'create', dir: folder, at });
          remote = at;
        } else await manager.ask({ kind: 'join', dir: folder, at, token, remote });
      }
      return swarm;
    } catch (error) {
      await swarm.close();
      throw error;
    }
  }

  /** The clients of a manager that does not lead forward to the one that does, and see their own change. */
  async write(where: 'leader' | 'follower', clients: number, seconds: number): Promise<Load> {
    for (const manager of this.#managers)
      if ((await manager.ask<boolean>({ kind: 'leads' })) === (where === 'leader'))
        return manager.ask<Load>({ kind: 'load', clients, seconds, warmSeconds: WARM_SECONDS });
    throw new Error(`no manager is ${where}`);
  }

  /** Members end by themselves, so that what Node writes at its end is written. */
  async closeGently(): Promise<void> {
    await Promise.all(this.#managers.map((manager) => manager.ask({ kind: 'close' })));
    await delay(2_000);
  }

  async close(): Promise<void> {
    for (const manager of this.#managers) await manager.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
