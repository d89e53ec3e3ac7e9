import { existsSync, realpathSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Upstream } from '../api/index.js';
import type { AgentConfig } from './config.js';
import type { Log } from './log.js';

/** Where engines listen by themselves: Docker's, then podman's. */
const SOCKETS = ['/run/docker.sock', '/var/run/docker.sock', '/run/podman/podman.sock'];
/** For an engine to say that it is one. */
const PING_MS_MAX = 2_000;
const RETRY_MS = 5_000;
/** Spoken until the engine has said what it speaks: old enough for all that are about. */
const CAUTIOUS_VERSION = '1.41';

/** The container engine of this host, as one end of what the API passes on. */
export class Engine implements Upstream {
  readonly name = 'the container engine';
  readonly prefix = '';
  readonly headers = {};
  readonly socketPath: string;
  #apiVersion: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  /** The one that is asked for, or else one that answers. */
  static async find(
    { engineSocket, socket }: Pick<AgentConfig, 'engineSocket' | 'socket'>,
    log: Log,
  ): Promise<Engine | undefined> {
    if (engineSocket === 'none') return undefined;
    const candidates =
      engineSocket === undefined ? SOCKETS.filter(isOther(socket)) : [engineSocket];
    for (const path of candidates) {
      const engine = new Engine(path);
      const isThere = await engine.#ask();
      if (!isThere && engineSocket === undefined) continue;
      log.info({ socket: path, apiVersion: engine.#apiVersion }, 'container engine');
      if (!isThere) engine.#askAgain();
      return engine;
    }
    return undefined;
  }

  get apiVersion(): string {
    return this.#apiVersion ?? CAUTIOUS_VERSION;
  }

  connect(signal: AbortSignal): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path: this.socketPath, allowHalfOpen: true, signal });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(socket);
      });
    });
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #askAgain(): void {
    this.#timer = setTimeout(() => {
      void this.#ask().then((isThere) => {
        if (!isThere) this.#askAgain();
      });
    }, RETRY_MS);
    this.#timer.unref();
  }

  /** What it speaks, if it answers. */
  #ask(): Promise<boolean> {
    return new Promise((resolve) => {
      const asked = request({
        socketPath: this.socketPath,
        path: '/_ping',
        headers: { host: 'docker' },
        timeout: PING_MS_MAX,
        signal: AbortSignal.timeout(PING_MS_MAX),
      });
      asked.on('error', () => resolve(false));
      asked.on('response', (answer) => {
        answer.resume();
        const version = answer.headers['api-version'];
        if (typeof version === 'string') this.#apiVersion = version;
        resolve(typeof version === 'string');
      });
      asked.end();
    });
  }
}

/** The agent's own socket may stand in the engine's place: it must not ask itself. */
const isOther = (own: string) => (path: string) =>
  existsSync(path) && (!existsSync(own) || realpathSync(path) !== realpathSync(own));
