export { type MetricSource, Metrics, type Sample } from './io/metrics.js';
export { MetricsServer } from './io/metrics-server.js';
