import type { Health } from '../../base/service-model.js';

/** A task of the host runtime, shown as what it would be in an engine. */
export interface HostContainer {
  /** 64 hexadecimal digits. */
  readonly id: string;
  readonly taskId: string;
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly tty: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: 'prepared' | 'running' | 'exited';
  readonly pid: number;
  readonly exitCode?: number;
  readonly error?: string;
  readonly oomKilled?: boolean;
  readonly health: Health;
  readonly createdAtMs: number;
  readonly startedAtMs?: number;
}

export interface HostStats {
  readonly atMs: number;
  readonly cpuNs?: bigint;
  readonly cpuSystemNs?: bigint;
  readonly memoryBytes?: number;
  readonly memoryMaxBytes?: number;
  readonly memoryLimitBytes?: number;
  readonly pids?: number;
  readonly pidsLimit?: number;
}

export interface HostTop {
  readonly pid: number;
  readonly parentPid: number;
  readonly uid: number;
  readonly startedAtMs: number;
  readonly cpuMs: number;
  readonly tty: string;
  readonly command: string;
}
