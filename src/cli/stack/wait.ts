import { setTimeout as delay } from 'node:timers/promises';
import type { Dependency } from '../compose/convert.js';
import { CliError } from '../error.js';
import type { ServiceJson, StackApi, TaskJson } from './api.js';

const POLL_MS = 200;

/** How far a service is: what is wished, and what is there of it. */
export interface Convergence {
  readonly done: boolean;
  readonly text: string;
}

/** Tasks that count: of jobs also those that are complete. */
function isJob(service: ServiceJson): boolean {
  return 'ReplicatedJob' in service.Spec.Mode || 'GlobalJob' in service.Spec.Mode;
}

async function look(api: StackApi, name: string): Promise<Convergence> {
  const service = await api.service(name);
  const { State: state = '', Message: message = '' } = service.UpdateStatus ?? {};
  if (state === 'paused' || state === 'rollback_paused')
    throw new CliError({ code: 'CLI_SPEC' }, `${name}: ${state}: ${message}`);
  const tasks = await api.tasks({ service: [service.ID], '_up-to-date': ['true'] });
  const good = tasks.filter(({ Status, DesiredState }) =>
    Status.State === 'running' ? DesiredState === 'running' : Status.State === 'complete',
  );
  const wanted = wantedOf(service, tasks);
  const updating = state === 'updating' || state === 'rollback_started';
  return {
    done: !updating && good.length >= wanted && (wanted > 0 || isSettled(service)),
    text: `${good.length}/${wanted} ${isJob(service) ? 'complete' : 'running'}`,
  };
}

/** A global service's number of tasks is known when they are there. */
function wantedOf({ Spec }: ServiceJson, tasks: readonly TaskJson[]): number {
  const { Replicated, ReplicatedJob } = Spec.Mode as {
    readonly Replicated?: { readonly Replicas?: number };
    readonly ReplicatedJob?: { readonly TotalCompletions?: number };
  };
  if (Replicated !== undefined) return Replicated.Replicas ?? 1;
  if (ReplicatedJob !== undefined) return ReplicatedJob.TotalCompletions ?? 1;
  return tasks.filter(({ DesiredState }) => ['running', 'complete'].includes(DesiredState)).length;
}

/** None are wished for at all. */
function isSettled({ Spec }: ServiceJson): boolean {
  const { Replicated } = Spec.Mode as { readonly Replicated?: { readonly Replicas?: number } };
  return Replicated?.Replicas === 0;
}

/** Whether what a dependent waits for is there now. */
async function fulfilled(api: StackApi, { service, condition }: Dependency): Promise<boolean> {
  const tasks = await api.tasks({ service: [service] });
  const inState = (state: string) => tasks.filter(({ Status }) => Status.State === state).length;
  switch (condition) {
    case 'service_completed_successfully':
      return inState('complete') > 0;
    default:
      // A task with a health check is `running` when it is healthy, and `starting` before.
      return inState('running') > 0 || inState('complete') > 0;
  }
}

export interface Patience {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
}

async function poll(
  what: string,
  patience: Patience,
  look: () => Promise<{ readonly done: boolean; readonly text: string }>,
): Promise<void> {
  const until = Date.now() + patience.timeoutMs;
  let said = '';
  for (;;) {
    const { done, text } = await look();
    if (text !== said) patience.say(`${what}: ${text}`);
    said = text;
    if (done) return;
    if (Date.now() > until)
      throw new CliError(
        { code: 'CLI_SPEC' },
        `${what}: not there after ${patience.timeoutMs / 1000} s (${text}): see 'shoal stack ps'`,
      );
    await delay(POLL_MS, undefined, { signal: patience.signal });
  }
}

/** @throws CliError when the time is over, or an update is paused. */
export function waitConverged(api: StackApi, name: string, patience: Patience): Promise<void> {
  return poll(name, patience, () => look(api, name));
}

/** @throws CliError when the time is over. */
export function waitDependency(
  api: StackApi,
  service: string,
  dependency: Dependency,
  patience: Patience,
): Promise<void> {
  const text = `waits for ${dependency.service} (${dependency.condition.replace('service_', '')})`;
  return poll(service, patience, async () => {
    const done = await fulfilled(api, dependency);
    return { done, text: done ? `${dependency.service} is there` : text };
  });
}
