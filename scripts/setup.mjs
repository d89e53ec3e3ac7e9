// Makes a checkout runnable: dependencies, TypeScript build, native build. Each step is skipped
// when its inputs have not changed. Needs Node and npm; a C++ compiler is used if there is one.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE_MINIMUM = [20, 19];

function say(text) {
  process.stderr.write(`shoal: ${text}\n`);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor >= NODE_MINIMUM[1])) return;
  say(
    `Node ${NODE_MINIMUM.join('.')} or newer is needed, this is ${process.versions.node}: install a newer Node`,
  );
  process.exit(1);
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (result.status === 0) return;
  say(`${command} ${args.join(' ')} failed (exit ${result.status ?? result.signal})`);
  process.exit(1);
}

/** A stamp of what a step is made from: the contents of `paths`. */
function stampOf(paths) {
  const hash = createHash('sha256');
  for (const path of paths.sort())
    hash.update(path).update('\0').update(readFileSync(path)).update('\0');
  return hash.digest('hex');
}

function isFresh(stampFile, stamp) {
  return existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp;
}

function filesUnder(folder, pattern) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((path) => pattern.test(path) && statSync(path).isFile());
}

function installDependencies() {
  const stampFile = join(root, 'node_modules', '.shoal-stamp');
  const stamp = stampOf([join(root, 'package-lock.json'), join(root, 'package.json')]);
  if (isFresh(stampFile, stamp)) return;
  say('installing dependencies');
  // No dependency needs its install script: prebuilt binaries come inside the packages. Not `npm ci`,
  // which refuses a lock file without the binaries of other platforms; the versions are the lock's.
  run('npm', [
    'install',
    '--no-save',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]);
  writeFileSync(stampFile, stamp);
}

function buildTypeScript() {
  const stampFile = join(root, 'dist', '.stamp');
  const stamp = stampOf([
    ...filesUnder(join(root, 'src'), /\.ts$/),
    ...filesUnder(join(root, 'bench'), /\.ts$/),
    join(root, 'tsconfig.json'),
    join(root, 'tsconfig.build.json'),
    join(root, 'package-lock.json'),
  ]);
  if (isFresh(stampFile, stamp)) return;
  say('building TypeScript');
  run(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'),
    '-p',
    'tsconfig.build.json',
  ]);
  writeFileSync(stampFile, stamp);
}

/**
 * `dist/main.js`: the program in few files, which starts in half the time of the thousand modules it is made of.
 * Its workers lie beside it, where it looks for them.
 */
function bundle() {
  const main = join(root, 'dist', 'main.js');
  const stampFile = join(root, 'dist', '.bundle-stamp');
  const stamp = readFileSync(join(root, 'dist', '.stamp'), 'utf8');
  if (isFresh(stampFile, stamp) && existsSync(main)) return;
  try {
    const { buildSync } = createRequire(import.meta.url)('esbuild');
    buildSync({
      absWorkingDir: join(root, 'dist'),
      entryPoints: ['main.js', 'agent/dataplane-worker.js', 'gossip/io/swim-worker.js'].map(
        (path) => join('src', path),
      ),
      entryNames: '[name]',
      chunkNames: 'chunk-[hash]',
      outdir: '.',
      bundle: true,
      splitting: true,
      platform: 'node',
      // A dynamic import of what is no ES module would have no named exports.
      mainFields: ['module', 'main'],
      format: 'esm',
      target: `node${NODE_MINIMUM[0]}`,
      // It finds its binary by its own place.
      external: ['koffi'],
      // For packages that are no ES modules, and require Node's.
      banner: {
        js: "import { createRequire as createRequireOfBundle } from 'node:module';\nconst require = createRequireOfBundle(import.meta.url);",
      },
      logLevel: 'error',
    });
  } catch (error) {
    say(`the program is not bundled, and starts slower: ${error.message}`);
    writeFileSync(main, "import './src/main.js';\n");
  }
  // An agent that runs may yet load its own: those of today stay.
  const oldest = Date.now() - 24 * 60 * 60 * 1000;
  for (const name of readdirSync(join(root, 'dist'))) {
    const path = join(root, 'dist', name);
    if (name.startsWith('chunk-') && statSync(path).mtimeMs < oldest) rmSync(path);
  }
  writeFileSync(stampFile, stamp);
}

function compiler() {
  for (const name of [process.env.CXX, 'g++', 'c++', 'clang++']) {
    if (name && spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0) return name;
  }
  return undefined;
}

/**
 * Builds one native part from all sources of its folder, unless it is fresh.
 *
 * @param variants Flags to try, in this order: the first that builds is taken.
 * @param without What happens where it cannot be had.
 */
function buildNative({ folder, output, what, variants, without }) {
  const sources = filesUnder(join(root, folder), /\.cc$/);
  if (sources.length === 0 || process.platform !== 'linux') return;
  const target = join(root, 'build', output);
  const stampFile = `${target}.stamp`;
  const stamp = stampOf([...sources, ...filesUnder(join(root, folder), /\.h$/)]) + process.arch;
  if (isFresh(stampFile, stamp) && existsSync(target)) return;
  const cxx = compiler();
  if (cxx === undefined) {
    say(`no C++ compiler found: ${without}`);
    return;
  }
  say(`building ${what}`);
  mkdirSync(join(root, 'build'), { recursive: true });
  const partial = `${target}.${process.pid}`;
  const isBuilt = variants.some((flags, i) => {
    const isLast = i === variants.length - 1;
    const stdio = ['ignore', isLast ? 2 : 'ignore', isLast ? 2 : 'ignore'];
    const common = ['-std=c++17', '-fno-exceptions', '-Wall', '-Wextra', '-Werror=return-type'];
    const args = [...common, ...flags, ...sources, '-o', partial];
    return spawnSync(cxx, args, { cwd: root, stdio }).status === 0;
  });
  if (!isBuilt) {
    rmSync(partial, { force: true });
    say(`${what} did not build: ${without}`);
    return;
  }
  // Renamed into place, so that who has the old file mapped keeps it.
  renameSync(partial, target);
  writeFileSync(stampFile, stamp);
}

const NATIVE = [
  {
    folder: 'src/dataplane/native',
    output: 'shoal-native.node',
    what: 'the native drivers of packets and published ports',
    variants: [
      [
        '-O3',
        '-pthread',
        '-shared',
        '-fPIC',
        '-fvisibility=hidden',
        '-DNAPI_VERSION=8',
        '-I',
        join(root, 'node_modules/node-api-headers/include'),
      ],
    ],
    without: 'the portable one will be used (slower)',
  },
  {
    folder: 'src/runtime/host/native',
    output: 'shoal-shim',
    what: 'the supervisor of tasks',
    // Static, it starts faster and is smaller in memory; not every system can link so.
    variants: [
      ['-O2', '-fno-rtti', '-static'],
      ['-O2', '-fno-rtti'],
    ],
    without: 'the portable one will be used (larger)',
  },
];

/** One set-up at a time per checkout: two that start together would trample each other's output. */
function withLock(work) {
  const lock = join(root, '.setup-lock');
  for (;;) {
    try {
      const fd = openSync(lock, 'wx');
      writeFileSync(fd, String(process.pid));
      closeSync(fd);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') return work();
      const owner = Number(existsSync(lock) ? readFileSync(lock, 'utf8') : '0');
      let alive = owner > 0;
      try {
        if (alive) process.kill(owner, 0);
      } catch {
        alive = false;
      }
      if (!alive && existsSync(lock) && Date.now() - statSync(lock).mtimeMs > 1000)
        rmSync(lock, { force: true });
      else execFileSync('sleep', ['0.2']);
    }
  }
  const unlock = () => rmSync(lock, { force: true });
  process.on('exit', unlock);
  try {
    return work();
  } finally {
    unlock();
    process.off('exit', unlock);
  }
}

export function setup({ native = true, typescript = true } = {}) {
  checkNode();
  withLock(() => {
    installDependencies();
    if (typescript) {
      buildTypeScript();
      bundle();
    }
    if (native) for (const part of NATIVE) buildNative(part);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setup();
