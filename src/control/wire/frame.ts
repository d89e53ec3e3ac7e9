/** Big-endian length of the body that follows. */
export const FRAME_HEADER_BYTES = 4;
/** Largest message of the control port, other than assignments. */
export const MESSAGE_BYTES_MAX = 1 << 20;
/** Largest message with assignments; larger ones are sent in several parts. */
export const ASSIGNMENTS_BYTES_MAX = 4 << 20;

const decoder = new TextDecoder('utf-8', { fatal: true });

/** One frame: length, then the JSON text of `message`. */
export function encodeFrame(message: unknown): Uint8Array {
  const text = JSON.stringify(message);
  const bodyBytes = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + bodyBytes);
  frame.writeUInt32BE(bodyBytes);
  frame.write(text, FRAME_HEADER_BYTES);
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
