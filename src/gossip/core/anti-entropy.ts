import { assert, unreachable } from '../../base/assert.js';
import { type Delta, EVENTS_MAX, eventBytes, type RecordEvent } from '../wire/record-delta.js';
import {
  type DeltaPart,
  type ExchangeMessage,
  type OwnerVersion,
  PAGE_PARTS_MAX,
  type TopicDigest,
  type TopicVector,
  VECTOR_OWNERS_MAX,
} from '../wire/record-exchange.js';
import type { Merged, RecordTable } from './record-table.js';

/** Bytes of events that fill a page: well below the largest message, as one event may overshoot. */
const PAGE_BYTES = 256 * 1024;
/** What a part costs beside its events, with the longest names. */
const PART_BYTES = 160;
const PAGES_MAX = 16_384;

export interface ExchangeLimits {
  /** Conversations that others opened with us. */
  readonly inboundMax: number;
  /** An exchange without a message for so long has failed. */
  readonly idleMsMax: number;
}

export const EXCHANGE_LIMITS: ExchangeLimits = { inboundMax: 32, idleMsMax: 5_000 };

/** Who looks at a deadline later than this was held up itself: the message may be waiting here. */
const LATE_MS = 250;
const GRACE_MS = 1_000;

/** `complete`, or why an exchange was broken off. */
type Outcome = 'complete' | 'closed' | 'timeout' | 'unexpected' | 'refused';

/** How an exchange ended, for who started it and for the counters. */
export interface ExchangeEnd {
  readonly exchange: number;
  readonly member: string;
  readonly initiator: boolean;
  readonly outcome: Outcome;
  /** It brought us something that we did not know. */
  readonly learned: boolean;
  /** More topics differ than fitted. */
  readonly partial: boolean;
}

/** What to do, in this order: send `messages`, then close the streams of `ends`. */
export interface ExchangeReady {
  readonly messages: readonly { readonly exchange: number; readonly message: ExchangeMessage }[];
  readonly ends: readonly ExchangeEnd[];
}

interface Job {
  readonly topic: string;
  readonly owner: string;
  readonly have: OwnerVersion | undefined;
}

interface Session {
  readonly exchange: number;
  readonly member: string;
  readonly initiator: boolean;
  /** Which message may come next, other than pages and `more`. */
  awaits: 'digests' | 'vectors' | 'pages';
  deadlineMs: number;
  jobs: Job[];
  /** The delta that the last page broke off in, and how many of its events were sent. */
  cut: { readonly delta: Delta; readonly sent: number } | undefined;
  /** The peer took our last page, so that the next may go. */
  sentLast: boolean;
  gotLast: boolean;
  /** Pieces of one delta, until its final one. */
  assembling: { readonly head: DeltaPart['head']; readonly events: RecordEvent[] } | undefined;
  pageCount: number;
  learned: boolean;
  partial: boolean;
}

/**
 * The conversations by which two nodes find and mend what their tables differ in.
 *
 * Tables that agree cost one digest per topic. Otherwise each side tells how far it knows every
 * owner's writes, and gets exactly the writes beyond. A delta is merged only when all of it is
 * here, since a log must never hold a part of a state.
 */
export class AntiEntropy {
  readonly #table: RecordTable;
  readonly #onMerge: (merged: Merged, delta: Delta) => void;
  readonly #limits: ExchangeLimits;
  readonly #sessions = new Map<number, Session>();
  #messages: { readonly exchange: number; readonly message: ExchangeMessage }[] = [];
  #ends: ExchangeEnd[] = [];

  /** @param onMerge Told of every delta that came; `own_ahead` asks to outbid it. */
  constructor(
    table: RecordTable,
    onMerge: (merged: Merged, delta: Delta) => void,
    limits: ExchangeLimits = EXCHANGE_LIMITS,
  ) {
    this.#table = table;
    this.#onMerge = onMerge;
    this.#limits = limits;
  }

  get activeCount(): number {
    return this.#sessions.size;
  }

  /** A stream to or from `member` is about to open: `exchange` names it. */
  open(exchange: number, member: string, initiator: boolean, nowMs: number): void {
    assert(!this.#sessions.has(exchange), 'an exchange opens once');
    const session: Session = {
      exchange,
      member,
      initiator,
      awaits: initiator ? 'vectors' : 'digests',
      deadlineMs: nowMs + this.#limits.idleMsMax,
      jobs: [],
      cut: undefined,
      sentLast: false,
      gotLast: false,
      assembling: undefined,
      pageCount: 0,
      learned: false,
      partial: false,
    };
    this.#sessions.set(exchange, session);
    if (initiator) {
      const topics = this.#table
        .topics()
        .map((topic) => ({ topic, digest: this.#table.vectorDigest(topic) }));
      this.#send(session, { kind: 'digests', topics });
      return;
    }
    let inbound = 0;
    for (const each of this.#sessions.values()) inbound += each.initiator ? 0 : 1;
    if (inbound > this.#limits.inboundMax) this.#end(session, 'refused');
  }

  /**
   * Messages of unknown exchanges are late ones of ended exchanges, and ignored.
   *
   * @returns Who sent it.
   */
  receive(exchange: number, message: ExchangeMessage, nowMs: number): string | undefined {
    const session = this.#sessions.get(exchange);
    if (session === undefined) return undefined;
    session.deadlineMs = nowMs + this.#limits.idleMsMax;
    const outcome = this.#receive(session, message, nowMs);
    if (outcome !== undefined) this.#end(session, outcome);
    return session.member;
  }

  /** The stream is gone. */
  closed(exchange: number): void {
    const session = this.#sessions.get(exchange);
    if (session !== undefined) this.#end(session, 'closed');
  }

  timeout(nowMs: number): void {
    for (const session of this.#sessions.values()) {
      if (session.deadlineMs > nowMs) continue;
      if (nowMs - session.deadlineMs > LATE_MS) session.deadlineMs = nowMs + GRACE_MS;
      else this.#end(session, 'timeout');
    }
  }

  nextDeadlineMs(): number | undefined {
    let nextMs: number | undefined;
    for (const { deadlineMs } of this.#sessions.values()) {
      if (nextMs === undefined || deadlineMs < nextMs) nextMs = deadlineMs;
    }
    return nextMs;
  }

  takeReady(): ExchangeReady {
    const ready = { messages: this.#messages, ends: this.#ends };
    this.#messages = [];
    this.#ends = [];
    return ready;
  }

  #receive(session: Session, message: ExchangeMessage, nowMs: number): Outcome | undefined {
    const { awaits, sentLast, gotLast } = session;
    switch (message.kind) {
      case 'digests':
        return awaits === 'digests' ? this.#answerDigests(session, message.topics) : 'unexpected';
      case 'vectors':
        if (awaits !== 'vectors') return 'unexpected';
        return this.#answerVectors(session, message.topics, message.partial);
      case 'page':
        if (awaits !== 'pages' || gotLast) return 'unexpected';
        return this.#onPage(session, message.parts, message.last, nowMs);
      case 'more':
        if (awaits !== 'pages' || sentLast) return 'unexpected';
        this.#sendPage(session);
        return outcomeOf(session);
      default:
        return unreachable(message);
    }
  }

  #answerDigests(session: Session, theirs: readonly TopicDigest[]): Outcome | undefined {
    const differing: string[] = [];
    for (const { topic, digest } of theirs) {
      if (!this.#table.has(topic) || differing.includes(topic)) continue;
      if (!same(this.#table.vectorDigest(topic), digest)) differing.push(topic);
    }
    const vectors = this.#vectorsOf(differing);
    session.partial = vectors.partial;
    this.#send(session, vectors);
    session.awaits = 'vectors';
    return differing.length === 0 ? 'complete' : undefined;
  }

  /** As many topics as fit one message. */
  #vectorsOf(topics: readonly string[]): ExchangeMessage & { readonly kind: 'vectors' } {
    const vectors: TopicVector[] = [];
    let ownersLeft = VECTOR_OWNERS_MAX;
    for (const topic of topics) {
      const owners = this.#table.vector(topic);
      if (owners.length > ownersLeft) continue;
      ownersLeft -= owners.length;
      vectors.push({ topic, owners });
    }
    return { kind: 'vectors', topics: vectors, partial: vectors.length < topics.length };
  }

  #answerVectors(
    session: Session,
    theirs: readonly TopicVector[],
    partial: boolean,
  ): Outcome | undefined {
    session.awaits = 'pages';
    session.partial ||= partial;
    if (session.initiator && theirs.length === 0) return 'complete';
    const known = theirs.filter(({ topic }) => this.#table.has(topic));
    if (session.initiator) this.#send(session, this.#vectorsOf(known.map(({ topic }) => topic)));
    session.jobs = known.flatMap((vector) => this.#jobsFor(vector));
    this.#sendPage(session);
    return outcomeOf(session);
  }

  /** What the peer lacks of one topic. The directory goes first, for what it voids. */
  #jobsFor({ topic, owners }: TopicVector): Job[] {
    const have = new Map(owners.map((version) => [version.owner, version]));
    return this.#table
      .vector(topic)
      .filter(({ owner }) => this.#table.knowsMore(topic, owner, have.get(owner)))
      .map(({ owner }) => ({ topic, owner, have: have.get(owner) }));
  }

  #sendPage(session: Session): void {
    const parts: DeltaPart[] = [];
    let sizeBytes = 0;
    while (sizeBytes < PAGE_BYTES && parts.length < PAGE_PARTS_MAX) {
      const cut = session.cut ?? this.#nextDelta(session);
      if (cut === undefined) break;
      const { events, ...head } = cut.delta;
      let end = cut.sent;
      sizeBytes += PART_BYTES;
      for (; end < events.length && sizeBytes < PAGE_BYTES; end++) {
        sizeBytes += eventBytes(events[end] as RecordEvent);
      }
      const final = end === events.length;
      parts.push({ head, events: events.slice(cut.sent, end), final });
      session.cut = final ? undefined : { delta: cut.delta, sent: end };
    }
    session.sentLast = session.cut === undefined && session.jobs.length === 0;
    this.#send(session, { kind: 'page', parts, last: session.sentLast });
  }

  /** Of the jobs left; one whose topic was left meanwhile falls out. */
  #nextDelta(session: Session): { readonly delta: Delta; readonly sent: number } | undefined {
    for (let job = session.jobs.shift(); job !== undefined; job = session.jobs.shift()) {
      const delta = this.#table.deltaFor(job.topic, job.owner, job.have);
      if (delta !== undefined) return { delta, sent: 0 };
    }
    return undefined;
  }

  #onPage(
    session: Session,
    parts: readonly DeltaPart[],
    last: boolean,
    nowMs: number,
  ): Outcome | undefined {
    session.pageCount += 1;
    if (session.pageCount > PAGES_MAX) return 'unexpected';
    for (const part of parts) {
      const delta = this.#assemble(session, part);
      if (delta === 'unexpected') return delta;
      if (delta === undefined) continue;
      const merged = this.#table.merge(delta, nowMs);
      if (merged === 'merged') session.learned = true;
      this.#onMerge(merged, delta);
    }
    if (last && session.assembling !== undefined) return 'unexpected';
    session.gotLast = last;
    if (!last) this.#send(session, { kind: 'more' });
    return outcomeOf(session);
  }

  /** The whole delta, once its final part is here. */
  #assemble(session: Session, part: DeltaPart): Delta | undefined | 'unexpected' {
    const before = session.assembling;
    session.assembling = undefined;
    if (before === undefined && part.final) return { ...part.head, events: part.events };

    const events = before?.events ?? [];
    const first = part.events[0];
    const rising = first === undefined || first.seq > (events.at(-1)?.seq ?? part.head.from);
    if (before !== undefined && !sameHead(before.head, part.head)) return 'unexpected';
    if (!rising || events.length + part.events.length > EVENTS_MAX) return 'unexpected';
    events.push(...part.events);
    if (part.final) return { ...part.head, events };
    session.assembling = { head: part.head, events };
    return undefined;
  }

  #send(session: Session, message: ExchangeMessage): void {
    this.#messages.push({ exchange: session.exchange, message });
  }

  #end(session: Session, outcome: Outcome): void {
    const { exchange, member, initiator, learned, partial } = session;
    this.#sessions.delete(exchange);
    this.#ends.push({ exchange, member, initiator, outcome, learned, partial });
  }
}

function outcomeOf({ sentLast, gotLast }: Session): Outcome | undefined {
  return sentLast && gotLast ? 'complete' : undefined;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function sameHead(a: DeltaPart['head'], b: DeltaPart['head']): boolean {
  if (a.topic !== b.topic || a.owner !== b.owner || a.epoch !== b.epoch) return false;
  return a.from === b.from && a.to === b.to;
}
