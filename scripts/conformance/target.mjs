// What a swarm under test can be asked: the docker CLI at a node, HTTP and commands in a node's network.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../setup.mjs';

const COMMAND_MS_MAX = 120_000;
const OUTPUT_CHARS_MAX = 1 << 20;

/** Runs a command to its end, whatever that is. */
export function run(argv, { env = {}, input = '', timeoutMs = COMMAND_MS_MAX } = {}) {
  return new Promise((resolve) => {
    const [program, ...args] = argv;
    const child = spawn(program, args, { env: { ...process.env, ...env }, timeout: timeoutMs });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout = (stdout + chunk).slice(-OUTPUT_CHARS_MAX);
    });
    child.stderr.on('data', (chunk) => {
      stderr = (stderr + chunk).slice(-OUTPUT_CHARS_MAX);
    });
    child.on('error', (error) => resolve({ code: 127, stdout, stderr: error.message }));
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

class Target {
  /** @param nodes `{name, host, address, namespace}`: URL for the CLI, address of the node, its network. */
  constructor(name, nodes, workload, close) {
    this.name = name;
    this.nodes = nodes;
    this.workload = workload;
    this.close = close;
    this.config = mkdtempSync(join(tmpdir(), 'shoal-conformance-'));
  }

  /** The docker CLI at a node (from 1). */
  docker(node, args, options = {}) {
    const { host } = this.nodes[node - 1];
    const env = {
      DOCKER_HOST: host,
      DOCKER_CONFIG: this.config,
      DOCKER_CLI_HINTS: 'false',
      ...options.env,
    };
    return run(['docker', ...args], { ...options, env });
  }

  /** A command in a node's network. */
  at(node, argv, options) {
    const { namespace } = this.nodes[node - 1];
    const inside = namespace ? ['nsenter', `--net=/run/netns/${namespace}`, '--'] : [];
    return run([...inside, ...argv], options);
  }

  /** One new connection to a published port, at an address of a node. */
  curl(node, url) {
    return this.at(node, ['curl', '-sS', '-m', '5', url]);
  }

  async end() {
    rmSync(this.config, { recursive: true, force: true });
    await this.close();
  }
}

/** A server that answers with the name of its container, in whatever the runtime offers. */
const HOST_SERVER =
  "const h=require('os').hostname();require('http').createServer((q,s)=>s.end(h+'\\n')).listen(80,()=>console.log('listening on',h))";
const IMAGE_SERVER =
  'mkdir -p /tmp/w && hostname >/tmp/w/index.html && echo listening on $(hostname) && exec httpd -f -p 80 -h /tmp/w';

export async function labTarget() {
  const { Lab } = await import(pathToFileURL(join(root, 'dist/src/cli/lab/lab.js')).href);
  const dir = mkdtempSync(join(tmpdir(), 'shoal-conformance-lab-'));
  const lab = new Lab({ dir, prefix: `sc${process.pid % 10_000}` });
  const close = async () => {
    await lab.down();
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    const status = await lab.up({ nodes: 3, swarm: false });
    const nodes = status.nodes.map(({ name, socket, address, namespace }) => ({
      name,
      host: `unix://${socket}`,
      address,
      namespace,
    }));
    const image = ['host'];
    return new Target(
      'shoal',
      nodes,
      {
        sleep: [...image, 'sleep', '100000'],
        server: [...image, process.execPath, '-e', HOST_SERVER],
        talker: [
          ...image,
          'sh',
          '-c',
          'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done',
        ],
        job: [...image, 'true'],
        failing: [...image, 'false'],
        images: ['host', 'host:2'],
      },
      close,
    );
  } catch (error) {
    await close();
    throw error;
  }
}

/** A real Docker Swarm's engines, in no swarm yet. */
export function engineTarget({ hosts, addresses, namespaces, images }) {
  const nodes = hosts.map((host, at) => ({
    name: `node${at + 1}`,
    host,
    address: addresses[at],
    namespace: namespaces[at],
  }));
  const image = [images[0]];
  return new Target(
    'docker',
    nodes,
    {
      sleep: [...image, 'sleep', '100000'],
      server: [...image, 'sh', '-c', IMAGE_SERVER],
      talker: [...image, 'sh', '-c', 'i=0; while :; do i=$((i+1)); echo line $i; sleep 1; done'],
      job: [...image, 'true'],
      failing: [...image, 'false'],
      images,
    },
    async () => {},
  );
}
