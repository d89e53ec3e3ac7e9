import type { Backend } from '../../core/backend.js';
import { requireManager } from '../../core/selection.js';
import { readAttach, readDetach } from '../../wire/attach-requests.js';
import {
  readClientCertificate,
  readFlowsQuery,
  readHistoryQuery,
  readPath,
  readRecover,
} from '../../wire/shoal-requests.js';
import { json, type Route, readingSwarm } from '../call.js';
import { streamed } from '../stream.js';

/** Where Shoal's own verbs live on the socket; their refusals also carry a `code`. */
export const SHOAL_PREFIX = '/shoal/v1/';

export function shoalRoutes(backend: Backend): Route[] {
  return [
    {
      method: 'GET',
      path: '/shoal/v1/attachments',
      handle: () => json(backend.localAttachments()),
    },
    {
      method: 'POST',
      path: '/shoal/v1/attachments',
      handle: async (call) => json(await backend.attach(readAttach(await call.body())), 201),
    },
    {
      method: 'DELETE',
      path: '/shoal/v1/attachments/:id',
      handle: async (call) => json(await backend.detach({ id: call.param('id') })),
    },
    {
      method: 'POST',
      path: '/shoal/v1/detach',
      handle: async (call) => json(await backend.detach(readDetach(await call.body()))),
    },
    {
      method: 'POST',
      path: '/shoal/v1/client-certificate',
      handle: async (call) => {
        const request = readClientCertificate(await call.body());
        requireManager(backend.swarm());
        const { caPem, certPem, keyPem } = await backend.clientCertificate(request);
        return json({ caPem, certPem, keyPem }, 201);
      },
    },
    { method: 'GET', path: '/shoal/v1/status', handle: () => json(backend.status()) },
    {
      method: 'GET',
      path: '/shoal/v1/flows',
      handle: (call) => json(backend.flows(readFlowsQuery(call.query))),
    },
    { method: 'GET', path: '/shoal/v1/ports', handle: () => json(backend.publishedPorts()) },
    {
      method: 'GET',
      path: '/shoal/v1/metrics',
      handle: async () => ({
        kind: 'text',
        type: 'text/plain; version=0.0.4; charset=utf-8',
        text: await backend.metrics(),
      }),
    },
    ...readingSwarm([
      {
        method: 'GET',
        path: '/shoal/v1/history',
        handle: (call) => {
          const query = readHistoryQuery(call.query);
          requireManager(backend.swarm());
          return json(backend.history(query));
        },
      },
    ]),
    {
      method: 'GET',
      path: '/shoal/v1/snapshot',
      handle: async () => {
        requireManager(backend.swarm());
        return streamed(await backend.saveSnapshot());
      },
    },
    {
      method: 'POST',
      path: '/shoal/v1/snapshot/inspect',
      handle: async (call) => json(await backend.inspectSnapshot(readPath(await call.body()))),
    },
    {
      method: 'POST',
      path: '/shoal/v1/snapshot/restore',
      handle: async (call) => {
        const path = readPath(await call.body());
        const local = backend.swarm();
        // A node that is in no swarm may begin with one that was saved.
        if (local.state !== 'inactive') requireManager(local);
        return json(await backend.restoreSnapshot(path));
      },
    },
    {
      method: 'GET',
      path: '/shoal/v1/recover',
      handle: async () => json(await backend.explainRecovery()),
    },
    {
      method: 'POST',
      path: '/shoal/v1/recover',
      handle: async (call) => json(await backend.recover(readRecover(await call.body()))),
    },
  ];
}
