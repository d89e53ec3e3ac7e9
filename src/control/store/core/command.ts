import type {
  AttachmentId,
  ClusterObject,
  ClusterSpec,
  NetworkId,
  NetworkSpec,
  NodeId,
  NodeObject,
  NodeSpec,
  ObjectMeta,
} from '../../../base/swarm-model.js';
import type { AttachRequest } from '../../wire/attachment.js';
import type { ClusterSecrets } from './state.js';

/** What a node shows of itself, and what its managers see of it. */
export type NodeObservation = Partial<
  Pick<
    NodeObject,
    | 'description'
    | 'state'
    | 'stateMessage'
    | 'address'
    | 'dataPathAddress'
    | 'gossipAddress'
    | 'gossipPort'
    | 'manager'
  >
>;

/**
 * Every change of the cluster's state, as data. All dice are rolled and all clocks read before:
 * applying the same commands in the same order gives the same state anywhere, so that they may be
 * journalled now and replicated later.
 */
export type CommandBody =
  | {
      readonly kind: 'cluster_create';
      readonly cluster: Omit<ClusterObject, keyof ObjectMeta>;
      readonly secrets: ClusterSecrets;
    }
  | {
      readonly kind: 'cluster_update';
      readonly version: number;
      readonly spec: ClusterSpec;
      readonly joinTokens: { readonly worker?: string; readonly manager?: string };
    }
  /** The next key begins to seal; `secret` (base64 of 32 bytes) is made known, to seal one rotation later. */
  | { readonly kind: 'gossip_keys_rotate'; readonly secret: string }
  /** Answers with the id of the node that has this peer id already, if there is one. */
  | { readonly kind: 'node_create'; readonly node: Omit<NodeObject, keyof ObjectMeta> }
  | {
      readonly kind: 'node_update';
      readonly nodeId: NodeId;
      readonly version: number;
      readonly spec: NodeSpec;
    }
  | {
      readonly kind: 'node_observe';
      readonly nodeId: NodeId;
      readonly observation: NodeObservation;
    }
  /** All nodes that are ready become what a manager knows of them when it starts: nothing. */
  | { readonly kind: 'nodes_forget_state'; readonly except: NodeId; readonly stateMessage: string }
  | { readonly kind: 'node_leave'; readonly nodeId: NodeId }
  /** From then on the node's certificate opens nothing: only members are served. */
  | { readonly kind: 'node_remove'; readonly nodeId: NodeId; readonly force: boolean }
  | { readonly kind: 'network_create'; readonly id: NetworkId; readonly spec: NetworkSpec }
  | { readonly kind: 'network_remove'; readonly ref: string }
  | {
      readonly kind: 'attachment_create';
      readonly id: AttachmentId;
      readonly nodeId: NodeId;
      readonly request: AttachRequest;
    }
  /** `nodeId`: only that node's; without it anyone's. Removing what is gone succeeds. */
  | { readonly kind: 'attachment_remove'; readonly id: AttachmentId; readonly nodeId?: NodeId };

/** A command and when it was given, in milliseconds since the Unix epoch. */
export type Command = CommandBody & { readonly atMs: number };
