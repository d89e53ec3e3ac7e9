import type { ServiceObject, TaskObject } from '../../../base/service-model.js';
import type {
  ClusterObject,
  ConfigObject,
  NetworkId,
  NetworkObject,
  NodeId,
  NodeObject,
  SecretObject,
} from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';

/** What managers alone may see. */
export interface ClusterSecrets {
  /** All that is needed to sign, and to go on with a change of the root; its owner knows the form. */
  readonly ca: object;
  /** First seals, all open; the last is the one that will seal next. */
  readonly gossipKeys: readonly GossipKeyText[];
  readonly gossipKeysRotatedAtMs: number;
  /** The swarm's own /48 (RFC 4193), for IPv6 subnets. */
  readonly ulaPrefix: string;
  /** There was an ingress network once: if there is none now, nobody wants one. */
  readonly ingressMade?: boolean;
  /** What opens the disks of the managers; there while autolock is on. */
  readonly unlockKey?: string;
}

/** Where the search for free addresses goes on: subnet to the address given out last. */
export interface AddressCursor {
  readonly id: NetworkId;
  readonly last: Readonly<Record<string, string>>;
}

/** A secret with its contents, base64. */
export interface SecretRow extends SecretObject {
  readonly data: string;
}

/** A node that was removed: its certificate counts for nothing, however long it is valid. */
export interface RemovedNode {
  readonly nodeId: NodeId;
  readonly atMs: number;
  /** Then the certificate has expired by itself. */
  readonly expiresAtMs: number;
}

export interface Rows {
  readonly cluster: ClusterObject;
  readonly secrets: ClusterSecrets;
  readonly node: NodeObject;
  readonly network: NetworkObject;
  readonly cursor: AddressCursor;
  readonly attachment: KeyedAttachment;
  readonly secret: SecretRow;
  readonly config: ConfigObject;
  readonly service: ServiceObject;
  readonly task: TaskObject;
  readonly removed: RemovedNode;
}

export type TableName = keyof Rows;

export const TABLE_NAMES: readonly TableName[] = [
  'cluster',
  'secrets',
  'node',
  'network',
  'cursor',
  'attachment',
  'secret',
  'config',
  'service',
  'task',
  'removed',
];
