/** ALPN names of what shares the control port. */
export const ALPN_CA = 'shoal-ca/1';
export const ALPN_DISPATCH = 'shoal-dispatch/1';
/** Between managers: raft's messages, its snapshots, and what is asked of the leader. */
export const ALPN_RAFT = 'shoal-raft/1';
export const ALPN_RAFT_SNAPSHOT = 'shoal-raft-snapshot/1';
/** DNS name in every manager's certificate; the name that clients ask for. */
export const MANAGER_NAME = 'swarm-manager';
export const WORKER_NAME = 'swarm-worker';
/** Unit of those who may use the Docker API by TCP, and of the certificate that its port shows. */
export const CLIENT_NAME = 'swarm-client';
export const API_NAME = 'swarm-api';
