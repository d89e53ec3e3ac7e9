import type { Backend } from '../../core/backend.js';
import { swarmHeaderOf } from '../../wire/cluster-json.js';
import { infoJson, versionJson } from '../../wire/system-json.js';
import { json, type Reply, type Route } from '../call.js';
import type { EventStreams } from '../events.js';

export function systemRoutes(backend: Backend, events: EventStreams): Route[] {
  const ping = (): Reply => ({
    kind: 'text',
    type: 'text/plain; charset=utf-8',
    text: 'OK',
    headers: {
      'Builder-Version': '2',
      'Cache-Control': 'no-cache, no-store, must-revalidate',
      Pragma: 'no-cache',
      Swarm: swarmHeaderOf(backend.swarm()),
    },
  });
  return [
    { method: 'GET', path: '/_ping', handle: ping },
    { method: 'HEAD', path: '/_ping', handle: ping },
    {
      method: 'GET',
      path: '/version',
      handle: () => json(versionJson(backend.facts(), `node${process.versions.node}`)),
    },
    {
      method: 'GET',
      path: '/info',
      handle: (call) => json(infoJson(backend.facts(), backend.swarm(), call.nowMs, events.count)),
    },
    { method: 'GET', path: '/events', handle: (call) => events.reply(call) },
  ];
}
