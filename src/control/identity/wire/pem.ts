/** Certificates read from one text; a bundle of roots or a chain has fewer. */
const PEM_BLOCKS_MAX = 16;
const BLOCK = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----/g;

/**
 * The certificates of a bundle or chain, in their order, each ending in a line feed. What stands
 * between them is skipped; a text with none, or with too many, has none.
 */
export function pemBlocks(text: string): readonly string[] {
  const blocks = text.match(BLOCK) ?? [];
  return blocks.length > PEM_BLOCKS_MAX ? [] : blocks.map((block) => `${block}\n`);
}

/** One text of several; each block once, where it comes first. */
export function joinPem(texts: readonly string[]): string {
  return [...new Set(texts.flatMap((text) => pemBlocks(text)))].join('');
}
