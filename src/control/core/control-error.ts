import { AgentError } from '../../base/error.js';

/** What the manager's own disk and files can refuse; never the user's fault. */
export type ControlErrorDetail =
  /** The disk is full: nothing was changed; free some space, then try again. */
  | { readonly code: 'CONTROL_STORE_FULL' }
  /** The disk failed: nothing more is written until a restart; the last command may or may not hold. */
  | { readonly code: 'CONTROL_STORE_FAILED'; readonly cause: string }
  /** The store was closed under the command. */
  | { readonly code: 'CONTROL_STORE_CLOSED' }
  /** Too many commands wait for the disk: retry later. */
  | { readonly code: 'CONTROL_STORE_BUSY' }
  /** Not retryable: a file is damaged in the middle; restore it from a copy. */
  | { readonly code: 'CONTROL_STORE_CORRUPT'; readonly file: string; readonly offsetBytes: number }
  /** Not retryable: a newer version has written the file. */
  | { readonly code: 'CONTROL_STORE_SCHEMA'; readonly file: string; readonly schema: number };

export class ControlError extends AgentError<ControlErrorDetail> {}
