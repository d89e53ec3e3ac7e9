import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { openHostRuntime } from '../../../src/runtime/index.js';
import { cannotMakeNamespaces } from '../../dataplane/sys/netns-fixture.js';

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const ID = 'crashtask';

/**
 * An agent that takes one task through its life, and dies without a word before its Nth step that the world sees: a file,
 * a folder, a process, an order. All of these go through the functions that are replaced here.
 */
const AGENT = `
import fs from 'node:fs';
import child_process from 'node:child_process';
import { syncBuiltinESMExports } from 'node:module';
const [dataDir, at, index] = process.argv.slice(1);
let step = 0;
let isArmed = false;
const guard = (object, name) => {
  const original = object[name];
  object[name] = (...args) => {
    if (isArmed && ++step === Number(at)) process.kill(process.pid, 'SIGKILL');
    return original(...args);
  };
};
for (const name of ['mkdirSync', 'writeFileSync', 'renameSync', 'rmSync', 'rmdirSync', 'writeSync']) guard(fs, name);
guard(child_process, 'spawn');
syncBuiltinESMExports();
const { openHostRuntime } = await import(index);
const log = { debug() {}, info() {}, warn() {}, error() {} };
const runtime = await openHostRuntime({ dataDir, log, cgroupParent: 'shl-crash' });
isArmed = true;
const say = (word) => fs.writevSync(1, [Buffer.from(word + '\\n')]);
await runtime.prepare({
  id: '${ID}', name: 'crash', labels: {}, network: 'isolated', hosts: [],
  secrets: new Map(), configs: new Map(),
  container: { image: 'host', args: ['sleep', '600'], mounts: [{ type: 'volume', target: '/shl-crash' }] },
  resources: { limits: { pids: 10 } },
}, new AbortController().signal);
say('prepared');
await runtime.start('${ID}');
say('started');
await runtime.stop('${ID}', { graceMs: 10000 });
say('stopped');
await runtime.remove('${ID}');
say('removed');
await runtime.close();
say('steps ' + step);
`;

async function runAgent(dataDir: string, at: number): Promise<string[]> {
  const index = join(root, 'dist/src/runtime/index.js');
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', AGENT, '--', dataDir, String(at), index],
    { stdio: ['ignore', 'pipe', 'inherit'], env: {} },
  );
  let text = '';
  for await (const chunk of child.stdout) text += String(chunk);
  return text.split('\n').filter((line) => line !== '');
}

/** Supervisors whose task's folder was below `dataDir`: they hold a pipe of it open. */
function supervisorsOf(dataDir: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('shoal-')) return false;
        return readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(dataDir);
      } catch {
        return false;
      }
    });
}

function cgroupsLeft(): string[] {
  const folder = '/sys/fs/cgroup';
  const parents = existsSync(folder) ? ['', ...readdirSync(folder)] : [];
  return parents.map((name) => join(folder, name, 'shl-crash')).filter((path) => existsSync(path));
}

if (cannotMakeNamespaces) t.plan(0, cannotMakeNamespaces);
else {
  t.setTimeout(240_000);
  t.test('an agent that dies at any step loses no task and leaves nothing', async (t) => {
    const dataDir = mkdtempSync(join(tmpdir(), 'shl-crash-'));
    t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
    const whole = await runAgent(dataDir, 0);
    const steps = Number(/^steps (\d+)$/.exec(whole.at(-1) ?? '')?.[1]);
    t.ok(steps > 10, `an agent that does not die takes ${steps} steps`);
    for (let at = 1; at <= steps; at++) {
      const said = await runAgent(dataDir, at);
      t.notMatch(said.join(), /steps/, `died before step ${at}`);
      const options = { dataDir, log: quiet, cgroupParent: 'shl-crash' };
      const runtime = await openHostRuntime(options);
      const [known, ...others] = await runtime.list();
      t.strictSame(others, []);
      const last = said.at(-1);
      if (last === 'prepared') t.match(known, { state: /prepared|running/ });
      if (last === 'started') t.match(known, { state: /running|exited/ });
      if (last === 'stopped' && known !== undefined) {
        t.match(known, { state: 'exited', exitCode: 143 });
      }
      if (known !== undefined) {
        // Whatever it is now, it can be brought to its end.
        if (known.state !== 'exited') {
          t.match(await runtime.start(known.id), { pid: /\d+/ });
          await runtime.stop(known.id, { graceMs: 10_000 });
        }
        t.match((await runtime.list())[0], { state: 'exited', exitCode: 143 });
        await runtime.remove(known.id);
      }
      await runtime.close();
      const left = readdirSync(dataDir, { recursive: true }).map(String).sort();
      t.strictSame(left, ['tasks', 'trash', 'volumes'], `nothing is left after step ${at}`);
      t.strictSame(supervisorsOf(dataDir), []);
      t.strictSame(cgroupsLeft(), []);
    }
  });
}
