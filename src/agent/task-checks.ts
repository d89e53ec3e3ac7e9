import { request } from 'node:http';
import { Socket } from 'node:net';
import type { CheckConfig } from '../base/check-labels.js';
import { CoreDriver } from '../base/io/driver.js';
import { type ChecksReady, TaskChecks } from '../runtime/index.js';

/** Where a task is checked: from inside its own namespace. */
export interface CheckPlace {
  readonly serviceId: string;
  readonly netns: string;
  /** A literal. */
  readonly address: string;
}

export interface NodeChecksDependencies {
  readonly seed: number;
  /** Of a service, as it is now. */
  checkOf(serviceId: string): CheckConfig | undefined;
  /** A descriptor of a TCP socket of the namespace. @throws Error if that is gone. */
  openIn(netns: string, address: string): number;
  /** Whether a task is to be passed over, when that changes. */
  changed(taskId: string, isFailing: boolean): void;
}

/**
 * Active checks of this node's tasks, by the labels of their services. The node of a task makes them and tells all
 * others with its endpoint: one check each, whoever balances, and VIPs are reached that this host has no part in.
 */
export class NodeChecks {
  readonly #deps: NodeChecksDependencies;
  readonly #core: TaskChecks;
  readonly #driver: CoreDriver<Parameters<TaskChecks['step']>[0], ChecksReady>;
  readonly #places = new Map<string, CheckPlace>();

  constructor(dependencies: NodeChecksDependencies) {
    this.#deps = dependencies;
    this.#core = new TaskChecks(dependencies.seed);
    this.#driver = new CoreDriver(this.#core, (ready) => this.#perform(ready));
  }

  /** It gets work from now on. */
  add(taskId: string, place: CheckPlace): void {
    this.#places.set(taskId, place);
    this.follow();
  }

  remove(taskId: string): void {
    if (this.#places.delete(taskId)) this.follow();
  }

  /** Labels may have changed. */
  follow(): void {
    const tasks = [...this.#places].flatMap(([id, { serviceId }]) => {
      const check = this.#deps.checkOf(serviceId);
      return check === undefined ? [] : [{ id, check }];
    });
    this.#driver.input({ kind: 'tasks', tasks });
  }

  stats(): TaskChecks['counts'] & TaskChecks['totals'] {
    return { ...this.#core.counts, ...this.#core.totals };
  }

  close(): void {
    this.#driver.stop();
  }

  #perform({ changes, starts }: ChecksReady): void {
    for (const { id, isFailing } of changes) this.#deps.changed(id, isFailing);
    for (const { run, task } of starts) {
      const place = this.#places.get(task.id);
      const result = place === undefined ? Promise.resolve(false) : this.#check(task.check, place);
      void result.then((isGood) => this.#driver.input({ kind: 'result', run, isGood }));
    }
  }

  #check(check: CheckConfig, { netns, address }: CheckPlace): Promise<boolean> {
    return new Promise((resolve) => {
      let socket: Socket;
      try {
        socket = new Socket({
          fd: this.#deps.openIn(netns, address),
          readable: true,
          writable: true,
        });
      } catch {
        resolve(false);
        return;
      }
      const end = (isGood: boolean) => {
        clearTimeout(timer);
        socket.destroy();
        resolve(isGood);
      };
      const timer = setTimeout(() => end(false), check.timeoutMs);
      socket.on('error', () => end(false));
      socket.on('close', () => end(false));
      if (check.kind === 'tcp') socket.once('connect', () => end(true));
      else askHttp(socket, check, address, end);
      socket.connect({ host: address, port: check.port });
    });
  }
}

/** Only the status counts; what comes after it is not read. */
function askHttp(
  socket: Socket,
  { path, port, status }: CheckConfig,
  address: string,
  end: (isGood: boolean) => void,
): void {
  const host = address.includes(':') ? `[${address}]` : address;
  const headers = { host: `${host}:${port}`, 'user-agent': 'shoal-check', connection: 'close' };
  const asked = request({ path, headers, createConnection: () => socket });
  asked.on('error', () => end(false));
  asked.once('response', ({ statusCode = 0 }) =>
    end(status.some(([from, to]) => from <= statusCode && statusCode <= to)),
  );
  asked.end();
}
