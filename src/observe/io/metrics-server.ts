import { createServer, type Server } from 'node:http';
import { portHolder } from '../../base/io/port-holder.js';
import { SwarmError } from '../../base/swarm-error.js';

export interface MetricsServerConfig {
  readonly host: string;
  readonly port: number;
}

export interface MetricsServerDependencies {
  readonly contentType: string;
  metrics(): Promise<string>;
  /** `ok` decides the status: 200 or 503. */
  health(): { readonly ok: boolean; readonly detail: unknown };
}

const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 10_000;

/** Serves `/metrics` and `/healthz` over plain HTTP, on loopback unless told otherwise. */
export class MetricsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws SwarmError SWARM_PORT_TAKEN */
  static async listen(
    config: MetricsServerConfig,
    dependencies: MetricsServerDependencies,
  ): Promise<MetricsServer> {
    const server = createServer((request, response) => {
      const path = (request.url ?? '').split('?')[0];
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.writeHead(405).end();
      } else if (path === '/healthz') {
        const { ok, detail } = dependencies.health();
        response.writeHead(ok ? 200 : 503, { 'Content-Type': 'application/json' });
        response.end(`${JSON.stringify(detail)}\n`);
      } else if (path === '/metrics') {
        dependencies.metrics().then(
          (text) => response.writeHead(200, { 'Content-Type': dependencies.contentType }).end(text),
          () => response.writeHead(500).end(),
        );
      } else {
        response.writeHead(404).end();
      }
    });
    server.maxConnections = CONNECTIONS_MAX;
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EADDRINUSE') return reject(error);
        const by = portHolder('tcp', config.port);
        reject(
          new SwarmError(
            { code: 'SWARM_PORT_TAKEN', port: config.port, protocol: 'tcp', by },
            `the metrics port ${config.port}/tcp is taken by ${by}: choose another with --metrics-address, or none`,
          ),
        );
      });
      server.listen(config.port, config.host, resolve);
    });
    return new MetricsServer(server);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
