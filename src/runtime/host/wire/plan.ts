/**
 * The plan of a task: what the supervisor does, record by record, without a decision of its own.
 *
 * ```
 * u32 bytes that follow | records: u8 op, u8 count of arguments, arguments: u32 length, bytes, NUL
 * ```
 *
 * Numbers are little-endian. Large letters are settings, small ones steps, done
 * in order inside the new namespaces; those behind the mark `y` by each run of the command. A step with one argument too many may fail.
 */
export type PlanRecord = readonly [op: PlanOp, ...values: (string | Uint8Array)[]];

export type PlanOp =
  /** Folder of the task. */
  | 'D'
  /** Namespaces of the task, besides the one that each run has for its processes: flags, decimal. */
  | 'N'
  | 'H'
  /** `1`: an init of the shim's own is the first process; `0`: the command itself. */
  | 'I'
  /** A terminal: rows, columns. */
  | 'T'
  /** Output is logged: bytes of a file, count of files. */
  | 'L'
  /** A `cgroup.procs` file which the command joins. */
  | 'G'
  /** A file with a line `oom_kill N`. */
  | 'O'
  /** `oom_score_adj`. */
  | 'S'
  /** One word of the command. */
  | 'A'
  /** One variable of the environment. */
  | 'E'
  /** Working directory. */
  | 'W'
  /** User id, group id. */
  | 'U'
  /** One further group id. */
  | 'V'
  /** Capabilities that stay, hexadecimal. */
  | 'C'
  /** `1`: no new privileges. */
  | 'P'
  /** Number of a resource limit, soft, hard; -1: none. */
  | 'R'
  /** Of `exec`: the task's first process, and its start in clock ticks. */
  | 'X'
  /** Holds a source of a mount open: number, path, `1` with all that is mounted below. */
  | 'o'
  /** Mounts: target, source (`@N`: the one held as N), type, flags, data. */
  | 'm'
  /** Sets attributes of a mount: path, `1` with all below it, bits. */
  | 'a'
  /** Makes a mount point that only the task sees: path; `d`, `f`, or `@N`: as that source is. */
  | 'p'
  /** Makes a folder or file for real: as `p`. */
  | 'k'
  /** A file: path, octal mode, user id, group id, contents. */
  | 'f'
  /** Writes into what exists: path, text. */
  | 'w'
  /** A symbolic link: path, target. */
  | 'l'
  /** A root of the task's own with the entries of the real one: folder to build it in. */
  | 'q'
  /** Makes what was laid over folders to make mount points read-only. */
  | 'z'
  /** A mark: what follows is done at each run. */
  | 'y'
  /** Takes away the copies of all mounts of a type. */
  | 'x'
  /** Brings the loopback link up. */
  | 'u';

const encoder = new TextEncoder();

/** Text that cannot be passed on: a NUL would end it early. */
export function hasNul(text: string): boolean {
  return text.includes('\0');
}

/** The records as bytes, to be sent as they are. */
export function encodePlan(records: readonly PlanRecord[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let size = 0;
  const push = (part: Uint8Array) => {
    parts.push(part);
    size += part.length;
  };
  for (const [op, ...values] of records) {
    push(Uint8Array.of(op.charCodeAt(0), values.length));
    for (const value of values) {
      const bytes = typeof value === 'string' ? encoder.encode(value) : value;
      push(u32(bytes.length));
      push(bytes);
      push(Uint8Array.of(0));
    }
  }
  const plan = new Uint8Array(4 + size);
  plan.set(u32(size), 0);
  let at = 4;
  for (const part of parts) {
    plan.set(part, at);
    at += part.length;
  }
  return plan;
}

/** A plan as the shim receives it, behind its length; `undefined`: it makes no sense. */
export function decodePlan(plan: Uint8Array): PlanRecord[] | undefined {
  const view = new DataView(plan.buffer, plan.byteOffset, plan.length);
  const records: PlanRecord[] = [];
  for (let at = 0; at < plan.length; ) {
    if (at + 2 > plan.length) return undefined;
    const op = String.fromCharCode(view.getUint8(at)) as PlanOp;
    const count = view.getUint8(at + 1);
    const values: Uint8Array[] = [];
    at += 2;
    for (let i = 0; i < count; i++) {
      if (at + 4 > plan.length) return undefined;
      const length = view.getUint32(at, true);
      at += 4;
      if (length >= plan.length - at) return undefined;
      values.push(plan.subarray(at, at + length));
      at += length + 1;
    }
    records.push([op, ...values]);
  }
  return records;
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}
