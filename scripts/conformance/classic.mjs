// The statements of the write-up of the classic Swarm, with the docker CLI of today against `--classic-address`.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../setup.mjs';
import { IMAGE, LabEngine, makeRootfs } from './engines.mjs';
import { must, mustMatch, oneLine, until } from './expect.mjs';
import { run } from './target.mjs';

const NODES = ['node1', 'node2', 'node3'];
const MAIN = join(root, 'dist/main.js');

/** Three nodes with an engine each; node1 is the manager, with the endpoint on 3376. */
export async function classicTarget() {
  const { Lab } = await import(pathToFileURL(join(root, 'dist/src/cli/lab/lab.js')).href);
  const dir = mkdtempSync(join(tmpdir(), 'shoal-classic-'));
  const lab = new Lab({ dir: join(dir, 'lab'), prefix: `sk${process.pid % 10_000}` });
  const engines = [];
  const running = [];
  const end = async () => {
    for (const child of running) child.kill('SIGKILL');
    await Promise.all(engines.map((engine) => engine.remove()));
    await lab.down();
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await lab.raise({ nodes: NODES.length });
    const rootfs = makeRootfs(dir);
    for (const name of NODES) {
      const { netns } = lab.node(name);
      engines.push(new LabEngine(join(dir, name), `${netns}-engine`, netns));
    }
    await Promise.all(engines.map((engine) => engine.start(rootfs)));
    const flagsOf = (name) => [
      ...['--metrics-address', 'none', '--engine-socket', join(dir, name, 'docker.sock')],
      ...['--label', `storage=${name === 'node2' ? 'ssd' : 'disk'}`],
      ...(name === 'node1'
        ? ['--tls-address', '0.0.0.0:2376', '--classic-address', '0.0.0.0:3376']
        : []),
    ];
    for (const name of NODES) await lab.startAgent(name, { extraFlags: flagsOf(name) });
    await lab.up({ nodes: NODES.length });
    const config = join(dir, 'config');
    const at = (node, argv) => lab.commandIn(`node${node}`, argv);
    const shoal = (node, ...args) =>
      run(at(node, [process.execPath, MAIN, ...args]), { env: lab.envOf(`node${node}`) });
    await shoal(1, 'certificate', '--out', join(dir, 'certs'));
    const env = { DOCKER_CONFIG: config, DOCKER_CLI_HINTS: 'false' };
    const tls = { ...env, DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: join(dir, 'certs') };
    const { address } = lab.node('node1');
    return {
      name: 'shoal',
      lab,
      end,
      shoal,
      restart: async (name) => {
        await lab.stopAgent(name);
        await lab.startAgent(name, { extraFlags: flagsOf(name) });
      },
      /** With the certificate, from another node. */
      docker: (args, { port = 3376, host = address } = {}) =>
        run(at(3, ['docker', ...args]), { env: { ...tls, DOCKER_HOST: `tcp://${host}:${port}` } }),
      /** Without one. */
      plain: (args, host) =>
        run(at(1, ['docker', ...args]), { env: { ...env, DOCKER_HOST: host } }),
      /** Goes on until the end. */
      start: (node, argv) => {
        const [program, ...args] = at(node, argv);
        const child = spawn(program, args, {
          env: { ...process.env, ...lab.envOf(`node${node}`) },
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        running.push(child);
        return child;
      },
      /** Follows the CLI of `docker`. */
      follow: (...args) => {
        const [program, ...rest] = at(3, ['docker', ...args]);
        const child = spawn(program, rest, {
          env: { ...process.env, ...tls, DOCKER_HOST: `tcp://${address}:3376` },
          stdio: ['ignore', 'pipe', 'ignore'],
        });
        running.push(child);
        let text = '';
        child.stdout.on('data', (chunk) => {
          text += chunk;
        });
        return () => text;
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

async function ok(t, ...args) {
  const done = await t.docker(args);
  must(done.code === 0, `docker ${args.join(' ')}: exit ${done.code}: ${oneLine(done.stderr)}`);
  return done.stdout.trimEnd();
}

async function refused(t, pattern, ...args) {
  const done = await t.docker(args);
  must(done.code !== 0, `docker ${args.join(' ')} was not refused`);
  mustMatch(done.stderr, pattern, 'the refusal');
}

const start = (t, name, ...args) => ok(t, 'run', '-d', '--name', name, ...args, IMAGE);
const nodeOf = (t, ref) => ok(t, 'inspect', '-f', '{{.Node.Name}}', ref);

async function mustBeOn(t, ref, node) {
  const found = await nodeOf(t, ref);
  must(found === node, `${ref} is on ${found}, not on ${node}`);
}

async function names(t, ...args) {
  const out = await ok(t, 'ps', '--format', '{{.Names}}', ...args);
  return out.split('\n').filter((name) => name !== '');
}

const remove = async (t) => {
  const ids = (await ok(t, 'ps', '-aq')).split('\n').filter((id) => id !== '');
  if (ids.length > 0) await ok(t, 'rm', '-f', ...ids);
};

/** @type {readonly {id: string, says: string, run: (t: any, s: any) => Promise<void>}[]} */
export const CLASSIC_STATEMENTS = [
  {
    id: 'S1-01',
    says: 'swarm create prints a token, and another each time',
    run: async (t, s) => {
      const tokens = [];
      for (const node of [3, 3]) tokens.push((await t.shoal(node, 'swarm', 'create')).stdout);
      for (const token of tokens) mustMatch(token, /^[0-9a-f]{32}\n$/);
      must(tokens[0] !== tokens[1], 'they differ (S1-02)');
      s.discovery = `token://${tokens[0].trim()}`;
    },
  },
  {
    id: 'S1-06',
    says: 'docker info: totals, strategy, filters and the tree of nodes, in this order',
    run: async (t) => {
      const info = await ok(t, 'info');
      mustMatch(
        info,
        / Containers: 0\n[\s\S]* Images: 3\n[\s\S]* Role: primary\n Strategy: spread\n Filters: affinity, health, constraint, port, dependency\n Nodes: 3\n {2}node1: \S+:2376\n {3}└ Containers: 0\n {3}└ Reserved CPUs: 0 \/ \d+\n {3}└ Reserved Memory: 0 B \/ [\d.]+ GiB\n {3}└ Labels: executiondriver=\S+, kernelversion=.*, operatingsystem=.*storagedriver=\S+\n {2}node2: [\s\S]* {2}node3: [\s\S]* CPUs: \d+\n Total Memory: \S+GiB\n Name: node1\n/,
      );
      const stranger = await t.plain(['info'], 'tcp://127.0.0.1:3376');
      must(!stranger.stdout.includes('Nodes: 3'), 'without a certificate nothing is told');
    },
  },
  {
    id: 'S1-18',
    says: 'three go to three nodes; a port without a host port gets one',
    run: async (t) => {
      for (const name of ['apps1', 'apps2', 'apps3']) await start(t, name, '-p', '8080');
      const found = await names(t);
      const nodes = new Set(found.map((name) => name.split('/')[0]));
      must(nodes.size === 3, found.join());
      mustMatch(await ok(t, 'port', 'apps1', '8080'), /^10\.\d+\.\d+\.\d+:\d{4,5}\n?/);
    },
  },
  {
    id: 'S1-07',
    says: 'totals are the sums over the nodes',
    run: async (t) => {
      const info = await ok(t, 'info');
      const each = [...info.matchAll(/└ Containers: (\d+)/g)].map(([, n]) => Number(n));
      mustMatch(info, new RegExp(`^ Containers: ${each[0] + each[1] + each[2]}$`, 'm'));
      const cpus = [...info.matchAll(/└ Reserved CPUs: \S+ \/ (\d+)/g)].map(([, n]) => Number(n));
      mustMatch(info, new RegExp(`^ CPUs: ${cpus[0] + cpus[1] + cpus[2]}$`, 'm'));
    },
  },
  {
    id: 'S1-08',
    says: 'docker ps -a lists the containers of all nodes as node/name',
    run: async (t) => {
      await ok(t, 'stop', '-t', '0', 'apps2');
      const all = await names(t, '-a');
      must(
        all.length === 3 && all.every((name) => /^node[123]\/apps[123]$/.test(name)),
        all.join(),
      );
      must((await names(t)).length === 2, 'without -a the stopped one is not listed');
    },
  },
  {
    id: 'S1-05',
    says: 'the single engine on 2376, the cluster on 3376',
    run: async (t) => {
      const args = ['ps', '-a', '--format', '{{.Names}}'];
      const one = await t.docker(args, { port: 2376 });
      const own = (await names(t, '-a')).filter((name) => name.startsWith('node1/'));
      must(one.stdout.trim() === own[0]?.slice('node1/'.length), oneLine(one.stdout));
    },
  },
  {
    id: 'S1-13',
    says: 'spread counts stopped containers too; binpack fills the fullest',
    run: async (t) => {
      await remove(t);
      for (const node of NODES)
        for (let i = 0; i < (node === 'node3' ? 1 : 2); i += 1)
          await ok(t, 'create', '-e', `constraint:node==${node}`, IMAGE);
      await start(t, 'emptiest');
      await mustBeOn(t, 'emptiest', 'node3');
      await start(t, 'more', '-e', 'constraint:node==node2');
      const manage = [process.execPath, MAIN, 'swarm', 'manage', '--no-tls'];
      t.start(1, [...manage, '--strategy', 'binpack', '-H', 'tcp://127.0.0.1:3377']);
      const host = 'tcp://127.0.0.1:3377';
      await until('the second endpoint answers', 60, async () =>
        /Strategy: binpack/.test((await t.plain(['info'], host)).stdout),
      );
      await t.plain(['run', '-d', '--name', 'packed', IMAGE], host);
      await mustBeOn(t, 'packed', 'node2');
    },
  },
  {
    id: 'S1-14',
    says: 'what fits on no node is refused',
    run: async (t) => {
      await refused(
        t,
        /no resources available to schedule container/,
        'run',
        '-d',
        '-m',
        '1000g',
        IMAGE,
      );
      await start(t, 'reserved', '-m', '512m', '--cpus', '1', '-e', 'constraint:node==node3');
      mustMatch(
        await ok(t, 'info'),
        /node3: [\s\S]*└ Reserved CPUs: 1 \/ \d+\n.*Memory: 512 MiB \//,
      );
    },
  },
  {
    id: 'S1-15',
    says: 'constraint, affinity, port and dependency filters',
    run: async (t) => {
      await remove(t);
      await start(t, 'ssd', '-e', 'constraint:storage==ssd');
      await mustBeOn(t, 'ssd', 'node2');
      await start(t, 'near', '-e', 'affinity:container==ssd');
      await mustBeOn(t, 'near', 'node2');
      await start(t, 'image', '-e', 'affinity:image==shoal-test/busybox');
      for (const name of ['web1', 'web2', 'web3']) await start(t, name, '-p', '80:80');
      await ok(t, 'stop', '-t', '0', 'web2');
      await refused(
        t,
        /unable to find a node with port 80 available/,
        'run',
        '-d',
        '-p',
        '80:80',
        IMAGE,
      );
      await start(t, 'one', '-e', 'constraint:node==node1');
      for (const [name, ...flags] of [
        ['volumes', '--volumes-from', 'one'],
        ['linked', '--link', 'one:x'],
        ['joined', '--net', 'container:node1/one'],
      ]) {
        await start(t, name, ...flags);
        await mustBeOn(t, name, 'node1');
      }
      const both = ['--volumes-from', 'ssd', '--link', 'one:x'];
      await refused(
        t,
        /Unable to find a node fulfilling all dependencies: --volumes-from=ssd --link=one:x/,
        ...['run', '-d', ...both, IMAGE],
      );
    },
  },
  {
    id: 'S1-16',
    says: 'wishes, globs, regular expressions, and what is none',
    run: async (t) => {
      await start(t, 'soft', '-e', 'constraint:storage==~tape');
      await start(t, 'glob', '-e', 'constraint:node==*2');
      await mustBeOn(t, 'glob', 'node2');
      await start(t, 'regex', '-e', 'constraint:node!=/node[12]/');
      await mustBeOn(t, 'regex', 'node3');
      for (const [text, pattern] of [
        ['constraint:storage==tape', /unable to find a node that satisfies storage==tape/],
        ['affinity:container==nobody', /unable to find a node that satisfies container==nobody/],
        ['constraint:storage=ssd', /One of operator ==, != is expected/],
        ['constraint:s==ssd', /Key 's' is invalid/],
        ['constraint:storage==a{b', /Value 'a\{b' is invalid/],
      ])
        await refused(t, pattern, 'run', '-d', '-e', text, IMAGE);
    },
  },
  {
    id: 'S1-17',
    says: 'constraint:node== pins a container, and does not reach its environment',
    run: async (t) => {
      await start(t, 'lb', '-e', 'constraint:node==node1', '-e', 'A=b');
      await mustBeOn(t, 'lb', 'node1');
      must((await ok(t, 'inspect', '-f', '{{.Config.Env}}', 'lb')) === '[A=b]', 'its environment');
    },
  },
  {
    id: 'use',
    says: 'a container is used by its name wherever it is: exec, run, logs, stop, start, rm',
    run: async (t) => {
      const exec = await t.docker(['exec', 'ssd', 'sh', '-c', 'echo in; echo err >&2; exit 4']);
      must([exec.code, exec.stdout, exec.stderr].join() === '4,in\n,err\n', JSON.stringify(exec));
      const on2 = ['-e', 'constraint:node==node2', IMAGE];
      must((await ok(t, 'run', '--rm', ...on2, 'echo', 'hi')) === 'hi', 'what was attached');
      await ok(t, 'run', '--name', 'said', ...on2, 'echo', 'told');
      must((await ok(t, 'logs', 'said')) === 'told', 'its log');
      await ok(t, 'stop', '-t', '0', 'node2/ssd');
      await ok(t, 'start', 'ssd');
      await ok(t, 'rm', '-f', 'ssd', 'node2/said');
      await refused(t, /No such container: ssd/, 'logs', 'ssd');
      await refused(
        t,
        /Conflict: The name lb is already assigned/,
        'create',
        '--name',
        'lb',
        IMAGE,
      );
    },
  },
  {
    id: 'lists',
    says: 'images, volumes and networks are those of all nodes',
    run: async (t) => {
      mustMatch(await ok(t, 'images', '--format', '{{.Repository}}'), /^shoal-test\/busybox$/m);
      await ok(t, 'volume', 'create', 'data');
      const volumes = await ok(t, 'volume', 'ls', '-q');
      must(volumes === NODES.map((node) => `${node}/data`).join('\n'), volumes);
      await ok(t, 'volume', 'rm', 'data');
      await ok(t, 'network', 'create', '-d', 'overlay', 'mesh');
      const networks = (await ok(t, 'network', 'ls', '--format', '{{.Name}} {{.Scope}}')).split(
        '\n',
      );
      for (const line of ['mesh swarm', 'node1/bridge local', 'node3/bridge local'])
        must(networks.includes(line), networks.join());
    },
  },
  {
    id: 'overlay',
    says: 'containers of different nodes meet on an overlay, by their names',
    run: async (t) => {
      for (const node of ['node2', 'node3'])
        await start(t, `on-${node}`, '--net', 'mesh', '-e', `constraint:node==${node}`);
      await until('one reaches the other', 60, async () => {
        const ping = ['exec', 'on-node2', 'ping', '-c', '1', '-W', '2', 'on-node3'];
        return (await t.docker(ping)).code === 0;
      });
    },
  },
  {
    id: 'S4-11',
    says: 'an overlay that is not attachable lets no container in',
    run: async (t) => {
      const create = ['network', 'create', '-d', 'overlay', 'closed'];
      const made = await t.docker(create, { port: 2376 });
      must(made.code === 0, oneLine(made.stderr));
      await refused(
        t,
        /network closed not manually attachable/,
        ...['run', '--rm', '--net', 'closed', IMAGE, 'true'],
      );
    },
  },
  {
    id: 'S4-08',
    says: 'docker ps shows tasks as service.slot.id, without the ports of the mesh',
    run: async (t) => {
      const flags = ['--detach', '--no-resolve-image', '--name', 'simple', '-p', '8000:5000'];
      await ok(t, 'service', 'create', ...flags, IMAGE);
      await until('it is listed', 60, async () => {
        const format = '{{.Names}}|{{.Ports}}';
        const list = await ok(t, 'ps', '--format', format, '--filter', 'name=simple');
        return /^node[123]\/simple\.1\.[a-z0-9]{25}\|$/.test(list);
      });
      await ok(t, 'service', 'rm', 'simple');
    },
  },
  {
    id: 'S1-20',
    says: 'events of all nodes come in one stream, with certificates',
    run: async (t) => {
      const format = '{{index .Actor.Attributes "node.name"}}';
      const heard = t.follow('events', '--filter', 'event=die', '--format', format);
      await until('all nodes are heard', 60, async () => {
        for (const node of NODES)
          await ok(t, 'run', '--rm', '-e', `constraint:node==${node}`, IMAGE, 'true');
        return NODES.every((node) => heard().includes(node));
      });
    },
  },
  {
    id: 'S1-22',
    says: 'each node pulls an image itself',
    run: async (t) => {
      const { stdout } = await t.docker(['pull', 'shoal.invalid/none:1']);
      for (const node of NODES)
        mustMatch(stdout, new RegExp(`^${node}: Pulling shoal.invalid/none:1`, 'm'));
    },
  },
  {
    id: 'S1-03',
    says: 'token:// is a group of nodes, and a node that joins it appears by itself (S1-09)',
    run: async (t, s) => {
      const join = (node, addr) => t.shoal(node, 'swarm', 'join', '--addr', addr, s.discovery);
      mustMatch((await join(2, '10.9.9.2:2375')).stdout, /as 10\.9\.9\.2:2375/);
      const host = 'tcp://127.0.0.1:3378';
      const manage = [process.execPath, MAIN, 'swarm', 'manage', '--no-tls', '-H', host];
      t.start(1, [...manage, s.discovery]);
      const shows = (pattern) => async () => pattern.test((await t.plain(['info'], host)).stdout);
      await until('one node', 60, shows(/ Nodes: 1\n {2}node2: 10\.9\.9\.2:2375\n/));
      await join(3, '10.9.9.3:2375');
      await until('two nodes', 60, shows(/ Nodes: 2\n/));
      const { stdout } = await t.shoal(1, 'swarm', 'list', s.discovery);
      must(stdout === '10.9.9.2:2375\n10.9.9.3:2375\n', oneLine(stdout));
    },
  },
  {
    id: 'S1-10',
    says: 'a node that is lost gets nothing, and is shown so',
    run: async (t) => {
      const flags = ['-e', 'reschedule:on-node-failure', '-e', 'constraint:node==~node2'];
      await start(t, 'moves', ...flags);
      await mustBeOn(t, 'moves', 'node2');
      await t.lab.stopAgent('node2', 'SIGKILL');
      await until('node2 is unhealthy', 60, async () =>
        /node2: \S+\n {3}└ Status: Unhealthy\n/.test(await ok(t, 'info')),
      );
      mustMatch(await ok(t, 'ps', '-a'), /Host Down +.*node2\//);
      await refused(
        t,
        /unable to find a node that satisfies node==node2|No healthy/,
        'run',
        '-d',
        '-e',
        'constraint:node==node2',
        IMAGE,
      );
      await refused(t, /running on unhealthy node node2/, 'logs', 'glob');
    },
  },
  {
    id: 'S1-19',
    says: 'with reschedule:on-node-failure a container runs elsewhere then',
    run: (t) =>
      until('it runs elsewhere', 60, async () =>
        (await names(t)).some((name) => /^node[13]\/moves$/.test(name)),
      ),
  },
  {
    id: 'S1-11',
    says: 'a node that comes back is healthy again, without what was rescheduled',
    run: async (t) => {
      await t.restart('node2');
      await until('node2 is well', 60, async () => !/Unhealthy/.test(await ok(t, 'info')));
      await mustBeOn(t, 'glob', 'node2');
      await until('there is one', 60, async () => {
        const all = await names(t, '-a');
        return all.filter((name) => name.endsWith('/moves')).length === 1;
      });
      must(!(await names(t, '-a')).includes('node2/moves'), 'the former one is gone');
    },
  },
  {
    id: 'S1-12',
    says: 'the manager restarted sees all again',
    run: async (t) => {
      const before = (await names(t, '-a')).toSorted();
      await t.restart('node1');
      await until('the same containers', 60, async () => {
        const now = (await t.docker(['ps', '-a', '--format', '{{.Names}}'])).stdout;
        return now.trim().split('\n').toSorted().join() === before.join();
      });
    },
  },
];
