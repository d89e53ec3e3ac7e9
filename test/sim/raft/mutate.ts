import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';
import type { RaftClass } from './node.js';

/** One place of the core's source, and what to put there. */
export interface Edit {
  /** Under `src/control/raft/core`. */
  readonly file: string;
  /** Stands there exactly once. */
  readonly find: string;
  readonly put: string;
}

const OPTIONS = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext };
const CORE = 'src/control/raft/core';

/** Compiles the core and what it imports, with those edits, into `folder`, and loads it from there. */
export async function loadMutant(
  root: string,
  folder: string,
  edits: readonly Edit[],
): Promise<RaftClass> {
  const pending = [join(root, CORE, 'raft.ts')];
  const seen = new Set(pending);
  const unused = new Set(edits);
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    let text = readFileSync(path, 'utf8');
    for (const edit of edits) {
      if (join(root, CORE, edit.file) !== path) continue;
      text = replaced(text, edit);
      unused.delete(edit);
    }
    for (const specifier of importsOf(text)) {
      const imported = join(dirname(path), specifier.replace(/\.js$/, '.ts'));
      if (seen.has(imported)) continue;
      seen.add(imported);
      pending.push(imported);
    }
    const output = join(folder, relative(root, path).replace(/\.ts$/, '.js'));
    mkdirSync(dirname(output), { recursive: true });
    writeFileSync(output, translated(text));
  }
  for (const { file } of unused) throw new Error(`${file} is not part of the core`);
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n');
  const url = pathToFileURL(join(folder, CORE, 'raft.js')).href;
  const loaded = (await import(url)) as { readonly Raft: RaftClass };
  return loaded.Raft;
}

const translations = new Map<string, string>();

/** Most of the text is the same for every mutant. */
function translated(text: string): string {
  const known = translations.get(text);
  if (known !== undefined) return known;
  const { outputText } = ts.transpileModule(text, { compilerOptions: OPTIONS });
  translations.set(text, outputText);
  return outputText;
}

function replaced(text: string, { file, find, put }: Edit): string {
  const parts = text.split(find);
  if (parts.length !== 2)
    throw new Error(`${file} has ${parts.length - 1} of '${find}': the mutant must be aimed anew`);
  return parts.join(put);
}

function importsOf(text: string): string[] {
  return [...text.matchAll(/^(?:import|export)\b[^;]*?from '(\.[^']+)';/gm)].map(
    ([, specifier = '']) => specifier,
  );
}
