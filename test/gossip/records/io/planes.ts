import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';
import {
  type RecordLogger,
  type RecordMember,
  RecordPlane,
} from '../../../../src/gossip/io/record-plane.js';

const quiet = () => {};
export const log: RecordLogger = {
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: (detail, message) => process.stderr.write(`${message}: ${inspect(detail)}\n`),
};

export const seedOf = (id: string) => createHash('sha256').update(id).digest();

export async function openPlane(id: string, port = 0): Promise<RecordPlane> {
  return RecordPlane.open({ self: id, seed: seedOf(id), bindAddress: '127.0.0.1', port, log });
}

/** Planes on loopback whose membership a test sets by hand. */
export class Planes {
  readonly byId = new Map<string, RecordPlane>();

  async add(...ids: string[]): Promise<void> {
    for (const id of ids) this.byId.set(id, await openPlane(id));
  }

  get(id: string): RecordPlane {
    const plane = this.byId.get(id);
    if (plane === undefined) throw new Error(`no plane ${id}`);
    return plane;
  }

  /** All know all; who is not in the group of `id` is dead to it. */
  tell(groupOf: (id: string) => number = () => 0): void {
    const admitted = new Map([...this.byId].map(([id, { peerId }]) => [id, peerId]));
    for (const [id, plane] of this.byId) {
      const members = [...this.byId].map(
        ([other, { port }]): RecordMember => ({
          id: other,
          address: '127.0.0.1',
          port,
          state: groupOf(other) === groupOf(id) ? 'alive' : 'dead',
        }),
      );
      plane.setAdmitted(admitted);
      plane.setMembers(members);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.byId.values()].map((plane) => plane.close()));
  }
}

/** Polls until `what` holds. @returns Milliseconds it took, or -1 if it did not come to hold. */
export async function until(what: () => boolean, deadlineMs = 10_000): Promise<number> {
  const start = performance.now();
  while (!what()) {
    if (performance.now() - start > deadlineMs) return -1;
    await delay(1);
  }
  return performance.now() - start;
}

export const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : Buffer.from(value).toString();

export function valueAt(plane: RecordPlane, topic: string, owner: string, key: string) {
  const record = plane.records.entries(topic).find((r) => r.owner === owner && r.key === key);
  return text(record?.value);
}
