import { SwarmError, type SwarmErrorDetail } from '../../../base/swarm-error.js';

export function refuse(detail: SwarmErrorDetail, message: string): SwarmError {
  return new SwarmError(detail, message);
}

export function invalid(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_INVALID' }, message);
}

/** For the state that things are in: Docker's `FailedPrecondition`. */
export function precondition(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_PRECONDITION' }, message);
}

export function unsupported(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_UNSUPPORTED' }, message);
}
