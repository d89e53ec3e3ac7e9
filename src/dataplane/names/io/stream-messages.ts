/** Bytes of the length in front of each message over TCP, RFC 1035 §4.2.2. */
const LENGTH_BYTES = 2;
const MESSAGE_BYTES_MAX = 0xffff;

/** Puts its length in front of a message. */
export function frameMessage(message: Buffer): Buffer {
  const framed = Buffer.alloc(LENGTH_BYTES + message.length);
  framed.writeUInt16BE(message.length, 0);
  framed.set(message, LENGTH_BYTES);
  return framed;
}

/**
 * Cuts a TCP stream into messages. It holds what was pushed and not taken yet: who takes all before he
 * pushes more lets it hold one unfinished message.
 */
export class MessageSplitter {
  readonly #bytesMax: number;
  #pending: Buffer = Buffer.alloc(0);

  /** @param bytesMax Of one message. */
  constructor(bytesMax: number = MESSAGE_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  push(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
  }

  /** @returns `undefined` while the next message is not whole, which one that `isOversized` never will be. */
  take(): Buffer | undefined {
    const end = this.#nextEnd();
    if (end === undefined || this.isOversized || this.#pending.length < end) return undefined;
    const message = this.#pending.subarray(LENGTH_BYTES, end);
    this.#pending = this.#pending.subarray(end);
    return message;
  }

  /** Whether the next message is announced to be longer than allowed: nothing can be taken any more. */
  get isOversized(): boolean {
    return (this.#nextEnd() ?? 0) > LENGTH_BYTES + this.#bytesMax;
  }

  #nextEnd(): number | undefined {
    if (this.#pending.length < LENGTH_BYTES) return undefined;
    return LENGTH_BYTES + this.#pending.readUInt16BE(0);
  }
}
