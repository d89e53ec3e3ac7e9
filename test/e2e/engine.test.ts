import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Dockerd, TEST_IMAGE, whyNoDockerd } from '../support/dockerd.js';
import { Registry } from '../support/registry.js';
import { scratch, shoalArgv } from './support/lab.js';
import { Netns } from './support/netns.js';
import { run, start, until } from './support/process.js';

const skip = whyNoDockerd() ?? false;

t.test('one socket for the swarm and for an engine', { skip, timeout: 240_000 }, async (t) => {
  const engine = await Dockerd.raise();
  t.teardown(() => engine.remove());
  const dir = scratch(t);
  const socket = join(dir, 'shoal.sock');
  const agent = [
    ...shoalArgv,
    'agent',
    ...['--data-dir', join(dir, 'data'), '--socket', socket, '--hostname', 'one'],
    ...['--engine-socket', engine.socket, '--metrics-address', 'none'],
    ...['--log-file', join(dir, 'agent.log')],
    ...['gpu=UUID1', 'gpu=UUID2', 'ssd=3'].flatMap((one) => ['--generic-resource', one]),
  ];
  const docker = (...args: string[]) => run(['docker', '-H', `unix://${socket}`, ...args]);
  const answers = () =>
    until('the agent answers', 30_000, async () => {
      const { code } = await docker('version');
      return code === 0 ? true : undefined;
    });
  // In a namespace of its own: nothing of this host's ports and routes is touched.
  const place = await Netns.make(t);
  // A host beyond the node, which knows the way to the node alone.
  const world = await Netns.make(t);
  const wire = ['link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire', 'netns', world.name];
  await place.run(['ip', ...wire]);
  for (const [netns, address] of [
    [place, '192.0.2.1/24'],
    [world, '192.0.2.2/24'],
  ] as const)
    for (const words of [`addr add ${address} dev wire`, 'link set wire up', 'link set lo up'])
      await netns.run(['ip', ...words.split(' ')]);
  let running = start(t, place.argv(agent));
  await answers();

  await t.test("what is the engine's passes through", async (t) => {
    t.match((await docker('run', '--rm', TEST_IMAGE, 'echo', 'hello')).stdout, 'hello\n');
    t.equal((await docker('run', '--rm', TEST_IMAGE, 'sh', '-c', 'exit 7')).code, 7);
    await docker('run', '-d', '--name', 'w1', TEST_IMAGE);
    const exec = await docker('exec', 'w1', 'sh', '-c', 'echo in; echo err >&2; exit 4');
    t.match(exec, { code: 4, stdout: 'in\n', stderr: 'err\n' });
    t.match((await docker('network', 'ls')).stdout, /bridge/);
    t.match((await docker('volume', 'create', 'v1')).stdout, 'v1\n');
    t.match((await docker('system', 'df')).code, 0);
    t.match((await docker('images', '-q', TEST_IMAGE)).stdout, /^[0-9a-f]{12}\n$/);
    t.equal((await docker('rm', '-f', 'w1')).code, 0);
    const none = await docker('rm', 'nobody');
    t.match(none.stderr, /No such container: nobody/);
  });

  await t.test("the swarm's is the swarm's, and lists show both", async (t) => {
    t.equal((await docker('swarm', 'init', '--advertise-addr', '127.0.0.1')).code, 0);
    t.equal((await docker('network', 'create', '-d', 'overlay', '--attachable', 'mesh')).code, 0);
    t.match(
      (await docker('network', 'ls', '--format', '{{.Name}} {{.Scope}}')).stdout,
      /mesh swarm/,
    );
    t.match(
      (await docker('network', 'ls', '--format', '{{.Name}} {{.Scope}}')).stdout,
      /bridge local/,
    );
    const info = await docker(
      'info',
      '--format',
      '{{.Swarm.LocalNodeState}} {{.Driver}} {{.Name}}',
    );
    t.match(info.stdout, /^active \S+ one\n$/);
    t.match((await docker('node', 'ls')).stdout, /one\s+Ready/);
  });

  await t.test('tasks of the engine and of the host meet on an overlay', async (t) => {
    const create = ['service', 'create', '-d', '--no-resolve-image', '--network', 'mesh'];
    const web = await docker(
      ...create,
      '--name',
      'web',
      TEST_IMAGE,
      'sh',
      '-c',
      'echo up; sleep 1000',
    );
    t.equal(web.code, 0, web.stderr);
    const own = await docker(...create, '--name', 'own', 'host', 'sleep', '1000');
    t.equal(own.code, 0, own.stderr);
    const names = await until('both are containers', 30_000, async () => {
      const { stdout } = await docker('ps', '--format', '{{.Names}}');
      const [webName, ownName] = ['web.1.', 'own.1.'].map((name) =>
        stdout.split('\n').find((line) => line.startsWith(name)),
      );
      return webName !== undefined && ownName !== undefined ? { webName, ownName } : undefined;
    });
    t.notMatch((await docker('ps', '-a', '--format', '{{.Names}}')).stdout, /sandbox/);
    t.match(await docker('exec', names.webName, 'ping', '-c1', '-W5', 'tasks.own'), { code: 0 });
    writeFileSync(join(dir, 'index.html'), 'the world\n');
    start(t, world.argv(['busybox', 'httpd', '-f', '-h', dir]));
    const out = ['wget', '-qO-', 'http://192.0.2.2/'];
    for (const name of [names.webName, names.ownName])
      t.match(await docker('exec', name, ...out), { code: 0, stdout: 'the world\n' }, name);
    t.match(await docker('exec', names.ownName, 'ping', '-c1', '-W5', 'tasks.web'), { code: 0 });
    t.match(
      await until('the log came', 10_000, async () => {
        const { stdout } = await docker('service', 'logs', 'web');
        return stdout === '' ? undefined : stdout;
      }),
      /^web\.1\.\w+@one\s+\| up\n$/,
    );
    t.equal((await docker('service', 'rm', 'web', 'own')).code, 0);
    await until('nothing is left at the engine', 40_000, async () =>
      engine.docker('ps', '-aq') === '' ? true : undefined,
    );
  });

  const must = async (...args: string[]) => {
    const { code, stdout, stderr } = await docker(...args);
    t.equal(code, 0, `docker ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  };
  const json = async (...args: string[]) => JSON.parse(await must(...args));

  await t.test('a registry that asks who pulls is answered by the service', async (t) => {
    const registry = Registry.open(`/proc/${engine.pid}/ns/net`, engine.imageTar);
    t.teardown(() => registry.close());
    const create = ['service', 'create', '-d', '--name'];
    await must(...create, 'locked', '--no-resolve-image', Registry.image);
    const errorOf = ['service', 'ps', 'locked', '--no-trunc', '--format', '{{.Error}}'];
    const error = await until('a task is rejected', 20_000, async () => {
      const [first = ''] = (await must(...errorOf)).split('\n').filter((line) => line !== '');
      return first === '' ? undefined : first;
    });
    t.match(error, /no basic auth credentials/);
    t.equal(registry.given, 0, 'without credentials nothing is given');
    await must('service', 'rm', 'locked');

    const known = ['--config', join(dir, 'docker')];
    const words = ['login', '-u', Registry.user, '-p', Registry.password, Registry.host];
    await must(...known, ...words);
    const how = ['--with-registry-auth', '--stop-grace-period', '0s'];
    await must(...known, ...create, 'keyed', ...how, Registry.image);
    const image = ['service', 'inspect', 'keyed', '-f'];
    t.equal(
      await must(...image, '{{.Spec.TaskTemplate.ContainerSpec.Image}}'),
      `${Registry.image}@${registry.digest}`,
      'with them the registry says what the image is',
    );
    await until('its task runs', 20_000, async () => {
      const shown = await must('ps', '--filter', 'name=keyed.1', '--format', '{{.Names}}');
      return shown.startsWith('keyed.1.');
    });
    t.equal(registry.given, 1);
    await must('service', 'rm', 'keyed');
    await until('nothing is left at the engine', 20_000, () => engine.docker('ps', '-aq') === '');
  });

  await t.test('tasks get ports and pieces of the node, whichever runtime they have', async (t) => {
    const wishes = [
      '--publish',
      'mode=host,target=80',
      '--generic-resource',
      'gpu=1',
      '--stop-grace-period',
      '1s',
    ];
    const web = join(dir, 'w');
    const serve = `mkdir -p ${web}; echo $DOCKER_RESOURCE_GPU > ${web}/index.html`;
    const script = `${serve}; exec busybox httpd -f -p 80 -h ${web}`;
    for (const [name, image] of [
      ['inside', TEST_IMAGE],
      ['outside', 'host'],
    ] as const)
      await must(
        ...['service', 'create', '-d', '--no-resolve-image', '--name', name, ...wishes],
        ...[image, 'sh', '-c', script],
      );
    const seen: string[] = [];
    for (const name of ['inside', 'outside']) {
      const ps = ['service', 'ps', name, '--format', '{{.CurrentState}} {{.Ports}}'];
      const port = await until(`${name} has a port`, 20_000, async () => {
        const [, found] = /^Running .*\*:(\d+)->80\/tcp/m.exec(await must(...ps)) ?? [];
        return found;
      });
      const id = (await must('service', 'ps', '-q', name)).split('\n')[0] ?? '';
      const [{ Status: status }] = await json('inspect', '--type', 'task', id);
      t.match(status.PortStatus.Ports, [{ PublishedPort: Number(port), TargetPort: 80 }]);
      const got = await until(`${name} answers`, 10_000, async () => {
        const { stdout } = await place.run(['curl', '-s', '-m5', `http://127.0.0.1:${port}/`]);
        return stdout.trim() || undefined;
      });
      seen.push(got);
    }
    t.strictSame(seen.sort(), ['UUID1', 'UUID2']);
    const resources = ['-f', '{{json .Description.Resources.GenericResources}}'];
    t.strictSame(await json('node', 'inspect', 'self', ...resources), [
      { NamedResourceSpec: { Kind: 'gpu', Value: 'UUID1' } },
      { NamedResourceSpec: { Kind: 'gpu', Value: 'UUID2' } },
      { DiscreteResourceSpec: { Kind: 'ssd', Value: 3 } },
    ]);
    await must('service', 'rm', 'inside', 'outside');
    await until('nothing is left of them', 20_000, async () => (await must('ps', '-aq')) === '');
  });

  await t.test("users' containers are on an overlay before they start", async (t) => {
    const overlay = ['network', 'create', '-d', 'overlay'];
    await must(...overlay, '--attachable', '--subnet', '10.9.1.0/24', 'net1');
    await must(...overlay, 'closed');
    await must(...overlay, '--attachable', '--internal', 'inner');
    const seen = await docker(
      ...['run', '--rm', '--network', 'net1', '--ip', '10.9.1.77', '--hostname', 'box'],
      ...[TEST_IMAGE, 'sh', '-c', 'ip addr show eth0; hostname -i; exit 3'],
    );
    t.match(
      seen,
      { code: 3, stdout: /inet 10\.9\.1\.77\/24[\s\S]*\n10\.9\.1\.77\n$/ },
      seen.stderr,
    );
    for (const [network, ways] of [
      ['inner', 'default 0'],
      ['net1', 'default 1'],
    ] as const) {
      const count = "echo default $(ip route | grep -c '^default')";
      const shown = await must('run', '--rm', '--network', network, TEST_IMAGE, 'sh', '-c', count);
      t.equal(shown, ways, `ways out of ${network}`);
    }
    const refused = await docker('run', '--rm', '--name', 'no', '--network', 'closed', TEST_IMAGE);
    t.match(refused, {
      code: 125,
      stderr:
        /Error response from daemon: Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not manually attachable/,
    });
    t.equal((await docker('inspect', 'no')).code, 1, 'what was to be removed is');
    const web = 'mkdir /w; echo hello > /w/index.html; httpd -f -h /w';
    const on = ['--network', 'net1', '--network-alias', 'cc', '-p', '8088:80'];
    const id = await must('run', '-d', '--name', 'c1', ...on, TEST_IMAGE, 'sh', '-c', web);
    const [inspected] = await json('inspect', 'c1');
    const network = inspected.NetworkSettings.Networks.net1;
    t.match(network, { IPPrefixLen: 24, Aliases: ['cc', id.slice(0, 12)] });
    t.equal(inspected.HostConfig.NetworkMode, 'net1');
    const [{ Containers: members }] = await json('network', 'inspect', 'net1');
    t.match(members, { [id]: { Name: 'c1', IPv4Address: `${network.IPAddress}/24` } });
    t.match(await must('ps', '-a'), /0\.0\.0\.0:8088->80\/tcp[^\n]* c1$/);
    const fetched = await place.run(['curl', '-s', '-m5', 'http://127.0.0.1:8088/']);
    t.equal(fetched.stdout, 'hello\n', 'published');
    for (const name of ['c1', 'cc']) {
      const got = [
        'run',
        '--rm',
        '--network',
        'net1',
        TEST_IMAGE,
        'wget',
        '-qO-',
        `http://${name}`,
      ];
      t.equal(await must(...got), 'hello', name);
    }
  });

  await t.test('they are connected, restarted, and outlive the agent', async (t) => {
    const hello = async (why: string) =>
      t.equal(await must('exec', 'b1', 'wget', '-qO-', 'http://c1'), 'hello', why);
    await must('run', '-d', '--name', 'b1', TEST_IMAGE);
    await must('network', 'connect', '--alias', 'bb', 'net1', 'b1');
    t.match(await docker('network', 'connect', 'net1', 'b1'), {
      stderr: /endpoint with name b1 already exists in network net1/,
    });
    await hello('a container on the bridge is on an overlay besides');
    await must('network', 'connect', 'mesh', 'c1');
    await must('network', 'connect', 'bridge', 'c1');
    const networks = await json('inspect', 'c1', '-f', '{{json .NetworkSettings.Networks}}');
    t.strictSame(Object.keys(networks).sort(), ['bridge', 'mesh', 'net1']);
    const ofNet1 = ['ps', '--filter', 'network=net1', '--format', '{{.Names}} {{.Networks}}'];
    // The CLI shuffles them.
    t.match(await must(...ofNet1), /^b1 (bridge,net1|net1,bridge)\nc1 (net1,mesh|mesh,net1)$/);
    t.equal((await running.stop()).code, 0, 'the agent stops in time');
    t.match(
      engine.docker('exec', 'c1', 'ip', '-o', 'addr', 'show', 'eth0'),
      /inet 10\.9\.1\./,
      'an agent that is away takes nothing with it',
    );
    running = start(t, place.argv(agent));
    await answers();
    await until('the node is back', 20_000, async () => (await docker('node', 'ls')).code === 0);
    await until('c1 is back', 10_000, async () => {
      const { code } = await docker('exec', 'b1', 'ping', '-c1', '-W1', 'c1');
      return code === 0;
    });
    await hello('after the agent’s restart');
    await must('network', 'disconnect', 'mesh', 'c1');
    await must('restart', '-t', '0', 'c1');
    await hello('after its own');
    await must('kill', 'c1');
    const members = ['network', 'inspect', 'net1', '-f', '{{range .Containers}}{{.Name}} {{end}}'];
    await until('c1 has left', 5_000, async () => (await must(...members)) === 'b1');
    await must('start', 'c1');
    await hello('started again');
    await must('rm', '-f', 'c1', 'b1');
    await until('nothing is left at the engine', 10_000, () => engine.docker('ps', '-aq') === '');
    await must('network', 'rm', 'net1');
  });
});
