import { AgentError } from '../base/error.js';

export type CliErrorDetail =
  /** The command line is wrong: correct it. */
  | { readonly code: 'CLI_USAGE' }
  /** No agent answers on the socket. */
  | { readonly code: 'CLI_UNREACHABLE'; readonly socket: string }
  /** The agent refused; `refusal` is its own code, where it gave one. */
  | { readonly code: 'CLI_REFUSED'; readonly status: number; readonly refusal: string | undefined }
  /** `shoal run` failed before the command could start. */
  | { readonly code: 'CLI_RUN_FAILED' }
  /** A program that is needed failed or is missing. */
  | { readonly code: 'CLI_TOOL_FAILED'; readonly tool: string }
  /** The lab is not in a state for what was asked. */
  | { readonly code: 'LAB_STATE' }
  /** A compose file, or a flag of a service, says something that cannot be done. */
  | { readonly code: 'CLI_SPEC' }
  /** An agent of the lab did not come up; its log tells why. */
  | { readonly code: 'LAB_AGENT_FAILED'; readonly node: string }
  /** Stopped by a signal; `exitCode` is 128 and its number. */
  | { readonly code: 'CLI_INTERRUPTED'; readonly exitCode: number };

/** A refusal of the command itself. */
export class CliError extends AgentError<CliErrorDetail> {}

export function usage(message: string): CliError {
  return new CliError({ code: 'CLI_USAGE' }, message);
}

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** A bug of ours, `EX_SOFTWARE` of sysexits(3). */
export const EXIT_BUG = 70;
/** `shoal run`'s own failure, as of `docker run`. */
export const EXIT_RUN_FAILED = 125;

/** What a failed command exits with. */
export function exitCodeOf(error: AgentError<{ readonly code: string }>): number {
  if (!(error instanceof CliError)) return EXIT_FAILURE;
  switch (error.detail.code) {
    case 'CLI_USAGE':
      return EXIT_USAGE;
    case 'CLI_RUN_FAILED':
      return EXIT_RUN_FAILED;
    case 'CLI_INTERRUPTED':
      return error.detail.exitCode;
    default:
      return EXIT_FAILURE;
  }
}
