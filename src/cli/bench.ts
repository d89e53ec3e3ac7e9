import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { CliError } from './error.js';
import { runForeground } from './foreground.js';
import { builtProgram } from './paths.js';

const BENCHES: Readonly<Record<string, string>> = {
  overlay:
    'overlay throughput, packet rate and latency beside the kernel’s, measured in the same run',
  ingress: 'published ports beside HAProxy, nginx and the kernel’s DNAT, measured in the same run',
  services:
    'services created, scaled, updated and healed beside a real Docker Swarm, in the same run',
  raft: 'writes, failover and snapshot install of the managers’ log beside etcd, in the same run',
};

/** Declares `shoal bench …`: programs of their own, which get all remaining arguments as they are. */
export function addBenchCommands(program: Command, setExitCode: (code: number) => void): void {
  const bench = program.command('bench').description('measure, always next to a baseline');
  for (const [name, description] of Object.entries(BENCHES)) {
    bench
      .command(name)
      .description(description)
      .argument('[args...]', `arguments of the bench, see 'shoal bench ${name} --help'`)
      .helpOption(false)
      .allowUnknownOption()
      .passThroughOptions()
      .action(async (args: readonly string[]) => setExitCode(await runBench(name, args)));
  }
}

async function runBench(name: string, args: readonly string[]): Promise<number> {
  const path = builtProgram(`bench/${name}.js`);
  if (!existsSync(path)) {
    const message = `the bench is not built (${path} is missing): run 'npm run build'`;
    throw new CliError({ code: 'CLI_TOOL_FAILED', tool: name }, message);
  }
  return runForeground(process.execPath, [path, ...args]);
}
