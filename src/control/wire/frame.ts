/** Big-endian length of the body that follows. */
export const FRAME_HEADER_BYTES = 4;
/** Largest message of the control port, other than assignments. */
export const MESSAGE_BYTES_MAX = 1 << 20;
/** Largest message with assignments; larger ones are sent in several parts. */
export const ASSIGNMENTS_BYTES_MAX = 4 << 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** One frame: length, then the JSON text of `message`. */
export function encodeFrame(message: unknown): Uint8Array {
  const body = encoder.encode(JSON.stringify(message));
  const frame = new Uint8Array(FRAME_HEADER_BYTES + body.length);
  new DataView(frame.buffer).setUint32(0, body.length);
  frame.set(body, FRAME_HEADER_BYTES);
  return frame;
}

/** The JSON value of a frame's body; `undefined` if it is none (JSON itself has no `undefined`). */
export function decodeJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(decoder.decode(body)) as unknown;
  } catch {
    return undefined;
  }
}
