import { z } from 'zod';
import type { Health } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type { KnownTask } from '../../core/runtime.js';
import { SANDBOX_LABEL, TASK_LABEL } from './container-json.js';
import { parseNanos } from './stamp.js';

/** What is read of an engine's answers; all else may come and go. */
export const inspectJson = z.object({
  Id: z.string(),
  Name: z.string().default(''),
  State: z.object({
    Status: z.string(),
    Running: z.boolean().default(false),
    Pid: z.number().default(0),
    ExitCode: z.number().default(0),
    Error: z.string().default(''),
    OOMKilled: z.boolean().default(false),
    StartedAt: z.string().default(''),
    FinishedAt: z.string().default(''),
    Health: z
      .object({
        Status: z.string(),
        Log: z
          .array(z.object({ Output: z.string().default('') }))
          .nullish()
          .transform((log) => log ?? []),
      })
      .nullish(),
  }),
  Config: z.object({
    Labels: z
      .record(z.string(), z.string())
      .nullish()
      .transform((labels) => labels ?? {}),
    Tty: z.boolean().default(false),
    StopSignal: z.string().optional(),
  }),
});
export type Inspected = z.infer<typeof inspectJson>;

export const listJson = z.array(
  z.object({
    Id: z.string(),
    Names: z.array(z.string()).default([]),
    State: z.string().default(''),
    Labels: z
      .record(z.string(), z.string())
      .nullish()
      .transform((labels) => labels ?? {}),
  }),
);

export const eventJson = z.object({
  Action: z.string(),
  Actor: z.object({ ID: z.string(), Attributes: z.record(z.string(), z.string()).default({}) }),
});

export const versionJson = z.object({
  Version: z.string(),
  ApiVersion: z.string(),
  Platform: z.object({ Name: z.string().default('') }).optional(),
  Components: z.array(z.object({ Name: z.string(), Version: z.string() })).optional(),
});

export const infoJson = z.object({
  Plugins: z.record(z.string(), z.array(z.string()).nullable()).default({}),
  Labels: z
    .array(z.string())
    .nullish()
    .transform((labels) => labels ?? []),
});

export const pullJson = z.object({ error: z.string().optional() });

export const taskOf = (labels: Readonly<Record<string, string>>): TaskId | undefined =>
  (labels[TASK_LABEL] ?? labels[SANDBOX_LABEL]) as TaskId | undefined;

const RUNNING = new Set(['running', 'paused', 'restarting']);

/** A container whose start failed is still `created`, but with an exit code. */
export function stateOf({ State: state }: Inspected): KnownTask['state'] {
  if (RUNNING.has(state.Status)) return 'running';
  return state.Status === 'created' && state.ExitCode === 0 && state.Error === ''
    ? 'prepared'
    : 'exited';
}

export function healthOf({ State: { Health: health } }: Inspected): Health {
  const status = health?.Status ?? 'none';
  return status === 'starting' || status === 'healthy' || status === 'unhealthy' ? status : 'none';
}

export const healthOutputOf = ({ State: { Health: health } }: Inspected): string =>
  health?.Log.at(-1)?.Output ?? '';

/** How it ended; in words only where the number does not say it. */
export function exitOf({ State: state }: Inspected): {
  readonly exitCode: number;
  readonly error?: string;
  readonly oomKilled?: boolean;
} {
  return {
    exitCode: state.ExitCode,
    ...(state.Error === '' ? {} : { error: state.Error }),
    ...(state.OOMKilled ? { oomKilled: true } : {}),
  };
}

export function knownTask(inspected: Inspected, id: TaskId, netns: string | undefined): KnownTask {
  const { State: state, Config: config } = inspected;
  const kind = stateOf(inspected);
  const startedNs = parseNanos(state.StartedAt);
  return {
    id,
    containerId: inspected.Id,
    state: kind,
    pid: state.Pid,
    ...(netns === undefined ? {} : { netns }),
    ...(kind === 'exited' ? exitOf(inspected) : {}),
    health: kind === 'running' ? healthOf(inspected) : 'none',
    // The engine's zero is the year 1.
    ...(startedNs === undefined || startedNs <= 0n
      ? {}
      : { startedAtMs: Number(startedNs / 1_000_000n) }),
    labels: config.Labels,
  };
}
