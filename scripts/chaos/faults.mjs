// What happens to the managers, one thing after the other.
import { setTimeout as delay } from 'node:timers/promises';
import { ask } from './api.mjs';

const HEAL_MS_MAX = 60_000;

/** In what proportion faults come. */
const FAULTS = [
  ['kill-leader', 55],
  ['kill-follower', 12],
  ['pause-leader', 8],
  ['pause-follower', 5],
  ['cut-leader', 12],
  ['cut-follower', 8],
];

export class Faults {
  #lab;
  #probe;
  #random;
  #say;
  events = [];

  constructor({ lab, probe, random, say }) {
    this.#lab = lab;
    this.#probe = probe;
    this.#random = random;
    this.#say = say;
  }

  /** One fault after the other, each healed before the next. @throws Error if one does not heal. */
  async run(stop, endsAtMs) {
    while (!stop.aborted && performance.now() < endsAtMs) {
      await this.untilHealthy();
      await delay(500 + this.#random() * 1_500);
      const leader = await this.untilHealthy();
      if (performance.now() >= endsAtMs) return;
      const others = this.#lab.nodes.map(({ name }) => name).filter((name) => name !== leader);
      const follower = others[Math.floor(this.#random() * others.length)];
      const kind = this.#choose();
      const node = kind.endsWith('-leader') ? leader : follower;
      await this.#cause(kind, node);
    }
  }

  #choose() {
    const total = FAULTS.reduce((sum, [, weight]) => sum + weight, 0);
    let left = this.#random() * total;
    for (const [kind, weight] of FAULTS) {
      left -= weight;
      if (left < 0) return kind;
    }
    return 'kill-leader';
  }

  async #cause(kind, node) {
    const lastMs = 800 + this.#random() * 2_700;
    const event = { kind, node, atMs: performance.now() };
    this.events.push(event);
    this.#probe.heat();
    const [action] = kind.split('-');
    if (action === 'kill') await this.#lab.signalAgent(node, 'SIGKILL');
    else if (action === 'pause') await this.#lab.signalAgent(node, 'SIGSTOP');
    else {
      await this.#lab.partition([node]);
      // Whatever got through while the wire was cut does not count.
      event.atMs = performance.now();
    }
    await delay(lastMs);
    // A machine that is busy takes longer: the fault lasts until somebody leads.
    for (let i = 0; i < 200 && this.#probe.isHot; i++) await delay(50);
    event.gapMs = this.#probe.gapAfter(event.atMs);
    this.#say(`${kind} ${node}: back after ${event.gapMs?.toFixed(0) ?? 'more than 10000'} ms`);
    if (action === 'kill') await this.#lab.startAgent(node);
    else if (action === 'pause') await this.#lab.signalAgent(node, 'SIGCONT');
    else await this.#lab.heal();
    event.healedMs = performance.now();
  }

  /** Waits until all managers agree on a leader, and reach each other. @returns Its name. */
  async untilHealthy() {
    const deadlineMs = performance.now() + HEAL_MS_MAX;
    for (;;) {
      const nodes = this.#lab.nodes;
      const all = await Promise.all(
        nodes.map(({ socket }) => ask(socket, 'GET', '/shoal/v1/status', { timeoutMs: 2_000 })),
      );
      const rafts = all.map(({ value }) => value?.raft);
      const leaders = rafts.map((raft) => raft?.leader);
      const leads = rafts.findIndex((raft) => raft?.role === 'leader');
      const agreed = leads >= 0 && leaders.every((leader) => leader && leader === leaders[leads]);
      const reached = rafts[leads]?.peers.every(({ connected }) => connected);
      if (agreed && reached) return nodes[leads].name;
      if (performance.now() > deadlineMs)
        throw new Error(`not healthy in ${HEAL_MS_MAX / 1000} s: ${JSON.stringify(rafts)}`);
      await delay(50);
    }
  }
}
