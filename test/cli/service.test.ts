import fc from 'fast-check';
import t from 'tap';
import type { Json } from '../../src/cli/compose/convert.js';
import { CliError } from '../../src/cli/error.js';
import { parseFields } from '../../src/cli/service/csv.js';
import { LogDemultiplexer, splitDetails } from '../../src/cli/service/logs.js';
import { type ServiceFlags, serviceSpec } from '../../src/cli/service/spec.js';
import { isSame, type UpdateFlags, updatedSpec } from '../../src/cli/service/update.js';

const created = (flags: Partial<ServiceFlags>, args: readonly string[] = []) =>
  serviceSpec('img:1', args, { mode: 'replicated', ...flags });

t.test('flags become what Docker would be told', async (t) => {
  const spec = created(
    {
      name: 'web',
      replicas: '3',
      label: ['a=b', 'c'],
      env: ['A=1'],
      publish: ['8080:80', 'published=53,target=5353,protocol=udp,mode=host'],
      mount: ['type=bind,source=/a,target=/b,readonly', 'type=tmpfs,dst=/t,tmpfs-size=1m'],
      network: ['front', 'name=back,alias=db'],
      secret: ['s', 'source=t,target=/x,mode=0400'],
      constraint: ['node.role==manager'],
      placementPref: ['spread=node.labels.zone'],
      limitCpu: '0.5',
      limitMemory: '50M',
      updateDelay: '1s',
      healthCmd: 'true',
      host: ['db:10.0.0.9'],
      ulimit: ['nofile=10:20'],
      stopGracePeriod: '0',
    },
    ['sh', '-c', 'sleep 1'],
  );
  t.strictSame(spec, {
    Name: 'web',
    Labels: { a: 'b', c: '' },
    TaskTemplate: {
      ContainerSpec: {
        Image: 'img:1',
        Args: ['sh', '-c', 'sleep 1'],
        Env: ['A=1'],
        Mounts: [
          { Type: 'bind', Source: '/a', Target: '/b', ReadOnly: true },
          { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1 << 20 } },
        ],
        StopGracePeriod: 0,
        Healthcheck: { Test: ['CMD-SHELL', 'true'] },
        Hosts: ['10.0.0.9 db'],
        Secrets: [
          { File: { Name: 's', UID: '0', GID: '0', Mode: 0o444 }, SecretName: 's' },
          { File: { Name: '/x', UID: '0', GID: '0', Mode: 0o400 }, SecretName: 't' },
        ],
        Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }],
      },
      Resources: { Limits: { NanoCPUs: 5e8, MemoryBytes: 50 << 20 } },
      Placement: {
        Constraints: ['node.role==manager'],
        Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.zone' } }],
      },
      Networks: [{ Target: 'front' }, { Target: 'back', Aliases: ['db'] }],
    },
    Mode: { Replicated: { Replicas: 3 } },
    UpdateConfig: { Parallelism: 1, Delay: 1e9 },
    EndpointSpec: {
      Ports: [
        { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
        { Protocol: 'udp', TargetPort: 5353, PublishedPort: 53, PublishMode: 'host' },
      ],
    },
  });
});

t.test('modes', async (t) => {
  t.strictSame(created({ mode: 'global' })['Mode'], { Global: {} });
  t.strictSame(created({ mode: 'replicated-job', replicas: '5', maxConcurrent: '2' })['Mode'], {
    ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 5 },
  });
  t.throws(() => created({ mode: 'global', replicas: '2' }), { message: /takes no replicas/ });
  t.throws(() => created({ mode: 'some' }), { message: /'some' is not one of/ });
});

t.test('a value that means nothing is refused with its flag', async (t) => {
  const rows: readonly (readonly [Partial<ServiceFlags>, RegExp])[] = [
    [{ replicas: 'x' }, /--replicas: 'x' is no number/],
    [{ publish: ['a:b'] }, /--publish: 'b' is no port/],
    [{ publish: ['published=80'] }, /--publish: .* has no target/],
    [{ mount: ['source=/a'] }, /--mount: .* has no target/],
    [{ mount: ['targt=/a'] }, /--mount: unknown field 'targt'/],
    [{ secret: ['target=x'] }, /--secret: .* has no source/],
    [{ limitMemory: 'much' }, /--limit-memory: 'much' is no size/],
    [{ updateDelay: 'soon' }, /--update-delay: 'soon' is no duration/],
    [{ ulimit: ['nofile'] }, /--ulimit/],
    [{ host: ['db'] }, /--host: 'db' is not NAME:ADDRESS/],
    [{ placementPref: ['zone'] }, /--placement-pref/],
    [{ envFile: ['/nope'] }, /--env-file/],
  ];
  for (const [flags, want] of rows) t.throws(() => created(flags), { message: want });
});

t.test('an update changes what it names, and leaves the rest', async (t) => {
  const before = created({
    name: 'web',
    label: ['a=1', 'b=2'],
    env: ['A=1', 'B=2'],
    publish: ['8080:80'],
    constraint: ['node.role == manager'],
    network: ['front'],
    limitCpu: '1',
    updateDelay: '1s',
    updateParallelism: '2',
  });
  const after = updatedSpec(
    before,
    {
      replicas: '4',
      labelAdd: ['a=9'],
      labelRm: ['b'],
      envAdd: ['A=3', 'C=4'],
      envRm: ['B'],
      publishAdd: ['8081:80', '9000:90'],
      constraintRm: ['node.role==manager'],
      networkAdd: ['back'],
      limitMemory: '1g',
      updateOrder: 'start-first',
      force: true,
    },
    ['new'],
  );
  t.match(after, {
    Name: 'web',
    Labels: { a: '9' },
    Mode: { Replicated: { Replicas: 4 } },
    UpdateConfig: { Parallelism: 2, Delay: 1e9, Order: 'start-first' },
    EndpointSpec: {
      Ports: [
        { TargetPort: 80, PublishedPort: 8081 },
        { TargetPort: 90, PublishedPort: 9000 },
      ],
    },
    TaskTemplate: {
      ForceUpdate: 1,
      ContainerSpec: { Image: 'img:1', Args: ['new'], Env: ['A=3', 'C=4'] },
      Resources: { Limits: { NanoCPUs: 1e9, MemoryBytes: 2 ** 30 } },
      Placement: { Constraints: [] },
      Networks: [{ Target: 'front' }, { Target: 'back' }],
    },
  });
  t.notOk('b' in (after['Labels'] as Json));
});

t.test('an update that says nothing changes nothing', async (t) => {
  const none: UpdateFlags = {};
  const before = updatedSpec(
    created({ name: 'web', env: ['A=1'], publish: ['80:80'] }),
    none,
    undefined,
  );
  t.ok(isSame(before, updatedSpec(before, none, undefined)));
  t.notOk(isSame(before, updatedSpec(before, { image: 'img:2' }, undefined)));
});

t.test('fields may be quoted, and any text is read or refused', async (t) => {
  t.strictSame(
    [...parseFields('a=1,"b=x,y",c', '')],
    [
      ['a', '1'],
      ['b', 'x,y'],
      ['c', 'true'],
    ],
  );
  t.strictSame([...parseFields('"a=say ""hi"""', '')], [['a', 'say "hi"']]);
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        return parseFields(text, '--x').size > 0;
      } catch (error) {
        return error instanceof CliError;
      }
    }),
  );
});

const frame = (stream: number, text: string) => {
  const body = Buffer.from(text);
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(body.length, 4);
  return Buffer.concat([header, body]);
};

t.test('lines of logs come out as they went in, however they were cut', async (t) => {
  const lines = [
    [1, 'one\n'],
    [2, 'two\n'],
    [1, 'drei ☃\n'],
  ] as const;
  const whole = Buffer.concat(lines.map(([stream, text]) => frame(stream, text)));
  fc.assert(
    fc.property(fc.array(fc.nat(whole.length), { maxLength: 5 }), (cuts) => {
      const got: (readonly [number, string])[] = [];
      const sink = new LogDemultiplexer((stream, line) =>
        got.push([stream === 'stderr' ? 2 : 1, line.toString()]),
      );
      const places = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
      for (let at = 1; at < places.length; at += 1)
        sink._write(whole.subarray(places[at - 1], places[at]), '', () => {});
      return JSON.stringify(got) === JSON.stringify(lines);
    }),
  );
  t.pass();
});

t.test('a frame of any size is refused before it is held', async (t) => {
  const sink = new LogDemultiplexer(() => {});
  const header = Buffer.from([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
  sink._write(header, '', (error) => t.match(error, /too long/));
});

t.test('details tell whose line it is', async (t) => {
  const text = 'com.docker.swarm.node.id=n,com.docker.swarm.task.id=t hello world\n';
  const { details, line } = splitDetails(text, false);
  t.equal(details.get('com.docker.swarm.task.id'), 't');
  t.equal(line, 'hello world\n');
  t.equal(
    splitDetails(`2026-01-01T00:00:00Z ${text}`, true).line,
    '2026-01-01T00:00:00Z hello world\n',
  );
});
