import { grown } from './backend-set.js';
import { SILENCE_MS } from './config.js';

/** Waits are told apart at these: each √2 times the one before; the last is silence. */
const STEPS_MS = [100, 141, 200, 283, 400, 566, 800, SILENCE_MS] as const;
/** Faster than this nobody is slow, however fast the others are. */
const SLOW_MS_MIN = STEPS_MS[0];
/** Buckets of a stretch: quick answers, and those of each step. */
const BUCKETS = STEPS_MS.length + 1;
const SILENT_BUCKET = BUCKETS - 1;

/**
 * Backends are judged by what they answered in the current and the last stretch of time, which ends as soon as there
 * are so many answers for each of them, within these bounds.
 */
const STRETCH_ANSWERS = 16;
const STRETCH_MS_MIN = 500;
const STRETCH_MS_MAX = 8000;
/** Fewer answers say nothing. */
const ANSWERS_MIN = 5;
/** For so long it is taken as known how the backends do. */
const SURVEY_MS = 20;
/** Flows that are held up by one pause of a program begin within less, and say nothing of those after it. */
const STEADY_MS = 400;
/** A new backend warms up for so long, and is not judged. */
const WARM_UP_MS = 10_000;

/** Of the answers of a slow backend so many are slow. */
const SLOW_SHARE = 0.9;
/** Where as many are slow at the backend in the middle, there is nothing to tell apart. */
const USUAL_SHARE_MAX = 0.6;
/** Where so many answers of the backend in the middle are not quick, most are held up. */
const HELD_SHARE = 0.5;
/** How much likelier it must be that a backend is slow than that it is as the others, as a logarithm. */
const EVIDENCE_MIN = Math.log(1e8);
/** What is to be known of the backends. */
export interface Surveyed {
  readonly ready: Int32Array;
  /** Flows that they have, by slot. */
  readonly active: Int32Array;
  readonly readyAtMs: Float64Array;
  isEjected(slot: number): boolean;
}

/**
 * Which backends let clients wait far longer for their first byte than most others of the service do.
 *
 * What counts as slow is a multiple of the average at the backend in the middle, so that nobody is slow where most are.
 * How much a slow answer says depends on the share of such answers at the backend in the middle in the same time (it is
 * a ratio of likelihoods): where every third request is a long poll it takes dozens, where none is a few. By slot of a
 * `BackendSet`; one flow costs a few numbers, and of the backends together there is a survey fifty times a second, and
 * only while some answer is slow at all.
 */
export class Slowness {
  // Of each slot two stretches, by turns.
  #buckets = new Int32Array(0);
  #sumMs = new Float64Array(0);
  /** When the first of those flows began that were not answered quickly. */
  #sinceMs = new Float64Array(0);
  /** When the last flow began that was answered quickly enough. */
  #quickMs = new Float64Array(0);
  /** The stretch that a slot's numbers are of. */
  #stretchOf = new Int32Array(0);

  #stretch = 2;
  #beganMs = Number.NEGATIVE_INFINITY;
  #answers = 0;

  // As of the last survey.
  #surveyMs = Number.NEGATIVE_INFINITY;
  #values = new Float64Array(0);
  #usualMs = Number.POSITIVE_INFINITY;
  #limitMs = Number.POSITIVE_INFINITY;
  #usualShare = 1;
  /** Answers of the backend in the middle that are not quick. */
  #usualHeld = 1;
  #usualSilence = Number.POSITIVE_INFINITY;
  /** When the last flow began that the backend in the middle answered quickly. */
  #usualQuickMs = Number.NEGATIVE_INFINITY;

  reserve(capacity: number): void {
    this.#buckets = grown(this.#buckets, capacity * 2 * BUCKETS);
    this.#sumMs = grown(this.#sumMs, capacity * 2);
    this.#sinceMs = grown(this.#sinceMs, capacity * 2);
    this.#quickMs = grown(this.#quickMs, capacity);
    this.#stretchOf = grown(this.#stretchOf, capacity);
    this.#values = grown(this.#values, capacity);
  }

  forget(slot: number): void {
    this.#stretchOf[slot] = 0;
    this.#quickMs[slot] = Number.NEGATIVE_INFINITY;
    this.#surveyMs = Number.NEGATIVE_INFINITY;
  }

  /** For how long clients wait at the backend in the middle; infinite where too little is known of most. */
  get usualMs(): number {
    return this.#usualMs;
  }

  /** From here on an answer is slow; infinite where too little is known of most backends. */
  get limitMs(): number {
    return this.#limitMs;
  }

  /** Flows are silent at most others too, as long polls are: some in a row at one backend are no accident of it. */
  get isSilenceUsual(): boolean {
    return this.#usualSilence > 0 && this.#usualSilence !== Number.POSITIVE_INFINITY;
  }

  /** A backend has answered a flow after so long; of a silent one, `SILENCE_MS`. */
  answered(slot: number, waitedMs: number, readyCount: number, nowMs: number): void {
    this.#turn(readyCount, nowMs);
    this.#turnSlot(slot);
    const half = slot * 2 + (this.#stretch & 1);
    const bucket = stepsUpTo(waitedMs);
    const at = half * BUCKETS + bucket;
    this.#buckets[at] = (this.#buckets[at] as number) + 1;
    this.#sumMs[half] = (this.#sumMs[half] as number) + waitedMs;
    if (bucket > 0) this.#sinceMs[half] = Math.min(this.#sinceMs[half] as number, nowMs - waitedMs);
    if (waitedMs < this.#limitMs)
      this.#quickMs[slot] = Math.max(this.#quickMs[slot] as number, nowMs - waitedMs);
    this.#answers += 1;
  }

  /** Whether an answer after so long may be slow. */
  mayBeSlow(waitedMs: number): boolean {
    return waitedMs >= SLOW_MS_MIN;
  }

  /**
   * Looks how the backends do, unless that was done just now.
   *
   * @param ageMs What "just now" is.
   * @returns Whether it was not, and something is known of most of them.
   */
  survey(set: Surveyed, factor: number, nowMs: number, ageMs = SURVEY_MS): boolean {
    if (nowMs - this.#surveyMs < ageMs) return false;
    this.#surveyMs = nowMs;
    this.#turn(set.ready.length, nowMs);
    this.#usualMs = this.#middle(set, nowMs, (slot, count) => {
      return ((this.#sumMs[slot * 2] as number) + (this.#sumMs[slot * 2 + 1] as number)) / count;
    });
    this.#limitMs = Math.max(SLOW_MS_MIN, factor * this.#usualMs);
    const slowFrom = this.#slowFrom;
    this.#usualShare = this.#middle(set, nowMs, (slot, count) => {
      return (this.#countFrom(slowFrom, slot) + 1) / (count + 2);
    });
    this.#usualHeld = this.#middle(set, nowMs, (slot, count) => this.#countFrom(1, slot) / count);
    this.#usualSilence = this.#middle(set, nowMs, (slot, count) => {
      return this.#countFrom(SILENT_BUCKET, slot) / count;
    });
    this.#usualQuickMs = -this.#middle(set, nowMs, (slot) => -(this.#quickMs[slot] as number));
    return this.#limitMs !== Number.POSITIVE_INFINITY;
  }

  /**
   * Whether a backend that just gave a slow answer is one, by the last survey.
   *
   * @param waitedMs Of that answer.
   */
  isSlow(slot: number, waitedMs: number, set: Surveyed, nowMs: number): boolean {
    const usual = this.#usualShare;
    if (waitedMs < this.#limitMs || usual > USUAL_SHARE_MAX) return false;
    // Where most are held up, as on machines with too much to do, who is slowest is a matter of chance.
    if (this.#usualHeld >= HELD_SHARE) return false;
    if (nowMs - (set.readyAtMs[slot] as number) < WARM_UP_MS) return false;
    const sinceMs = Math.min(
      this.#sinceMs[slot * 2] as number,
      this.#sinceMs[slot * 2 + 1] as number,
    );
    // What holds up all of them for a moment, does so with flows of the same time.
    if (Math.min(nowMs - waitedMs, this.#usualQuickMs) - sinceMs < STEADY_MS) return false;
    const slow = this.#countFrom(this.#slowFrom, slot);
    const quick = this.#countFrom(0, slot) - slow;
    const evidence =
      slow * Math.log(SLOW_SHARE / usual) + quick * Math.log((1 - SLOW_SHARE) / (1 - usual));
    return evidence > EVIDENCE_MIN;
  }

  /** The first bucket all of whose answers are slow; past the last one: there is none. */
  get #slowFrom(): number {
    return stepsBelow(this.#limitMs) + 1;
  }

  /**
   * What holds of the backend in the middle, the better one of two. Behind it are those that are ejected, and those
   * of which too little is known though they have flows: else the next slower ones would be the outliers when slow
   * ones are gone, or have not answered yet.
   */
  #middle(set: Surveyed, nowMs: number, numberOf: (slot: number, count: number) => number): number {
    let known = 0;
    let unknown = 0;
    for (let at = 0; at < set.ready.length; at++) {
      const slot = set.ready[at] as number;
      const count = this.#countFrom(0, slot);
      const isNew = nowMs - (set.readyAtMs[slot] as number) < WARM_UP_MS;
      if (set.isEjected(slot) || isNew) unknown += 1;
      else if (count >= ANSWERS_MIN) {
        this.#values[known] = numberOf(slot, count);
        known += 1;
      } else if (count > 0 || (set.active[slot] as number) > 0) unknown += 1;
    }
    const middle = (known + unknown - 1) >> 1;
    if (middle < 0 || middle >= known) return Number.POSITIVE_INFINITY;
    return this.#values.subarray(0, known).sort()[middle] as number;
  }

  #countFrom(bucket: number, slot: number): number {
    this.#turnSlot(slot);
    let count = 0;
    for (let at = bucket; at < BUCKETS; at++) {
      count += this.#buckets[slot * 2 * BUCKETS + at] as number;
      count += this.#buckets[(slot * 2 + 1) * BUCKETS + at] as number;
    }
    return count;
  }

  #turn(readyCount: number, nowMs: number): void {
    const lastsMs = nowMs - this.#beganMs;
    const isLong = this.#answers >= readyCount * STRETCH_ANSWERS && lastsMs >= STRETCH_MS_MIN;
    if (!isLong && lastsMs < STRETCH_MS_MAX) return;
    // After a time without flows, the last stretch is too old as well.
    this.#stretch += lastsMs < 2 * STRETCH_MS_MAX ? 1 : 2;
    this.#beganMs = nowMs;
    this.#answers = 0;
  }

  #turnSlot(slot: number): void {
    const held = this.#stretchOf[slot] as number;
    if (held === this.#stretch) return;
    this.#clear(slot * 2 + (this.#stretch & 1));
    if (held !== this.#stretch - 1) this.#clear(slot * 2 + ((this.#stretch + 1) & 1));
    this.#stretchOf[slot] = this.#stretch;
  }

  #clear(half: number): void {
    this.#buckets.fill(0, half * BUCKETS, (half + 1) * BUCKETS);
    this.#sumMs[half] = 0;
    this.#sinceMs[half] = Number.POSITIVE_INFINITY;
  }
}

function stepsUpTo(ms: number): number {
  let count = 0;
  while (count < STEPS_MS.length && (STEPS_MS[count] as number) <= ms) count += 1;
  return count;
}

function stepsBelow(ms: number): number {
  let count = 0;
  while (count < STEPS_MS.length && (STEPS_MS[count] as number) < ms) count += 1;
  return count;
}
