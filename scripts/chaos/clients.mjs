// Clients that ask all managers, each one operation at a time.
import { setTimeout as delay } from 'node:timers/promises';
import { ask, outcomeOf } from './api.mjs';

const base64 = (text) => Buffer.from(text).toString('base64');
const PROBE_TIMEOUT_MS = 150;

/** Objects that are made, looked at and taken away again, by way of any manager. */
export async function objectClient({ id, managers, history, random, stop }) {
  const mine = [];
  for (let turn = 0; !stop.aborted; turn++) {
    const dice = random();
    const old = mine.length > 0 ? mine[Math.floor(random() * mine.length)] : undefined;
    if (old === undefined || dice < 0.4) {
      const name = `c${id}-${turn}`;
      if (await create(name, { managers, history, random })) mine.push(name);
    } else if (dice < 0.8) await inspect(old, { managers, history, random });
    else if (await remove(old, { managers, history, random })) mine.splice(mine.indexOf(old), 1);
    await delay(5 + random() * 40);
  }
}

const pick = (managers, random) => managers[Math.floor(random() * managers.length)];
/** Some give up early, and leave an outcome unknown. */
const patienceMs = (random) => (random() < 0.15 ? 300 : 8_000);

async function create(name, { managers, history, random }) {
  const data = base64(name);
  for (let attempt = 0; attempt < 2; attempt++) {
    const callMs = performance.now();
    const answer = await ask(pick(managers, random), 'POST', '/configs/create', {
      body: { Name: name, Labels: {}, Data: data },
      timeoutMs: patienceMs(random),
    });
    const outcome = outcomeOf(answer);
    history.count(outcome);
    const input = { kind: 'create', data };
    if (outcome === 'done' || outcome === 'exists') {
      history.add('object', name, input, callMs, 'done', outcome);
      return true;
    }
    if (outcome === 'unknown') history.add('object', name, input, callMs, 'unknown');
    else {
      history.refuse(name, JSON.stringify(answer.value ?? answer.why));
      return false;
    }
    // Once more, as a careful client would: it must not be made twice.
    if (random() < 0.5) return true;
  }
  return true;
}

async function inspect(name, { managers, history, random }) {
  const callMs = performance.now();
  const answer = await ask(pick(managers, random), 'GET', `/configs/${name}`, {
    timeoutMs: patienceMs(random),
  });
  if (answer.kind !== 'answer' || (answer.status !== 200 && answer.status !== 404)) return;
  if (answer.stale) return history.count('stale');
  history.count('done');
  const output = answer.status === 404 ? '-' : answer.value.Spec.Data;
  history.add('object', name, { kind: 'read' }, callMs, 'done', output);
}

async function remove(name, { managers, history, random }) {
  const callMs = performance.now();
  const answer = await ask(pick(managers, random), 'DELETE', `/configs/${name}`, {
    timeoutMs: patienceMs(random),
  });
  const outcome = outcomeOf(answer);
  history.count(outcome);
  if (outcome === 'unknown') history.add('object', name, { kind: 'remove' }, callMs, 'unknown');
  else if (outcome === 'done' || outcome === 'missing')
    history.add('object', name, { kind: 'remove' }, callMs, 'done', outcome);
  return outcome === 'done';
}

/** A label of a node as a register: read with its version, written if that is still the version. */
export async function registerClient({ id, nodeIds, managers, history, random, stop }) {
  for (let turn = 0; !stop.aborted; turn++) {
    const nodeId = nodeIds[Math.floor(random() * nodeIds.length)];
    const callMs = performance.now();
    const answer = await ask(pick(managers, random), 'GET', `/nodes/${nodeId}`, {
      timeoutMs: patienceMs(random),
    });
    if (answer.kind === 'answer' && answer.status === 200 && !answer.stale) {
      const { Spec, Version } = answer.value;
      const from = Spec.Labels?.register ?? '-';
      history.add('register', nodeId, { kind: 'read' }, callMs, 'done', from);
      history.count('done');
      if (random() < 0.6)
        await swap({ nodeId, from, to: `${id}.${turn}`, Spec, Version, managers, history, random });
    } else if (answer.stale) history.count('stale');
    await delay(5 + random() * 60);
  }
}

async function swap({ nodeId, from, to, Spec, Version, managers, history, random }) {
  const callMs = performance.now();
  const answer = await ask(
    pick(managers, random),
    'POST',
    `/nodes/${nodeId}/update?version=${Version.Index}`,
    { body: { ...Spec, Labels: { register: to } }, timeoutMs: patienceMs(random) },
  );
  const outcome = outcomeOf(answer);
  history.count(outcome);
  if (outcome === 'done' || outcome === 'unknown')
    history.add('register', nodeId, { kind: 'swap', from, to }, callMs, outcome, 'done');
}

/**
 * A writer that wants to know when there is a leader again: 150 ms for each member in turn. Often
 * while there is a fault, seldom otherwise.
 */
export class Probe {
  #managers;
  #history;
  #hotUntil = 0;
  #made = [];
  successes = [];

  constructor({ managers, history }) {
    this.#managers = managers;
    this.#history = history;
  }

  heat() {
    this.#hotUntil = this.successes.length + 3;
  }

  get isHot() {
    return this.successes.length < this.#hotUntil;
  }

  async run(stop) {
    for (let turn = 0; !stop.aborted; turn++) {
      const socket = this.#managers[turn % this.#managers.length];
      await this.#try(`p-${turn}`, socket);
      const calmUntilMs = performance.now() + 250;
      if (this.isHot) await delay(2);
      else {
        await this.#sweep();
        while (!this.isHot && !stop.aborted && performance.now() < calmUntilMs) await delay(5);
      }
    }
  }

  async #try(name, socket) {
    const data = base64(name);
    const startMs = performance.now();
    const answer = await ask(socket, 'POST', '/configs/create', {
      body: { Name: name, Labels: {}, Data: data },
      timeoutMs: PROBE_TIMEOUT_MS,
    });
    const outcome = outcomeOf(answer);
    const input = { kind: 'create', data };
    if (outcome === 'done' || outcome === 'exists') {
      this.#history.add('object', name, input, startMs, 'done', outcome);
      this.successes.push({ startMs, endMs: performance.now() });
      this.#made.push(name);
    } else if (outcome === 'unknown') this.#history.add('object', name, input, startMs, 'unknown');
    else this.#history.refuse(name, JSON.stringify(answer.value ?? answer.why));
  }

  /** What was made goes again, but for the latest, so that the state stays small. */
  async #sweep() {
    if (this.#made.length < 40) return;
    const [name] = this.#made;
    const context = { managers: this.#managers, history: this.#history, random: Math.random };
    if (await remove(name, context)) this.#made.shift();
    else this.#made.push(this.#made.shift());
  }

  /** Milliseconds from a moment to the end of the first success that was begun after it. */
  gapAfter(atMs) {
    const first = this.successes.find(({ startMs }) => startMs >= atMs);
    return first === undefined ? undefined : first.endMs - atMs;
  }
}
