import { assert } from '../../base/assert.js';
import { EXCHANGE_MESSAGE_BYTES_MAX } from './record-exchange.js';

const LENGTH_BYTES = 4;

/** Length in 32 bits, big-endian, then the message. */
export function encodeFrame(message: Uint8Array): Buffer {
  assert(message.length <= EXCHANGE_MESSAGE_BYTES_MAX, 'we keep our own limit of message size');
  const frame = Buffer.allocUnsafe(LENGTH_BYTES + message.length);
  frame.writeUInt32BE(message.length, 0);
  frame.set(message, LENGTH_BYTES);
  return frame;
}

/** Cuts a byte stream into messages. Holds at most one message of the largest size. */
export class FrameReader {
  #chunks: Uint8Array[] = [];
  #sizeBytes = 0;

  /** Messages that are now whole, or `undefined` if one exceeds the limit: give the stream up. */
  push(chunk: Uint8Array): readonly Uint8Array[] | undefined {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    const messages: Uint8Array[] = [];
    while (this.#sizeBytes >= LENGTH_BYTES) {
      const lengthBytes = this.#peekLength();
      if (lengthBytes > EXCHANGE_MESSAGE_BYTES_MAX) return undefined;
      if (this.#sizeBytes < LENGTH_BYTES + lengthBytes) break;
      const whole = this.#join();
      messages.push(whole.subarray(LENGTH_BYTES, LENGTH_BYTES + lengthBytes));
      this.#chunks = [whole.subarray(LENGTH_BYTES + lengthBytes)];
      this.#sizeBytes -= LENGTH_BYTES + lengthBytes;
    }
    return messages;
  }

  #peekLength(): number {
    const first = this.#chunks[0];
    if (first !== undefined && first.length >= LENGTH_BYTES) {
      return Buffer.from(first.buffer, first.byteOffset, LENGTH_BYTES).readUInt32BE(0);
    }
    return this.#join().readUInt32BE(0);
  }

  /** Only when a message is whole or its length was split, so that no byte is copied often. */
  #join(): Buffer {
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = [whole];
    return whole;
  }
}
