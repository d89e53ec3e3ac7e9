import { openUpstream, type Upstream } from '../../io/upstream.js';
import { pullQuery } from '../wire/image-name.js';
import { objectOf, textOf } from '../wire/json.js';
import { linesOf } from './lines.js';

/** Of the client, for a registry that asks who it is. */
export type PullHeaders = Readonly<Record<'x-registry-auth', string>> | Record<string, never>;

/** Lets one engine pull an image, however long that takes. @returns Why it could not. */
export async function pull(
  upstream: Upstream,
  image: string,
  headers: PullHeaders,
  signal: AbortSignal,
): Promise<string | undefined> {
  const path = `/images/create?${pullQuery(image)}`;
  const answer = await openUpstream(upstream, { method: 'POST', path, headers }, signal);
  let refusal: string | undefined;
  for await (const line of linesOf(answer)) refusal = refusalOf(line) ?? refusal;
  if ((answer.statusCode ?? 500) < 400) return refusal;
  return refusal ?? `pulling ${image} was answered with ${answer.statusCode}`;
}

/** A line of progress that is the end of it, or the only line of a refusal. */
function refusalOf(line: string): string | undefined {
  try {
    const { error, message } = objectOf(JSON.parse(line));
    return textOf(error) || textOf(message) || undefined;
  } catch {
    return undefined;
  }
}
