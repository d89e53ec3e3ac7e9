/** Bytes of the length in front of each message over TCP, RFC 1035 §4.2.2. */
const LENGTH_BYTES = 2;

/** Puts its length in front of a message. */
export function frameMessage(message: Buffer): Buffer {
  const framed = Buffer.alloc(LENGTH_BYTES + message.length);
  framed.writeUInt16BE(message.length, 0);
  framed.set(message, LENGTH_BYTES);
  return framed;
}

/** Cuts a TCP stream into messages. Holds at most one unfinished message, of at most 64 KiB. */
export class MessageSplitter {
  #pending: Buffer = Buffer.alloc(0);

  /** @returns The messages that `chunk` completed. */
  push(chunk: Buffer): readonly Buffer[] {
    let rest = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: Buffer[] = [];
    for (;;) {
      if (rest.length < LENGTH_BYTES) break;
      const end = LENGTH_BYTES + rest.readUInt16BE(0);
      if (rest.length < end) break;
      messages.push(rest.subarray(LENGTH_BYTES, end));
      rest = rest.subarray(end);
    }
    this.#pending = rest;
    return messages;
  }
}
