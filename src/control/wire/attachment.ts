import type { AttachmentObject } from '../../base/swarm-model.js';

/** An attachment with the key that its node made up, by which a repeated request is recognised. */
export interface KeyedAttachment extends AttachmentObject {
  readonly key: string;
}

/** A node's wish for an address on a network. */
export interface AttachRequest {
  /** Made up by the asker, unique on its node: a repetition gets the same attachment. */
  readonly key: string;
  /** Id, exact name or unique prefix of an id. */
  readonly network: string;
  /** Addresses wanted, at most one of each family; the allocator chooses the others. */
  readonly addresses: readonly string[];
  readonly name: string;
  readonly aliases: readonly string[];
}
