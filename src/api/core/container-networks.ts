import type { OverlayEndpoint } from '../wire/records.js';

/** A container of the engine that is to be made, so that it is on overlays from its first instruction. */
export interface ContainerPlan {
  /** For the engine, in place of what the user sent. */
  readonly body: unknown;
  /** The engine has made it. */
  made(containerId: string): Promise<void>;
}

/** An answer of the engine. */
export interface EngineAnswer {
  readonly status: number;
  readonly json: unknown;
}

/**
 * The containers of this host's engine on the swarm's overlays. What is refused is said in Docker's
 * words, as an ApiError.
 */
export interface ContainerNetworks {
  /** `undefined`: there is no such network, or it is the engine's own. */
  overlay(ref: string): { readonly id: string; readonly name: string } | undefined;
  /**
   * For a request to make a container; `undefined`: no overlay is in it.
   *
   * @param asked How it is to be on each network that it names, by name or id.
   */
  plan(body: unknown, asked: ReadonlyMap<string, OverlayEndpoint>): ContainerPlan | undefined;
  /** The id of a container that is, or was made to be, on overlays; `undefined`: another, or none. */
  find(ref: string): Promise<string | undefined>;
  /** Has the engine start a container, by `start`, once its interfaces are there. */
  start(containerId: string, start: () => Promise<EngineAnswer>): Promise<EngineAnswer>;
  connect(ref: string, networkId: string, endpoint: OverlayEndpoint): Promise<void>;
  disconnect(ref: string, networkId: string): Promise<void>;
  /** The container that holds the namespace of this one; networks of the engine's own go to it. */
  sandboxOf(containerId: string): string | undefined;
  /** What the engine says of a container, with its overlays; `undefined`: there is nothing to add. */
  shown(inspected: unknown): Promise<unknown>;
  /** The same for entries of a list. */
  shownInList(list: readonly unknown[]): readonly unknown[];
}
