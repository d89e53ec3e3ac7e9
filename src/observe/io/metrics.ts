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
 * The library samples the loop's lag by a timer that cannot be switched off; with its own interval, 10 ms, that
 * timer was a third of what an agent at rest spent. The figures made of the samples hold the interval, so with
 * this one they would alarm whoever reads them, and go. `nodejs_eventloop_lag_seconds` is measured at a scrape.
 */
const LAG_SAMPLE_MS = 60_000;
const LAG_FIGURES = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'];

/**
 * The agent's metrics in Prometheus form. Subsystems keep plain counters; nothing is pushed, so
 * a metric costs nothing until it is scraped.
 */
export class Metrics {
  readonly #registry = new Registry();

  constructor() {
    collectDefaultMetrics({
      register: this.#registry,
      eventLoopMonitoringPrecision: LAG_SAMPLE_MS,
    });
    for (const figure of LAG_FIGURES)
      this.#registry.removeSingleMetric(`nodejs_eventloop_lag_${figure}_seconds`);
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
