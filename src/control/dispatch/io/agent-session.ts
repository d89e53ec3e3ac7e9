import type { AttachmentId, NodeId } from '../../../base/swarm-model.js';
import type { Channel } from '../../io/channel.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import { encodeFrame } from '../../wire/frame.js';
import type { NodeRegistration } from '../../wire/model.js';
import {
  type AssignmentsSource,
  changeSince,
  diffAttachments,
  fullChange,
  type SharedAssignments,
  splitChange,
} from '../core/assignments.js';
import type { Removal } from '../core/removals.js';
import type { AssignmentsChange, ManagerMessage } from '../wire/messages.js';

/** What the certificate of a connection says of its holder. */
export interface PeerFacts {
  readonly issuer: { readonly subject: string; readonly publicKey: string };
}

type Attachments = ReadonlyMap<AttachmentId, KeyedAttachment>;

/** Everything that all agents are told alike, encoded once for as long as it holds. */
const sharedFrames = new WeakMap<SharedAssignments, readonly Uint8Array[]>();

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
  #attachments: Attachments = new Map();
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

  tellAll(shared: SharedAssignments, attachments: Attachments): void {
    this.told = shared;
    this.#attachments = attachments;
    let frames = sharedFrames.get(shared);
    if (frames === undefined) {
      frames = framesOf(fullChange({ ...shared, attachments: new Map() }), true, false);
      sharedFrames.set(shared, frames);
    }
    this.#sendFrames(frames);
    const { era, version } = shared;
    const own = { put: [...attachments.values()], remove: [] };
    this.#sendFrames(framesOf({ era, version, attachments: own }, false));
  }

  /** As `changeSince`. */
  tellSince(
    version: number,
    shared: SharedAssignments,
    attachments: Attachments,
    source: AssignmentsSource,
    removals: readonly Removal[],
  ): void {
    this.told = shared;
    this.#attachments = attachments;
    const now = { ...shared, attachments };
    this.#sendFrames(framesOf(changeSince(version, now, source, this.nodeId, removals), false));
  }

  /** @param frames The difference between what was told `before` and what is to be told now. */
  tellChange(
    before: SharedAssignments,
    after: SharedAssignments,
    frames: readonly Uint8Array[],
    attachments: Attachments,
  ): void {
    if (this.told !== before || before.era !== after.era) {
      this.tellAll(after, attachments);
      return;
    }
    this.told = after;
    this.#sendFrames(frames);
    const change = diffAttachments(this.#attachments, attachments);
    this.#attachments = attachments;
    if (change === undefined) return;
    const { era, version } = after;
    this.#sendFrames(framesOf({ era, version, attachments: change }, false));
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
