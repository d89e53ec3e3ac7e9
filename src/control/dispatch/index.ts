/** What managers tell agents, what agents ask of managers, and which agents are there. */
export {
  type Assignments,
  type AssignmentsSource,
  formatControlAddress,
  type SharedAssignments,
} from './core/assignments.js';
export type { MembershipState } from './core/liveness.js';
export { ASSIGNMENTS_NAME } from './io/assignments-file.js';
export { type DispatchBackend, Dispatcher, type DispatcherStats } from './io/dispatcher.js';
export { Session, type SessionConfig, type SessionEnd } from './io/session.js';
export type { ClusterFacts, NodeEntry } from './wire/messages.js';
