/** The classic Swarm's face: the engines of all nodes as one. */
export { CLASSIC_STRATEGIES, type ClassicStrategy } from './core/scheduler.js';
export type { ClassicBackend, ClassicMember } from './io/backend.js';
export { type ClassicFallback, ClassicServer } from './io/server.js';
export { discoveryLabel, isDiscoveryLabel, parseDiscovery } from './wire/token.js';
