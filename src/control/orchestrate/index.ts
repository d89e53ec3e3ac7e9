/** Decides which tasks there are, where they run, and when they end. */
export { Orchestrator, type OrchestratorStats, type Refusal } from './core/orchestrator.js';
export { Outdated } from './core/outdated.js';
export { STRATEGY_LABEL } from './core/scheduler.js';
export type { CommandGroup, OrchestrateCommand, View, ViewChange } from './core/view.js';
