import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { writeFileAtomically } from '../base/io/atomic-file.js';

/** Containers of users on overlays that one node remembers. */
export const CONTAINERS_MAX = 1024;

const json = z.record(z.string(), z.unknown());

const ports = z.array(
  z.object({
    protocol: z.enum(['tcp', 'udp']),
    targetPort: z.number().int(),
    publishedPort: z.number().int(),
  }),
);

const record = z.object({
  id: z.string(),
  name: z.string(),
  /** Absent: it was made on networks of the engine's own, and connected later. */
  sandbox: z
    .object({ name: z.string(), said: z.object({ config: json, host: json }), endpoints: json })
    .optional(),
  ports,
  /** Those that this node offers while it runs. */
  bound: ports.optional(),
  /** Its file of resolvers was changed: what it was. */
  resolver: z.object({ path: z.string(), before: z.string() }).optional(),
  /** What it is to be on while it runs. */
  wishes: z.array(
    z.object({
      networkId: z.string(),
      networkName: z.string(),
      aliases: z.array(z.string()),
      ip: z.string().optional(),
    }),
  ),
});

export type ContainerRecord = z.infer<typeof record>;
export type NetworkWish = ContainerRecord['wishes'][number];

const schema = z.object({ schema: z.literal(1), containers: z.array(record) });

/** What users asked of their containers' overlays: the engine knows nothing of it. */
export class ContainerRecords {
  readonly #path: string;
  readonly #records: Map<string, ContainerRecord>;

  private constructor(path: string, records: Map<string, ContainerRecord>) {
    this.#path = path;
    this.#records = records;
  }

  /** What cannot be understood is as if it were not there: containers go on, only without overlays. */
  static load(path: string, onDamage: () => void): ContainerRecords {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return new ContainerRecords(path, new Map());
    }
    const parsed = schema.safeParse(parseJson(text));
    if (!parsed.success) onDamage();
    const records = parsed.data?.containers ?? [];
    return new ContainerRecords(path, new Map(records.map((one) => [one.id, one])));
  }

  get size(): number {
    return this.#records.size;
  }

  all(): readonly ContainerRecord[] {
    return [...this.#records.values()];
  }

  get(id: string): ContainerRecord | undefined {
    return this.#records.get(id);
  }

  set(one: ContainerRecord): void {
    this.#records.set(one.id, one);
    this.#save();
  }

  delete(id: string): void {
    if (this.#records.delete(id)) this.#save();
  }

  #save(): void {
    const text = JSON.stringify({ schema: 1, containers: this.all() }, null, 1);
    writeFileAtomically(this.#path, `${text}\n`);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
