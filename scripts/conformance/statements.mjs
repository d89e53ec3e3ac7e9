// The statements, in the order of a long session with a swarm. Each has the number of the write-up that shows it.
// A statement throws `Difference` when the swarm does otherwise.
import { Difference, must, mustMatch, oneLine, until } from './expect.mjs';

/** Rows of a table whose columns are two blanks and more apart. */
function rowsOf(text) {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/ {2,}/).map((cell) => cell.trim()));
}

async function ok(target, node, ...args) {
  const done = await target.docker(node, args);
  if (done.code !== 0)
    throw new Difference(
      `docker ${args.slice(0, 4).join(' ')} …: exit ${done.code}: ${oneLine(done.stderr)}`,
    );
  return done.stdout;
}

async function refused(target, node, pattern, ...args) {
  const done = await target.docker(node, args);
  must(done.code !== 0, `docker ${args.slice(0, 4).join(' ')} … was not refused`);
  mustMatch(done.stderr, pattern, 'the refusal');
}

async function tasks(target, service, ...more) {
  const format = '{{.ID}}\t{{.Name}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}';
  const text = await ok(
    target,
    1,
    'service',
    'ps',
    '--no-trunc',
    '--format',
    format,
    ...more,
    service,
  );
  return text
    .trimEnd()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [id, name, node, desired, current, error] = line.split('\t');
      return { id, name, node, desired, current, error };
    });
}

const running = (list) =>
  list.filter(({ desired, current }) => desired === 'Running' && current.startsWith('Running'));

function untilRunning(target, service, count, seconds = 30) {
  return until(`${count} tasks of ${service} run`, seconds, async () => {
    const list = running(await tasks(target, service));
    return list.length === count && list;
  });
}

async function answers(target, node, url, count) {
  const names = [];
  for (let at = 0; at < count; at += 1) {
    const { code, stdout, stderr } = await target.curl(node, url);
    must(code === 0, `curl ${url} at node ${node}: ${oneLine(stderr)}`);
    names.push(stdout.trim());
  }
  return names;
}

const ID25 = /^[a-z0-9]{25}$/;

/** @type {readonly {id: string, says: string, run: (t: any, s: any) => Promise<void>}[]} */
export const STATEMENTS = [
  {
    id: 'S0-07',
    says: 'a node in no swarm refuses node ls in docker’s words',
    run: (t) =>
      refused(
        t,
        1,
        /This node is not a swarm manager\. Use "docker swarm init" or "docker swarm join"/,
        'node',
        'ls',
      ),
  },
  {
    id: 'S0-01',
    says: 'swarm init prints the four blocks, with a join line',
    run: async (t, s) => {
      const { address } = t.nodes[0];
      const out = await ok(t, 1, 'swarm', 'init', '--advertise-addr', address);
      const shape =
        /^Swarm initialized: current node \([a-z0-9]{25}\) is now a manager\.\n\nTo add a worker to this swarm, run the following command:\n\n {4}docker swarm join --token (SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}) \S+:2377\n\nTo add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions\./;
      mustMatch(out, shape);
      s.token = shape.exec(out)[1];
      must(out.includes(`${address}:2377`), 'the join line has the advertised address');
    },
  },
  {
    id: 'S0-03',
    says: 'the join line works on other hosts',
    run: async (t, s) => {
      for (const node of [2, 3]) {
        const out = await ok(
          t,
          node,
          'swarm',
          'join',
          '--token',
          s.token,
          `${t.nodes[0].address}:2377`,
        );
        mustMatch(out, /^This node joined a swarm as a worker\.\n/);
      }
    },
  },
  {
    id: 'S0-04',
    says: 'node ls: columns, the star, Leader, empty for workers, Ready',
    run: (t) =>
      until('three nodes are Ready', 20, async () => {
        const [header, ...rows] = rowsOf(await ok(t, 1, 'node', 'ls'));
        must(
          header.join() === 'ID,HOSTNAME,STATUS,AVAILABILITY,MANAGER STATUS,ENGINE VERSION',
          header.join(),
        );
        must(rows.length === 3, `${rows.length} rows`);
        must(rows.filter(([id]) => / \*$/.test(id)).length === 1, 'one star');
        must(
          rows.every((row) => row.includes('Ready') && row.includes('Active')),
          'all Ready and Active',
        );
        must(rows.filter((row) => row.includes('Leader')).length === 1, 'one Leader');
        return rows.every(([id]) => ID25.test(id.replace(/ \*$/, '')));
      }),
  },
  {
    id: 'S0-09',
    says: 'a worker refuses cluster commands in docker’s words',
    run: (t) =>
      refused(
        t,
        2,
        /This node is not a swarm manager\. Worker nodes can't be used to view or modify/,
        'node',
        'ls',
      ),
  },
  {
    id: 'S4-04',
    says: 'join-token prints the join command again',
    run: async (t, s) => {
      mustMatch(
        await ok(t, 1, 'swarm', 'join-token', 'worker'),
        new RegExp(`docker swarm join --token ${s.token} `),
      );
      mustMatch(await ok(t, 1, 'swarm', 'join-token', '-q', 'manager'), /^SWMTKN-1-/);
    },
  },
  {
    id: 'S4-12',
    says: 'network ls shows the ingress overlay',
    run: async (t) => {
      mustMatch(await ok(t, 1, 'network', 'ls'), /ingress +overlay +swarm/);
    },
  },
  {
    id: 'S4-10',
    says: 'network create prints a swarm-style id',
    run: async (t) => {
      mustMatch(
        (
          await ok(t, 1, 'network', 'create', '--attachable', '--driver', 'overlay', 'backend')
        ).trim(),
        ID25,
      );
    },
  },
  {
    id: 'S3-05',
    says: 'service create --detach prints only the id',
    run: async (t) => {
      const out = await ok(
        t,
        1,
        ...[
          'service',
          'create',
          '--detach=true',
          '--no-resolve-image',
          '--name',
          'web',
          '--publish',
          '8080:80',
        ],
        ...['--stop-grace-period', '1s', ...t.workload.server],
      );
      mustMatch(out.trim(), ID25);
      await untilRunning(t, 'web', 1);
    },
  },
  {
    id: 'S3-07',
    says: 'service ls: mode, replicas, image, ports',
    run: async (t) => {
      const [header, row] = rowsOf(await ok(t, 1, 'service', 'ls'));
      must(header.join() === 'ID,NAME,MODE,REPLICAS,IMAGE,PORTS', header.join());
      const [id, name, mode, replicas, , ports] = row;
      must(/^[a-z0-9]{12}$/.test(id), `id ${id}`);
      must([name, mode, replicas].join() === 'web,replicated,1/1', row.join());
      must(ports === '*:8080->80/tcp', `ports ${ports}`);
    },
  },
  {
    id: 'S3-08',
    says: 'service ps: name with slot, node, Running since',
    run: async (t, s) => {
      const [task] = await tasks(t, 'web');
      must(task.name === 'web.1' && task.desired === 'Running', JSON.stringify(task));
      mustMatch(task.current, /^Running /);
      s.first = task.id;
    },
  },
  {
    id: 'S3-09',
    says: 'a published port answers on every node, loopback included',
    run: async (t) => {
      for (const node of [1, 2, 3])
        for (const host of ['127.0.0.1', t.nodes[node - 1].address])
          await until(`${host}:8080 at node ${node}`, 10, () =>
            answers(t, node, `http://${host}:8080/`, 1),
          );
    },
  },
  {
    id: 'S3-10',
    says: 'update --replicas keeps task 1 and spreads the rest',
    run: async (t, s) => {
      mustMatch(
        await ok(t, 1, 'service', 'update', '--replicas=5', '--detach=true', 'web'),
        /^web\n/,
      );
      const list = await untilRunning(t, 'web', 5);
      must(
        list.some(({ id }) => id === s.first),
        'task 1 is untouched',
      );
      const perNode = ['1', '2', '3']
        .map((n) => list.filter(({ node }) => node.endsWith(n)).length)
        .toSorted();
      must(perNode.join() === '1,2,2', `spread ${perNode.join('/')}`);
      s.five = list;
    },
  },
  {
    id: 'S3-11',
    says: 'five connections through one node reach five tasks',
    run: (t) =>
      until('five of five', 15, async () => {
        for (const node of [1, 2, 3]) {
          const names = await answers(t, node, `http://${t.nodes[node - 1].address}:8080/`, 5);
          must(new Set(names).size === 5, `through node ${node}: ${names.join(', ')}`);
        }
        return true;
      }),
  },
  {
    id: 'S4-14',
    says: 'the next round comes in the same order: strict round-robin for each node',
    run: async (t) => {
      const names = await answers(t, 1, 'http://localhost:8080/', 10);
      must(names.slice(0, 5).join() === names.slice(5).join(), names.join(', '));
    },
  },
  {
    id: 'S3-12',
    says: 'a port is of one service only',
    run: (t) =>
      refused(
        t,
        1,
        /port '8080' is already in use by service 'web' \([a-z0-9]{25}\) as an ingress port/,
        ...[
          'service',
          'create',
          '-d',
          '--no-resolve-image',
          '--name',
          'other',
          '-p',
          '8080:80',
          ...t.workload.sleep,
        ],
      ),
  },
  {
    id: 'S3-13',
    says: 'service logs: every task’s lines, with task and node in front',
    run: (t) =>
      until('logs of five tasks', 15, async () => {
        const out = await ok(t, 1, 'service', 'logs', 'web');
        const slots = new Set(
          [...out.matchAll(/^web\.(\d)\.[a-z0-9]{12}@\S+ +\| /gm)].map((one) => one[1]),
        );
        must(slots.size === 5, `slots ${[...slots].join()} of: ${oneLine(out)}`);
        return true;
      }),
  },
  {
    id: 'S3-15',
    says: 'a rolling update replaces tasks one at a time',
    run: async (t) => {
      const [, image] = t.workload.images;
      await ok(
        t,
        1,
        'service',
        'update',
        '--no-resolve-image',
        '--update-monitor',
        '1s',
        '--detach=true',
        '--image',
        image,
        'web',
      );
      let least = 5;
      await until('the update is completed', 90, async () => {
        least = Math.min(least, running(await tasks(t, 'web')).length);
        return /completed/.test(
          await ok(t, 1, 'service', 'inspect', '-f', '{{.UpdateStatus.State}}', 'web'),
        );
      });
      must(least >= 4, `once only ${least} of 5 ran`);
    },
  },
  {
    id: 'S3-16',
    says: 'service ps then shows each slot’s history',
    run: async (t) => {
      const out = await ok(t, 1, 'service', 'ps', 'web');
      const old = out.split('\n').filter((line) => /\\_ web\.\d .*Shutdown +Shutdown /.test(line));
      must(old.length === 5, `${old.length} earlier tasks: ${oneLine(out)}`);
    },
  },
  {
    id: 'S4-07',
    says: 'an attached service create shows progress and converges',
    run: async (t) => {
      const done = await t.docker(1, [
        ...['service', 'create', '--no-resolve-image', '--name', 'simple', '--replicas', '2'],
        ...[
          '--publish',
          'published=8000,target=80',
          '--stop-grace-period',
          '1s',
          ...t.workload.server,
        ],
      ]);
      must(done.code === 0, oneLine(done.stderr));
      mustMatch(done.stdout, /overall progress: 2 out of 2 tasks/);
      mustMatch(done.stdout, /verify: Service( \S+)? converged/);
    },
  },
  {
    id: 'S4-21',
    says: 'global services run once on each node',
    run: async (t) => {
      await ok(
        t,
        1,
        'service',
        'create',
        '-d',
        '--no-resolve-image',
        '--name',
        'glob',
        '--mode',
        'global',
        ...t.workload.sleep,
      );
      await untilRunning(t, 'glob', 3);
      mustMatch(await ok(t, 1, 'service', 'ls', '--filter', 'name=glob'), /glob +global +3\/3/);
    },
  },
  {
    id: 'job',
    says: 'a replicated job completes',
    run: async (t) => {
      await ok(
        t,
        1,
        ...[
          'service',
          'create',
          '-d',
          '--no-resolve-image',
          '--name',
          'job',
          '--mode',
          'replicated-job',
          '--replicas',
          '3',
        ],
        ...['--max-concurrent', '2', ...t.workload.job],
      );
      await until('three are complete', 30, async () => {
        const list = await tasks(t, 'job');
        return list.length === 3 && list.every(({ current }) => current.startsWith('Complete'));
      });
    },
  },
  {
    id: 'restart',
    says: 'a failing task is started anew by its policy, and its failures are listed',
    run: async (t) => {
      await ok(
        t,
        1,
        ...[
          'service',
          'create',
          '-d',
          '--no-resolve-image',
          '--name',
          'bad',
          '--restart-delay',
          '200ms',
        ],
        ...['--restart-max-attempts', '2', ...t.workload.failing],
      );
      await until('it gave up after three attempts', 30, async () => {
        const list = await tasks(t, 'bad');
        return (
          list.length === 3 &&
          list.every(
            ({ current, error }) => /^Failed/.test(current) && /non-zero exit \(1\)/.test(error),
          )
        );
      });
      await ok(t, 1, 'service', 'rm', 'bad');
    },
  },
  {
    id: 'pending',
    says: 'a task that fits nowhere says why',
    run: async (t) => {
      await ok(
        t,
        1,
        ...['service', 'create', '-d', '--no-resolve-image', '--name', 'nowhere'],
        ...['--constraint', 'node.labels.zone==mars', ...t.workload.sleep],
      );
      await until('the reason is shown', 15, async () => {
        const [task] = await tasks(t, 'nowhere');
        return /no suitable node \(scheduling constraints not satisfied on 3 nodes\)/.test(
          task?.error ?? '',
        );
      });
      await ok(t, 1, 'service', 'rm', 'nowhere');
    },
  },
  {
    id: 'constraint',
    says: 'labels of nodes place tasks',
    run: async (t) => {
      const name = (await ok(t, 1, 'node', 'ls', '--format', '{{.Hostname}}'))
        .trim()
        .split('\n')
        .toSorted()[1];
      await ok(t, 1, 'node', 'update', '--label-add', 'disk=fast', name);
      await ok(
        t,
        1,
        ...['service', 'create', '-d', '--no-resolve-image', '--name', 'fast', '--replicas', '2'],
        ...['--constraint', 'node.labels.disk==fast', ...t.workload.sleep],
      );
      const list = await untilRunning(t, 'fast', 2);
      must(
        list.every(({ node }) => node === name),
        list.map(({ node }) => node).join(),
      );
      await ok(t, 1, 'service', 'rm', 'fast');
    },
  },
  {
    id: 'rollback',
    says: 'service rollback brings the spec before back',
    run: async (t) => {
      const image = () =>
        ok(t, 1, 'service', 'inspect', '-f', '{{.Spec.TaskTemplate.ContainerSpec.Image}}', 'web');
      const before = await image();
      await ok(t, 1, 'service', 'rollback', '-d', 'web');
      must((await image()) !== before, `the image is still ${before}`);
      await until('the rollback is completed', 90, async () =>
        /rollback_completed/.test(
          await ok(t, 1, 'service', 'inspect', '-f', '{{.UpdateStatus.State}}', 'web'),
        ),
      );
    },
  },
  {
    id: 'scale',
    says: 'service scale up and down',
    run: async (t) => {
      mustMatch(
        await ok(t, 1, 'service', 'scale', '-d', 'web=2', 'simple=3'),
        /web scaled to 2\nsimple scaled to 3/,
      );
      await untilRunning(t, 'web', 2);
      await untilRunning(t, 'simple', 3);
    },
  },
  {
    id: 'secrets',
    says: 'secrets and configs are files of the tasks, and stay while they are in use',
    run: async (t) => {
      await t.docker(1, ['secret', 'create', 'sec', '-'], { input: 'hush' });
      await t.docker(1, ['config', 'create', 'cfg', '-'], { input: 'plain' });
      const [image] = t.workload.images;
      await ok(
        t,
        1,
        ...['service', 'create', '-d', '--no-resolve-image', '--name', 'reader', '--secret', 'sec'],
        ...['--config', 'source=cfg,target=/etc/shoal-cfg', '--restart-condition', 'none', image],
        ...['sh', '-c', 'cat /run/secrets/sec /etc/shoal-cfg; echo; sleep 100000'],
      );
      await until('both were read', 30, async () =>
        /hushplain/.test(await ok(t, 1, 'service', 'logs', '--raw', 'reader')),
      );
      await refused(
        t,
        1,
        /secret 'sec' is in use by the following service: reader/,
        'secret',
        'rm',
        'sec',
      );
      await ok(t, 1, 'service', 'rm', 'reader');
      await until(
        'the secret can go',
        15,
        async () => (await t.docker(1, ['secret', 'rm', 'sec'])).code === 0,
      );
    },
  },
  {
    id: 'S4-13',
    says: 'services of one network find each other by name, and all tasks by tasks.NAME',
    run: async (t) => {
      const server = t.workload.server;
      await ok(
        t,
        1,
        'service',
        'create',
        '-d',
        '--no-resolve-image',
        '--name',
        'db',
        '--replicas',
        '2',
        '--network',
        'backend',
        ...server,
      );
      await untilRunning(t, 'db', 2);
      const [image] = t.workload.images;
      const ask =
        image === 'host'
          ? [
              'sh',
              '-c',
              'for i in 1 2 3 4; do curl -s -m 5 http://db/; done; getent ahostsv4 tasks.db | sort -u; sleep 100000',
            ]
          : [
              'sh',
              '-c',
              'for i in 1 2 3 4; do wget -qO- http://db/; done; nslookup tasks.db; sleep 100000',
            ];
      await ok(
        t,
        1,
        'service',
        'create',
        '-d',
        '--no-resolve-image',
        '--name',
        'asker',
        '--network',
        'backend',
        image,
        ...ask,
      );
      await until('two names by the VIP', 30, async () => {
        const out = await ok(t, 1, 'service', 'logs', '--raw', 'asker');
        const names = new Set(out.split('\n').filter((line) => /^[0-9a-z-]{4,}$/.test(line)));
        return names.size === 2;
      });
      await ok(t, 1, 'service', 'rm', 'asker', 'db');
    },
  },
  {
    id: 'S0-11',
    says: 'stack deploy makes the network, then the service',
    run: async (t) => {
      const [image, ...command] = t.workload.server;
      const compose = JSON.stringify({
        version: '3',
        services: {
          web: {
            image,
            command: command.map((word) => word.replaceAll('$', '$$$$')),
            stop_grace_period: '1s',
            deploy: { replicas: 3, restart_policy: { condition: 'on-failure' } },
            ports: ['4000:80'],
            networks: ['webnet'],
          },
        },
        networks: { webnet: null },
      });
      const args = ['stack', 'deploy', '-c', '-', '--resolve-image', 'never', 'lab'];
      const done = await t.docker(1, args, { input: compose });
      must(done.code === 0, oneLine(done.stderr));
      must(done.stdout === 'Creating network lab_webnet\nCreating service lab_web\n', done.stdout);
      await untilRunning(t, 'lab_web', 3);
      const again = await t.docker(1, args, { input: compose });
      mustMatch(again.stdout, /^Updating service lab_web \(id: [a-z0-9]{25}\)\n$/);
    },
  },
  {
    id: 'S0-12',
    says: 'stack ps, stack services, stack ls',
    run: async (t) => {
      const [header, row] = rowsOf(await ok(t, 1, 'stack', 'ps', 'lab'));
      must(
        header.slice(0, 6).join() === 'ID,NAME,IMAGE,NODE,DESIRED STATE,CURRENT STATE',
        header.join(),
      );
      must(/^lab_web\.\d$/.test(row[1]), row.join());
      mustMatch(
        await ok(t, 1, 'stack', 'services', 'lab'),
        /lab_web +replicated +3\/3 .*\*:4000->80\/tcp/,
      );
      mustMatch(await ok(t, 1, 'stack', 'ls'), /lab +1/);
    },
  },
  {
    id: 'S0-19',
    says: 'three connections reach three tasks, each node with a cursor of its own',
    run: (t) =>
      until('three of three', 15, async () => {
        for (const node of [1, 2, 3]) {
          const names = await answers(t, node, `http://${t.nodes[node - 1].address}:4000/`, 3);
          must(new Set(names).size === 3, names.join());
        }
        return true;
      }),
  },
  {
    id: 'S0-17',
    says: 'stack rm removes the service, then the network',
    run: async (t) => {
      must(
        (await ok(t, 1, 'stack', 'rm', 'lab')) ===
          'Removing service lab_web\nRemoving network lab_webnet\n',
        'its lines',
      );
    },
  },
  {
    id: 'drain',
    says: 'a drained node’s tasks go elsewhere, and come back to none by themselves',
    run: async (t) => {
      const name = (await ok(t, 1, 'node', 'ls', '--format', '{{.Hostname}}'))
        .trim()
        .split('\n')
        .toSorted()[1];
      await ok(t, 1, 'node', 'update', '--availability', 'drain', name);
      await until(
        'no task is left there',
        30,
        async () =>
          running(await tasks(t, 'simple')).length === 3 &&
          running(await tasks(t, 'simple')).every(({ node }) => node !== name),
      );
      await ok(t, 1, 'node', 'update', '--availability', 'active', name);
    },
  },
  {
    id: 'S3-19',
    says: 'a node that leaves: its tasks run elsewhere, the old ones keep what was last reported',
    run: async (t) => {
      await ok(t, 1, 'service', 'scale', '-d', 'simple=6');
      const list = await untilRunning(t, 'simple', 6);
      const gone = list.filter(({ node }) => node.endsWith('3'));
      must(gone.length > 0, 'some run on the third node');
      const others = list.filter(({ node }) => !node.endsWith('3')).map(({ id }) => id);
      await ok(t, 3, 'swarm', 'leave');
      const now = await until('six run on two nodes', 40, async () => {
        const live = running(await tasks(t, 'simple'));
        return live.length === 6 && live.every(({ node }) => !node.endsWith('3')) && live;
      });
      must(
        others.every((id) => now.some((task) => task.id === id)),
        'the others keep their ids',
      );
      const old = (await tasks(t, 'simple')).filter(({ id }) => gone.some((one) => one.id === id));
      must(
        old.every(({ desired, current }) => desired === 'Shutdown' && /^Running /.test(current)),
        JSON.stringify(old),
      );
    },
  },
  {
    id: 'node-rm',
    says: 'the node that left is Down, and can be removed',
    run: async (t) => {
      const down = await until('it is Down', 40, async () =>
        rowsOf(await ok(t, 1, 'node', 'ls')).find((row) => row.includes('Down')),
      );
      await ok(t, 1, 'node', 'rm', down[1]);
      must(rowsOf(await ok(t, 1, 'node', 'ls')).length === 3, 'two nodes are left');
    },
  },
  {
    id: 'S3-02',
    says: 'the last manager leaves only by force',
    run: async (t) => {
      await refused(
        t,
        1,
        /You are attempting to leave the swarm on a node that is participating as a manager/,
        'swarm',
        'leave',
      );
      await ok(t, 2, 'swarm', 'leave');
      mustMatch(await ok(t, 1, 'swarm', 'leave', '--force'), /Node left the swarm\./);
    },
  },
];
