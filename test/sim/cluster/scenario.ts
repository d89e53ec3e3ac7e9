import type { ServiceSpec, TaskObject, UpdateConfig } from '../../../src/base/service-model.js';
import type { NodeId, ServiceId } from '../../../src/base/swarm-model.js';
import { Orchestrator } from '../../../src/control/orchestrate/core/orchestrator.js';
import { nodeOf } from '../../control/orchestrate/objects.js';
import { ClusterWorld } from './world.js';

/**
 * Lives of services as text. One command per line, `#` begins a comment; times are seconds:
 *
 *   nodes a b c [zone=x]           they are ready at once
 *   service web replicas=3 …       or `global`; image=good:1, parallelism=2, order=start-first, action=rollback,
 *                                  constraint=node.labels.zone==x, condition=none
 *   at 5 COMMAND                   schedules a command:
 *     lose a, return a             its machine stops, and is there again
 *     drain a, pause a, activate a
 *     update web image=bad:2       scale web 5     rollback web     remove web
 *     leader                       another manager leads
 *   run 20                         until that time
 *   expect web: 1@a running 2@b running         tasks that are to run
 *   expect history web 1: running/running@b running/shutdown@a    observed/desired, the newest first
 *   expect update web: paused update paused due to …
 *   expect waiting web: no suitable node (…)
 *   expect gone web
 */
export interface Outcome {
  readonly line: string;
  readonly isMet: boolean;
  readonly found: string;
}

const CALM = {
  tempo: { stepMs: [10, 10], stopMs: [50, 50], runMs: [500, 500] },
  delayMs: [1, 1],
  lossChance: 0,
  repeatChance: 0,
  commitMs: [1, 1],
  noticeMs: [1_000, 1_000],
  interregnumMs: [300, 300],
  skewMs: 0,
} as const;

export function playScenario(text: string): Outcome[] {
  const scenario = new Scenario();
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*$/, '').trim();
    if (line !== '') scenario.play(line);
  }
  return scenario.outcomes;
}

class Scenario {
  readonly outcomes: Outcome[] = [];
  readonly #world = new ClusterWorld(1, { orchestrator: Orchestrator, weather: CALM });

  constructor() {
    this.#world.changeLeader(1);
  }

  play(line: string): void {
    const [verb = '', ...words] = line.split(/\s+/);
    if (verb === 'nodes') this.#nodes(words);
    else if (verb === 'service') this.#service(words);
    else if (verb === 'at') this.#world.time.at(seconds(words[0]), () => this.#act(words.slice(1)));
    else if (verb === 'run') this.#world.time.run(seconds(words[0]));
    else if (verb === 'expect') this.#expect(line, line.slice('expect'.length).trim());
    else throw new Error(`unknown command: ${line}`);
  }

  #nodes(words: readonly string[]): void {
    const labels = Object.fromEntries(words.filter(isPair).map(pairOf));
    for (const id of words.filter((word) => !isPair(word)))
      this.#world.addNode(nodeOf(id, { labels }));
  }

  #service([name = '', ...words]: readonly string[]): void {
    const given = new Map(words.filter(isPair).map(pairOf));
    const update = {
      parallelism: Number(given.get('parallelism') ?? 1),
      monitorMs: 2_000,
      order: given.get('order') ?? 'stop-first',
      failureAction: given.get('action') ?? 'pause',
    } as UpdateConfig;
    const constraint = given.get('constraint');
    const spec: ServiceSpec = {
      name,
      labels: {},
      mode: words.includes('global')
        ? { kind: 'global' }
        : { kind: 'replicated', replicas: Number(given.get('replicas') ?? 1) },
      task: {
        container: { image: given.get('image') ?? 'good:1' },
        restart: { condition: (given.get('condition') ?? 'any') as 'any', delayMs: 1_000 },
        ...(constraint !== undefined && { placement: { constraints: [constraint] } }),
      },
      update,
      rollback: { parallelism: 1, monitorMs: 2_000 },
    };
    this.#world.commit(() => [{ kind: 'service_create', id: idOf(name), spec }]);
  }

  #act([verb = '', who = '', ...words]: readonly string[]): void {
    const world = this.#world;
    const node = world.nodes.get(who as NodeId);
    const availability = { drain: 'drain', pause: 'pause', activate: 'active' } as const;
    if (verb === 'leader') world.changeLeader();
    else if (verb === 'lose') {
      node?.crash();
      world.notice(who as NodeId);
    } else if (verb === 'return' && node !== undefined) {
      node.isUp = true;
      world.notice(node.id);
    } else if (verb === 'remove') world.commit(() => [{ kind: 'service_remove', id: idOf(who) }]);
    else if (verb === 'update' || verb === 'scale' || verb === 'rollback')
      this.#change(who, verb, words);
    else if (verb in availability)
      world.commit(() => {
        const row = world.store.node(who as NodeId);
        if (row === undefined) return [];
        const spec = { ...row.spec, availability: availability[verb as keyof typeof availability] };
        return [{ kind: 'node_update', nodeId: row.id, version: row.version, spec }];
      });
    else throw new Error(`unknown command: ${verb}`);
  }

  #change(name: string, verb: string, words: readonly string[]): void {
    this.#world.commit(() => {
      const row = this.#world.store.service(idOf(name));
      if (row === undefined) return [];
      const image = new Map(words.filter(isPair).map(pairOf)).get('image');
      const spec: ServiceSpec = {
        ...row.spec,
        ...(verb === 'scale' && { mode: { kind: 'replicated', replicas: Number(words[0]) } }),
        ...(image !== undefined && { task: { ...row.spec.task, container: { image } } }),
      };
      const { id, version } = row;
      const as = verb === 'rollback' ? {} : { spec };
      return [{ kind: 'service_update', id, version, authFrom: 'spec', ...as }];
    });
  }

  #expect(line: string, text: string): void {
    const [head = '', want = ''] = text.split(/: (.*)/s);
    const found = this.#found(head.split(' '));
    const isMet = head.startsWith('update') ? found.startsWith(want) : found === want;
    this.outcomes.push({ line, isMet, found });
  }

  #found(words: readonly string[]): string {
    const [verb = '', name = verb, slot = ''] = words;
    const id = idOf(words.length === 1 ? verb : name);
    const service = this.#world.store.service(id);
    const tasks = [...this.#world.store.tasksOfService(id)];
    if (verb === 'gone') return service === undefined && tasks.length === 0 ? '' : 'it is there';
    if (verb === 'update') {
      const { state = 'none', message = '' } = service?.updateStatus ?? {};
      return `${state} ${message}`;
    }
    if (verb === 'waiting')
      return tasks.find(({ nodeId }) => nodeId === undefined)?.status.error ?? '';
    if (verb === 'history')
      return tasks
        .filter((task) => String(task.slot || task.nodeId) === slot)
        .toSorted((a, b) => b.createdAtMs - a.createdAtMs)
        .map((task) => `${task.status.state}/${task.desiredState}@${task.nodeId}`)
        .join(' ');
    return tasks
      .filter(({ desiredState }) => desiredState === 'running')
      .toSorted((a, b) => placeOf(a).localeCompare(placeOf(b)))
      .map((task) => `${placeOf(task)} ${task.status.state}`)
      .join(' ');
  }
}

const placeOf = ({ slot, nodeId }: TaskObject) => (slot > 0 ? `${slot}@${nodeId}` : `@${nodeId}`);
const idOf = (name: string) => `${name}x`.padEnd(25, '0') as ServiceId;
const seconds = (text: string | undefined) => Number(text) * 1_000;
const isPair = (word: string) => /^[a-z]+=/.test(word);

function pairOf(word: string): readonly [string, string] {
  const at = word.indexOf('=');
  return [word.slice(0, at), word.slice(at + 1)];
}
