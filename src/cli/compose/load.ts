import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { parseDocument, type ScalarTag } from 'yaml';
import { convertStack, type Stack } from './convert.js';
import { composeError } from './error.js';
import { interpolate, interpolateTree, type Variables } from './interpolate.js';
import { mergeTrees, type Tree } from './merge.js';
import { type ComposeFile, checkCompose, UNSUPPORTED } from './model.js';

const COMPOSE_BYTES_MAX = 4 << 20;
const ENV_BYTES_MAX = 1 << 20;
/** Files that a file includes, and services that a service extends, one inside the other. */
const DEPTH_MAX = 32;
/** YAML aliases may make a small text large. */
const ALIASES_MAX = 1_000;

/** `0440` is octal, as in YAML 1.1 and in Docker's reader. */
const OCTAL: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^0[0-7]+$/,
  resolve: (text) => Number.parseInt(text, 8),
};

export interface LoadOptions {
  /** `-` is standard input. The later ones change the earlier ones. */
  readonly paths: readonly string[];
  /** In place of `.env` beside the first file. */
  readonly envFiles?: readonly string[];
  readonly profiles?: readonly string[];
  /** Variables are left as they are: for looking at the file. */
  readonly skipInterpolation?: boolean;
  readonly env: NodeJS.ProcessEnv;
  readonly warn: (message: string) => void;
}

/** A compose file as it is meant: included, extended, merged, filled in and checked. */
export interface LoadedCompose {
  readonly file: ComposeFile;
  /** Where relative paths begin. */
  readonly folder: string;
  readonly variables: Variables;
  readonly envFiles: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

/** @throws CliError CLI_SPEC: which file, which place, what is wrong. */
export function loadCompose(options: LoadOptions): LoadedCompose {
  const [first = '-'] = options.paths;
  const folder = first === '-' ? process.cwd() : dirname(resolve(first));
  const variables = variablesOf(options, folder);
  const warned = new Set<string>();
  const warn = (message: string) => {
    if (!warned.has(message)) options.warn(message);
    warned.add(message);
  };
  const loader = new Loader({ ...options, warn }, variables);
  let tree: Tree = {};
  for (const path of options.paths) tree = mergeTrees(tree, loader.file(path, 0)) as Tree;
  const file = withProfiles(checkCompose(tree), options.profiles ?? profilesOf(variables));
  for (const [name, service] of Object.entries(file.services)) {
    for (const [key, instead] of Object.entries(UNSUPPORTED))
      if (service[key as keyof typeof service] !== undefined)
        warn(`services.${name}.${key} is ignored: ${instead}`);
  }
  return { file, folder, variables, envFiles: readEnvFiles(file, folder, variables, warn) };
}

/** @param stack The stack's name. */
export function toStack(loaded: LoadedCompose, stack: string, warn: (m: string) => void): Stack {
  return convertStack(loaded.file, {
    stack,
    folder: loaded.folder,
    home: homedir(),
    envFiles: loaded.envFiles,
    variable: loaded.variables,
    warn,
  });
}

/** Those of the shell before those of `.env`. */
function variablesOf(options: LoadOptions, folder: string): Variables {
  const given = options.envFiles ?? [resolve(folder, '.env')];
  const fromFiles = new Map<string, string>();
  const variables: Variables = (name) => options.env[name] ?? fromFiles.get(name);
  for (const path of given) {
    const text = readText(path, ENV_BYTES_MAX, options.envFiles === undefined);
    for (const [name, value] of readEnv(text, path, variables, options.warn))
      fromFiles.set(name, value);
  }
  return variables;
}

/** The variables of a file, which may be made of each other in any order, and of those around it. */
function readEnv(
  text: string,
  path: string,
  outer: Variables,
  warn: (message: string) => void,
): ReadonlyMap<string, string> {
  const raw = parseEnv(text);
  const filled = new Map<string, string>();
  const visiting = new Set<string>();
  const resolved = (name: string): string | undefined => {
    const own = raw[name];
    if (own === undefined) return outer(name);
    const known = filled.get(name);
    if (known !== undefined) return known;
    if (visiting.has(name)) throw composeError(path, `${name} is made of itself`);
    visiting.add(name);
    const value = own.includes('$')
      ? interpolate(own, (other) => (other === name ? outer(name) : resolved(other)), path, warn)
      : own;
    visiting.delete(name);
    filled.set(name, value);
    return value;
  };
  for (const name of Object.keys(raw)) resolved(name);
  return filled;
}

function profilesOf(variables: Variables): readonly string[] {
  return (variables('COMPOSE_PROFILES') ?? '').split(',').filter((one) => one !== '');
}

/** Services that are of profiles are there when one of these is asked for. */
function withProfiles(file: ComposeFile, active: readonly string[]): ComposeFile {
  const services = Object.entries(file.services).filter(
    ([, { profiles = [] }]) =>
      profiles.length === 0 || active.includes('*') || profiles.some((one) => active.includes(one)),
  );
  return { ...file, services: Object.fromEntries(services) };
}

function readEnvFiles(
  file: ComposeFile,
  folder: string,
  variables: Variables,
  warn: (message: string) => void,
): LoadedCompose['envFiles'] {
  const all = new Map<string, Readonly<Record<string, string>>>();
  for (const [name, { env_file: paths }] of Object.entries(file.services)) {
    const merged: Record<string, string> = {};
    for (const { path, required } of paths ?? []) {
      const text = readText(resolve(folder, path), ENV_BYTES_MAX, !required);
      Object.assign(merged, Object.fromEntries(readEnv(text, path, variables, warn)));
    }
    all.set(name, merged);
  }
  return all;
}

function readText(path: string, bytesMax: number, optional: boolean): string {
  try {
    if (path === '-') return readFileSync(0, 'utf8');
    if (statSync(path).size > bytesMax)
      throw composeError(path, `is larger than ${bytesMax} bytes`);
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && optional) return '';
    if (code === 'ENOENT') throw composeError(path, 'there is no such file');
    if (code === 'EISDIR') throw composeError(path, 'is a folder, not a file');
    throw code === 'CLI_SPEC' ? error : composeError(path, message);
  }
}

const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads files with all that they include and extend; paths in them become absolute. */
class Loader {
  readonly #options: LoadOptions;
  readonly #variables: Variables;
  readonly #cache = new Map<string, Tree>();

  constructor(options: LoadOptions, variables: Variables) {
    this.#options = options;
    this.#variables = variables;
  }

  file(path: string, depth: number): Tree {
    if (depth > DEPTH_MAX)
      throw composeError(path, `included more than ${DEPTH_MAX} deep: a circle?`);
    const raw = this.#read(path);
    const folder = path === '-' ? process.cwd() : dirname(resolve(path));
    const included = this.#included(raw['include'], folder, depth);
    const services = isTree(raw['services']) ? raw['services'] : undefined;
    const extended =
      services &&
      Object.fromEntries(
        Object.keys(services).map((name) => [name, this.#service(path, name, [])]),
      );
    const { include: _, ...rest } = raw;
    const own = { ...rest, ...(extended && { services: extended }) };
    return mergeTrees(included, absolute(own, folder)) as Tree;
  }

  #read(path: string): Tree {
    const known = this.#cache.get(path);
    if (known !== undefined) return known;
    const document = parseDocument(readText(path, COMPOSE_BYTES_MAX, false), {
      merge: true,
      customTags: (tags) => [OCTAL, ...tags],
    });
    const [mistake] = document.errors;
    if (mistake !== undefined)
      throw composeError(nameOf(path), mistake.message.split('\n')[0] ?? 'not YAML');
    const tree: unknown = document.toJS({ maxAliasCount: ALIASES_MAX }) ?? {};
    if (!isTree(tree)) throw composeError(nameOf(path), 'is no mapping of services, networks, …');
    const filled = this.#options.skipInterpolation
      ? tree
      : (interpolateTree(tree, this.#variables, this.#options.warn) as Tree);
    this.#cache.set(path, filled);
    return filled;
  }

  #included(include: unknown, folder: string, depth: number): Tree {
    let all: Tree = {};
    for (const entry of Array.isArray(include) ? include : []) {
      const paths = [isTree(entry) ? entry['path'] : entry].flat();
      for (const path of paths) {
        if (typeof path !== 'string') throw composeError('include', 'each entry is a path');
        all = mergeTrees(all, this.file(resolve(folder, path), depth + 1)) as Tree;
      }
    }
    return all;
  }

  /** One service with all that it extends, here or in other files. */
  #service(path: string, name: string, trail: readonly string[]): unknown {
    const here = `${nameOf(path)}: services.${name}`;
    if (trail.includes(here) || trail.length > DEPTH_MAX)
      throw composeError(`services.${name}.extends`, `a circle: ${[...trail, here].join(' -> ')}`);
    const { services } = this.#read(path);
    const service = isTree(services) ? services[name] : undefined;
    if (!isTree(services) || !Object.hasOwn(services, name))
      throw composeError(
        trail.at(-1) ?? '',
        `extends '${name}', which ${nameOf(path)} does not have`,
      );
    if (!isTree(service) || service['extends'] === undefined) return service;
    const { extends: base, ...own } = service;
    const [file, other] = isTree(base) ? [base['file'], base['service']] : [undefined, base];
    if (typeof other !== 'string')
      throw composeError(`services.${name}.extends`, 'says no service: write service: NAME');
    const folder = path === '-' ? process.cwd() : dirname(resolve(path));
    const from = typeof file === 'string' ? resolve(folder, file) : path;
    const inherited = this.#service(from, other, [...trail, here]);
    // What a service needs of its own surroundings is not inherited.
    const { depends_on: _, links: __, ...rest } = isTree(inherited) ? inherited : {};
    const placed = absolute({ services: { [other]: rest } }, dirname(resolve(from)));
    const moved = (placed['services'] as Record<string, unknown>)[other];
    return mergeTrees(moved, own);
  }
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : basename(path);
}

/** Paths are of the folder of the file that they are in, however far it is included. */
function absolute(tree: Tree, folder: string): Tree {
  const place = (path: unknown) =>
    typeof path === 'string' && !path.startsWith('/') && !path.startsWith('~')
      ? resolve(folder, path)
      : path;
  const placeBlobs = (blobs: unknown) =>
    isTree(blobs)
      ? Object.fromEntries(
          Object.entries(blobs).map(([key, blob]) => [
            key,
            isTree(blob) && blob['file'] !== undefined
              ? { ...blob, file: place(blob['file']) }
              : blob,
          ]),
        )
      : blobs;
  const { services, secrets, configs } = tree;
  return {
    ...tree,
    ...(secrets !== undefined && { secrets: placeBlobs(secrets) }),
    ...(configs !== undefined && { configs: placeBlobs(configs) }),
    ...(isTree(services) && {
      services: Object.fromEntries(
        Object.entries(services).map(([name, service]) => [
          name,
          isTree(service) ? absoluteService(service, place) : service,
        ]),
      ),
    }),
  };
}

function absoluteService(service: Tree, place: (path: unknown) => unknown): Tree {
  const { volumes, env_file: env } = service;
  const placeVolume = (volume: unknown) => {
    if (typeof volume === 'string' && /^\.{1,2}(\/|:|$)/.test(volume)) {
      const [source, ...rest] = volume.split(':');
      return [place(source), ...rest].join(':');
    }
    if (isTree(volume) && volume['type'] === 'bind')
      return { ...volume, source: place(volume['source']) };
    return volume;
  };
  const placeEnv = (one: unknown) =>
    isTree(one) ? { ...one, path: place(one['path']) } : place(one);
  return {
    ...service,
    ...(Array.isArray(volumes) && { volumes: volumes.map(placeVolume) }),
    ...(env !== undefined && { env_file: [env].flat().map(placeEnv) }),
  };
}
