import { z } from 'zod';
import { badRequest } from './errors.js';
import { flag, read } from './fields.js';
import type {
  ClientCertificateRequest,
  FlowsQuery,
  HistoryQuery,
  ManageRequest,
  RecoverRequest,
} from './records.js';

/** Entries of one answer. */
const HISTORY_LIMIT_MAX = 10_000;
const HISTORY_LIMIT_DEFAULT = 100;
/** Longest path of Linux. */
const PATH_CHARS_MAX = 4_096;

/** `limit` and `object` of the query. */
export function readHistoryQuery(query: URLSearchParams): HistoryQuery {
  const limit = query.get('limit') ?? String(HISTORY_LIMIT_DEFAULT);
  if (!/^\d{1,5}$/.test(limit) || Number(limit) < 1 || Number(limit) > HISTORY_LIMIT_MAX)
    throw badRequest(`invalid limit '${limit}': use a number from 1 to ${HISTORY_LIMIT_MAX}`);
  const object = query.get('object') ?? '';
  return { limit: Number(limit), ...(object !== '' && { object }) };
}

/** Flows of one answer. */
const FLOWS_LIMIT_MAX = 10_000;
const FLOWS_LIMIT_DEFAULT = 100;

/** `limit` and `service` of the query. */
export function readFlowsQuery(query: URLSearchParams): FlowsQuery {
  const limit = query.get('limit') ?? String(FLOWS_LIMIT_DEFAULT);
  if (!/^\d{1,5}$/.test(limit) || Number(limit) < 1 || Number(limit) > FLOWS_LIMIT_MAX)
    throw badRequest(`invalid limit '${limit}': use a number from 1 to ${FLOWS_LIMIT_MAX}`);
  const service = query.get('service') ?? '';
  return { limit: Number(limit), ...(service !== '' && { service }) };
}

const pathBody = z.object({
  path: z
    .string()
    .max(PATH_CHARS_MAX)
    .refine((path) => path.startsWith('/'), 'expected an absolute path'),
});

/** A file of the agent's host. */
export function readPath(body: unknown): string {
  return read(pathBody, body).path;
}

export function readRecover(body: unknown): RecoverRequest {
  return read(z.object({ force: flag }), body);
}

const CERTIFICATE_DAYS_MAX = 3_650;
const DAY_MS = 86_400_000;

const certificateBody = z.object({
  name: z.string().regex(/^[\w][\w.@-]{0,62}$/, 'expected a name of letters, digits, . @ - and _'),
  days: z.int().min(1).max(CERTIFICATE_DAYS_MAX),
});

export function readClientCertificate(body: unknown): ClientCertificateRequest {
  const { name, days } = read(certificateBody, body);
  return { name, lifeMs: days * DAY_MS };
}

const DISCOVERY_CHARS_MAX = 512;
const discovery = z.string().max(DISCOVERY_CHARS_MAX);
const discoveryBody = z.object({
  discovery,
  address: z
    .string()
    .regex(/^(?:[\w.-]+|\[[0-9a-f:.]+\]):\d{1,5}$/i, 'expected host:port')
    .or(z.literal(''))
    .default(''),
});

export function readDiscovery(body: unknown): z.output<typeof discoveryBody> {
  return read(discoveryBody, body);
}

const file = z.string().max(PATH_CHARS_MAX);
const manageBody = z.object({
  host: z.string().min(1).max(253),
  port: z.int().min(0).max(65_535),
  plain: z.boolean(),
  strategy: z.string().max(16),
  discovery,
  files: z.object({ cert: file, key: file, ca: file }).optional(),
});

export function readManage(body: unknown): ManageRequest {
  const { files, ...rest } = read(manageBody, body);
  return { ...rest, ...(files && { files }) };
}
