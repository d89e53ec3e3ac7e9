import type { HealthConfig } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type { LogOptions } from './log-options.js';

/** What the runtime keeps of a task on disk: enough to find it again, and to run commands inside it. */
export interface TaskRecord {
  readonly id: TaskId;
  readonly name: string;
  readonly containerId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly network: 'resolver' | 'isolated' | 'host';
  readonly log: LogOptions | null;
  readonly stopSignal: number;
  readonly health?: HealthConfig;
  readonly cgroups: { readonly folders: readonly string[]; readonly procs: readonly string[] };
  /** How the task's own command is run; `docker exec` begins with the same. */
  readonly command: CommandRecord;
}

export interface CommandRecord {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** Hexadecimal. */
  readonly capabilities: string;
  readonly noNewPrivileges: boolean;
  /** Absent in what an older agent has written. */
  readonly limits?: readonly LimitRecord[];
}

/** One of `setrlimit`; -1 is none. */
export interface LimitRecord {
  readonly resource: number;
  readonly soft: number;
  readonly hard: number;
}
