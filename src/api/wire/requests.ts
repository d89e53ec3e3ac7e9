import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { SwarmError } from '../../base/swarm-error.js';
import type { ClusterSpec, NetworkSpec, NodeSpec, SubnetSpec } from '../../base/swarm-model.js';
import { badRequest } from './errors.js';
import type { AttachRequest, DetachRequest, InitRequest, JoinRequest } from './records.js';
import { durationMsOf } from './time.js';

/**
 * Request bodies of Docker's API, read into the swarm's own words. Unknown members are ignored,
 * `null` and absence are one, as in Go. Anything else that does not fit is one sentence, status 400.
 */

export const LABELS_MAX = 1024;
export const ALIASES_MAX = 64;
export const SUBNETS_MAX = 64;
/** IFNAMSIZ less the zero byte. */
export const IFNAME_BYTES_MAX = 15;

const DEFAULT_LISTEN_ADDRESS = '0.0.0.0:2377';
const DEFAULT_DATA_PATH_PORT = 4789;
const DATA_PATH_PORT_MIN = 1024;
const DATA_PATH_PORT_MAX = 49_151;
const DEFAULT_SUBNET_SIZE = 24;

/** Docker's own defaults of a new swarm. */
export const DEFAULT_CLUSTER_SPEC: ClusterSpec = {
  name: 'default',
  labels: {},
  taskHistoryRetentionLimit: 5,
  raft: {
    snapshotInterval: 10_000,
    keepOldSnapshots: 0,
    logEntriesForSlowFollowers: 500,
    electionTick: 10,
    heartbeatTick: 1,
  },
  dispatcherHeartbeatMs: 5_000,
  nodeCertExpiryMs: 90 * 86_400_000,
  autolock: false,
};

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
/** Whole, and not only up to 2^53: durations of years are larger. */
const whole = z.number().refine(Number.isInteger, 'expected a whole number');
const count = whole.refine((value) => value >= 0, 'expected no negative number');
const optionalCount = count.nullish().transform((value) => value ?? undefined);
const labels = z
  .record(z.string(), z.string())
  .refine((value) => Object.keys(value).length <= LABELS_MAX, `at most ${LABELS_MAX} entries`)
  .nullish()
  .transform((value) => value ?? {});
const listOf = <T extends z.ZodType>(item: T, max: number) =>
  z
    .array(item)
    .max(max, `at most ${max} entries`)
    .nullish()
    .transform((value) => value ?? []);
const objectOf = <T extends z.ZodRawShape>(shape: T) => z.object(shape).nullish();

const availability = text.pipe(
  z
    .enum(['', 'active', 'pause', 'drain'], {
      error: (issue) => `invalid Availability: "${String(issue.input)}"`,
    })
    .transform((value) => (value === '' ? 'active' : value)),
);
const role = z.enum(['worker', 'manager'], {
  error: (issue) => `invalid Role: "${String(issue.input ?? '')}"`,
});
const isCidr = (value: string) => ipaddr.isValidCIDR(value);
const isAddress = (value: string) =>
  ipaddr.IPv4.isValidFourPartDecimal(value) || ipaddr.IPv6.isValid(value);

/** The member's place and what is wrong with it, as one sentence. */
function sentenceOf(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return 'invalid request body';
  const place = issue.path.map(String).join('.');
  const what = issue.message.replace(/^Invalid input: /, '');
  if (what.startsWith('invalid ')) return what;
  return place === '' ? `invalid request body: ${what}` : `invalid value of ${place}: ${what}`;
}

function read<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw badRequest(sentenceOf(result.error));
}

function refuseUnsupported(wanted: boolean, message: string): void {
  if (wanted) throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, message);
}

const clusterSpec = z.object({
  Name: text,
  Labels: labels,
  Orchestration: objectOf({ TaskHistoryRetentionLimit: optionalCount }),
  Raft: objectOf({
    SnapshotInterval: optionalCount,
    KeepOldSnapshots: optionalCount,
    LogEntriesForSlowFollowers: optionalCount,
    ElectionTick: optionalCount,
    HeartbeatTick: optionalCount,
  }),
  Dispatcher: objectOf({ HeartbeatPeriod: optionalCount }),
  CAConfig: objectOf({
    NodeCertExpiry: optionalCount,
    ForceRotate: optionalCount,
    ExternalCAs: listOf(z.unknown(), 64),
    SigningCACert: text,
    SigningCAKey: text,
  }),
  EncryptionConfig: objectOf({ AutoLockManagers: flag }),
});

/** What is absent or zero keeps its value in `base`: so does Docker merge a spec. */
function clusterSpecOf(body: z.output<typeof clusterSpec>, base: ClusterSpec): ClusterSpec {
  const { Raft: raft, Orchestration: orchestration, CAConfig: ca, Dispatcher: dispatcher } = body;
  refuseUnsupported(
    (ca?.ExternalCAs.length ?? 0) > 0,
    'shoal keeps its own CA: external CAs are not supported',
  );
  refuseUnsupported(
    (ca?.SigningCACert ?? '') !== '' || (ca?.SigningCAKey ?? '') !== '',
    'shoal makes its own CA: a given CA certificate or key is not supported',
  );
  const period = dispatcher?.HeartbeatPeriod;
  const expiry = ca?.NodeCertExpiry;
  return {
    name: body.Name === '' ? base.name : body.Name,
    labels: body.Labels,
    taskHistoryRetentionLimit:
      orchestration?.TaskHistoryRetentionLimit ?? base.taskHistoryRetentionLimit,
    raft: {
      snapshotInterval: raft?.SnapshotInterval || base.raft.snapshotInterval,
      keepOldSnapshots: raft?.KeepOldSnapshots ?? base.raft.keepOldSnapshots,
      logEntriesForSlowFollowers:
        raft?.LogEntriesForSlowFollowers ?? base.raft.logEntriesForSlowFollowers,
      electionTick: raft?.ElectionTick || base.raft.electionTick,
      heartbeatTick: raft?.HeartbeatTick || base.raft.heartbeatTick,
    },
    dispatcherHeartbeatMs: period ? durationMsOf(period) : base.dispatcherHeartbeatMs,
    nodeCertExpiryMs: expiry ? durationMsOf(expiry) : base.nodeCertExpiryMs,
    autolock: body.EncryptionConfig?.AutoLockManagers ?? base.autolock,
  };
}

const initBody = z.object({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  DataPathPort: count
    .nullish()
    .transform((value) => value ?? 0)
    .refine(
      (port) => port === 0 || (port >= DATA_PATH_PORT_MIN && port <= DATA_PATH_PORT_MAX),
      `expected a port from ${DATA_PATH_PORT_MIN} to ${DATA_PATH_PORT_MAX}`,
    ),
  DefaultAddrPool: listOf(
    z.string().refine(isCidr, 'expected an address block in CIDR notation'),
    64,
  ),
  SubnetSize: count
    .nullish()
    .transform((value) => value ?? 0)
    .refine((size) => size <= 128, 'expected a prefix length'),
  ForceNewCluster: flag,
  AutoLockManagers: flag,
  Availability: availability,
  Spec: clusterSpec.nullish(),
});

export function readInit(body: unknown): InitRequest {
  const init = read(initBody, body);
  const spec =
    init.Spec == null ? DEFAULT_CLUSTER_SPEC : clusterSpecOf(init.Spec, DEFAULT_CLUSTER_SPEC);
  return {
    listenAddress: init.ListenAddr || DEFAULT_LISTEN_ADDRESS,
    advertiseAddress: init.AdvertiseAddr,
    dataPathAddress: init.DataPathAddr,
    dataPathPort: init.DataPathPort || DEFAULT_DATA_PATH_PORT,
    defaultAddressPool: init.DefaultAddrPool,
    subnetSize: init.SubnetSize || DEFAULT_SUBNET_SIZE,
    forceNewCluster: init.ForceNewCluster,
    autolock: init.AutoLockManagers || spec.autolock,
    availability: init.Availability,
    spec: { ...spec, autolock: init.AutoLockManagers || spec.autolock },
  };
}

const joinBody = z.object({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  RemoteAddrs: listOf(z.string(), 64),
  JoinToken: text,
  Availability: availability,
});

export function readJoin(body: unknown): JoinRequest {
  const join = read(joinBody, body);
  if (join.RemoteAddrs.length === 0) {
    throw badRequest('at least 1 RemoteAddr is required to join');
  }
  return {
    listenAddress: join.ListenAddr || DEFAULT_LISTEN_ADDRESS,
    advertiseAddress: join.AdvertiseAddr,
    dataPathAddress: join.DataPathAddr,
    remoteAddresses: join.RemoteAddrs,
    joinToken: join.JoinToken,
    availability: join.Availability,
  };
}

/** `rootCa`: `docker swarm ca --rotate` raises a counter which Shoal always shows as zero. */
export function readClusterSpec(
  body: unknown,
  base: ClusterSpec,
): { readonly spec: ClusterSpec; readonly rootCa: boolean } {
  const wire = read(clusterSpec, body);
  return { spec: clusterSpecOf(wire, base), rootCa: (wire.CAConfig?.ForceRotate ?? 0) > 0 };
}

const nodeSpecBody = z.object({
  Name: text,
  Labels: labels,
  Role: role,
  Availability: availability,
});

export function readNodeSpec(body: unknown): NodeSpec {
  const spec = read(nodeSpecBody, body);
  return {
    name: spec.Name,
    labels: spec.Labels,
    role: spec.Role,
    availability: spec.Availability,
  };
}

const subnet = z.object({
  Subnet: text,
  Gateway: text,
  IPRange: text,
  AuxiliaryAddresses: labels,
});

const networkBody = z.object({
  Name: z.string().min(1, 'a network needs a name'),
  Driver: text,
  Scope: text,
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: flag,
  ConfigFrom: objectOf({ Network: text }),
  EnableIPv6: flag,
  Options: labels,
  Labels: labels,
  IPAM: objectOf({
    Driver: text,
    Options: labels,
    Config: listOf(subnet, SUBNETS_MAX),
  }),
});

function subnetSpecOf(config: z.output<typeof subnet>): SubnetSpec {
  const { Subnet, Gateway, IPRange, AuxiliaryAddresses } = config;
  if (!isCidr(Subnet)) {
    throw badRequest(`invalid subnet ${Subnet || '(none)'}: not an address block in CIDR notation`);
  }
  if (IPRange !== '' && !isCidr(IPRange)) {
    throw badRequest(`invalid IP range ${IPRange}: not an address block in CIDR notation`);
  }
  // Old clients send the gateway with the length of the prefix behind it.
  const gateway = Gateway.split('/', 1)[0] ?? '';
  if (gateway !== '' && !isAddress(gateway)) {
    throw badRequest(`invalid gateway ${Gateway}: not an IP address`);
  }
  for (const [name, address] of Object.entries(AuxiliaryAddresses)) {
    if (!isAddress(address))
      throw badRequest(`invalid auxiliary address ${name}=${address}: not an IP address`);
  }
  return {
    subnet: Subnet,
    ...(gateway === '' ? {} : { gateway }),
    ...(IPRange === '' ? {} : { ipRange: IPRange }),
    ...(Object.keys(AuxiliaryAddresses).length === 0 ? {} : { auxAddresses: AuxiliaryAddresses }),
  };
}

export function readNetworkSpec(body: unknown): NetworkSpec {
  const network = read(networkBody, body);
  const driver = network.Driver || 'overlay';
  refuseUnsupported(
    driver !== 'overlay',
    `shoal makes overlay networks only, not "${driver}": use --driver overlay`,
  );
  refuseUnsupported(
    network.Scope !== '' && network.Scope !== 'swarm',
    `shoal makes networks of scope swarm only, not "${network.Scope}"`,
  );
  refuseUnsupported(
    network.ConfigOnly || (network.ConfigFrom?.Network ?? '') !== '',
    'configuration-only networks are not supported',
  );
  return {
    name: network.Name,
    labels: network.Labels,
    driver,
    driverOptions: network.Options,
    attachable: network.Attachable,
    internal: network.Internal,
    ingress: network.Ingress,
    ipv6: network.EnableIPv6,
    ipamDriver: network.IPAM?.Driver || 'default',
    ipamOptions: network.IPAM?.Options ?? {},
    ipam: (network.IPAM?.Config ?? []).map(subnetSpecOf),
  };
}

const pid = whole.refine((value) => value > 0 && value <= 0x7fff_ffff, 'expected a process id');
const path = z.string().regex(/^\/[^\0]*$/, 'expected an absolute path');

const attachBody = z.object({
  network: z.string().min(1, 'expected the name or id of a network'),
  target: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('netns'), path }),
    z.object({ kind: z.literal('pid'), pid }),
    z.object({ kind: z.literal('host') }),
  ]),
  ip: z.string().refine(isAddress, 'expected an IP address').nullish(),
  name: z.string().min(1).max(253).nullish(),
  aliases: listOf(z.string().min(1).max(253), ALIASES_MAX),
  ifname: z
    .string()
    .regex(
      new RegExp(`^[^\\s/:\\0]{1,${IFNAME_BYTES_MAX}}$`),
      `expected an interface name of 1 to ${IFNAME_BYTES_MAX} bytes`,
    )
    .refine((name) => name !== '.' && name !== '..', 'expected an interface name')
    .nullish(),
});

export function readAttach(body: unknown): AttachRequest {
  const attach = read(attachBody, body);
  return {
    network: attach.network,
    target: attach.target,
    aliases: attach.aliases,
    ...(attach.ip == null ? {} : { ip: attach.ip }),
    ...(attach.name == null ? {} : { name: attach.name }),
    ...(attach.ifname == null ? {} : { ifname: attach.ifname }),
  };
}

const detachBody = z.object({
  id: z.string().min(1).nullish(),
  network: z.string().min(1).nullish(),
  netns: path.nullish(),
  pid: pid.nullish(),
  host: z.boolean().nullish(),
});

export function readDetach(body: unknown): DetachRequest {
  const detach = read(detachBody, body);
  const request = Object.fromEntries(
    Object.entries(detach).filter(([, value]) => value != null && value !== false),
  ) as DetachRequest;
  if (Object.keys(request).length === 0) {
    throw badRequest('say what to detach: an id, a network, a netns, a pid or the host');
  }
  return request;
}
