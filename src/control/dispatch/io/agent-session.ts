import type { NodeId } from '../../../base/swarm-model.js';
import type { Channel } from '../../io/channel.js';
import { encodeFrame } from '../../wire/frame.js';
import type { NodeRegistration } from '../../wire/model.js';
import {
  type AssignmentsSource,
  changeSince,
  diffOwn,
  fullChange,
  fullOwnChange,
  type SharedAssignments,
  type Since,
  splitChange,
} from '../core/assignments.js';
import { NOTHING_OWN, type OwnAssignments } from '../core/own-assignments.js';
import type { AssignmentsChange, ManagerMessage } from '../wire/messages.js';

/** What the certificate of a connection says of its holder. */
export interface PeerFacts {
  readonly issuer: { readonly subject: string; readonly publicKey: string };
}

/** Everything that all agents are told alike, encoded once for as long as it holds. */
const sharedFrames = new WeakMap<SharedAssignments, readonly Uint8Array[]>();

/** What is different for all, encoded at most twice. */
export class SharedChange {
  readonly after: SharedAssignments;
  readonly #change: AssignmentsChange | undefined;
  #alone: readonly Uint8Array[] | undefined;
  #followed: readonly Uint8Array[] | undefined;

  constructor(after: SharedAssignments, change: AssignmentsChange | undefined) {
    this.after = after;
    this.#change = change;
  }

  get isNothing(): boolean {
    return this.#change === undefined;
  }

  /** @param whole False: a node's own follows, and belongs to it. */
  frames(whole: boolean): readonly Uint8Array[] {
    if (this.#change === undefined) return [];
    if (whole) {
      this.#alone ??= framesOf(this.#change, false);
      return this.#alone;
    }
    this.#followed ??= framesOf(this.#change, false, false);
    return this.#followed;
  }
}

/** A manager's end of one agent's session: what the agent was told, and what is under way. */
export class AgentSession {
  readonly nodeId: NodeId;
  readonly channel: Channel;
  readonly remoteAddress: string;
  readonly peer: PeerFacts | undefined;
  /** 0: it said no hello yet. */
  number = 0;
  /** What the agent was told last; nothing before the welcome. */
  told: SharedAssignments | undefined;
  requests = 0;
  /** What the agent says of itself and is not kept yet. */
  wanted: NodeRegistration | undefined;
  registering = false;
  /** The state says that the node is served here. */
  registered = false;
  /** The agent said that it has none of the contents of its secrets. */
  bare = false;
  #own: OwnAssignments = NOTHING_OWN;
  #wake: (() => void) | undefined;

  constructor(
    nodeId: NodeId,
    channel: Channel,
    remoteAddress: string,
    peer: PeerFacts | undefined,
  ) {
    this.nodeId = nodeId;
    this.channel = channel;
    this.remoteAddress = remoteAddress;
    this.peer = peer;
  }

  send(message: ManagerMessage): void {
    this.channel.send(message);
  }

  /** Ends early when the session does. */
  pause(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(), timeoutMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      if (this.channel.closed) this.wake();
    });
  }

  wake(): void {
    this.#wake?.();
  }

  /** What the agent was told of its own. */
  get own(): OwnAssignments {
    return this.#own;
  }

  /** @param version Of the state that `own` is made of; that of `shared` may be lower. */
  tellAll(version: number, shared: SharedAssignments, own: OwnAssignments): void {
    this.told = shared;
    this.#own = own;
    let frames = sharedFrames.get(shared);
    if (frames === undefined) {
      frames = framesOf(fullChange({ ...shared, ...NOTHING_OWN }), true, false);
      sharedFrames.set(shared, frames);
    }
    this.#sendFrames(frames);
    this.#sendFrames(framesOf({ era: shared.era, version, ...fullOwnChange(own) }, false));
  }

  /** As `changeSince`. */
  tellSince(
    since: Since,
    version: number,
    shared: SharedAssignments,
    own: OwnAssignments,
    source: AssignmentsSource,
  ): void {
    this.told = shared;
    this.#own = own;
    this.#sendFrames(framesOf(changeSince(since, { ...shared, ...own, version }, source), false));
  }

  /**
   * What is to be told now, where `before` was told last: an agent has both parts or none.
   *
   * @param own Absent: that is as it was.
   */
  tellChange(
    version: number,
    before: SharedAssignments,
    shared: SharedChange,
    own: OwnAssignments | undefined,
  ): void {
    const { after } = shared;
    if (this.told !== before || before.era !== after.era) {
      this.tellAll(version, after, own ?? this.#own);
      return;
    }
    const change = own && diffOwn(this.#own, own);
    this.told = after;
    this.#own = own ?? this.#own;
    this.#sendFrames(shared.frames(change === undefined));
    if (change !== undefined)
      this.#sendFrames(framesOf({ era: after.era, version, ...change }, false));
  }

  #sendFrames(frames: readonly Uint8Array[]): void {
    for (const frame of frames) this.channel.sendFrame(frame);
  }
}

/**
 * A change as messages that are not too large.
 *
 * @param reset Everything that was told before is void.
 * @param whole False: more messages of the same version follow.
 */
export function framesOf(change: AssignmentsChange, reset: boolean, whole = true): Uint8Array[] {
  const parts = splitChange(change);
  return parts.map((part, index) => {
    const message: ManagerMessage = {
      kind: 'assignments',
      reset: reset && index === 0,
      done: whole && index === parts.length - 1,
      change: part,
    };
    return encodeFrame(message);
  });
}
