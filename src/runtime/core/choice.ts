import { isHostImage } from '../../base/host-image.js';
import type { RuntimeKind } from './task-input.js';

/** Who runs a task of an image; `refusal`: nobody can on this node, and why. */
export function chooseRuntime(
  image: string,
  available: ReadonlySet<RuntimeKind>,
): { readonly runtime: RuntimeKind; readonly refusal?: string } {
  const runtime = isHostImage(image) ? 'host' : 'engine';
  if (available.has(runtime)) return { runtime };
  const refusal =
    runtime === 'host'
      ? 'this node runs no commands of its own: its runtime for the image host did not start'
      : `image ${image} needs a container engine, and this node has none: start one, or use the image host`;
  // What is refused is in no runtime; any other will do.
  return { runtime: [...available][0] ?? runtime, refusal };
}
