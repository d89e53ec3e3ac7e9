import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { proxyThreads } from '../../src/dataplane/ingress/index.js';
import { delay, type Running, run, startIn, tryRun, until } from '../support/run.js';
import type { Hosts } from './hosts.js';

/** One way for connections to get from the client to the backends: what the bench compares. */
export interface ProxyPath {
  readonly name: string;
  readonly title: string;
  readonly address: string;
  readonly port: number;
  /** Whether it takes UDP as well. */
  readonly udp: boolean;
  /** Of the proxy; none where the kernel does it. */
  readonly pids: readonly number[];
  /** Before and after what is measured on it: what would slow down the others is there only then. */
  begin?(): void;
  end?(): void;
  close(): Promise<void>;
}

export interface Where {
  readonly hosts: Hosts;
  readonly dir: string;
  /** Of the backends. */
  readonly tcpPort: number;
  readonly udpPort: number;
  readonly lifeMs: number;
  /** For Shoal's. */
  readonly flags: readonly string[];
}

/** Opens it, or says in a sentence why it cannot be measured. */
export type OpenPath = (where: Where, port: number) => Promise<ProxyPath | string>;

const NGINX_STREAM = '/usr/lib/nginx/modules/ngx_stream_module.so';
const START_MS = 8000;

const isThere = (tool: string) => spawnSync(tool, ['-v'], { stdio: 'ignore' }).error === undefined;

const nothing = async () => undefined;

/** As many as an agent has here. */
const THREADS = `--threads=${proxyThreads(availableParallelism())}`;

export const PATHS: Readonly<Record<string, OpenPath>> = {
  direct: async ({ hosts, tcpPort }) => ({
    name: 'direct',
    title: 'direct, routed',
    address: hosts.backends[0] ?? '',
    port: tcpPort,
    udp: true,
    pids: [],
    close: nothing,
  }),
  dnat: openDnat,
  haproxy: (where, port) => openHaproxy(where, port, false),
  'haproxy-splice': (where, port) => openHaproxy(where, port, true),
  nginx: openNginx,
  'docker-proxy': openDockerProxy,
  native: (where, port) => openShoal(where, port, 'native', THREADS),
  'native-1': (where, port) => openShoal(where, port, 'native-1', '--threads=1'),
  'native-asks': (where, port) => openShoal(where, port, 'native-asks', THREADS, '--aheadMax=0'),
  portable: (where, port) => openShoal(where, port, 'portable'),
};

async function openDnat(where: Where, port: number): Promise<ProxyPath | string> {
  if (!isThere('nft')) return 'nft is missing: install nftables';
  const { hosts, dir, tcpPort, udpPort } = where;
  const file = join(dir, 'dnat.nft');
  const map = (to: number) =>
    `numgen inc mod ${hosts.backends.length} map { ${hosts.backends.map((a, i) => `${i} : ${a} . ${to}`).join(', ')} }`;
  // The echo answers from its host's first address, whichever it was asked at: it is one backend, for all.
  writeFileSync(
    file,
    `table ip bench {
  chain before { type nat hook prerouting priority -100;
    ip daddr ${hosts.nodeAddress} tcp dport ${port} dnat ip to ${map(tcpPort)}
    ip daddr ${hosts.nodeAddress} udp dport ${port} dnat ip to ${hosts.backends[0]}:${udpPort}
  }
}
`,
  );
  const nft = (...args: string[]) => [
    'nsenter',
    `--net=/run/netns/${hosts.node}`,
    '--',
    'nft',
    ...args,
  ];
  const [command = '', ...load] = nft('-f', file);
  const [, ...unload] = nft('delete', 'table', 'ip', 'bench');
  return {
    name: 'dnat',
    title: 'nftables DNAT',
    address: hosts.nodeAddress,
    port,
    udp: true,
    pids: [],
    // Connection tracking slows down all of the node's traffic.
    begin: () => void run(command, ...load),
    end: () => void tryRun(command, ...unload),
    close: nothing,
  };
}

async function openHaproxy(
  where: Where,
  port: number,
  splice: boolean,
): Promise<ProxyPath | string> {
  if (!isThere('haproxy')) return 'haproxy is missing: install haproxy';
  const name = splice ? 'haproxy-splice' : 'haproxy';
  const config = join(where.dir, `${name}.cfg`);
  const servers = where.hosts.backends.map((a, i) => `  server b${i} ${a}:${where.tcpPort}`);
  writeFileSync(
    config,
    `global
  maxconn 9600
  maxpipes 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
${splice ? '  option splice-auto\n' : '  no option splice-auto\n'}listen bench
  bind :::${port} v4v6
  balance roundrobin
${servers.join('\n')}
`,
  );
  const title = splice ? 'HAProxy with splice' : 'HAProxy';
  const running = startIn(where.hosts.node, where.lifeMs, 'haproxy', '-db', '-f', config);
  return started(where, { name, title, port, udp: false }, running);
}

async function openNginx(where: Where, port: number): Promise<ProxyPath | string> {
  if (!isThere('nginx') || !existsSync(NGINX_STREAM))
    return 'nginx with stream is missing: install nginx and libnginx-mod-stream';
  const config = join(where.dir, 'nginx.conf');
  const servers = (to: number) =>
    where.hosts.backends.map((a) => `    server ${a}:${to};`).join('\n');
  writeFileSync(
    config,
    `load_module ${NGINX_STREAM};
daemon off;
pid ${where.dir}/nginx.pid;
error_log /dev/null;
worker_processes 2;
worker_rlimit_nofile 20000;
events { worker_connections 16000; }
stream {
  access_log off;
  proxy_timeout 1h;
  upstream tcp {
${servers(where.tcpPort)}
  }
  upstream udp {
    server ${where.hosts.backends[0]}:${where.udpPort};
  }
  server { listen [::]:${port} ipv6only=off backlog=4096; proxy_pass tcp; }
  server { listen [::]:${port} udp ipv6only=off; proxy_pass udp; }
}
`,
  );
  const running = startIn(where.hosts.node, where.lifeMs, 'nginx', '-c', config);
  return started(where, { name: 'nginx', title: 'nginx stream', port, udp: true }, running);
}

async function openDockerProxy(where: Where, port: number): Promise<ProxyPath | string> {
  if (!existsSync('/usr/sbin/docker-proxy') && !existsSync('/usr/bin/docker-proxy'))
    return 'docker-proxy is missing: it comes with docker';
  const running = startIn(
    where.hosts.node,
    where.lifeMs,
    'sh',
    '-c',
    // It tells its parent through descriptor 3 that it is ready.
    `exec docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port ${port} -container-ip ${where.hosts.backends[0]} -container-port ${where.tcpPort} 3>/dev/null`,
  );
  const about = { name: 'docker-proxy', title: 'docker-proxy', port, udp: false };
  return started(where, about, running);
}

async function openShoal(
  where: Where,
  port: number,
  name: 'native' | 'native-1' | 'native-asks' | 'portable',
  ...flags: readonly string[]
): Promise<ProxyPath | string> {
  const program = new URL('./shoal-proxy.js', import.meta.url).pathname;
  const running = startIn(
    where.hosts.node,
    where.lifeMs,
    process.execPath,
    program,
    name === 'portable' ? 'portable' : 'native',
    String(port),
    String(where.tcpPort),
    String(where.udpPort),
    where.hosts.backends.join(','),
    ...flags,
    ...where.flags,
  );
  return started(where, { name, title: `shoal, ${name}`, port, udp: true }, running);
}

async function started(
  where: Where,
  about: Pick<ProxyPath, 'name' | 'title' | 'port' | 'udp'>,
  { child, done }: Running,
): Promise<ProxyPath> {
  let failure: string | undefined;
  const ended = done.then(
    () => undefined,
    (error: Error) => {
      failure = error.message;
    },
  );
  const isOpen = () =>
    failure !== undefined ||
    tryRun(
      'nsenter',
      `--net=/run/netns/${where.hosts.node}`,
      '--',
      'sh',
      '-c',
      isListening(about.port),
    );
  await until(`${about.title} listens`, START_MS, isOpen);
  if (failure !== undefined) throw new Error(`${about.title}: ${failure}`);
  await delay(100);
  const pid = child.pid ?? 0;
  return {
    ...about,
    address: where.hosts.nodeAddress,
    get pids() {
      return [pid, ...childrenOf(pid)];
    },
    close: async () => {
      child.kill('SIGTERM');
      await Promise.race([ended, delay(2000)]);
      child.kill('SIGKILL');
    },
  };
}

const isListening = (port: number) => `ss -Hltn 'sport = :${port}' | grep -q LISTEN`;

function childrenOf(pid: number): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
