import type { Backend } from '../../core/backend.js';
import { readAttach, readDetach } from '../../wire/attach-requests.js';
import { json, type Route } from '../call.js';

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
    { method: 'GET', path: '/shoal/v1/status', handle: () => json(backend.status()) },
    {
      method: 'GET',
      path: '/shoal/v1/metrics',
      handle: async () => ({
        kind: 'text',
        type: 'text/plain; version=0.0.4; charset=utf-8',
        text: await backend.metrics(),
      }),
    },
  ];
}
