import { type Constraint, parseConstraint } from '../../../base/constraint.js';
import { claimsOf, isOnHostNetwork } from '../wire/claims.js';
import { type Json, labelsOf, objectOf, textOf, textsOf } from '../wire/json.js';
import { parseExpression } from './expressions.js';
import type { Wish } from './filters.js';
import { POLICY_LABEL } from './reschedule.js';

/** Where the classic Swarm kept what was asked of it. */
const LABELS = {
  affinity: 'com.docker.swarm.affinities',
  constraint: 'com.docker.swarm.constraints',
  reschedule: POLICY_LABEL,
} as const;
type Kind = keyof typeof LABELS;

/** Expressions of one container. */
export const EXPRESSIONS_MAX = 64;

export interface CreateRequest {
  /** As the engine is to get it: what is meant for the cluster is in labels, and not in the environment. */
  readonly body: Json;
  readonly wish: Wish;
  /** Of the network that is none of the engine's own kinds; empty: none. */
  readonly network: string;
}

/** `POST /containers/create`. @returns Why it is refused. */
export function parseCreate(body: unknown): CreateRequest | string {
  const whole = objectOf(body);
  const hostConfig = objectOf(whole['HostConfig']);
  const { env, asked } = split(textsOf(whole['Env']));
  const labels: Record<string, string> = { ...labelsOf(whole['Labels']) };
  const texts = {} as Record<Kind, readonly string[]>;
  for (const kind of Object.keys(LABELS) as Kind[]) {
    const all = [...fromLabel(labels[LABELS[kind]]), ...asked[kind]];
    if (all.length > EXPRESSIONS_MAX) return `more than ${EXPRESSIONS_MAX} expressions`;
    texts[kind] = all;
    if (all.length > 0) labels[LABELS[kind]] = JSON.stringify(all);
  }
  const refusal = refusalOfReschedule(texts.reschedule);
  if (refusal !== undefined) return refusal;
  const constraints = parseAll(texts.constraint);
  if (typeof constraints === 'string') return constraints;
  const affinities = parseAll(texts.affinity);
  if (typeof affinities === 'string') return affinities;
  const mode = textOf(hostConfig['NetworkMode']);
  return {
    body: { ...whole, Env: env, Labels: labels },
    network: /^(?:|default|bridge|host|none|nat|container:.*)$/.test(mode) ? '' : mode,
    wish: {
      image: textOf(whole['Image']),
      constraints,
      affinities,
      isOnHostNetwork: isOnHostNetwork(hostConfig),
      dependencies: dependenciesOf(hostConfig),
      ...claimsOf(whole, hostConfig),
    },
  };
}

/** With a wish for a node, which is not kept with the container. */
export function preferringNode(request: CreateRequest, node: string): CreateRequest {
  return withExpression(request, 'constraints', `node==~${node}`);
}

/** With the demand that the node has the image already. */
export function onlyWithImage(request: CreateRequest): CreateRequest {
  return withExpression(request, 'affinities', `image==${request.wish.image}`);
}

function withExpression(
  request: CreateRequest,
  kind: 'affinities' | 'constraints',
  text: string,
): CreateRequest {
  const parsed = parseConstraint(text);
  if (typeof parsed === 'string') return request;
  return { ...request, wish: { ...request.wish, [kind]: [...request.wish[kind], parsed] } };
}

/** Names of nodes are the cluster's: the engine knows its own containers and networks without them. */
export function localBody(body: Json, localName: (ref: string) => string): Json {
  const hostConfig = objectOf(body['HostConfig']);
  const mode = textOf(hostConfig['NetworkMode']);
  const local = (value: unknown) => textsOf(value).map((ref) => firstPart(ref, localName));
  const networking = objectOf(body['NetworkingConfig']);
  const endpoints = Object.entries(objectOf(networking['EndpointsConfig']));
  return {
    ...body,
    HostConfig: {
      ...hostConfig,
      ...(hostConfig['VolumesFrom'] ? { VolumesFrom: local(hostConfig['VolumesFrom']) } : {}),
      ...(hostConfig['Links'] ? { Links: local(hostConfig['Links']) } : {}),
      ...(mode === '' ? {} : { NetworkMode: localMode(mode, localName) }),
    },
    ...(endpoints.length === 0
      ? {}
      : {
          NetworkingConfig: {
            ...networking,
            EndpointsConfig: Object.fromEntries(
              endpoints.map(([name, endpoint]) => [localName(name), endpoint]),
            ),
          },
        }),
  };
}

const OF_CONTAINER = 'container:';

function localMode(mode: string, localName: (ref: string) => string): string {
  return mode.startsWith(OF_CONTAINER)
    ? `${OF_CONTAINER}${localName(mode.slice(OF_CONTAINER.length))}`
    : localName(mode);
}

/** Of `db:alias`, `db:ro`. */
function firstPart(text: string, localName: (ref: string) => string): string {
  const [ref = '', ...rest] = text.split(':');
  return [localName(ref), ...rest].join(':');
}

function dependenciesOf(hostConfig: Json): Wish['dependencies'] {
  const refOf = (text: string) => text.split(':', 1)[0] ?? '';
  const mode = textOf(hostConfig['NetworkMode']);
  return [
    ...textsOf(hostConfig['VolumesFrom']).map((text) => ({
      ref: refOf(text),
      text: `--volumes-from=${text}`,
    })),
    ...textsOf(hostConfig['Links']).map((text) => ({ ref: refOf(text), text: `--link=${text}` })),
    ...(mode.startsWith(OF_CONTAINER)
      ? [{ ref: mode.slice(OF_CONTAINER.length), text: `--net=${mode}` }]
      : []),
  ];
}

/** `constraint:node==node1` and its like out of the environment. */
function split(env: readonly string[]): {
  readonly env: readonly string[];
  readonly asked: Readonly<Record<Kind, readonly string[]>>;
} {
  const asked: Record<Kind, string[]> = { affinity: [], constraint: [], reschedule: [] };
  const rest: string[] = [];
  for (const one of env) {
    const at = one.indexOf(':');
    const kind = one.slice(0, at);
    if (at > 0 && Object.hasOwn(asked, kind)) asked[kind as Kind].push(one.slice(at + 1));
    else rest.push(one);
  }
  return { env: rest, asked };
}

function fromLabel(label: string | undefined): readonly string[] {
  if (label === undefined) return [];
  try {
    return textsOf(JSON.parse(label));
  } catch {
    return [];
  }
}

function parseAll(texts: readonly string[]): readonly Constraint[] | string {
  const parsed: Constraint[] = [];
  for (const text of texts) {
    const one = parseExpression(text);
    if (typeof one === 'string') return one;
    parsed.push(one);
  }
  return parsed;
}

function refusalOfReschedule(policies: readonly string[]): string | undefined {
  const [policy] = policies;
  if (policies.length > 1) return 'too many reschedule policies';
  if (policy === undefined || policy === 'off') return undefined;
  return policy === 'on-node-failure' ? undefined : `invalid reschedule policy: ${policy}`;
}

/** Of an id, by which a container calls its host where nothing else is said. */
const HOSTNAME_CHARS = 12;

/** What would make a container once more, from what its engine says of it. */
export function bodyOf(inspected: Json): Json {
  const { Hostname, MacAddress: _, ...config } = objectOf(inspected['Config']);
  const isOwnHostname = Hostname !== textOf(inspected['Id']).slice(0, HOSTNAME_CHARS);
  return {
    ...config,
    ...(isOwnHostname ? { Hostname } : {}),
    HostConfig: objectOf(inspected['HostConfig']),
  };
}
