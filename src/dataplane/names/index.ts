/** The resolver that tasks see at 127.0.0.11: names of their networks, and the host's upstreams. */
export { type NameEntry, NameIndex, type NameTable, type NetworkNames } from './core/name-table.js';
export { type NamedEndpoint, type NamedService, serviceNames } from './core/service-names.js';
export { NAME_SERVER_ADDRESS, parseUpstreams } from './core/upstreams.js';
export {
  NameServer,
  type NameServerConfig,
  type NameServerLog,
  type NameServerStats,
} from './io/name-server.js';
