import { FRAME_HEADER_BYTES } from '../../wire/frame.js';
import type { RaftMessage } from '../core/types.js';
import { encodeMessages, MESSAGES_MAX, messageBytes } from '../wire/message.js';

/** A frame of a stream of purpose `log`: a length, and a batch of messages. */
export const FRAME_BYTES_MAX = 4 << 20;

/** As few frames as hold them, in order. */
export function encodeFrames(messages: readonly RaftMessage[]): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < messages.length; ) {
    const end = batchEnd(messages, at);
    const body = encodeMessages(
      at === 0 && end === messages.length ? messages : messages.slice(at, end),
    );
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + body.length);
    frame.writeUInt32BE(body.length);
    frame.set(body, FRAME_HEADER_BYTES);
    frames.push(frame);
    at = end;
  }
  return frames;
}

/** One message at least: the core bounds what is in one. */
function batchEnd(messages: readonly RaftMessage[], from: number): number {
  let bytes = 0;
  let end = from;
  while (end < messages.length && end - from < MESSAGES_MAX) {
    bytes += messageBytes(messages[end] as RaftMessage);
    if (bytes > FRAME_BYTES_MAX && end > from) break;
    end++;
  }
  return end;
}
