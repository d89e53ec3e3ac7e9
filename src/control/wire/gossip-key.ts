/** One key of the gossip keyring as it travels and is kept: base64 of 32 bytes. */
export interface GossipKeyText {
  /** 0 to 255; says in a datagram which key sealed it. */
  readonly id: number;
  readonly secret: string;
}
