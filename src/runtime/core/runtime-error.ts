import { AgentError } from '../../base/error.js';

export type RuntimeErrorDetail =
  /** It can never work as asked: a malformed mount, an option that this runtime does not have. */
  | { readonly code: 'RUNTIME_REJECTED' }
  /** It may work another time, or on another node: no such image, no space, no such program. */
  | { readonly code: 'RUNTIME_FAILED'; readonly exitCode?: number }
  /** No such task here. */
  | { readonly code: 'RUNTIME_NOT_FOUND' };

export class RuntimeError extends AgentError<RuntimeErrorDetail> {}
