/** ALPN names of what shares the control port. */
export const ALPN_CA = 'shoal-ca/1';
export const ALPN_DISPATCH = 'shoal-dispatch/1';
/** DNS name in every manager's certificate; the name that clients ask for. */
export const MANAGER_NAME = 'swarm-manager';
export const WORKER_NAME = 'swarm-worker';
