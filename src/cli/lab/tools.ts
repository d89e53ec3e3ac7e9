import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { CliError } from '../error.js';

const OUTPUT_BYTES_MAX = 16 << 20;
const NETNS_FOLDER = '/run/netns';

export function netnsPath(name: string): string {
  return `${NETNS_FOLDER}/${name}`;
}

export function netnsExists(name: string): boolean {
  return existsSync(netnsPath(name));
}

/** Named namespaces whose name begins with `stem`. */
export function netnsNames(stem: string): readonly string[] {
  if (!existsSync(NETNS_FOLDER)) return [];
  return readdirSync(NETNS_FOLDER).filter((name) => name.startsWith(stem));
}

/**
 * Runs a program to its end.
 *
 * @returns What it wrote to standard output.
 * @throws CliError CLI_TOOL_FAILED with its own words.
 */
export function runTool(
  tool: string,
  args: readonly string[],
  input: string | undefined = undefined,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      tool,
      [...args],
      { encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
        const why = missing ? 'it is not installed' : stderr.trim() || error.message;
        const message = `${tool} ${args.join(' ')}: ${why}`;
        reject(new CliError({ code: 'CLI_TOOL_FAILED', tool }, message));
      },
    );
    // It may end before it has read everything; its exit code tells.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/**
 * Runs many `ip` commands in one process.
 *
 * @param netns Name of the namespace; `undefined` is ours.
 */
export async function runIp(netns: string | undefined, lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  const where = netns === undefined ? [] : ['-n', netns];
  await runTool('ip', [...where, '-batch', '-'], `${lines.join('\n')}\n`);
}
