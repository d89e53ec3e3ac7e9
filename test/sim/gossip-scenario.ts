import type { Incarnation, MemberId, MemberState } from '../../src/gossip/wire/claim.js';
import { everyMs, QUIET, SwimWorld } from './swim-world.js';

/**
 * Conversations of members as text. One command per line, `#` begins a comment:
 *
 *   members a b c            they join through the first and settle; time 0 is then
 *   loss 5%                  of datagrams, from here on
 *   at 500 COMMAND           schedules a command:
 *     partition a b | c      those named in different groups (or in none) do not hear each other
 *     heal
 *     kill a                 its process ends, its host refuses
 *     darken a               its host ends: silence
 *     stall a 3000           its process stands still for so many ms
 *     start a [via b] [at 10.9.9.9]   a new life
 *     leave a
 *     a claims b suspect 7   a sends that claim to everybody it reaches
 *   run 3000                 until that time
 *   expect a: b alive 8      what a holds now (the incarnation may be left out); `all`: every
 *                            node that is up, itself excepted
 *   expect never b dead      nobody saw that since time 0
 *   expect b dead within 400..3000   every node that is up saw it, first and last in that time
 */
export interface Outcome {
  readonly line: string;
  readonly isMet: boolean;
  readonly found: string;
}

export function playScenario(text: string, seed: number): Outcome[] {
  const scenario = new Scenario(seed);
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*$/, '').trim();
    if (line !== '') scenario.play(line);
  }
  return scenario.outcomes;
}

class Scenario {
  readonly outcomes: Outcome[] = [];
  readonly #world: SwimWorld;
  #startMs = 0;

  constructor(seed: number) {
    this.#world = new SwimWorld({ ...QUIET, seed });
  }

  play(line: string): void {
    const [verb = '', ...words] = line.split(/\s+/);
    if (verb === 'members') this.#settle(words);
    else if (verb === 'loss') this.#world.loss = Number.parseFloat(words[0] ?? '') / 100;
    else if (verb === 'at') {
      this.#world.at(this.#startMs + numberOf(words[0]), () => this.#act(words.slice(1)));
    } else if (verb === 'run') this.#world.run(this.#startMs + numberOf(words[0]));
    else if (verb === 'expect') this.outcomes.push({ line, ...this.#expect(words) });
    else throw new Error(`unknown command: ${line}`);
  }

  #settle(ids: string[]): void {
    const world = this.#world;
    const [first = '', ...others] = ids;
    world.start(first, []);
    for (const id of others) world.start(id, [first]);
    if (
      !world.run(
        30_000,
        everyMs(world, 20, () => world.isConverged()),
      )
    ) {
      throw new Error('the members did not settle');
    }
    world.run(world.nowMs + 3_000);
    world.seen.length = 0;
    this.#startMs = world.nowMs;
  }

  #act(words: string[]): void {
    const world = this.#world;
    const [a = '', b = '', c = '', d = '', e = ''] = words;
    if (a === 'partition') {
      const groups = words.slice(1).join(' ').split('|');
      world.partition(groups.map((group) => group.trim().split(/\s+/)));
    } else if (a === 'heal') world.heal();
    else if (a === 'kill') world.kill(b);
    else if (a === 'darken') world.darken(b);
    else if (a === 'stall') world.stall(b, numberOf(c));
    else if (a === 'leave') world.leave(b);
    else if (a === 'start') {
      const options = new Map([
        [c, d],
        [e, words[5] ?? ''],
      ]);
      const seed = options.get('via');
      world.start(b, seed === undefined ? [] : [seed], options.get('at'));
    } else if (b === 'claims') this.#claim(a, c, d as MemberState, numberOf(e));
    else throw new Error(`unknown command: ${words.join(' ')}`);
  }

  #claim(by: string, about: string, state: MemberState, incarnation: number): void {
    const reporter = this.#world.node(by);
    const { id: member, endpoint } = this.#world.node(about);
    const own = this.#world.view(by, by)?.incarnation ?? 0;
    for (const node of this.#world.up) {
      const packet = {
        from: reporter.id,
        incarnation: own as Incarnation,
        messages: [
          {
            kind: 'claim' as const,
            claim: {
              member,
              state,
              incarnation: incarnation as Incarnation,
              endpoint,
              reporter: reporter.id as MemberId,
            },
          },
        ],
      };
      if (node !== reporter && this.#world.isReachable(by, node.id)) {
        this.#world.input(node.id, { kind: 'packet', source: reporter.endpoint, packet });
      }
    }
  }

  #expect(words: string[]): Omit<Outcome, 'line'> {
    const [a = '', b = '', c = '', d] = words;
    if (a === 'never') return this.#expectNever(b, c as MemberState);
    if (c === 'within') return this.#expectWithin(a, b as MemberState, d ?? '');
    const by = a.replace(':', '');
    const observers = by === 'all' ? this.#world.up.map(({ id }) => id as string) : [by];
    const wrong: string[] = [];
    for (const observer of observers) {
      if (observer === b && by === 'all') continue;
      const view = this.#world.view(observer, b);
      const isIncarnation = d === undefined || view?.incarnation === Number(d);
      if (c === 'unknown' ? view === undefined : view?.state === c && isIncarnation) continue;
      wrong.push(`${observer}: ${view?.state} ${view?.incarnation}`);
    }
    return { isMet: wrong.length === 0, found: wrong.join(', ') };
  }

  #expectNever(member: string, to: MemberState): Omit<Outcome, 'line'> {
    const found = this.#world.seen.filter((seen) => seen.member === member && seen.to === to);
    return {
      isMet: found.length === 0,
      found: found.map(({ by, atMs }) => `${by} at ${Math.round(atMs - this.#startMs)}`).join(', '),
    };
  }

  #expectWithin(member: string, to: MemberState, range: string): Omit<Outcome, 'line'> {
    const [fromMs = 0, toMs = 0] = range.split('..').map(Number);
    const times = this.#world.up
      .filter(({ id }) => id !== member)
      .map(({ id }) => {
        const seen = this.#world.seen.find(
          (one) => one.by === id && one.member === member && one.to === to,
        );
        return (seen?.atMs ?? Number.POSITIVE_INFINITY) - this.#startMs;
      });
    const first = Math.min(...times);
    const last = Math.max(...times);
    return { isMet: first >= fromMs && last <= toMs, found: `${first}..${last}` };
  }
}

function numberOf(word: string | undefined): number {
  const value = Number(word);
  if (word === undefined || !Number.isFinite(value)) throw new Error(`not a number: ${word}`);
  return value;
}
