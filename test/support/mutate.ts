import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

/** One place of the core's source, and what to put there. */
export interface Edit {
  /** In the folder of the core. */
  readonly file: string;
  /** Stands there exactly once. */
  readonly find: string;
  readonly put: string;
}

const OPTIONS = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext };

/** Where a core is, and which of its classes is asked for. */
export interface Target {
  /** Such as `src/control/raft/core`. */
  readonly core: string;
  /** Without `.ts`. */
  readonly entry: string;
  readonly name: string;
}

/** Compiles the core and what it imports, with those edits, into `folder`, and loads it from there. */
export async function loadMutant<Class>(
  root: string,
  folder: string,
  { core, entry, name }: Target,
  edits: readonly Edit[],
): Promise<Class> {
  const pending = [join(root, core, `${entry}.ts`)];
  const seen = new Set(pending);
  const unused = new Set(edits);
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    let text = readFileSync(path, 'utf8');
    for (const edit of edits) {
      if (join(root, core, edit.file) !== path) continue;
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
  const url = pathToFileURL(join(folder, core, `${entry}.js`)).href;
  return ((await import(url)) as Record<string, Class>)[name] as Class;
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
