import type { HostContainer, HostStats, HostTop } from '../wire/host-records.js';

export interface HostLogQuery {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  readonly tail?: number;
  readonly sinceMs?: number;
  readonly untilMs?: number;
}

export interface HostExecSpec {
  readonly command: readonly string[];
  readonly env?: readonly string[];
  readonly dir?: string;
  readonly user?: string;
  readonly tty: boolean;
  readonly size?: { readonly rows: number; readonly columns: number };
  readonly privileged?: boolean;
}

export interface HostProcess {
  readonly pid: number;
  resize(size: { readonly rows: number; readonly columns: number }): void;
  /** Its exit code, when all its output has been taken. */
  readonly exited: Promise<number>;
}

/** The host runtime, as far as Docker's API asks about containers. Tasks by their ids. */
export interface HostContainers {
  list(): Promise<readonly HostContainer[]>;
  logs(
    taskId: string,
    query: HostLogQuery,
    signal: AbortSignal,
  ): AsyncIterable<{
    readonly stream: 'stdout' | 'stderr';
    readonly atNs: bigint;
    readonly data: Uint8Array;
  }>;
  stop(taskId: string, how: { readonly signal?: string; readonly graceMs: number }): Promise<void>;
  remove(taskId: string): Promise<void>;
  exec(
    taskId: string,
    spec: HostExecSpec,
    streams: {
      readonly stdin?: AsyncIterable<Uint8Array>;
      output(stream: 'stdout' | 'stderr', data: Uint8Array): Promise<void> | void;
    },
    signal: AbortSignal,
  ): Promise<HostProcess>;
  stats(taskId: string): Promise<HostStats>;
  top(taskId: string): Promise<readonly HostTop[]>;
}

/** By full id or name, or by an unambiguous beginning of the id. */
export function findHostContainer(
  containers: readonly HostContainer[],
  ref: string,
): HostContainer | undefined {
  const name = ref.replace(/^\//, '');
  const exact = containers.find((one) => one.id === name || one.name === name);
  if (exact !== undefined || !/^[0-9a-f]+$/.test(name)) return exact;
  const matches = containers.filter(({ id }) => id.startsWith(name));
  return matches.length === 1 ? matches[0] : undefined;
}
