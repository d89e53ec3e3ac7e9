import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { packageVersion } from '../base/io/package-root.js';

/** What the docker CLI asks a plugin first. */
const METADATA_COMMAND = 'docker-cli-plugin-metadata';
/** Under this name docker looks for it, and calls it with `shoal` as the first word. */
const PLUGIN_NAME = 'docker-shoal';

function metadata(): string {
  return JSON.stringify({
    SchemaVersion: '0.1.0',
    Vendor: 'Shoal',
    Version: packageVersion(),
    ShortDescription: 'Overlay networks, stacks and services of a Shoal swarm',
  });
}

/**
 * What is asked when docker calls this program as a plugin: `docker shoal …` arrives with the plugin's name
 * in front.
 *
 * @returns The command line without that; `undefined`: it has been answered.
 */
export function pluginArguments(argv: readonly string[]): readonly string[] | undefined {
  if (argv[0] === METADATA_COMMAND) {
    console.log(metadata());
    return undefined;
  }
  return argv[0] === 'shoal' ? argv.slice(1) : argv;
}

function pluginFolder(flag: string | undefined): string {
  if (flag !== undefined) return resolve(flag);
  const config = process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker');
  return join(config, 'cli-plugins');
}

/** Declares `shoal plugin …`. */
export function addPluginCommands(program: Command): void {
  const plugin = program
    .command('plugin')
    .description("be a plugin of the docker CLI: 'docker shoal …'");
  plugin
    .command('install')
    .description('tell the docker CLI of this program')
    .option('--dir <path>', 'folder of plugins (default: $DOCKER_CONFIG or ~/.docker, cli-plugins)')
    .addHelpText('after', '\nExamples:\n  shoal plugin install && docker shoal status')
    .action((flags: { readonly dir?: string }) => {
      const folder = pluginFolder(flags.dir);
      const path = join(folder, PLUGIN_NAME);
      const program = resolve(process.argv[1] ?? '');
      const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
      mkdirSync(folder, { recursive: true });
      // As the first line of `bin/shoal`, which is passed by.
      const start = `export SHOAL_STARTED_NOFILE="$(ulimit -Sn)"`;
      const exec = `exec ${quote(process.execPath)} ${quote(program)} "$@"`;
      writeFileSync(path, `#!/bin/sh\n${start}\n${exec}\n`);
      chmodSync(path, 0o755);
      console.log(`${path} is there: try 'docker shoal status'`);
    });
  plugin
    .command('uninstall')
    .description('take it away again')
    .option('--dir <path>', 'folder of plugins')
    .addHelpText('after', '\nExamples:\n  shoal plugin uninstall')
    .action((flags: { readonly dir?: string }) => {
      rmSync(join(pluginFolder(flags.dir), PLUGIN_NAME), { force: true });
    });
}
