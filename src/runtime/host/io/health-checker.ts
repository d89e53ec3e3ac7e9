import { CoreDriver, nowMs } from '../../../base/io/driver.js';
import type { HealthConfig } from '../../../base/service-model.js';
import {
  HEALTH_OUTPUT_BYTES_MAX,
  type HealthInput,
  HealthMonitor,
  type HealthReady,
  type HealthState,
  healthCommand,
  healthTimeoutMs,
} from '../../core/health.js';
import type { ExecProcess, ExecSpec, ExecStreams } from '../../core/runtime.js';

type Exec = (spec: ExecSpec, streams: ExecStreams, signal: AbortSignal) => Promise<ExecProcess>;
type Change = NonNullable<HealthReady['change']>;

/** Checks one run of a task, until it is stopped. */
export class HealthChecker {
  readonly #config: HealthConfig;
  readonly #exec: Exec;
  readonly #onChange: (change: Change) => void;
  readonly #monitor: HealthMonitor;
  readonly #driver: CoreDriver<HealthInput, HealthReady>;
  readonly #stop = new AbortController();

  /** @param startedAtMs Of the run, as the calendar has it. */
  constructor(
    config: HealthConfig,
    startedAtMs: number,
    state: HealthState | undefined,
    exec: Exec,
    onChange: (change: Change) => void,
  ) {
    this.#config = config;
    this.#exec = exec;
    this.#onChange = onChange;
    const now = nowMs();
    const startedMs = now - Math.max(0, Date.now() - startedAtMs);
    this.#monitor = new HealthMonitor(config, startedMs, now, state);
    this.#driver = new CoreDriver(this.#monitor, (ready) => this.#perform(ready));
    this.#driver.start();
  }

  get state(): HealthState {
    return this.#monitor.state;
  }

  stop(): void {
    this.#driver.stop();
    this.#stop.abort();
  }

  #perform({ probe, change }: HealthReady): void {
    if (change !== undefined) this.#onChange(change);
    if (probe) void this.#probe().then((result) => this.#driver.input(result));
  }

  async #probe(): Promise<HealthInput> {
    const timeoutMs = healthTimeoutMs(this.#config);
    const late = AbortSignal.timeout(timeoutMs);
    const output: Uint8Array[] = [];
    let size = 0;
    const streams: ExecStreams = {
      output(_stream, data) {
        // More is taken from the command, since it would stop otherwise, and forgotten.
        const part = data.subarray(0, HEALTH_OUTPUT_BYTES_MAX - size);
        output.push(part);
        size += part.length;
      },
    };
    const spec = { command: healthCommand(this.#config), tty: false };
    try {
      const signal = AbortSignal.any([late, this.#stop.signal]);
      const { exited } = await this.#exec(spec, streams, signal);
      const exitCode = await exited;
      const text = Buffer.concat(output).toString();
      if (!late.aborted) return { kind: 'result', exitCode, output: text };
      const words = `Health check exceeded timeout (${timeoutMs / 1000}s)`;
      const said = text === '' ? words : `${words}: ${text}`;
      return { kind: 'result', exitCode: undefined, output: said };
    } catch (error) {
      return { kind: 'result', exitCode: undefined, output: String(error) };
    }
  }
}
