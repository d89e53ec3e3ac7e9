import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

/** One number read at scrape time. */
export interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric whose samples are read from a subsystem's own counters when somebody asks. */
export interface MetricSource {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  readonly labelNames?: readonly string[];
  read(): Iterable<Sample>;
}

/**
 * The agent's metrics in Prometheus form. Subsystems keep plain counters; nothing is pushed, so
 * a metric costs nothing until it is scraped.
 */
export class Metrics {
  readonly #registry = new Registry();

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
  }

  /** Registers a source; names are unique, a second one of the same name throws. */
  add(source: MetricSource): void {
    const labelNames = [...(source.labelNames ?? [])];
    const { name, help } = source;
    const registers = [this.#registry];
    if (source.kind === 'gauge') {
      const gauge: Gauge = new Gauge({
        name,
        help,
        labelNames,
        registers,
        collect: () => {
          gauge.reset();
          for (const { labels = {}, value } of source.read()) gauge.set({ ...labels }, value);
        },
      });
      return;
    }
    const counter: Counter = new Counter({
      name,
      help,
      labelNames,
      registers,
      collect: () => {
        counter.reset();
        for (const { labels = {}, value } of source.read()) counter.inc({ ...labels }, value);
      },
    });
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;
}
