import { unreachable } from '../../base/assert.js';
import { AgentError } from '../../base/error.js';
import { type ObjectKind, SwarmError, type SwarmErrorDetail } from '../../base/swarm-error.js';

/** Refusals of the API itself, which no part behind it has a say in. */
export type ApiErrorDetail =
  /** The request is malformed; the message says where. */
  | { readonly code: 'API_BAD_REQUEST' }
  | { readonly code: 'API_BODY_TOO_LARGE' }
  /** No such route, or nothing of that name among the things which Shoal does not keep. */
  | { readonly code: 'API_NOT_FOUND' }
  | { readonly code: 'API_CONFLICT' }
  /** The cluster as one engine does not do it, in the classic Swarm's words. */
  | { readonly code: 'API_REFUSED' }
  /** A real verb of Docker's which Shoal does not do. */
  | { readonly code: 'API_UNSUPPORTED' }
  /** Not now: locked, or too many streams are open. */
  | { readonly code: 'API_UNAVAILABLE' }
  /** A container could not be put on a network of the swarm's; the message says which and why. */
  | { readonly code: 'API_NOT_ATTACHED' }
  /** As the engine refuses a container's wishes. */
  | { readonly code: 'API_FORBIDDEN' }
  /** What a real engine's control plane would say, with the name of its status. */
  | { readonly code: 'API_CONTROL_REFUSED'; readonly status: ControlStatus }
  /** Something else owns the socket's path: stop it, or choose another path. */
  | { readonly code: 'API_SOCKET_TAKEN'; readonly path: string }
  /** The socket cannot be made there; the message says why. */
  | { readonly code: 'API_SOCKET_REFUSED'; readonly path: string };

/** Of gRPC, in which Docker's control plane answers; the words reach the user. */
export type ControlStatus = 'InvalidArgument' | 'FailedPrecondition' | 'Unimplemented' | 'Unknown';

const CONTROL_STATUS: Readonly<Record<ControlStatus, number>> = {
  InvalidArgument: 400,
  FailedPrecondition: 400,
  Unimplemented: 501,
  Unknown: 500,
};

export class ApiError extends AgentError<ApiErrorDetail> {}

export const badRequest = (message: string) => new ApiError({ code: 'API_BAD_REQUEST' }, message);

export const controlRefusal = (status: ControlStatus, message: string) =>
  new ApiError({ code: 'API_CONTROL_REFUSED', status }, message);

/** How an error leaves: HTTP status and Docker's words. */
export interface Refusal {
  readonly status: number;
  readonly message: string;
}

/** What the words of some refusals need beyond the refusal itself. */
export interface RefusalContext {
  /** Creating a network says 403 where every other verb says 503. */
  readonly creatingNetwork?: boolean;
  readonly managers?: { readonly reachable: number; readonly total: number };
  /** The real engine lets its control plane judge this, and repeats how that puts it. */
  readonly judgedByControl?: boolean;
  /** A service's spec is judged: what is not supported is said in the control plane's form as well. */
  readonly ofService?: boolean;
}

export const INACTIVE_TEXT =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const WORKER_TEXT =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const ALREADY_TEXT =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
const TIMEOUT_TEXT =
  'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.';
const NO_LEADER_TEXT =
  "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";
const LOCKED_TEXT =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';
const LEAVING_TEXT =
  'You are attempting to leave the swarm on a node that is participating as a manager. ';

const ADDRESS_TEXT = {
  advertise:
    'advertise address must be a non-zero IP address or network interface (with optional port number)',
  listen: 'listen address must be an IP address or network interface (with optional port number)',
  dataPath:
    'data path address must be a non-zero IP address or network interface (without a port number)',
  remote: 'remote address must be a host name or an IP address (with optional port number)',
} as const;

function leaveText(last: boolean, managers: RefusalContext['managers']): string {
  // The blank at the end is Docker's.
  if (last) {
    return `${LEAVING_TEXT}Removing the last manager erases all current state of the swarm. Use \`--force\` to ignore this message. `;
  }
  const loss =
    managers !== undefined && managers.reachable - 1 <= Math.floor(managers.total / 2)
      ? `Removing this node leaves ${managers.reachable - 1} managers out of ${managers.total}. Without a Raft quorum your swarm will be inaccessible. `
      : '';
  return `${LEAVING_TEXT}${loss}The only way to restore a swarm that has lost consensus is to reinitialize it with \`--force-new-cluster\`. Use \`--force\` to suppress this message.`;
}

function nameTakenText(kind: ObjectKind, name: string): string {
  if (kind === 'network') return `network with name ${name} already exists`;
  const conflict = kind === 'service' ? 'name conflicts with an existing object: ' : '';
  return `rpc error: code = AlreadyExists desc = ${conflict}${kind} ${name} already exists`;
}

/**
 * Docker's status and exact words for a refusal of the swarm: people and scripts search for them.
 * Source: recorded answers of a real engine of API 1.45.
 */
export function swarmRefusal(
  detail: SwarmErrorDetail,
  message: string,
  context: RefusalContext = {},
): Refusal {
  switch (detail.code) {
    case 'SWARM_INACTIVE':
      return { status: context.creatingNetwork ? 403 : 503, message: INACTIVE_TEXT };
    case 'SWARM_NOT_MANAGER':
      return context.creatingNetwork
        ? { status: 403, message: INACTIVE_TEXT }
        : { status: 503, message: WORKER_TEXT };
    case 'SWARM_ALREADY_ACTIVE':
      return { status: 503, message: ALREADY_TEXT };
    case 'SWARM_NOT_PART':
      return { status: 503, message: 'This node is not part of a swarm' };
    case 'SWARM_MANAGER_LEAVE':
      return { status: 503, message: leaveText(detail.last, context.managers) };
    case 'SWARM_BAD_ADDRESS':
      return { status: 400, message: ADDRESS_TEXT[detail.kind] };
    case 'SWARM_AMBIGUOUS_ADDRESS':
      // The CLI itself adds that one can be specified with --advertise-addr.
      return {
        status: 400,
        message:
          detail.candidates.length === 0
            ? "could not find the system's IP address"
            : `could not choose an IP address to advertise since this system has multiple addresses (${detail.candidates.join(' and ')})`,
      };
    case 'SWARM_TOKEN_MALFORMED':
      return { status: 500, message: 'invalid join token' };
    case 'SWARM_TOKEN_REFUSED':
      return {
        status: 400,
        message:
          'rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster',
      };
    case 'SWARM_CA_MISMATCH':
      return {
        status: 500,
        message: `remote CA does not match fingerprint. Expected: ${detail.expected}`,
      };
    case 'SWARM_JOIN_TIMEOUT':
      return { status: 503, message: TIMEOUT_TEXT };
    case 'SWARM_NO_MANAGER':
    case 'SWARM_NO_QUORUM':
      return { status: 500, message: NO_LEADER_TEXT };
    case 'SWARM_LOCKED':
      return { status: 503, message: LOCKED_TEXT };
    case 'SWARM_NOT_LOCKED':
      return { status: 409, message: 'swarm is not locked' };
    case 'SWARM_UNLOCK_KEY_REFUSED':
      return { status: 401, message: 'swarm could not be unlocked: invalid key provided' };
    case 'SWARM_NOT_FOUND':
      return { status: 404, message: `${detail.kind} ${detail.ref} not found` };
    case 'SWARM_AMBIGUOUS':
      return {
        status: 400,
        message: `${detail.kind} ${detail.ref} is ambiguous (${detail.count} matches found)`,
      };
    case 'SWARM_NAME_TAKEN':
      return { status: 409, message: nameTakenText(detail.kind, detail.name) };
    case 'SWARM_IN_USE':
      return {
        status: 400,
        message:
          detail.kind === 'secret' || detail.kind === 'config'
            ? `rpc error: code = InvalidArgument desc = ${detail.kind} '${detail.id}' is in use by ${detail.by}`
            : `rpc error: code = FailedPrecondition desc = ${detail.kind} ${detail.id} is in use by ${detail.by}`,
      };
    case 'SWARM_OUT_OF_SEQUENCE':
      return { status: 500, message: 'rpc error: code = Unknown desc = update out of sequence' };
    case 'SWARM_NODE_NOT_DOWN':
      return {
        status: 400,
        message: `rpc error: code = FailedPrecondition desc = node ${detail.nodeId} is not down and can't be removed`,
      };
    case 'SWARM_NOT_ATTACHABLE':
      return {
        status: 403,
        message: `rpc error: code = PermissionDenied desc = network ${detail.network} not manually attachable`,
      };
    case 'SWARM_INVALID':
      return {
        status: 400,
        message: context.judgedByControl
          ? `rpc error: code = InvalidArgument desc = ${message}`
          : message,
      };
    case 'SWARM_PRECONDITION':
      return { status: 400, message: `rpc error: code = FailedPrecondition desc = ${message}` };
    case 'SWARM_INTERNAL':
    case 'SWARM_OUTCOME_UNKNOWN':
      return { status: 500, message };
    case 'SWARM_UNSUPPORTED':
      return {
        status: 501,
        message: context.ofService ? `rpc error: code = Unimplemented desc = ${message}` : message,
      };
    case 'SWARM_EXHAUSTED':
      return { status: 500, message };
    case 'SWARM_UNREACHABLE':
      return { status: 503, message };
    case 'SWARM_PORT_TAKEN':
      return { status: 409, message };
    default:
      return unreachable(detail);
  }
}

/** A container cannot be put on a network: as Docker says it when the container is to start. */
export function attachRefusal(network: string, error: unknown): ApiError {
  const detail = error instanceof AgentError ? error.detail : undefined;
  const { message } = error instanceof Error ? error : { message: String(error) };
  const why =
    detail?.code === 'SWARM_NOT_FOUND'
      ? `rpc error: code = NotFound desc = network ${network} not found`
      : error instanceof SwarmError
        ? swarmRefusal(error.detail, message).message
        : message;
  return new ApiError(
    { code: 'API_NOT_ATTACHED' },
    `Could not attach to network ${network}: ${why}`,
    { cause: error },
  );
}

export function apiRefusal(detail: ApiErrorDetail, message: string): Refusal {
  switch (detail.code) {
    case 'API_BAD_REQUEST':
      return { status: 400, message };
    case 'API_BODY_TOO_LARGE':
      return { status: 413, message };
    case 'API_NOT_FOUND':
      return { status: 404, message };
    case 'API_CONFLICT':
      return { status: 409, message };
    case 'API_NOT_ATTACHED':
      return { status: 500, message };
    case 'API_FORBIDDEN':
      return { status: 403, message };
    case 'API_UNSUPPORTED':
      return { status: 501, message };
    case 'API_UNAVAILABLE':
      return { status: 503, message };
    case 'API_CONTROL_REFUSED':
      return {
        status: CONTROL_STATUS[detail.status],
        message: `rpc error: code = ${detail.status} desc = ${message}`,
      };
    case 'API_REFUSED':
    case 'API_SOCKET_TAKEN':
    case 'API_SOCKET_REFUSED':
      return { status: 500, message };
    default:
      return unreachable(detail);
  }
}
