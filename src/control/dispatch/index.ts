/** What managers tell agents, what agents ask of managers, and which agents are there. */
export {
  type Assignments,
  type AssignmentsSource,
  formatControlAddress,
  parseControlAddress,
  type SharedAssignments,
} from './core/assignments.js';
export type { MembershipState } from './core/liveness.js';
export type { PeerFacts } from './io/agent-session.js';
export { ASSIGNMENTS_NAME } from './io/assignments-file.js';
export {
  type DispatchBackend,
  Dispatcher,
  type DispatcherStats,
  type RowChange,
} from './io/dispatcher.js';
export { Session, type SessionConfig, type SessionEnd } from './io/session.js';
export type { ClusterFacts, NodeEntry } from './wire/messages.js';
