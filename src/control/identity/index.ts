/** Who is who: the swarm's CA, certificates of nodes, join tokens, and the protocol for getting them. */
export {
  cancelRotation,
  finishRotation,
  graceRoots,
  issuingRoot,
  type RotationProgress,
  rotationDelayMs,
  trustBundle,
} from './core/ca-state.js';
export { peerIdOf } from './core/peer-id.js';
export {
  type ApiCertificate,
  type ApiCertificateRequest,
  type Authority,
  createAuthority,
  type IssuedCertificate,
  initialCaState,
  issueApiCertificate,
  issueCertificate,
  issueNodeCertificate,
  issuerFacts,
  newJoinToken,
  type PublicTrust,
  publicTrust,
} from './io/authority.js';
export {
  JoinAttempt,
  type Joined,
  type JoinOptions,
  type RenewOptions,
  renewIdentity,
} from './io/ca-client.js';
export {
  type CaMember,
  type CaRefusal,
  CaServer,
  type CaServerBackend,
  type CaServerStats,
} from './io/ca-service.js';
export {
  type CertifiedNode,
  digestOf,
  type IssuerFacts,
  readNodeCertificate,
  readPeerCertificate,
  type ShowsCertificate,
} from './io/certificates.js';
export {
  adoptTrust,
  type LoadOptions,
  type LockedIdentity,
  loadIdentity,
  makeIdentity,
  type NodeIdentity,
  type Open,
  type RenewalFacts,
  removeIdentity,
  renewalAtMs,
  renewalReason,
  type SaveOptions,
  type Seal,
  saveIdentity,
} from './io/identity.js';
export {
  judgePeer,
  PeerJudge,
  type PeerJudgeConfig,
  type PeerJudgeStats,
  type PeerRefusal,
  type PeerRule,
  type PeerVerdict,
  showsNewRoot,
} from './io/judge.js';
export { rawPublicKeyOf } from './io/keys.js';
export {
  type GivenRoot,
  type RotationWish,
  refuseExternalCas,
  rotationProgress,
  startRotation,
} from './io/rotation.js';
export {
  type CaState,
  parseCaState,
  type RetiredRoot,
  type RootRotation,
} from './wire/ca-state.js';
