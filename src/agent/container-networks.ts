import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  ApiError,
  attachRefusal,
  type Backend,
  type ContainerNetworks,
  type ContainerPlan,
  type EngineAnswer,
  type LocalAttachment,
  type OverlayEndpoint,
} from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import {
  partCreate,
  SHORT_ID_CHARS,
  type ShownPlace,
  shownInList,
  shownInspect,
  type UserContainer,
  UserContainers,
  type UserPort,
  userPorts,
} from '../runtime/index.js';
import { findNetwork } from './active-swarm.js';
import {
  CONTAINERS_MAX,
  type ContainerRecord,
  ContainerRecords,
  type NetworkWish,
} from './container-records.js';
import { withoutPrefix } from './ingress.js';
import type { Log } from './log.js';
import type { SwarmNode } from './swarm-node.js';

/** Names a task's container and its sandbox by the task: see the `engine` runtime. */
const TASK_LABEL = 'com.docker.shoal.task';
/** Of which actions a container's networks may have to be others. */
const CHANGES = /^(?:start|die|destroy|rename)$/;
/** A namespace that is not the container's alone. */
const SHARED = /^(?:host$|container:)/;
/** Where an engine has no resolver of its own. */
const DEFAULT_BRIDGE = /^(?:default|bridge|none)$/;
const RESOLVER = 'nameserver 127.0.0.11\noptions ndots:0\n';

export interface EngineNetworksOptions {
  readonly socketPath: string;
  readonly owner: string;
  readonly dataDir: string;
  readonly node: SwarmNode;
  readonly backend: Pick<Backend, 'attach' | 'detach'>;
  readonly log: Log;
}

type Record = ContainerRecord;

/**
 * The containers that users make at this host's engine, on the swarm's overlays. One that is made on
 * an overlay joins a sandbox, which is wired before it starts; one that is connected later is wired in
 * its own namespace. Interfaces come when a container starts, however that is, and go when it ends.
 */
export class EngineNetworks implements ContainerNetworks {
  readonly #options: EngineNetworksOptions;
  readonly #engine: UserContainers;
  readonly #records: ContainerRecords;
  /** What is done to one container follows each other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Whose ports the node offers. */
  readonly #published = new Set<string>();

  constructor(options: EngineNetworksOptions) {
    const { socketPath, owner, dataDir, log } = options;
    this.#options = options;
    this.#records = ContainerRecords.load(join(dataDir, 'containers.json'), () =>
      log.error('containers.json is damaged: containers on overlays are not known any more'),
    );
    this.#engine = new UserContainers(
      { socketPath, owner },
      {
        onConnected: () => void this.#lookAtAll(),
        onEvent: ({ id, action }) => {
          if (this.#records.get(id) !== undefined && CHANGES.test(action)) void this.#look(id);
        },
      },
    );
  }

  /** From now on it knows what becomes of containers. */
  open(): void {
    this.#engine.start();
  }

  close(): void {
    this.#engine.close();
  }

  overlay(ref: string): { readonly id: string; readonly name: string } | undefined {
    const { active } = this.#options.node;
    const networks = active?.manager?.networks() ?? active?.assignments.networks ?? [];
    try {
      const found = findNetwork(networks, ref);
      return found && { id: found.id, name: found.spec.name };
    } catch {
      // Ambiguous: the engine may know better.
      return undefined;
    }
  }

  plan(body: unknown, asked: ReadonlyMap<string, OverlayEndpoint>): ContainerPlan | undefined {
    const overlays = new Map<string, NetworkWish>();
    for (const [ref, endpoint] of asked) {
      const network = this.overlay(ref);
      if (network !== undefined) overlays.set(network.id, wishOf(network, endpoint));
    }
    if (overlays.size === 0) return undefined;
    if (this.#records.size >= CONTAINERS_MAX)
      throw new ApiError(
        { code: 'API_CONFLICT' },
        `this node holds ${CONTAINERS_MAX} containers on overlay networks, which is the most: remove one first`,
      );
    const name = `shoal-sandbox.${randomBytes(8).toString('hex')}`;
    const { container, said, endpoints } = partCreate(
      body,
      name,
      (ref) => this.overlay(ref) !== undefined,
    );
    const ports = userPorts(said);
    if (typeof ports === 'string') throw new ApiError({ code: 'API_BAD_REQUEST' }, ports);
    const wishes = [...overlays.values()];
    return {
      body: container,
      made: (id) =>
        this.#inTurn(id, async () => {
          const made = await this.#engine.find(id);
          if (made === undefined) return;
          const sandbox = { name, said, endpoints };
          const record: Record = { id, name: made.name, sandbox, ports, wishes };
          // First: what the records do not know is taken away.
          this.#records.set(record);
          await this.#ensureSandbox(record);
        }),
    };
  }

  async find(ref: string): Promise<string | undefined> {
    if (this.#records.size === 0) return undefined;
    if (this.#records.get(ref) !== undefined) return ref;
    const found = await this.#engine.find(ref);
    return found !== undefined && this.#records.get(found.id) !== undefined ? found.id : undefined;
  }

  start(id: string, start: () => Promise<EngineAnswer>): Promise<EngineAnswer> {
    return this.#inTurn(id, async () => {
      const record = this.#records.get(id);
      if (record === undefined) return start();
      try {
        if (record.sandbox !== undefined) await this.#raise(record);
        const answer = await start();
        await this.#settle(id);
        return answer;
      } catch (error) {
        await this.#lower(record);
        const container = await this.#engine.find(id);
        if (container?.autoRemove === true && !container.isAlive) await this.#engine.remove(id);
        throw error;
      }
    });
  }

  async connect(ref: string, networkId: string, endpoint: OverlayEndpoint): Promise<void> {
    const container = await this.#mustFind(ref);
    const network = this.overlay(networkId);
    if (network === undefined) throw noNetwork(networkId);
    await this.#inTurn(container.id, async () => {
      const before = this.#records.get(container.id);
      if (before?.sandbox === undefined && SHARED.test(container.networkMode))
        throw new ApiError(
          { code: 'API_FORBIDDEN' },
          'container sharing network namespace with another container or host cannot be connected to any other network',
        );
      const { id, name } = container;
      const known = before ?? { id, name, ports: [], wishes: [] };
      if (known.wishes.some((wish) => wish.networkId === network.id))
        throw new ApiError(
          { code: 'API_FORBIDDEN' },
          `endpoint with name ${name} already exists in network ${network.name}`,
        );
      this.#records.set({ ...known, wishes: [...known.wishes, wishOf(network, endpoint)] });
      try {
        if (container.isAlive) await this.#raise(this.#records.get(id) ?? known);
      } catch (error) {
        if (before === undefined) this.#records.delete(id);
        else this.#records.set(before);
        throw error;
      }
    });
  }

  async disconnect(ref: string, networkId: string): Promise<void> {
    const container = await this.#mustFind(ref);
    await this.#inTurn(container.id, async () => {
      const record = this.#records.get(container.id);
      const wish = record?.wishes.find((one) => one.networkId === networkId);
      if (record === undefined || wish === undefined)
        throw new ApiError(
          { code: 'API_NOT_ATTACHED' },
          `container ${container.id} is not connected to network ${this.overlay(networkId)?.name ?? networkId}`,
        );
      for (const attachment of this.#attachments(container.id))
        if (attachment.networkId === networkId) await this.#detach(attachment);
      const wishes = record.wishes.filter((one) => one !== wish);
      if (wishes.length > 0 || record.sandbox !== undefined)
        this.#records.set({ ...record, wishes });
      else {
        this.#records.delete(record.id);
        const { resolver } = record;
        if (resolver !== undefined)
          await writeFile(resolver.path, resolver.before).catch(() => undefined);
      }
    });
  }

  sandboxOf(id: string): string | undefined {
    return this.#records.get(id)?.sandbox?.name;
  }

  async shown(inspected: unknown): Promise<unknown> {
    const { Id: id, Config: config } = inspected as InspectedParts;
    const record = this.#records.get(id ?? '');
    const task = config?.Labels?.[TASK_LABEL];
    if (record === undefined && task === undefined) return undefined;
    const sandbox = record?.sandbox && (await this.#engine.networkSettings(record.sandbox.name));
    return shownInspect(inspected, this.#shownOf(record, task), sandbox);
  }

  shownInList(list: readonly unknown[]): readonly unknown[] {
    return list.map((one) => {
      const { Id: id, Labels: labels } = one as ListedParts;
      const record = this.#records.get(id ?? '');
      const task = labels?.[TASK_LABEL];
      if (record === undefined && task === undefined) return one;
      return shownInList(one, this.#shownOf(record, task));
    });
  }

  #shownOf(record: Record | undefined, task: string | undefined) {
    if (record === undefined) return { places: this.#placesOfTask(task ?? ''), ports: [] };
    const attachments = this.#attachments(record.id);
    const places = record.wishes.map(({ networkId, networkName, aliases, ip }): ShownPlace => {
      const endpoint = attachments.find((one) => one.networkId === networkId);
      const short = record.id.slice(0, SHORT_ID_CHARS);
      return { networkId, networkName, ip, aliases: [...aliases, short], endpoint };
    });
    return { said: record.sandbox?.said, places, ports: record.bound ?? [] };
  }

  #placesOfTask(taskId: string): ShownPlace[] {
    const attachments = this.#options.node.active?.attachments.list() ?? [];
    return attachments
      .filter(({ assigned }) => assigned?.service?.taskId === taskId)
      .map(({ saved }) => ({
        networkId: saved.networkId,
        networkName: saved.networkName,
        aliases: saved.aliases,
        endpoint: saved,
      }));
  }

  #attachments(containerId: string): readonly LocalAttachment[] {
    const all = this.#options.node.active?.localAttachments() ?? [];
    return all.filter(({ container }) => container === containerId);
  }

  async #mustFind(ref: string): Promise<UserContainer> {
    const container = await this.#engine.find(ref);
    if (container !== undefined) return container;
    throw new ApiError({ code: 'API_NOT_FOUND' }, `No such container: ${ref}`);
  }

  /** Makes the sandbox, with the networks of the engine's own that were asked for. */
  async #ensureSandbox({ id, sandbox }: Record): Promise<void> {
    if (sandbox === undefined) return;
    if (!(await this.#engine.ensureSandbox(sandbox.name, id, sandbox.said))) return;
    for (const [network, endpoint] of Object.entries(sandbox.endpoints))
      await this.#engine.joinEngineNetwork(sandbox.name, network, endpoint);
  }

  /**
   * Gives a container the interfaces that it has not. Of one with its own namespace: if it runs.
   *
   * @throws ApiError
   */
  async #raise(record: Record): Promise<void> {
    const { id, sandbox, wishes } = record;
    let place: { readonly netns: string; readonly pid: number };
    let resolvConf: string | undefined;
    if (sandbox === undefined) {
      const container = await this.#engine.find(id);
      if (container === undefined || container.pid === 0) return;
      place = { netns: `/proc/${container.pid}/ns/net`, pid: container.pid };
      // An own network of the engine's has its own resolver, which stays.
      if (DEFAULT_BRIDGE.test(container.networkMode)) resolvConf = container.resolvConfPath;
    } else {
      await this.#ensureSandbox(record);
      place = await this.#engine.startSandbox(sandbox.name, id);
      await this.#letOut(record, place.netns);
    }
    const hosts: string[] = [];
    for (const wish of wishes) {
      const attachment = await this.#attach(record, wish, place.netns);
      hosts.push(...attachment.addresses.map(withoutPrefix));
    }
    if (sandbox !== undefined) {
      const name = String(sandbox.said.config['Hostname'] || id.slice(0, SHORT_ID_CHARS));
      await this.#engine.addHosts(
        place.pid,
        hosts.map((address) => `${address}\t${name}`),
      );
    } else if (resolvConf !== undefined && wishes.length > 0)
      await this.#useResolver(id, resolvConf);
    await this.#publish(id, hosts[0], place.netns);
  }

  async #letOut({ id, wishes }: Record, netns: string): Promise<void> {
    const { active } = this.#options.node;
    if (active?.reachesOutside(wishes.map(({ networkId }) => networkId)) !== true) return;
    try {
      await active.outside.join(netns);
    } catch (error) {
      const detail = { container: id, error: (error as Error).message };
      this.#options.log.warn(detail, 'a container cannot get outside');
    }
  }

  async #attach(
    { id, name }: Record,
    { networkId, networkName, aliases, ip }: NetworkWish,
    netns: string,
  ): Promise<LocalAttachment> {
    const held = this.#attachments(id).find((one) => one.networkId === networkId);
    if (held?.target.kind === 'netns' && held.target.path === netns) return held;
    try {
      if (held !== undefined) await this.#detach(held);
      return await this.#options.backend.attach({
        network: networkId,
        target: { kind: 'netns', path: netns },
        name,
        aliases: [...aliases, id.slice(0, SHORT_ID_CHARS)],
        ...(ip !== undefined && { ip }),
        container: id,
      });
    } catch (error) {
      throw attachRefusal(networkName, error);
    }
  }

  async #detach({ id }: LocalAttachment): Promise<void> {
    try {
      await this.#options.backend.detach({ id });
    } catch (error) {
      if (!(error instanceof SwarmError && error.code === 'SWARM_NOT_FOUND')) throw error;
    }
  }

  /** Has a container ask the resolver of its overlays, which asks the host's for all else. */
  async #useResolver(id: string, path: string): Promise<void> {
    const record = this.#records.get(id);
    if (record === undefined || record.resolver !== undefined) return;
    try {
      const before = await readFile(path, 'utf8');
      // In place: the file itself is what the container sees.
      await writeFile(path, RESOLVER);
      this.#records.set({ ...record, resolver: { path, before } });
    } catch (error) {
      const detail = { container: id, error: (error as Error).message };
      this.#options.log.warn(detail, 'names of the swarm are not known in a container');
    }
  }

  /** Has the node offer the container's ports. */
  async #publish(id: string, address: string | undefined, netns: string): Promise<void> {
    const ingress = this.#options.node.active?.ingress;
    const record = this.#records.get(id);
    if (ingress === undefined || address === undefined || record === undefined) return;
    if (record.ports.length === 0 || this.#published.has(id)) return;
    const bound = record.bound ?? (await boundPorts(record));
    this.#published.add(id);
    this.#records.set({ ...record, bound });
    ingress.setHostPorts(
      id,
      bound.map((port) => ({
        ...port,
        taskId: id,
        serviceId: id,
        serviceName: record.name,
        state: 'ready',
        address,
        netns,
      })),
    );
  }

  /** Takes away what a container has while it runs. */
  async #lower({ id, sandbox }: Record): Promise<void> {
    if (this.#published.delete(id)) this.#options.node.active?.ingress.setHostPorts(id, []);
    const record = this.#records.get(id);
    if (record?.bound !== undefined) this.#records.set({ ...record, bound: undefined });
    for (const attachment of this.#attachments(id)) await this.#detach(attachment);
    if (sandbox !== undefined) await this.#engine.stopSandbox(sandbox.name);
  }

  /** Makes the interfaces be as the container is. */
  async #settle(id: string): Promise<void> {
    const record = this.#records.get(id);
    if (record === undefined) return;
    const container = await this.#engine.find(id);
    if (container?.isAlive === true) {
      if (container.name !== record.name) this.#records.set({ ...record, name: container.name });
      if (this.#options.node.active !== undefined) await this.#raise(record);
      return;
    }
    await this.#lower(record);
    if (container !== undefined) return;
    if (record.sandbox !== undefined) await this.#engine.removeSandbox(record.sandbox.name);
    this.#records.delete(id);
  }

  #look(id: string): Promise<void> {
    return this.#inTurn(id, () => this.#settle(id)).catch((error: Error) => {
      const detail = { container: id, error: error.message };
      this.#options.log.warn(detail, 'a container cannot be put on its networks');
    });
  }

  /** After the engine, or this agent, was away. */
  async #lookAtAll(): Promise<void> {
    for (const { id } of this.#records.all()) await this.#look(id);
    try {
      const sandboxes = await this.#engine.sandboxes();
      const known = new Set(this.#records.all().map(({ sandbox }) => sandbox?.name));
      for (const name of sandboxes) if (!known.has(name)) await this.#engine.removeSandbox(name);
    } catch (error) {
      const detail = { error: (error as Error).message };
      this.#options.log.warn(detail, 'sandboxes that are left cannot be removed');
    }
  }

  #inTurn<Result>(id: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#turns.get(id) ?? Promise.resolve();
    const result = before.then(work);
    const turn = result.catch(() => undefined);
    this.#turns.set(id, turn);
    void turn.then(() => {
      if (this.#turns.get(id) === turn) this.#turns.delete(id);
    });
    return result;
  }
}

type InspectedParts = {
  readonly Id?: string;
  readonly Config?: { readonly Labels?: Readonly<{ [name: string]: string }> | null } | null;
};
type ListedParts = {
  readonly Id?: string;
  readonly Labels?: Readonly<{ [name: string]: string }> | null;
};

const noNetwork = (ref: string) =>
  new SwarmError({ code: 'SWARM_NOT_FOUND', kind: 'network', ref }, `network ${ref} not found`);

const wishOf = (
  network: { readonly id: string; readonly name: string },
  { aliases, ip }: OverlayEndpoint,
): NetworkWish => ({
  networkId: network.id,
  networkName: network.name,
  aliases: [...aliases],
  ...(ip !== undefined && { ip }),
});

/** Fixed ports that are free, and free ones for those that are left open. @throws ApiError */
async function boundPorts({ id, name, ports }: Record): Promise<UserPort[]> {
  const bound: UserPort[] = [];
  for (const port of ports) {
    const publishedPort = await bindable(port);
    if (publishedPort === undefined)
      throw new ApiError(
        { code: 'API_NOT_ATTACHED' },
        `driver failed programming external connectivity on endpoint ${name} (${id}): Bind for 0.0.0.0:${port.publishedPort} failed: port is already allocated`,
      );
    bound.push({ ...port, publishedPort });
  }
  return bound;
}

/** A port that can be listened on at this moment. */
function bindable({ protocol, publishedPort }: UserPort): Promise<number | undefined> {
  return new Promise((resolve) => {
    const tried = protocol === 'tcp' ? createServer().listen(publishedPort) : createSocket('udp6');
    const portOf = () => {
      const address = tried.address();
      return typeof address === 'object' && address !== null ? address.port : undefined;
    };
    tried.once('error', () => resolve(undefined));
    tried.once('listening', () => {
      const port = portOf();
      tried.close(() => resolve(port));
    });
    if ('bind' in tried) tried.bind(publishedPort);
  });
}
