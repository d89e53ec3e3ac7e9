import type { Logger } from '../../io/log.js';
import { askUpstream } from '../../io/upstream.js';
import { FORMER_LABEL, type Placed, rescheduleOf, successorLabel } from '../core/reschedule.js';
import { type Json, labelsOf, objectOf, textOf } from '../wire/json.js';
import type { ClassicCluster, SeenNode } from './cluster.js';
import type { ClassicPlacer } from './placer.js';

/** What is on the nodes is looked at so often, to know it when one of them fails; as in the classic Swarm. */
const LOOK_MS = 30_000;
/** The managers' word of a node is looked at so often. */
const ALERT_MS = 1_000;
/** Whoever is not first lets the endpoint of the leading manager, if it has one, act. */
const DEFERENCE_MS = 15_000;
/** And looks on for so long. */
const ALERT_AFTER_MS = 5_000;

/** Keeps the promise of `reschedule:on-node-failure`, while this node's endpoint is open. */
export class Rescheduler {
  readonly #cluster: ClassicCluster;
  readonly #placer: ClassicPlacer;
  readonly #isFirst: () => boolean;
  readonly #log: Logger;
  readonly #closing: AbortSignal;
  readonly #timer: NodeJS.Timeout;
  #lastLookMs = Number.NEGATIVE_INFINITY;
  /** Since when a node is known to have failed. */
  readonly #failedSinceMs = new Map<string, number>();
  #alertUntilMs = Number.NEGATIVE_INFINITY;
  #isBusy = false;
  /** Of containers that could not be moved: it is told once. */
  readonly #told = new Set<string>();

  constructor(
    cluster: ClassicCluster,
    placer: ClassicPlacer,
    isFirst: () => boolean,
    log: Logger,
    closing: AbortSignal,
  ) {
    this.#cluster = cluster;
    this.#placer = placer;
    this.#isFirst = isFirst;
    this.#log = log;
    this.#closing = closing;
    this.#timer = setInterval(() => void this.#tick(), ALERT_MS);
    this.#timer.unref();
    closing.addEventListener('abort', () => clearInterval(this.#timer), { once: true });
  }

  /** A container with a policy was made, or changed: it is to be known before its node fails. */
  lookSoon(): void {
    this.#lastLookMs = Number.NEGATIVE_INFINITY;
  }

  /** After something was done to a container. */
  noteChange(id: string): void {
    if (this.#cluster.hasPolicy(id)) this.lookSoon();
  }

  async #tick(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      const nowMs = performance.now();
      const isAlert = this.#followFailures(nowMs);
      if (!isAlert && nowMs - this.#lastLookMs < LOOK_MS) return;
      this.#lastLookMs = nowMs;
      await this.#act(await this.#cluster.look(), nowMs);
    } catch (error) {
      // No manager, or no quorum: it is tried again.
      this.#log.debug({ error: (error as Error).message }, 'nothing was rescheduled');
    } finally {
      this.#isBusy = false;
    }
  }

  /** @returns Whether some node has failed or come back a short time ago, or waits for its turn. */
  #followFailures(nowMs: number): boolean {
    const failed = new Set(
      this.#cluster.members().flatMap(({ id, trouble }) => (trouble === undefined ? [] : [id])),
    );
    const isNew = [...failed].some((id) => !this.#failedSinceMs.has(id));
    const isBack = [...this.#failedSinceMs.keys()].some((id) => !failed.has(id));
    if (isNew || isBack) this.#alertUntilMs = nowMs + DEFERENCE_MS + ALERT_AFTER_MS;
    for (const id of failed) this.#failedSinceMs.set(id, this.#failedSinceMs.get(id) ?? nowMs);
    for (const id of this.#failedSinceMs.keys())
      if (!failed.has(id)) this.#failedSinceMs.delete(id);
    return nowMs < this.#alertUntilMs;
  }

  async #act(nodes: readonly SeenNode[], nowMs: number): Promise<void> {
    const waitMs = this.#isFirst() ? 0 : DEFERENCE_MS;
    const { move, remove } = rescheduleOf(
      nodes,
      ({ id, hasFailed }) => hasFailed && nowMs - (this.#failedSinceMs.get(id) ?? nowMs) >= waitMs,
    );
    for (const one of move) await this.#move(one);
    for (const { node, container } of remove) {
      await askUpstream(this.#cluster.upstream(node.id), {
        method: 'DELETE',
        path: `/containers/${container.id}?force=1`,
      });
      this.#log.info({ node: node.name, container: container.id }, 'Removed rescheduled container');
    }
  }

  async #move({ node, container }: Placed<SeenNode>): Promise<void> {
    const { id } = container;
    const body = node.bodies.get(id);
    if (body === undefined) return;
    try {
      const made = await this.#placer.create(
        withLabel(body, FORMER_LABEL, successorLabel(container)),
        new URLSearchParams(container.names[0] === undefined ? {} : { name: container.names[0] }),
        {},
        this.#closing,
        id,
      );
      const answer = objectOf(made.json);
      const successor = textOf(answer['Id']);
      if (successor === '') throw new Error(textOf(answer['message']));
      const to = this.#cluster.members().find((member) => member.id === made.nodeId)?.name;
      this.#log.info({}, `Rescheduled container ${id} from ${node.name} to ${to} as ${successor}`);
      if (container.state !== 'running') return;
      const path = `/containers/${successor}/start`;
      const started = await askUpstream(this.#cluster.upstream(made.nodeId), {
        method: 'POST',
        path,
      });
      if (started.status >= 400) throw new Error(textOf(objectOf(started.json)['message']));
    } catch (error) {
      if (this.#told.has(id)) return;
      this.#told.add(id);
      this.#log.error({ error: (error as Error).message }, `Failed to reschedule container ${id}`);
    }
  }
}

function withLabel(body: Json, name: string, value: string): Json {
  return { ...body, Labels: { ...labelsOf(body['Labels']), [name]: value } };
}
