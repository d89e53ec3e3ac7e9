import { z } from 'zod';
import type { RuntimeTask } from '../../core/runtime.js';
import { imageParts } from '../wire/image-name.js';
import { pullJson } from '../wire/inspect-json.js';
import { type PauseMachine, pauseProgram, tarOf } from '../wire/pause-image.js';
import { LineReader } from '../wire/raw-stream.js';
import { type EngineClient, EngineError } from './engine-client.js';

/** Also its version: another program gets another tag. */
export const SANDBOX_IMAGE = 'shoal/sandbox:1';
/** For a first sign of a pull of an image that is there already: a registry far away is no reason to wait. */
const REFRESH_MS_MAX = 20_000;
const PULL_MS_MAX = 3_600_000;

const anything = z.unknown();

export class Images {
  readonly #client: EngineClient;
  readonly #prefersLocal: boolean;

  constructor(client: EngineClient, prefersLocal: boolean) {
    this.#client = client;
    this.#prefersLocal = prefersLocal;
  }

  /**
   * Has the engine get the image. One with a digest that is there is not asked for again; another that
   * is there is good enough if it cannot be had anew.
   *
   * @throws EngineError
   */
  async ensure(
    { container: { image }, registryAuth }: RuntimeTask,
    signal: AbortSignal,
  ): Promise<void> {
    const isHere = await this.#has(image, signal);
    if (isHere && (this.#prefersLocal || image.includes('@'))) return;
    try {
      await this.#pull(image, registryAuth, isHere, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isHere) throw error;
    }
  }

  /** Makes the sandboxes' image where it is not there. @throws EngineError */
  async ensureSandbox(): Promise<void> {
    const signal = new AbortController().signal;
    if (await this.#has(SANDBOX_IMAGE, signal)) return;
    const { name, tag } = imageParts(SANDBOX_IMAGE);
    const machine: PauseMachine = process.arch === 'arm64' ? 'arm64' : 'x64';
    await this.#client.act({
      method: 'POST',
      path: '/images/create',
      query: { fromSrc: '-', repo: name, tag, changes: 'ENTRYPOINT ["/pause"]' },
      headers: { 'content-type': 'application/x-tar' },
      bytes: tarOf('pause', pauseProgram(machine)),
    });
  }

  async #has(image: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#client.call(anything, { path: `/images/${encodeURI(image)}/json`, signal });
      return true;
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return false;
      throw error;
    }
  }

  async #pull(
    image: string,
    auth: string | undefined,
    isHere: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const { name, tag } = imageParts(image);
    const ending = AbortSignal.any([signal, AbortSignal.timeout(PULL_MS_MAX)]);
    const answer = await this.#client.stream({
      method: 'POST',
      path: '/images/create',
      query: { fromImage: name, tag },
      ...(auth === undefined ? {} : { headers: { 'x-registry-auth': auth } }),
      msMax: isHere ? REFRESH_MS_MAX : PULL_MS_MAX,
      signal: ending,
    });
    const lines = new LineReader();
    for await (const chunk of answer as AsyncIterable<Buffer>)
      for (const line of lines.push(chunk)) refuseFailure(line);
    for (const line of lines.end()) refuseFailure(line);
  }
}

/** A pull fails in the midst of an answer of 200. */
function refuseFailure(line: Buffer): void {
  let json: unknown;
  try {
    json = JSON.parse(line.toString());
  } catch {
    return;
  }
  const parsed = pullJson.safeParse(json);
  if (parsed.success && parsed.data.error !== undefined)
    throw new EngineError(0, parsed.data.error);
}
