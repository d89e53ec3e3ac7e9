import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterId, NodeId } from '../../src/base/swarm-model.js';
import {
  createAuthority,
  initialCaState,
  issueCertificate,
  makeIdentity,
  rawPublicKeyOf,
} from '../../src/control/identity/index.js';
import { newId } from '../../src/control/io/ids.js';
import { delay } from '../support/run.js';
import {
  type Cluster,
  fillMegabytes,
  GAP_CLIENTS,
  type Gap,
  type GapWatch,
  type Install,
  type Load,
} from './cluster.js';
import type { ClientQuestion } from './kv-client.js';
import type { MemberAnswer, MemberPlace, MemberQuestion } from './kv-member.js';
import { cpuMsOf, freePort, rssBytesOf, Worker } from './processes.js';

const READY_MS_MAX = 30_000;
const WARM_SECONDS = 0.5;
const YEAR_MS = 365 * 86_400_000;

type Issue = () => Promise<Pick<MemberPlace, 'nodeId' | 'keyPem' | 'certPem' | 'caPem'>>;

interface Seat {
  readonly place: MemberPlace;
  worker: Worker<MemberQuestion>;
}

/** Three managers' raft with encryption at rest, spoken to by mutual TLS, with keys and values for a store. */
export class ShoalCluster implements Cluster {
  readonly name = 'shoal';
  readonly #dir: string;
  readonly #issue: Issue;
  readonly #execArgv: readonly string[];
  readonly #seats: Seat[] = [];
  #client: Worker<ClientQuestion> | undefined;

  private constructor(dir: string, issue: Issue, execArgv: readonly string[]) {
    this.#dir = dir;
    this.#issue = issue;
    this.#execArgv = execArgv;
  }

  /** @param execArgv For Node, in the members' and clients' processes. */
  static async open(dir: string, execArgv: readonly string[] = []): Promise<ShoalCluster> {
    mkdirSync(dir, { recursive: true });
    const cluster = new ShoalCluster(dir, await newAuthority(), execArgv);
    try {
      const places: MemberPlace[] = [];
      for (const id of [1, 2, 3]) places.push(await cluster.#newPlace(id));
      for (const place of places) cluster.#seats.push({ place, worker: cluster.#member() });
      await Promise.all(
        cluster.#seats.map(({ place, worker }) => worker.ask(cluster.#opening(place, places))),
      );
      await cluster.#ready();
      await cluster.#openClient();
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  cpuMs(): number {
    return this.#seats.reduce((sum, { worker }) => sum + cpuMsOf(worker.child.pid), 0);
  }

  rssBytes(): number[] {
    return this.#seats.map(({ worker }) => rssBytesOf(worker.child.pid));
  }

  async write(clients: number, seconds: number): Promise<Load> {
    const leader = await this.#leaderAt();
    const question = { kind: 'load', leader, clients, seconds, warmSeconds: WARM_SECONDS } as const;
    return this.#ask<Load>(question);
  }

  async watchGaps(): Promise<GapWatch> {
    await this.#ask({ kind: 'gap_start', clients: GAP_CLIENTS });
    return {
      report: () => this.#ask<Gap>({ kind: 'gap_report' }),
      stop: () => this.#ask<void>({ kind: 'gap_stop' }),
    };
  }

  async killLeader(): Promise<{ restart(): Promise<void> }> {
    const seat = this.#seats[await this.#leaderAt()] as Seat;
    await seat.worker.kill();
    return {
      restart: async () => {
        seat.worker = this.#member();
        const founders = this.#seats.map(({ place }) => place);
        await seat.worker.ask(this.#opening(seat.place, founders));
        await this.#ready();
      },
    };
  }

  async installSnapshot(): Promise<Install> {
    const leader = await this.#leaderAt();
    await this.#ask({ kind: 'fill', leader });
    await delay(2_000);
    const leading = (this.#seats[leader] as Seat).worker;
    const goal = await leading.ask<MemberAnswer>({ kind: 'status' });
    const follower = this.#seats.find((_, i) => i !== leader) as Seat;
    await follower.worker.kill();
    const place = await this.#newPlace(4);
    const startMs = performance.now();
    const fresh: Seat = { place, worker: this.#member() };
    this.#seats.splice(this.#seats.indexOf(follower), 1, fresh);
    await fresh.worker.ask(this.#opening(place, []));
    const added = leading.ask({ kind: 'replace', remove: follower.place.id, add: place });
    added.catch(() => {});
    for (;;) {
      const { appliedIndex } = await fresh.worker.ask<MemberAnswer>({ kind: 'status' });
      if (appliedIndex >= goal.appliedIndex) break;
      await delay(10);
    }
    const seconds = (performance.now() - startMs) / 1_000;
    await added;
    return { seconds, megabytesPerSecond: fillMegabytes / seconds };
  }

  /** Members end by themselves, so that what Node writes at its end is written. */
  async closeGently(): Promise<void> {
    await Promise.all(this.#seats.map(({ worker }) => worker.ask({ kind: 'close' })));
    await delay(2_000);
  }

  async close(): Promise<void> {
    for (const { worker } of this.#seats) await worker.kill();
    await this.#client?.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #member(): Worker<MemberQuestion> {
    return new Worker('kv-member', this.#execArgv);
  }

  #opening(self: MemberPlace, founders: readonly MemberPlace[]): MemberQuestion {
    return { kind: 'open', dir: join(this.#dir, `m${self.id}`), self, founders };
  }

  async #newPlace(id: number): Promise<MemberPlace> {
    const address = `127.0.0.${10 + id}`;
    return { id, address, port: await freePort(address), ...(await this.#issue()) };
  }

  async #openClient(): Promise<void> {
    this.#client = new Worker('kv-client', this.#execArgv);
    const self = { id: 0, address: '', port: 0, ...(await this.#issue()) };
    await this.#ask({ kind: 'open', self, members: this.#seats.map(({ place }) => place) });
  }

  #ask<Answer>(question: ClientQuestion): Promise<Answer> {
    if (this.#client === undefined) throw new Error('the client is not open');
    return this.#client.ask<Answer>(question);
  }

  #statuses(): Promise<MemberAnswer[]> {
    return Promise.all(
      this.#seats.map(({ worker }) => worker.ask<MemberAnswer>({ kind: 'status' })),
    );
  }

  async #ready(): Promise<void> {
    const untilMs = performance.now() + READY_MS_MAX;
    while (performance.now() < untilMs) {
      const statuses = await this.#statuses();
      const led = statuses.every(({ leader }) => leader !== 0 && leader === statuses[0]?.leader);
      const commit = Math.max(...statuses.map(({ commitIndex }) => commitIndex));
      const caughtUp = statuses.every(({ appliedIndex }) => appliedIndex >= commit - 1_000);
      if (led && caughtUp && statuses.some(({ leads }) => leads)) return;
      await delay(50);
    }
    throw new Error(`the members are not ready within ${READY_MS_MAX} ms`);
  }

  async #leaderAt(): Promise<number> {
    const untilMs = performance.now() + READY_MS_MAX;
    while (performance.now() < untilMs) {
      const at = (await this.#statuses()).findIndex(({ leads }) => leads);
      if (at >= 0) return at;
      await delay(50);
    }
    throw new Error('nobody leads');
  }
}

/** Issues certificates of managers of one cluster. */
async function newAuthority(): Promise<Issue> {
  const ca = initialCaState(await createAuthority(Date.now()));
  const clusterId = newId<ClusterId>();
  return async () => {
    const seed = randomBytes(32);
    const { certPem, caPem } = await issueCertificate(ca, {
      nodeId: newId<NodeId>(),
      clusterId,
      role: 'manager',
      publicKey: rawPublicKeyOf(seed),
      atMs: Date.now(),
      lifeMs: YEAR_MS,
    });
    const identity = makeIdentity(seed, certPem, caPem);
    if (identity === undefined) throw new Error('a certificate that was just issued is not valid');
    return { nodeId: identity.nodeId, keyPem: identity.keyPem, certPem, caPem };
  };
}
