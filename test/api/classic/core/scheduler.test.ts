import fc from 'fast-check';
import t from 'tap';
import { filterNodes } from '../../../../src/api/classic/core/filters.js';
import type { ClassicNode } from '../../../../src/api/classic/core/node.js';
import { type ClassicStrategy, chooseNode } from '../../../../src/api/classic/core/scheduler.js';
import { Prng } from '../../../../src/base/prng.js';
import { asked, containerOf, nodeOf } from './nodes.js';

const PORT_80 = { port: '80', protocol: 'tcp', ip: '' };
const published = (binding: object, key = '80/tcp') => ({
  HostConfig: { PortBindings: { [key]: [binding] } },
});

const NODES = [
  nodeOf('node1', {
    labels: { storage: 'ssd', region: 'us-east' },
    containers: [containerOf('web', { ports: [PORT_80], labels: { 'com.example.type': 'front' } })],
    images: [{ id: 'sha256:aa', tags: ['registry:5000/redis:7'] }],
  }),
  nodeOf('node2', {
    labels: { storage: 'disk' },
    containers: [containerOf('db', { state: 'exited', ports: [{ ...PORT_80, ip: '10.0.0.2' }] })],
    images: [{ id: 'sha256:bb', tags: ['redis:6', 'busybox:latest'] }],
  }),
  nodeOf('frontend', { labels: { storage: 'disk' } }),
];

function chosen(
  body: Parameters<typeof asked>[0],
  nodes: readonly ClassicNode[] = NODES,
  strategy: ClassicStrategy = 'spread',
): string {
  const node = chooseNode(nodes, asked(body).wish, strategy, new Prng(1));
  return typeof node === 'string' ? node : node.name;
}

function left(body: Parameters<typeof asked>[0]): readonly string[] | string {
  const nodes = filterNodes(NODES, asked(body).wish, true);
  return typeof nodes === 'string' ? nodes : nodes.map(({ name }) => name);
}

const env = (...Env: string[]) => ({ Env });

t.test('what may be asked of a node, and what is left then', async (t) => {
  const none = (text: string) => `unable to find a node that satisfies ${text}`;
  const cases: readonly (readonly [string, readonly string[] | string])[] = [
    ['constraint:node==node1', ['node1']],
    ['constraint:node==id-node2', ['node2']],
    ['constraint:node!=node1', ['node2', 'frontend']],
    ['constraint:node==node*', ['node1', 'node2']],
    ['constraint:node==/node[12]/', ['node1', 'node2']],
    ['constraint:node==/(?i)FRONT/', ['frontend']],
    ['constraint:storage==ssd', ['node1']],
    ['constraint:storage!=ssd', ['node2', 'frontend']],
    ['constraint:region!=us*', ['node2', 'frontend']],
    ['constraint:storage==~disk', ['node2', 'frontend']],
    ['constraint:storage==tape', none('storage==tape')],
    ['affinity:container==web', ['node1']],
    ['affinity:container==node1/web', ['node1']],
    ['affinity:container==db', ['node2']],
    ['affinity:container!=web', ['node2', 'frontend']],
    ['affinity:container==nobody', none('container==nobody')],
    ['affinity:image==redis', ['node2']],
    ['affinity:image==redis:6', ['node2']],
    ['affinity:image==registry:5000/redis', ['node1']],
    ['affinity:image==sha256:aa', ['node1']],
    ['affinity:image!=redis*', ['node1', 'frontend']],
    ['affinity:com.example.type==front', ['node1']],
    ['affinity:com.example.type!=front', ['node2', 'frontend']],
    ['affinity:toString==x', none('toString==x')],
  ];
  for (const [text, want] of cases) t.strictSame(left(env(text)), want, text);
});

t.test('a wish counts as long as some node is so', async (t) => {
  t.equal(chosen(env('constraint:storage==~tape', 'constraint:node==node2')), 'node2');
  t.equal(chosen(env('constraint:storage==~ssd')), 'node1');
  t.equal(chosen(env('affinity:container!=~web', 'affinity:container!=~db')), 'frontend');
  t.equal(chosen(env('constraint:node!=~frontend', 'constraint:node==frontend')), 'frontend');
});

t.test('a port of a node is of one container, running or not', async (t) => {
  t.strictSame(left(published({ HostPort: '80' })), ['frontend']);
  t.strictSame(left(published({ HostPort: '80', HostIp: '127.0.0.1' })), ['node2', 'frontend']);
  t.strictSame(left(published({ HostPort: '80' }, '80/udp')), ['node1', 'node2', 'frontend']);
  t.strictSame(left(published({ HostPort: '' })), ['node1', 'node2', 'frontend'], 'any port');
  t.strictSame(left(published({ HostPort: '8000-8010' })), ['node1', 'node2', 'frontend']);
  const full = NODES.map((node) => ({
    ...node,
    containers: [containerOf('x', { ports: [PORT_80] })],
  }));
  t.equal(
    chosen(published({ HostPort: '80' }), full),
    'unable to find a node with port 80 available',
  );
  t.equal(
    chosen({ ExposedPorts: { '80/tcp': {} }, HostConfig: { NetworkMode: 'host' } }, full),
    'unable to find a node with port 80/tcp available in the Host mode',
  );
});

t.test('containers that belong together are put together, or not at all', async (t) => {
  const host = (HostConfig: Readonly<Record<string, unknown>>) => ({ HostConfig });
  t.equal(chosen(host({ VolumesFrom: ['db:ro'] })), 'node2');
  t.equal(chosen(host({ Links: ['web:w'] })), 'node1');
  t.equal(chosen(host({ NetworkMode: 'container:web' })), 'node1');
  t.equal(
    chosen(host({ VolumesFrom: ['db'], Links: ['web:w'], NetworkMode: 'container:db' })),
    'Unable to find a node fulfilling all dependencies: --volumes-from=db --link=web:w --net=container:db',
  );
});

t.test('only nodes that are well, active and have an engine', async (t) => {
  const ill = NODES.map((node) => ({ ...node, trouble: 'down' }));
  t.equal(chosen({}, ill), 'No healthy node available in the cluster');
  t.equal(chosen({}, []), 'No nodes available in the cluster');
  t.equal(chosen({}, [...ill, nodeOf('well')]), 'well');
  t.equal(chosen({}, [nodeOf('drained', { isActive: false }), nodeOf('well')]), 'well');
  t.equal(chosen({}, [nodeOf('bare', { hasEngine: false }), nodeOf('well')]), 'well');
  t.match(chosen({}, [nodeOf('bare', { hasEngine: false })]), /has a container engine/);
});

t.test('spread goes where the fewest are, binpack where the most fit', async (t) => {
  const three = [
    nodeOf('a', { containers: [containerOf('1'), containerOf('2', { state: 'exited' })] }),
    nodeOf('b', { containers: [containerOf('3')] }),
    nodeOf('c', { containers: [containerOf('4'), containerOf('5'), containerOf('6')] }),
  ];
  t.equal(chosen({}, three), 'b');
  t.equal(chosen({}, three, 'binpack'), 'c');
  const memory = (Memory: number) => ({ HostConfig: { Memory } });
  const used = [
    nodeOf('a', { containers: [containerOf('1', { memoryBytes: 6_000 })] }),
    nodeOf('b', { containers: [containerOf('2', { memoryBytes: 1_000 }), containerOf('3')] }),
  ];
  t.equal(chosen(memory(1_000), used), 'b', 'less of it is reserved there');
  t.equal(chosen(memory(1_000), used, 'binpack'), 'a');
  t.equal(chosen(memory(3_000), used, 'binpack'), 'b', 'it does not fit on the other');
  t.equal(chosen(memory(9_000), used), 'no resources available to schedule container');
  t.equal(
    chosen({ HostConfig: { NanoCpus: 5e9 } }, used),
    'no resources available to schedule container',
  );
  t.equal(chosen({ HostConfig: { CpuShares: 4 } }, used), 'a', '-c means processors');
});

t.test('whatever is asked of whatever nodes', async () => {
  const arbitraryNode = fc.record({
    containers: fc.integer({ min: 0, max: 4 }),
    ill: fc.boolean(),
    storage: fc.constantFrom('ssd', 'disk', ''),
    memoryBytes: fc.integer({ min: 0, max: 20 }),
  });
  const arbitrary = fc.record({
    nodes: fc.array(arbitraryNode, { maxLength: 6 }),
    expressions: fc.array(
      fc.constantFrom('storage==ssd', 'storage!=ssd', 'storage==~disk', 'node!=~n0', 'node==n*'),
      { maxLength: 3 },
    ),
    memory: fc.integer({ min: 0, max: 20 }),
    strategy: fc.constantFrom<ClassicStrategy>('spread', 'binpack', 'random'),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(arbitrary, ({ nodes: shapes, expressions, memory, strategy, seed }) => {
      const nodes = shapes.map(({ containers, ill, storage, memoryBytes }, at) =>
        nodeOf(`n${at}`, {
          containers: Array.from({ length: containers }, (_, i) => containerOf(`${at}-${i}`)),
          labels: storage === '' ? {} : { storage },
          memoryBytes,
          ...(ill ? { trouble: 'down' } : {}),
        }),
      );
      const { wish } = asked({
        Env: expressions.map((one) => `constraint:${one}`),
        HostConfig: { Memory: memory },
      });
      const node = chooseNode(nodes, wish, strategy, new Prng(seed));
      const fits = filterNodes(nodes, wish, false);
      // Whatever was wished for, it ends on a node that satisfies all demands, or on none.
      if (typeof node === 'string') {
        if (typeof fits === 'string' || strategy === 'random') return typeof fits === 'string';
        return fits.every(({ memoryBytes }) => memory > 0 && memoryBytes < memory);
      }
      if (typeof fits === 'string' || !fits.includes(node) || node.trouble !== undefined)
        return false;
      if (strategy !== 'spread' || memory > 0 || expressions.some((one) => one.includes('~')))
        return true;
      return fits.every(({ containers }) => containers.length >= node.containers.length);
    }),
  );
});
