import { Writable } from 'node:stream';
import { AgentClient, notFound, socketPathOf } from '../agent-client.js';
import { usage } from '../error.js';
import { StackApi } from '../stack/api.js';

const HEADER_BYTES = 8;
/** One line of a task, with its details. */
const FRAME_BYTES_MAX = 4 << 20;
const FOLLOW_MS = 2 ** 31 - 1;
const READ_MS = 60_000;

interface LogFlags {
  readonly follow?: boolean;
  readonly tail: string;
  readonly since?: string;
  readonly timestamps?: boolean;
  readonly raw?: boolean;
  readonly socket?: string;
}

/** Docker's multiplexed stream: 4 bytes of which the first tells the output, 4 of length, then so much. */
export class LogDemultiplexer extends Writable {
  #rest: Buffer = Buffer.alloc(0);
  readonly #onLine: (stream: 'stdout' | 'stderr', line: Buffer) => void;

  constructor(onLine: (stream: 'stdout' | 'stderr', line: Buffer) => void) {
    super();
    this.#onLine = onLine;
  }

  override _write(chunk: Buffer, _encoding: unknown, done: (error?: Error) => void): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= HEADER_BYTES) {
      const bytes = this.#rest.readUInt32BE(4);
      if (bytes > FRAME_BYTES_MAX) {
        done(new Error('a line of the log is too long'));
        return;
      }
      if (this.#rest.length < HEADER_BYTES + bytes) break;
      const stream = this.#rest[0] === 2 ? 'stderr' : 'stdout';
      this.#onLine(stream, this.#rest.subarray(HEADER_BYTES, HEADER_BYTES + bytes));
      this.#rest = this.#rest.subarray(HEADER_BYTES + bytes);
    }
    done();
  }
}

/** `com.docker.swarm.task.id=…,… line`, in front of which the time may be. */
export function splitDetails(
  text: string,
  timestamps: boolean,
): { readonly details: ReadonlyMap<string, string>; readonly line: string } {
  const [time = '', ...others] = timestamps ? text.split(' ') : [''];
  const rest = timestamps ? others.join(' ') : text;
  const at = rest.indexOf(' ');
  const details = new Map(
    rest
      .slice(0, Math.max(at, 0))
      .split(',')
      .map((pair) => {
        const equals = pair.indexOf('=');
        const decode = (part: string) => decodeURIComponent(part);
        return [decode(pair.slice(0, equals)), decode(pair.slice(equals + 1))] as const;
      }),
  );
  const line = rest.slice(at + 1);
  return { details, line: timestamps ? `${time} ${line}` : line };
}

/** `service logs`: lines as the tasks wrote them, with the name and node of each in front. */
export async function followLogs(ref: string, flags: LogFlags): Promise<void> {
  if (flags.tail !== 'all' && !/^\d{1,9}$/.test(flags.tail))
    throw usage(`--tail is a number of lines or 'all', not '${flags.tail}'`);
  const socket = socketPathOf(flags.socket, process.env);
  const api = new StackApi(new AgentClient(socket));
  const isService = await api.service(ref).then(
    () => true,
    (error) => {
      if (notFound(error)) return false;
      throw error;
    },
  );
  const nodes = await api.nodeNames();
  const services = new Map((await api.allServices()).map(({ ID, Spec }) => [ID, Spec.Name]));
  const slots = new Map<string, string>();
  const nameTask = async (taskId: string, serviceId: string, nodeId: string) => {
    const known = slots.get(taskId);
    if (known !== undefined) return known;
    const [task] = await api.tasks({ id: [taskId] });
    const service = services.get(serviceId) ?? serviceId;
    const name = `${service}.${task?.Slot ? task.Slot : nodeId}.${taskId.slice(0, 12)}`;
    const whole = `${name}@${nodes.get(nodeId) ?? nodeId}`;
    slots.set(taskId, whole);
    return whole;
  };
  const query = new URLSearchParams({
    stdout: '1',
    stderr: '1',
    tail: flags.tail,
    ...(flags.raw ? {} : { details: '1' }),
    ...(flags.follow && { follow: '1' }),
    ...(flags.timestamps && { timestamps: '1' }),
    ...(flags.since !== undefined && { since: sinceOf(flags.since) }),
  });
  let order = Promise.resolve();
  const sink = new LogDemultiplexer((stream, bytes) => {
    const text = bytes.toString('utf8');
    const target = stream === 'stderr' ? process.stderr : process.stdout;
    order = order.then(async () => {
      if (flags.raw) {
        target.write(text);
        return;
      }
      const { details, line } = splitDetails(text, flags.timestamps === true);
      const id = (key: string) => details.get(`com.docker.swarm.${key}`) ?? '';
      const name = await nameTask(id('task.id'), id('service.id'), id('node.id'));
      target.write(`${name} | ${line.endsWith('\n') ? line : `${line}\n`}`);
    });
  });
  const reader = new AgentClient(socket, flags.follow ? FOLLOW_MS : READ_MS);
  const path = `/${isService ? 'services' : 'tasks'}/${encodeURIComponent(ref)}/logs?${query}`;
  await reader.download(path, sink, () => {});
  await order;
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds since the epoch of `10m` (ago), of a number, or of a date. */
function sinceOf(text: string): string {
  const relative = /^(?<count>\d+)(?<unit>[smhd])$/.exec(text)?.groups;
  if (relative !== undefined) {
    const seconds = Number(relative['count']) * (UNITS[relative['unit'] ?? 's'] ?? 1);
    return String(Date.now() / 1000 - seconds);
  }
  if (/^\d+(\.\d+)?$/.test(text)) return text;
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw usage(`--since is a time, or so long ago like 10m, not '${text}'`);
  return String(ms / 1000);
}
