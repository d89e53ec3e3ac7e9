import type { ManageRequest } from '../wire/records.js';

/** What the classic Swarm's command did besides: `discovery` as the user gave it. */
export interface ClassicVerbs {
  /** This node is in the group. Returns the address that it has there. */
  joinGroup(discovery: string, address: string): string;
  leaveGroup(discovery: string): void;
  /** Addresses of the nodes of the group; of managers. */
  listGroup(discovery: string): readonly string[];
  /** Opens the endpoint until `close`. */
  manage(
    request: ManageRequest,
  ): Promise<{ readonly port: number; readonly close: () => Promise<void> }>;
}
