import { json, type Reply } from '../../io/call.js';
import { askUpstream } from '../../io/upstream.js';
import { isOverlayRequest } from '../../wire/engine-json.js';
import { splitNodeName } from '../core/references.js';
import { type Json, listOf, objectOf, textOf } from '../wire/json.js';
import { localNetworks } from '../wire/lists.js';
import type { ClassicCluster } from './cluster.js';
import { PRUNE_MS_MAX, passTo, refuseAsAll } from './containers.js';
import type { ClassicPlacer } from './placer.js';
import type { Places } from './places.js';
import { type ClassicCall, type ClassicRoute, withQuery } from './route.js';

export interface NetworkParts {
  readonly cluster: ClassicCluster;
  readonly placer: ClassicPlacer;
  readonly places: Places;
}

/** `/networks` of the cluster: the engines' own are `node/name`, the swarm's are those of all nodes. */
export function networkRoutes({ cluster, placer, places }: NetworkParts): ClassicRoute[] {
  const all = async (query: URLSearchParams) => {
    const answers = await cluster.askAll({ path: withQuery('/networks', query) });
    refuseAsAll(answers);
    const ofSwarm = answers
      .filter(({ origin }) => origin.id === cluster.self)
      .flatMap(({ json: list }) => listOf(list).map(objectOf))
      .filter(({ Scope }) => Scope !== 'local');
    const local = answers.flatMap(({ origin, json: list }) =>
      localNetworks(list, origin).map((network) => ({ nodeId: origin.id, network })),
    );
    return { ofSwarm, local };
  };
  /** An engine's own network, and the node that has it. */
  const findLocal = async (ref: string) => {
    const { ofSwarm, local } = await all(new URLSearchParams());
    if (ofSwarm.some((network) => isNetwork(network, ref))) return undefined;
    return (
      local.find(({ network }) => isNetwork(network, ref)) ??
      local.find(({ network }) => nameOnNode(network) === ref)
    );
  };
  const onNode = async (call: ClassicCall): Promise<Reply | undefined> => {
    const found = await findLocal(call.ref);
    if (found === undefined) return undefined;
    return passTo(cluster.upstream(found.nodeId), call, `/networks/${found.network['Id']}`);
  };
  return [
    {
      methods: ['GET'],
      path: /^\/networks$/,
      handle: async ({ query }) => {
        const { ofSwarm, local } = await all(query);
        return json([...ofSwarm, ...local.map(({ network }) => network)]);
      },
    },
    {
      methods: ['POST'],
      path: /^\/networks\/create$/,
      handle: async ({ body }) => {
        const asked = objectOf(await body());
        if (isOverlayRequest(asked) || textOf(asked['Driver']) === '') {
          // Containers of the classic Swarm were let in to all of them.
          const overlay = { ...asked, Driver: 'overlay', Attachable: true };
          return askNode(cluster, cluster.self, overlay);
        }
        const { node, name } = splitNodeName(textOf(asked['Name']), cluster.members());
        const member = cluster.members().find((one) => one.name === node);
        const { id } = member ?? (await placer.anyNode());
        return askNode(cluster, id, { ...asked, Name: name });
      },
    },
    {
      methods: ['POST'],
      path: /^\/networks\/prune$/,
      handle: async ({ query }) => {
        const path = withQuery('/networks/prune', query);
        const answers = await cluster.askAll({ method: 'POST', path }, PRUNE_MS_MAX);
        refuseAsAll(answers);
        const gone = answers.flatMap(({ json: one }) =>
          listOf(objectOf(one)['NetworksDeleted']).map(String),
        );
        return json({ NetworksDeleted: gone.length === 0 ? null : [...new Set(gone)] });
      },
    },
    {
      methods: ['POST'],
      path: /^\/networks\/(?<ref>.+)\/(?<verb>connect|disconnect)$/,
      handle: async ({ ref, verb, body }) => {
        const asked = objectOf(await body());
        const { nodeId, id } = await places.ofContainer(textOf(asked['Container']));
        const { name } = splitNodeName(ref, cluster.members());
        const answer = await askUpstream(cluster.upstream(nodeId), {
          method: 'POST',
          path: `/networks/${name}/${verb}`,
          json: { ...asked, Container: id },
        });
        return json(answer.json ?? null, answer.status);
      },
    },
    { methods: ['GET', 'DELETE'], path: /^\/networks\/(?<ref>.+)$/, handle: onNode },
  ];
}

async function askNode(cluster: ClassicCluster, id: string, body: Json): Promise<Reply> {
  const question = { method: 'POST', path: '/networks/create', json: body };
  const answer = await askUpstream(cluster.upstream(id), question);
  return json(answer.json, answer.status);
}

/** Of an id, to stand for it. */
const PREFIX_CHARS_MIN = 4;

function isNetwork(network: Json, ref: string): boolean {
  const id = textOf(network['Id']);
  return (
    network['Name'] === ref || id === ref || (ref.length >= PREFIX_CHARS_MIN && id.startsWith(ref))
  );
}

const nameOnNode = (network: Json) => textOf(network['Name']).replace(/^[^/]*\//, '');
