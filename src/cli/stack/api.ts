import { type AgentClient, notFound } from '../agent-client.js';
import { NAMESPACE_LABEL } from '../compose/convert.js';

/** What `shoal stack` reads of Docker's objects; the rest is carried along untouched. */
export interface ServiceJson {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: {
    readonly Name: string;
    readonly Labels?: Readonly<Record<string, string>>;
    readonly TaskTemplate: {
      readonly ForceUpdate?: number;
      readonly ContainerSpec: { readonly Image: string; readonly Healthcheck?: unknown };
    };
    readonly Mode: Readonly<Record<string, unknown>>;
  };
  readonly ServiceStatus?: {
    readonly RunningTasks: number;
    readonly DesiredTasks: number;
    readonly CompletedTasks?: number;
  };
  readonly Endpoint?: {
    readonly Ports?: readonly {
      readonly Protocol: string;
      readonly TargetPort: number;
      readonly PublishedPort?: number;
      readonly PublishMode?: string;
    }[];
  };
  readonly UpdateStatus?: { readonly State?: string; readonly Message?: string };
}

export interface TaskJson {
  readonly ID: string;
  readonly ServiceID: string;
  readonly NodeID?: string;
  readonly Slot?: number;
  readonly CreatedAt: string;
  readonly DesiredState: string;
  readonly Spec: { readonly ContainerSpec?: { readonly Image: string } };
  readonly Status: {
    readonly State: string;
    readonly Timestamp: string;
    readonly Err?: string;
    readonly Message?: string;
  };
}

export interface BlobJson {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: { readonly Name: string; readonly Labels?: Readonly<Record<string, string>> };
}

export interface NetworkJson {
  readonly Id: string;
  readonly Name: string;
  readonly Scope: string;
}

type Filters = Readonly<Record<string, readonly string[]>>;

function query(filters: Filters, more: Readonly<Record<string, string>> = {}): string {
  return new URLSearchParams({ filters: JSON.stringify(filters), ...more }).toString();
}

function ofStack(stack: string): Filters {
  return { label: [`${NAMESPACE_LABEL}=${stack}`] };
}

/** The calls of Docker's API that a stack is made of. */
export class StackApi {
  readonly #client: AgentClient;

  constructor(client: AgentClient) {
    this.#client = client;
  }

  /** @param stack Absent: of all stacks. */
  async services(stack: string | undefined): Promise<readonly ServiceJson[]> {
    const filters = stack === undefined ? { label: [NAMESPACE_LABEL] } : ofStack(stack);
    return (await this.#get(`/services?${query(filters, { status: 'true' })}`)) as ServiceJson[];
  }

  async allServices(): Promise<readonly ServiceJson[]> {
    return (await this.#get('/services?status=true')) as ServiceJson[];
  }

  /** @param id Id, name or unique prefix of an id. */
  service(id: string): Promise<ServiceJson> {
    return this.#get(`/services/${encodeURIComponent(id)}`) as Promise<ServiceJson>;
  }

  async tasks(filters: Filters): Promise<readonly TaskJson[]> {
    return (await this.#get(`/tasks?${query(filters)}`)) as TaskJson[];
  }

  async nodeNames(): Promise<ReadonlyMap<string, string>> {
    const nodes = (await this.#get('/nodes')) as {
      readonly ID: string;
      readonly Description: { readonly Hostname: string };
    }[];
    return new Map(nodes.map((node) => [node.ID, node.Description.Hostname]));
  }

  async networks(stack: string): Promise<readonly NetworkJson[]> {
    return (await this.#get(`/networks?${query(ofStack(stack))}`)) as NetworkJson[];
  }

  /** `undefined`: there is none of that name. */
  async network(name: string): Promise<NetworkJson | undefined> {
    return (await this.#getIfThere(`/networks/${encodeURIComponent(name)}`)) as
      | NetworkJson
      | undefined;
  }

  async createNetwork(body: unknown): Promise<void> {
    await this.#client.call('POST', '/networks/create', body);
  }

  async blobs(kind: BlobKind, stack: string): Promise<readonly BlobJson[]> {
    return (await this.#get(`/${kind}?${query(ofStack(stack))}`)) as BlobJson[];
  }

  async blob(kind: BlobKind, name: string): Promise<BlobJson | undefined> {
    return (await this.#getIfThere(`/${kind}/${encodeURIComponent(name)}`)) as BlobJson | undefined;
  }

  async createBlob(kind: BlobKind, spec: unknown): Promise<string> {
    const made = (await this.#client.call('POST', `/${kind}/create`, spec)) as { ID: string };
    return made.ID;
  }

  async updateBlob(kind: BlobKind, { ID, Version }: BlobJson, spec: unknown): Promise<void> {
    await this.#client.call('POST', `/${kind}/${ID}/update?version=${Version.Index}`, spec);
  }

  async createService(spec: unknown): Promise<string> {
    const made = (await this.#client.call('POST', '/services/create', spec)) as { ID: string };
    return made.ID;
  }

  async updateService({ ID, Version }: ServiceJson, spec: unknown): Promise<void> {
    await this.#client.call('POST', `/services/${ID}/update?version=${Version.Index}`, spec);
  }

  async rollbackService({ ID, Version, Spec }: ServiceJson): Promise<void> {
    const path = `/services/${ID}/update?version=${Version.Index}&rollback=previous`;
    await this.#client.call('POST', path, Spec);
  }

  async remove(kind: BlobKind | 'services' | 'networks', id: string): Promise<void> {
    await this.#client.call('DELETE', `/${kind}/${encodeURIComponent(id)}`);
  }

  #get(path: string): Promise<unknown> {
    return this.#client.call('GET', path);
  }

  async #getIfThere(path: string): Promise<unknown> {
    try {
      return await this.#get(path);
    } catch (error) {
      if (notFound(error)) return undefined;
      throw error;
    }
  }
}

export type BlobKind = 'secrets' | 'configs';
