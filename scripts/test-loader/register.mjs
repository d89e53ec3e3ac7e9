// Given to test processes by `--import` in NODE_OPTIONS: lets Node read the tests' TypeScript by blanking the types out
// (the tree has erasable syntax only), so that lines and columns stay. tap's own loader starts a compiler in
// each process, which costs each of the many files four seconds of a core.
import { createRequire, register } from 'node:module';
import { isMainThread } from 'node:worker_threads';

/** Without ours and that of tap, which come quoted or not. */
const withoutLoaders = (options) =>
  options
    .split(' ')
    .filter((word) => !/^"?(--import=.*\/(test-loader|@tapjs)\/.*)?"?$/.test(word))
    .join(' ');

const isTest = !isMainThread || /\.test\.ts$/.test(process.argv[1] ?? '');
if (isTest) {
  // What a test starts in its turn is no test. Nor is it to be watched: tap would have each process keep a list of the files
  // that it loads, by hooks in a thread of their own, which doubles what a `shoal` command costs.
  if (isMainThread) {
    process.env.NODE_OPTIONS = withoutLoaders(process.env.NODE_OPTIONS ?? '');
    leaveAlone();
    // Before there are hooks at all: each of its hundred modules would be asked for in their thread.
    await import('tap');
  }
  // tap's loader then leaves TypeScript alone.
  process.env.TAP_TYPE_STRIP_ONLY = '1';
  register('./hooks.mjs', import.meta.url);
}

/** What tap adds to the environment of whatever is spawned is added through this package, and by nobody else. */
function leaveAlone() {
  const fromTap = createRequire(createRequire(import.meta.url).resolve('tap'));
  fromTap('process-on-spawn').addListener = () => undefined;
}
