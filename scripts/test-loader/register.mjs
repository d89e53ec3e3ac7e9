// Given to test processes by `--import` in NODE_OPTIONS: lets Node read the tests' TypeScript by blanking the types out
// (the tree has erasable syntax only), so that lines and columns stay. tap's own loader starts a compiler in
// each process, which costs each of the many files four seconds of a core.
import { register } from 'node:module';
import { isMainThread } from 'node:worker_threads';

const withoutUs = (options) => options.replace(`--import=${import.meta.url}`, '').trim();

const isTest = !isMainThread || /\.test\.ts$/.test(process.argv[1] ?? '');
if (isTest) {
  // What a test starts in its turn is no test.
  if (isMainThread) process.env.NODE_OPTIONS = withoutUs(process.env.NODE_OPTIONS ?? '');
  // tap's loader then leaves TypeScript alone.
  process.env.TAP_TYPE_STRIP_ONLY = '1';
  register('./hooks.mjs', import.meta.url);
}
