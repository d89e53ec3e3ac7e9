import type { ClassicVerbs } from '../../core/classic-verbs.js';
import { ApiError } from '../../wire/errors.js';
import { readDiscovery, readManage } from '../../wire/shoal-requests.js';
import { json, type Route } from '../call.js';

/** So often who keeps an endpoint open is told that it is. */
const BEAT_MS = 10_000;

/** `shoal swarm create`, `join token://`, `list` and `manage`. */
export function classicRoutes(verbs: ClassicVerbs | undefined): Route[] {
  const mustHave = (): ClassicVerbs => {
    if (verbs !== undefined) return verbs;
    throw new ApiError({ code: 'API_UNSUPPORTED' }, 'there is no classic endpoint here');
  };
  return [
    {
      method: 'POST',
      path: '/shoal/v1/discovery/list',
      handle: async (call) =>
        json(mustHave().listGroup(readDiscovery(await call.body()).discovery)),
    },
    {
      method: 'POST',
      path: '/shoal/v1/discovery/join',
      handle: async (call) => {
        const { discovery, address } = readDiscovery(await call.body());
        return json({ address: mustHave().joinGroup(discovery, address) }, 201);
      },
    },
    {
      method: 'POST',
      path: '/shoal/v1/discovery/leave',
      handle: async (call) => {
        mustHave().leaveGroup(readDiscovery(await call.body()).discovery);
        return json({});
      },
    },
    {
      method: 'POST',
      path: '/shoal/v1/manage',
      // The endpoint is there for as long as who asked for it stays.
      handle: async (call) => {
        const { port, close } = await mustHave().manage(readManage(await call.body()));
        return {
          kind: 'stream',
          open(response, closing) {
            response.writeHead(200, { 'Content-Type': 'application/json' });
            const tell = () => response.write(`${JSON.stringify({ port })}\n`);
            tell();
            const beat = setInterval(tell, BEAT_MS);
            const end = () => response.end();
            closing.addEventListener('abort', end, { once: true });
            response.once('close', () => {
              clearInterval(beat);
              closing.removeEventListener('abort', end);
              void close();
            });
            if (response.destroyed) void close();
          },
        };
      },
    },
  ];
}
