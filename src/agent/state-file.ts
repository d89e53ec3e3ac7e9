import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { writeFileAtomically } from '../base/io/atomic-file.js';

const hostPort = z.object({ address: z.string(), port: z.number().int() });

const attachment = z.object({
  /** The manager's attachment id. */
  id: z.string(),
  networkId: z.string(),
  networkName: z.string(),
  target: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('netns'), path: z.string() }),
    z.object({ kind: z.literal('pid'), pid: z.number().int() }),
    z.object({ kind: z.literal('host') }),
  ]),
  /** `device:inode` of the namespace, so that a reused path or pid is not taken for it. */
  netnsId: z.string(),
  ifname: z.string(),
  addresses: z.array(z.string()),
  mac: z.string(),
  name: z.string(),
  aliases: z.array(z.string()),
  createdAtMs: z.number(),
  /** Of the engine's container that it is for. */
  container: z.string().optional(),
});

const schema = z.object({
  schema: z.literal(1),
  /** Present while the node is in a swarm. */
  swarm: z
    .object({
      listen: hostPort,
      advertise: hostPort,
      dataPathAddress: z.string(),
      /** Known managers; a manager names itself. */
      managers: z.array(hostPort),
      manager: z.boolean(),
      /** What is advertised is no address of this host: it is kept, whatever addresses the host has. */
      advertiseGiven: z.boolean().optional(),
    })
    .optional(),
  attachments: z.array(attachment).max(4096),
  /** Groups of the classic Swarm's discovery that the node is in: its address, by their tokens. */
  discovery: z.record(z.string(), z.string()).optional(),
});

export type AgentState = z.infer<typeof schema>;
export type SavedAttachment = z.infer<typeof attachment>;
export type SavedSwarm = NonNullable<AgentState['swarm']>;

const EMPTY: AgentState = { schema: 1, attachments: [] };

/** What the agent itself must find again after `kill -9`: its place in the swarm and what it attached. */
export class StateFile {
  readonly #path: string;
  #state: AgentState;

  private constructor(path: string, state: AgentState) {
    this.#path = path;
    this.#state = state;
  }

  /** @throws Error when the file exists and cannot be understood: better to stop than to forget. */
  static load(path: string): StateFile {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new StateFile(path, EMPTY);
      throw error;
    }
    const parsed = schema.safeParse(parseJson(text));
    if (!parsed.success) {
      throw new Error(
        `${path} is damaged: restore it from a backup, or move it away to start empty`,
      );
    }
    return new StateFile(path, parsed.data);
  }

  get swarm(): SavedSwarm | undefined {
    return this.#state.swarm;
  }

  get attachments(): readonly SavedAttachment[] {
    return this.#state.attachments;
  }

  get discovery(): Readonly<Record<string, string>> {
    return this.#state.discovery ?? {};
  }

  /** Without a swarm the node is in no group either. */
  setSwarm(swarm: SavedSwarm | undefined): void {
    const { swarm: _, discovery: __, ...rest } = this.#state;
    this.#save(swarm === undefined ? rest : { ...this.#state, swarm });
  }

  setDiscovery(discovery: Readonly<Record<string, string>>): void {
    this.#save({ ...this.#state, discovery });
  }

  setAttachments(attachments: readonly SavedAttachment[]): void {
    this.#save({ ...this.#state, attachments: [...attachments] });
  }

  #save(state: AgentState): void {
    writeFileAtomically(this.#path, `${JSON.stringify(state, null, 1)}\n`);
    this.#state = state;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
