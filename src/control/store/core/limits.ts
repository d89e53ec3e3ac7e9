/** Tasks of the whole swarm, also those that have ended and are remembered. */
export const TASKS_MAX = 65_536;
export const ATTACHMENTS_PER_NODE_MAX = 4_096;
