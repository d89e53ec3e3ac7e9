import { AgentError } from '../../base/error.js';

/** What the manager's own state can refuse, read from log or snapshot; never the user's fault. */
export type ControlErrorDetail =
  /** Not retryable: `file` is damaged; restore it from a copy. */
  | { readonly code: 'CONTROL_STORE_CORRUPT'; readonly file: string; readonly offsetBytes: number }
  /** Not retryable: a newer version has written the file. */
  | { readonly code: 'CONTROL_STORE_SCHEMA'; readonly file: string; readonly schema: number };

export class ControlError extends AgentError<ControlErrorDetail> {}
