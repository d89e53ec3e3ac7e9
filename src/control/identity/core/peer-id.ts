const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
/** Identity multihash of 36 bytes, holding the protobuf {type: Ed25519, data: 32 bytes}. */
const PREFIX = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);

/** The libp2p peer id of an Ed25519 public key (32 bytes), as text. */
export function peerIdOf(publicKey: Uint8Array): string {
  const bytes = [...PREFIX, ...publicKey];
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  let text = '';
  for (; value > 0n; value /= 58n) text = ALPHABET[Number(value % 58n)] + text;
  // Each leading zero byte is a leading one in base 58.
  return '1'.repeat(bytes.findIndex((byte) => byte !== 0)) + text;
}
