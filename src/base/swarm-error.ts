import { AgentError } from './error.js';

/**
 * Every refusal that a user of the swarm can meet. The Docker API turns the detail into the status
 * and the words that Docker's own engine uses; `message` is for `shoal` and for logs.
 */
export type SwarmErrorDetail =
  /** The node is in no swarm: init or join first. */
  | { readonly code: 'SWARM_INACTIVE' }
  /** A manager's work was asked of a worker: ask a manager. */
  | { readonly code: 'SWARM_NOT_MANAGER' }
  /** init or join on a node that already is in a swarm: leave first. */
  | { readonly code: 'SWARM_ALREADY_ACTIVE' }
  /** `leave` on a node that is in no swarm. */
  | { readonly code: 'SWARM_NOT_PART' }
  /** `leave` without force on a manager; `last` when it is the only one. */
  | { readonly code: 'SWARM_MANAGER_LEAVE'; readonly last: boolean }
  /** An advertise, listen or data-path address that is neither an address nor an interface here. */
  | {
      readonly code: 'SWARM_BAD_ADDRESS';
      readonly kind: 'advertise' | 'listen' | 'dataPath' | 'remote';
    }
  /** Several addresses could be advertised: the user must choose. */
  | { readonly code: 'SWARM_AMBIGUOUS_ADDRESS'; readonly candidates: readonly string[] }
  /** Not the form of a join token. */
  | { readonly code: 'SWARM_TOKEN_MALFORMED' }
  /** The token's secret is not (or no longer) the swarm's. */
  | { readonly code: 'SWARM_TOKEN_REFUSED' }
  /** The manager's CA is not the one named by the token; `expected` is the digest in hex. */
  | { readonly code: 'SWARM_CA_MISMATCH'; readonly expected: string }
  /** No manager answered in time; the attempt goes on in the background. */
  | { readonly code: 'SWARM_JOIN_TIMEOUT' }
  /** The manager cannot be reached now: retry later. */
  | { readonly code: 'SWARM_NO_MANAGER' }
  /** Too few managers are online to decide anything: bring more than half of them back. */
  | { readonly code: 'SWARM_NO_QUORUM' }
  /** The request was taken up and its outcome is not known: look, then ask again if need be. */
  | { readonly code: 'SWARM_OUTCOME_UNKNOWN' }
  /** This manager's state is encrypted: unlock it first. */
  | { readonly code: 'SWARM_LOCKED' }
  /** `unlock` on a node that is not locked. */
  | { readonly code: 'SWARM_NOT_LOCKED' }
  /** The key opens nothing here: ask another manager for the present one. */
  | { readonly code: 'SWARM_UNLOCK_KEY_REFUSED' }
  | { readonly code: 'SWARM_NOT_FOUND'; readonly kind: ObjectKind; readonly ref: string }
  /** The reference matches several objects. */
  | {
      readonly code: 'SWARM_AMBIGUOUS';
      readonly kind: ObjectKind;
      readonly ref: string;
      readonly count: number;
    }
  | { readonly code: 'SWARM_NAME_TAKEN'; readonly kind: ObjectKind; readonly name: string }
  /**
   * The object is still used; `by` is the user, for example `task abc`. `id` of a secret or config is
   * its name.
   */
  | {
      readonly code: 'SWARM_IN_USE';
      readonly kind: ObjectKind;
      readonly id: string;
      readonly by: string;
    }
  /** Read the object again, then update it with its new version. */
  | { readonly code: 'SWARM_OUT_OF_SEQUENCE' }
  | { readonly code: 'SWARM_NODE_NOT_DOWN'; readonly nodeId: string }
  /** Not retryable: the request is wrong; `message` says what to change. */
  | { readonly code: 'SWARM_INVALID' }
  /** As SWARM_INVALID, but for the state that the object is in; `message` says what to do first. */
  | { readonly code: 'SWARM_PRECONDITION' }
  /** Not retryable: a bug of ours; nothing was changed. */
  | { readonly code: 'SWARM_INTERNAL' }
  /** Not retryable: the swarm does not do this (yet); `message` says so. */
  | { readonly code: 'SWARM_UNSUPPORTED' }
  /** The network exists and is not attachable. */
  | { readonly code: 'SWARM_NOT_ATTACHABLE'; readonly network: string }
  /** The node does not answer the other nodes now: retry when it is back. */
  | { readonly code: 'SWARM_UNREACHABLE'; readonly node: string }
  /** No address, VNI or subnet is left. */
  | { readonly code: 'SWARM_EXHAUSTED'; readonly what: string }
  /** A port that the node needs is taken; `by` names the holder where it can be found. */
  | {
      readonly code: 'SWARM_PORT_TAKEN';
      readonly port: number;
      readonly protocol: 'tcp' | 'udp';
      readonly by: string;
    };

export type ObjectKind =
  | 'node'
  | 'network'
  | 'attachment'
  | 'service'
  | 'task'
  | 'secret'
  | 'config';

export class SwarmError extends AgentError<SwarmErrorDetail> {}
