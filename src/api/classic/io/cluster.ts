import { askUpstream, type Upstream, type UpstreamQuestion } from '../../io/upstream.js';
import { bodyOf } from '../core/create-request.js';
import type { ClassicContainer, ClassicImage, ClassicNode } from '../core/node.js';
import { hasPolicy } from '../core/reschedule.js';
import { type Claims, claimsOf } from '../wire/claims.js';
import { type Json, labelsOf, listOf, numberOf, objectOf, textOf, textsOf } from '../wire/json.js';
import type { Origin } from '../wire/lists.js';
import { atOnce } from './at-once.js';
import type { ClassicBackend, ClassicMember } from './backend.js';

/** For one answer of a node: who takes longer counts as one that does not answer. */
const ANSWER_MS_MAX = 5_000;
/** Nodes that are asked at the same time. */
const NODES_AT_ONCE = 32;
/** Containers of one node that are looked into at the same time. */
const INSPECTS_AT_ONCE = 8;
/** What an engine says of itself is asked for again after that, as in the classic Swarm. */
const REFRESH_MS = 30_000;

/** A node that was asked, with its list of containers as it gave it. */
export interface SeenNode extends ClassicNode {
  readonly origin: Origin;
  /** Docker's JSON of its containers, running or not. */
  readonly list: readonly Json[];
  /** By the managers' word, and not for one question without an answer. */
  readonly hasFailed: boolean;
  /** How containers that are to run elsewhere when their node fails were made, by their ids. */
  readonly bodies: ReadonlyMap<string, Json>;
}

interface Engine {
  readonly hasEngine: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

interface Known {
  engine: Engine;
  engineAtMs: number;
  list: readonly Json[];
  containers: readonly ClassicContainer[];
  images: readonly ClassicImage[];
  /** Of containers, by their ids: they are not changed but by `update`. */
  inspected: Map<string, Inspected>;
}

interface Inspected {
  readonly claims: Claims;
  readonly body?: Json;
}

const NOTHING_KNOWN: Known = {
  engine: { hasEngine: false, labels: {} },
  engineAtMs: Number.NEGATIVE_INFINITY,
  list: [],
  containers: [],
  images: [],
  inspected: new Map(),
};

export interface FanAnswer {
  readonly origin: Origin;
  readonly status: number;
  readonly json: unknown;
}

/** The engines of all nodes. What is kept of a node is only what it may be shown by when it is gone. */
export class ClassicCluster {
  readonly #backend: ClassicBackend;
  readonly #known = new Map<string, Known>();

  constructor(backend: ClassicBackend) {
    this.#backend = backend;
  }

  get self(): string {
    return this.#backend.self;
  }

  upstream(id: string): Upstream {
    return this.#backend.upstream(id);
  }

  members(): readonly ClassicMember[] {
    const members = this.#backend.members();
    const ids = new Set(members.map(({ id }) => id));
    for (const id of this.#known.keys()) if (!ids.has(id)) this.#known.delete(id);
    return members;
  }

  /** Asks all nodes what is on them now. Those that do not answer are shown as they were last. */
  async look(): Promise<SeenNode[]> {
    return atOnce(this.members(), NODES_AT_ONCE, (member) => this.#see(member));
  }

  /** A node by which an answer is shown; `undefined`: it is gone. */
  origin(id: string): Origin | undefined {
    const member = this.members().find((one) => one.id === id);
    return member && originOf(member, (this.#known.get(id) ?? NOTHING_KNOWN).engine);
  }

  /** Containers of nodes other than those that have answered, as they were last. */
  lost(answered: ReadonlySet<string>): { readonly origin: Origin; readonly one: Json }[] {
    return this.members().flatMap((member) => {
      const known = this.#known.get(member.id);
      if (answered.has(member.id) || known === undefined) return [];
      const origin = originOf(member, known.engine);
      return known.list.map((one) => ({ origin, one }));
    });
  }

  /** Whether a container is one that is to run elsewhere when its node fails. */
  hasPolicy(id: string): boolean {
    for (const { inspected } of this.#known.values())
      if (inspected.get(id)?.body !== undefined) return true;
    return false;
  }

  /** Forgets what was read of a container whose configuration was changed. */
  forgetClaims(nodeId: string, containerId: string): void {
    this.#known.get(nodeId)?.inspected.delete(containerId);
  }

  /**
   * The same question to all nodes that can be asked; those that fail are left out.
   *
   * @param only Name of the only node that is meant.
   */
  async askAll(
    question: UpstreamQuestion,
    timeoutMs = ANSWER_MS_MAX,
    only?: string,
  ): Promise<FanAnswer[]> {
    const asked = this.members().filter(
      ({ trouble, name }) => trouble === undefined && (only === undefined || only === name),
    );
    const answers = await atOnce(asked, NODES_AT_ONCE, async (member) => {
      try {
        const answer = await askUpstream(this.upstream(member.id), { ...question, timeoutMs });
        return [{ origin: originOf(member, NOTHING_KNOWN.engine), ...answer }];
      } catch {
        return [];
      }
    });
    return answers.flat();
  }

  async #see(member: ClassicMember): Promise<SeenNode> {
    const known = this.#known.get(member.id) ?? NOTHING_KNOWN;
    if (member.trouble !== undefined) return seen(member, known, member.trouble);
    try {
      const now = await this.#ask(member, known);
      this.#known.set(member.id, now);
      return seen(member, now, undefined);
    } catch (error) {
      return seen(member, known, (error as Error).message);
    }
  }

  async #ask(member: ClassicMember, known: Known): Promise<Known> {
    const upstream = this.upstream(member.id);
    const isOld = performance.now() - known.engineAtMs > REFRESH_MS;
    const [containers, images, info] = await Promise.all([
      ask(upstream, '/containers/json?all=1'),
      ask(upstream, '/images/json'),
      isOld ? ask(upstream, '/info') : undefined,
    ]);
    const list = listOf(containers).map(objectOf);
    const inspected = await this.#inspect(upstream, list, known.inspected);
    return {
      engine: info === undefined ? known.engine : engineOf(objectOf(info)),
      engineAtMs: info === undefined ? known.engineAtMs : performance.now(),
      list,
      containers: list.map((one) => containerOf(one, inspected)),
      images: listOf(images).map(imageOf),
      inspected,
    };
  }

  async #inspect(
    upstream: Upstream,
    list: readonly Json[],
    known: ReadonlyMap<string, Inspected>,
  ): Promise<Map<string, Inspected>> {
    const found = await atOnce(list, INSPECTS_AT_ONCE, async (one) => {
      const id = textOf(one['Id']);
      const before = known.get(id);
      if (before !== undefined) return [[id, before] as const];
      const { status, json } = await askUpstream(upstream, {
        path: `/containers/${id}/json`,
        timeoutMs: ANSWER_MS_MAX,
      });
      // It may be gone by now.
      if (status !== 200) return [];
      const whole = objectOf(json);
      const claims = claimsOf(objectOf(whole['Config']), objectOf(whole['HostConfig']));
      const isKept = hasPolicy({ labels: labelsOf(one['Labels']) });
      return [[id, { claims, ...(isKept ? { body: bodyOf(whole) } : {}) }] as const];
    });
    return new Map(found.flat());
  }
}

async function ask(upstream: Upstream, path: string): Promise<unknown> {
  const { status, json } = await askUpstream(upstream, { path, timeoutMs: ANSWER_MS_MAX });
  if (status === 200) return json;
  throw new Error(textOf(objectOf(json)['message']) || `it answers ${path} with ${status}`);
}

/** Labels as the classic Swarm made them of what an engine says of itself. */
function engineOf(info: Json): Engine {
  const driver = textOf(info['Driver']);
  const own = textsOf(info['Labels']).map((text) => {
    const at = text.indexOf('=');
    return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
  });
  const facts = {
    storagedriver: driver,
    executiondriver: textOf(info['DefaultRuntime']),
    kernelversion: textOf(info['KernelVersion']),
    operatingsystem: textOf(info['OperatingSystem']),
    ostype: textOf(info['OSType']),
  };
  const told = Object.entries(facts).filter(([, value]) => value !== '');
  return {
    hasEngine: driver !== '',
    labels: { ...Object.fromEntries(told), ...Object.fromEntries(own) },
  };
}

function containerOf(one: Json, inspected: ReadonlyMap<string, Inspected>): ClassicContainer {
  const id = textOf(one['Id']);
  const { ports = [], cpus = 0, memoryBytes = 0 } = inspected.get(id)?.claims ?? {};
  const open = listOf(one['Ports']).flatMap((port) => {
    const { PublicPort, Type, IP } = objectOf(port);
    const number = numberOf(PublicPort);
    return number === 0 ? [] : [{ port: String(number), protocol: textOf(Type), ip: textOf(IP) }];
  });
  return {
    id,
    names: textsOf(one['Names']).map((name) => name.replace(/^\//, '')),
    labels: labelsOf(one['Labels']),
    state: textOf(one['State']),
    ports: [...ports, ...open],
    cpus,
    memoryBytes,
  };
}

function imageOf(one: unknown): ClassicImage {
  const image = objectOf(one);
  return { id: textOf(image['Id']), tags: textsOf(image['RepoTags']) };
}

function seen(member: ClassicMember, known: Known, trouble: string | undefined): SeenNode {
  const { id, name, address, cpus, memoryBytes, isActive } = member;
  return {
    ...{ id, name, address, cpus, memoryBytes, isActive },
    labels: { ...member.labels, ...known.engine.labels },
    ...(trouble === undefined ? {} : { trouble }),
    hasEngine: known.engine.hasEngine,
    containers: known.containers,
    images: known.images,
    list: known.list,
    hasFailed: member.trouble !== undefined,
    bodies: new Map(
      [...known.inspected].flatMap(([id, { body }]) => (body === undefined ? [] : [[id, body]])),
    ),
    origin: originOf(member, known.engine),
  };
}

function originOf(member: ClassicMember, { labels }: Engine): Origin {
  const { id, name, ip, address, cpus, memoryBytes } = member;
  return { id, name, ip, address, cpus, memoryBytes, labels: { ...member.labels, ...labels } };
}
