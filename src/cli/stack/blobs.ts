import { readFileSync } from 'node:fs';
import type { StackBlob } from '../compose/convert.js';
import { composeError } from '../compose/error.js';
import type { Variables } from '../compose/interpolate.js';
import { CliError } from '../error.js';
import type { BlobJson, BlobKind, StackApi } from './api.js';

/** Marks the later versions of a secret or config: the name that the file gives it. */
const VERSION_OF_LABEL = 'com.docker.shoal.version-of';

const ONE: Readonly<Record<BlobKind, string>> = { secrets: 'secret', configs: 'config' };

/** The name in the swarm, and its id, by the name that the file gives. */
export type BlobIds = ReadonlyMap<string, { readonly id: string; readonly name: string }>;

/**
 * Makes the stack's secrets or configs, and new versions of those whose contents differ: Docker's own
 * cannot be changed, so that a changed file would stop a deployment. Services are then given the new
 * version, and roll.
 *
 * @throws CliError what is external and missing, a file that cannot be read, or the agent's refusal.
 */
export async function deployBlobs(
  api: StackApi,
  kind: BlobKind,
  stack: string,
  blobs: readonly StackBlob[],
  variables: Variables,
  say: (line: string) => void,
): Promise<BlobIds> {
  const ids = new Map<string, { readonly id: string; readonly name: string }>();
  const present = await api.blobs(kind, stack);
  for (const blob of blobs) {
    if (blob.external) {
      const outside = await api.blob(kind, blob.name);
      if (outside === undefined)
        throw composeError(kind, `the external ${ONE[kind]} ${blob.name} is not there`);
      ids.set(blob.name, { id: outside.ID, name: blob.name });
    } else ids.set(blob.name, await deployBlob(api, kind, blob, present, variables, say));
  }
  return ids;
}

async function deployBlob(
  api: StackApi,
  kind: BlobKind,
  blob: StackBlob,
  present: readonly BlobJson[],
  variables: Variables,
  say: (line: string) => void,
): Promise<{ readonly id: string; readonly name: string }> {
  const data = contentOf(blob, variables).toString('base64');
  const versions = versionsOf(blob.name, present);
  const latest = versions.at(-1) ?? (await api.blob(kind, blob.name));
  const specOf = (name: string, labels: Readonly<Record<string, string>>) => ({
    Name: name,
    Labels: labels,
    Data: data,
    ...(blob.templating !== undefined && { Templating: { Name: blob.templating } }),
  });
  if (latest === undefined) {
    say(`Creating ${ONE[kind]} ${blob.name}`);
    const id = await api.createBlob(kind, specOf(blob.name, blob.labels));
    return { id, name: blob.name };
  }
  const { Name: name } = latest.Spec;
  const labels =
    name === blob.name ? blob.labels : { ...blob.labels, [VERSION_OF_LABEL]: blob.name };
  try {
    await api.updateBlob(kind, latest, specOf(name, labels));
    return { id: latest.ID, name };
  } catch (error) {
    if (!isOtherContent(error)) throw error;
  }
  const next = `${blob.name}-${numberOf(blob.name, latest) + 1}`;
  say(`Creating ${ONE[kind]} ${next}, a new version of ${blob.name}`);
  const marked = { ...blob.labels, [VERSION_OF_LABEL]: blob.name };
  return { id: await api.createBlob(kind, specOf(next, marked)), name: next };
}

/** The agent compares contents that nobody can read back. */
function isOtherContent(error: unknown): boolean {
  return error instanceof CliError && /only updates to Labels are allowed/.test(error.message);
}

function numberOf(name: string, { Spec }: BlobJson): number {
  return Spec.Name === name ? 1 : Number(Spec.Name.slice(name.length + 1));
}

function versionsOf(name: string, present: readonly BlobJson[]): readonly BlobJson[] {
  return present
    .filter(({ Spec }) => Spec.Name === name || Spec.Labels?.[VERSION_OF_LABEL] === name)
    .filter((blob) => Number.isInteger(numberOf(name, blob)))
    .toSorted((a, b) => numberOf(name, a) - numberOf(name, b));
}

function contentOf({ content, name }: StackBlob, variables: Variables): Buffer {
  switch (content?.kind) {
    case 'file':
      try {
        return readFileSync(content.path);
      } catch (error) {
        throw composeError(content.path, `cannot be read: ${(error as Error).message}`);
      }
    case 'environment': {
      const value = variables(content.name);
      if (value === undefined)
        throw composeError(name, `the variable ${content.name}, which holds it, is not set`);
      return Buffer.from(value);
    }
    default:
      return Buffer.from(content?.text ?? '');
  }
}

/** Versions that no service uses any more go; those in use stay, and are tried again the next time. */
export async function removeOldBlobs(
  api: StackApi,
  kind: BlobKind,
  stack: string,
  keep: BlobIds,
): Promise<void> {
  const kept = new Set([...keep.values()].map(({ id }) => id));
  const names = new Set(keep.keys());
  for (const blob of await api.blobs(kind, stack)) {
    const of = blob.Spec.Labels?.[VERSION_OF_LABEL] ?? blob.Spec.Name;
    if (kept.has(blob.ID) || !names.has(of)) continue;
    await api.remove(kind, blob.ID).catch((error) => {
      if (!(error instanceof CliError)) throw error;
    });
  }
}
