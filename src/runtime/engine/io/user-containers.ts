import { readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { inspectJson, listJson } from '../wire/inspect-json.js';
import { type Said, USER_OWNER_LABEL, userSandboxJson } from '../wire/user-container.js';
import { EngineClient, EngineError, WORK_MS_MAX } from './engine-client.js';
import { type EngineEvent, EngineEvents } from './engine-events.js';
import { Images, SANDBOX_IMAGE } from './images.js';
import { netnsOf, sandboxPid } from './sandbox-netns.js';

/** A container as the engine knows it. */
export interface UserContainer {
  readonly id: string;
  readonly name: string;
  /** Running, paused or about to be started again. */
  readonly isAlive: boolean;
  readonly pid: number;
  readonly networkMode: string;
  readonly autoRemove: boolean;
  readonly resolvConfPath: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface UserContainersConfig {
  readonly socketPath: string;
  readonly owner: string;
}

export interface UserContainersListener {
  /** What happened before is not known: look at all. */
  onConnected(): void;
  onEvent(event: EngineEvent): void;
}

const userInspect = inspectJson.extend({
  HostConfig: z.object({
    NetworkMode: z.string().default(''),
    AutoRemove: z.boolean().default(false),
  }),
  ResolvConfPath: z.string().default(''),
});

const settingsJson = z.object({ NetworkSettings: z.unknown() });

/**
 * Containers that users make of the engine, so far as overlays are concerned: each that is made on one
 * has a sandbox beside it, as a task has, which is wired before the container starts.
 */
export class UserContainers {
  readonly #owner: string;
  readonly #client: EngineClient;
  readonly #images: Images;
  readonly #events: EngineEvents;

  constructor({ socketPath, owner }: UserContainersConfig, listener: UserContainersListener) {
    this.#owner = owner;
    this.#client = new EngineClient(socketPath);
    this.#images = new Images(this.#client, true);
    this.#events = new EngineEvents(this.#client, {
      onConnected: () => listener.onConnected(),
      onEvent: (event) => listener.onEvent(event),
      onLost: () => undefined,
    });
  }

  /** Events come from now on. */
  start(): void {
    this.#events.start({});
  }

  close(): void {
    this.#events.close();
    this.#client.close();
  }

  /** By id or name; `undefined`: there is none. */
  async find(ref: string): Promise<UserContainer | undefined> {
    try {
      const path = `/containers/${encodeURIComponent(ref)}/json`;
      const found = await this.#client.call(userInspect, { path });
      return {
        id: found.Id,
        name: found.Name.replace(/^\//, ''),
        isAlive: found.State.Running || found.State.Status === 'restarting',
        pid: found.State.Pid,
        networkMode: found.HostConfig.NetworkMode,
        autoRemove: found.HostConfig.AutoRemove,
        resolvConfPath: found.ResolvConfPath,
        labels: found.Config.Labels,
      };
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Makes the sandbox of a container. @returns Whether it was not there. */
  async ensureSandbox(name: string, containerId: string, said: Said): Promise<boolean> {
    await this.#images.ensureSandbox();
    try {
      await this.#client.act({
        method: 'POST',
        path: '/containers/create',
        query: { name },
        json: userSandboxJson(said, { id: containerId, owner: this.#owner, image: SANDBOX_IMAGE }),
        msMax: WORK_MS_MAX,
      });
      return true;
    } catch (error) {
      if (error instanceof EngineError && error.status === 409) return false;
      throw error;
    }
  }

  /** `NetworkSettings` of a sandbox, as the engine tells them. */
  async networkSettings(name: string): Promise<unknown> {
    const path = `/containers/${name}/json`;
    const { NetworkSettings } = await this.#client.call(settingsJson, { path }).catch(() => ({
      NetworkSettings: undefined,
    }));
    return NetworkSettings;
  }

  /** @returns Its namespace, and its process. */
  async startSandbox(
    name: string,
    containerId: string,
  ): Promise<{ readonly netns: string; readonly pid: number }> {
    const path = `/containers/${name}/start`;
    await this.#client.act({ method: 'POST', path, msMax: WORK_MS_MAX });
    const pid = await sandboxPid(this.#client, name, containerId);
    if (pid !== undefined) return { netns: netnsOf(pid), pid };
    throw new EngineError(
      0,
      'the network namespace of the sandbox is not seen on this host: the engine must run in the same PID namespace as the agent',
    );
  }

  /** The hosts file of a sandbox that runs, which its container shares, gets these lines besides. */
  async addHosts(pid: number, lines: readonly string[]): Promise<void> {
    // Nobody else's program is in there, so the path leads nowhere else.
    const path = `/proc/${pid}/root/etc/hosts`;
    const before = await readFile(path, 'utf8');
    const missing = lines.filter((line) => !before.split('\n').includes(line));
    if (missing.length > 0) await writeFile(path, `${before}${missing.join('\n')}\n`);
  }

  async stopSandbox(name: string): Promise<void> {
    await this.#quietly({ method: 'POST', path: `/containers/${name}/kill` }, [404, 409, 500]);
  }

  async removeSandbox(name: string): Promise<void> {
    const query = { force: '1' };
    await this.#quietly({ method: 'DELETE', path: `/containers/${name}`, query }, [404, 409]);
  }

  /** Puts a sandbox on one of the engine's own networks. */
  async joinEngineNetwork(name: string, network: string, endpoint: unknown): Promise<void> {
    // It is on none, which an engine counts as a network.
    await this.leaveEngineNetwork(name, 'none');
    await this.#client.act({
      method: 'POST',
      path: `/networks/${encodeURIComponent(network)}/connect`,
      json: { Container: name, EndpointConfig: endpoint },
    });
  }

  async leaveEngineNetwork(name: string, network: string): Promise<void> {
    const path = `/networks/${encodeURIComponent(network)}/disconnect`;
    const json = { Container: name, Force: true };
    await this.#quietly({ method: 'POST', path, json }, [403, 404, 409, 500]);
  }

  /** Names of all sandboxes of this agent's, with the containers that they are for. */
  async sandboxes(): Promise<readonly string[]> {
    const filters = JSON.stringify({ label: [`${USER_OWNER_LABEL}=${this.#owner}`] });
    const found = await this.#client.call(listJson, {
      path: '/containers/json',
      query: { all: '1', filters },
    });
    return found.map(({ Id, Names }) => Names[0]?.replace(/^\//, '') ?? Id);
  }

  async remove(id: string): Promise<void> {
    const query = { force: '1', v: '1' };
    await this.#quietly({ method: 'DELETE', path: `/containers/${id}`, query }, [404, 409]);
  }

  /** @param harmless Statuses that say that it is so already, or is gone. */
  async #quietly(
    call: Parameters<EngineClient['act']>[0],
    harmless: readonly number[],
  ): Promise<void> {
    try {
      await this.#client.act({ ...call, msMax: WORK_MS_MAX });
    } catch (error) {
      if (!(error instanceof EngineError && harmless.includes(error.status))) throw error;
    }
  }
}
