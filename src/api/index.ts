export type { Backend } from './core/backend.js';
export type { ClassicVerbs } from './core/classic-verbs.js';
export type {
  ContainerNetworks,
  ContainerPlan,
  EngineAnswer,
} from './core/container-networks.js';
export type { HostContainers } from './core/host-containers.js';
export type {
  RegistryAuth,
  ServiceAnswer,
  ServiceBackend,
  ServiceUpdate,
  TaskLogQuery,
  TaskLogRecord,
} from './core/service-backend.js';
export type { ContainerBackend } from './io/containers.js';
export { HOP_HEADER } from './io/gateway.js';
export type { Logger } from './io/log.js';
export { type ApiConfig, type ApiDependencies, ApiServer, type ApiStats } from './io/server.js';
export type { TcpAddress, TcpEntrance, TlsMaterial } from './io/tcp.js';
export type { Upstream } from './io/upstream.js';
export { ApiError, type ApiErrorDetail, attachRefusal } from './wire/errors.js';
export type {
  AttachRequest,
  AttachTarget,
  BlobUpdate,
  ClientCertificate,
  ClientCertificateRequest,
  DetachRequest,
  FlowsAnswer,
  FlowsQuery,
  Freshness,
  HistoryItem,
  HistoryQuery,
  HostFacts,
  InitRequest,
  JoinRequest,
  LocalAttachment,
  LocalState,
  LocalSwarm,
  OverlayEndpoint,
  PortItem,
  RecoverRequest,
  Rotation,
  SwarmEvent,
} from './wire/records.js';
