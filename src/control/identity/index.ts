/** Who is who: the swarm's CA, certificates of nodes, join tokens, and the protocol for getting them. */
export { peerIdOf } from './core/peer-id.js';
export {
  type Authority,
  createAuthority,
  type IssuerFacts,
  issueNodeCertificate,
  issuerFacts,
  newJoinToken,
  readNodeCertificate,
} from './io/authority.js';
export { JoinAttempt, type Joined, type JoinOptions, renewIdentity } from './io/ca-client.js';
export { type CaBackend, serveCa } from './io/ca-server.js';
export {
  loadIdentity,
  makeIdentity,
  type NodeIdentity,
  removeIdentity,
  renewalAtMs,
  saveIdentity,
} from './io/identity.js';
export { rawPublicKeyOf } from './io/keys.js';
