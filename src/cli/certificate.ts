import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { usage } from './error.js';
import { SOCKET_FLAG } from './network.js';

interface CertificateFlags {
  readonly out: string;
  readonly name: string;
  readonly days: string;
  readonly socket?: string;
}

interface Certificate {
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** The files are called as the docker CLI looks for them. */
async function issue(flags: CertificateFlags): Promise<void> {
  const days = Number(flags.days);
  if (!Number.isInteger(days) || days < 1) throw usage('--days must be a whole number of days');
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const body = { name: flags.name, days };
  const made = (await client.call('POST', '/shoal/v1/client-certificate', body)) as Certificate;
  const folder = resolve(flags.out);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, 'ca.pem'), made.caPem);
  writeFileSync(join(folder, 'cert.pem'), made.certPem);
  writeFileSync(join(folder, 'key.pem'), made.keyPem, { mode: 0o600 });
  console.log(`${folder}: ca.pem, cert.pem and key.pem, good for ${days} days. With them:

  export DOCKER_HOST=tcp://MANAGER:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=${folder}

Whoever has key.pem is root of every manager that listens with --tls-address.`);
}

export function addCertificateCommand(program: Command): void {
  program
    .command('certificate')
    .description('make a certificate for clients of the Docker API by TCP')
    .requiredOption('--out <folder>', 'where ca.pem, cert.pem and key.pem go')
    .option('--name <name>', 'whose it is, for the log', 'client')
    .option('--days <n>', 'how long it is good', '365')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
The agents of the managers listen with --tls-address 0.0.0.0:2376; the certificate is good for all of them.

Examples:
  shoal certificate --out ~/.docker/swarm
  shoal certificate --out /tmp/ci --name ci --days 30`,
    )
    .action(issue);
}
