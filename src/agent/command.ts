import type { Command } from 'commander';
import { CONFIG_FILE_DEFAULT, loadConfig } from './config.js';

const repeated = (text: string, all: string[] = []) => [...all, text];

/** Declares the agent's flags; their names are the config file's keys. */
export function addAgentFlags(command: Command): Command {
  return command
    .option(
      '--config <file>',
      `config file, JSON with these flags as keys (default: ${CONFIG_FILE_DEFAULT} if it exists)`,
    )
    .option(
      '--data-dir <dir>',
      'where identity, state and attachments are kept (default: /var/lib/shoal)',
    )
    .option(
      '--socket <path>',
      'unix socket of the Docker Engine API (default: /run/shoal/docker.sock)',
    )
    .option(
      '--engine-socket <path>',
      'API socket of a container engine, or none (default: one that answers where engines listen)',
    )
    .option('--hostname <name>', "the node's name (default: this host's)")
    .option('--log-level <level>', 'trace, debug, info, warn, error or silent (default: info)')
    .option('--log-file <file>', 'append the log to a file instead of standard output')
    .option(
      '--outside <way>',
      "auto: tasks get outside behind the node's address; none (default: auto)",
    )
    .option(
      '--data-path-driver <driver>',
      'packet driver: auto, native or portable (default: auto)',
    )
    .option(
      '--ingress-driver <driver>',
      'proxy of published ports: auto, native or portable (default: auto)',
    )
    .option(
      '--ingress-threads <n>',
      'threads of the native one (default: half the processors, 2 to 4, but no more than there are)',
    )
    .option(
      '--ingress-bind <list>',
      'where published ports listen: addresses, CIDRs, interfaces; label shoal.bind wins (default: everywhere)',
    )
    .option(
      '--metrics-address <host:port>',
      'metrics and health, or none (default: 127.0.0.1:9477)',
    )
    .option(
      '--tls-address <host:port>',
      'Docker API with mutual TLS, or none; port 2376 by custom (default: none)',
    )
    .option('--tls-cert <file>', "certificate of that port (default: of the swarm's own CA)")
    .option('--tls-key <file>', 'its key')
    .option('--tls-ca <file>', 'CA of the certificates that clients show')
    .option(
      '--tcp-address <host:port>',
      'Docker API without TLS, on the loopback interface (default: none)',
    )
    .option('--tcp-insecure', 'let --tcp-address be any: who reaches it is root of this host')
    .option(
      '--classic-address <host:port>',
      "the classic Swarm's endpoint with mutual TLS, or none; port 3376 by custom (default: none)",
    )
    .option('--classic-plain', 'that endpoint without TLS, on the loopback interface')
    .option('--classic-strategy <strategy>', 'spread, binpack or random (default: spread)')
    .option('--classic-discovery <token://…>', 'only the nodes of this group (default: all)')
    .option('--gossip-port <port>', 'UDP and TCP port of the gossip (default: 7946)')
    .option('--gossip-profile <profile>', 'lan, wan or local (default: lan)')
    .option(
      '--busy-poll-micros <n>',
      'polling after the last packet before sleeping (default: 50); the native driver stretches it up to 5 times for what keeps coming just after',
    )
    .option('--source-ports <n>', 'outer source ports that flows are spread over (default: 4)')
    .option('--receive-buffer-bytes <n>', 'kernel buffer of the VXLAN socket (default: 16777216)')
    .option('--label <key=value>', 'a label of this engine, repeatable', repeated)
    .option(
      '--generic-resource <kind=value>',
      'what tasks may reserve of this node, repeatable: gpu=UUID1 for each piece, or ssd=3',
      repeated,
    );
}

/** camelCase as commander gives it, back to the flag's own spelling. */
function toKeys(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`),
      value,
    ]),
  );
}

/**
 * Runs the agent until it is told to stop.
 *
 * @returns The process's exit code.
 */
export async function runAgentCommand(options: Readonly<Record<string, unknown>>): Promise<number> {
  const config = loadConfig(toKeys(options));
  const { runAgent } = await import('./agent.js');
  return runAgent(config);
}
