import { readFileSync } from 'node:fs';
import t from 'tap';
import type { SwarmErrorDetail } from '../../src/base/swarm-error.js';
import type { NetworkSpec } from '../../src/base/swarm-model.js';
import { FakeBackend, networkObject, nodeObject } from './fake-backend.js';
import { serve } from './harness.js';

/** A real CLI's requests are put to this server; the real engine's answers say what must be in ours. */

type Kind = 'null' | 'boolean' | 'number' | 'string' | 'array' | 'object';
interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly request?: unknown;
  readonly status: number;
  readonly message?: string;
  readonly shape?: string;
}
interface Fixture {
  readonly shapes: Readonly<Record<string, Readonly<Record<string, Kind | Kind[]>>>>;
  readonly recordings: readonly {
    readonly name: string;
    readonly command: string;
    readonly exchanges: readonly Exchange[];
  }[];
}

const fixture = JSON.parse(
  readFileSync(new URL('../fixtures/docker-api/replay.json', import.meta.url), 'utf8'),
) as Fixture;

const NETWORK: NetworkSpec = {
  name: '',
  labels: {},
  driver: 'overlay',
  driverOptions: {},
  attachable: true,
  internal: false,
  ingress: false,
  ipv6: false,
  ipamDriver: 'default',
  ipamOptions: {},
  ipam: [],
};

const refusing = (refusal: SwarmErrorDetail, backend = new FakeBackend()) =>
  Object.assign(backend, { refusal });

function withNetworks(...names: string[]): FakeBackend {
  const backend = FakeBackend.manager();
  backend.networkObjects = names.map((name, index) =>
    networkObject(`net${name}`, { ...NETWORK, name }, 4097 + index),
  );
  return backend;
}

function withTwoManagers(): FakeBackend {
  const backend = FakeBackend.manager();
  backend.nodeObjects = [
    nodeObject('manager', 'mn1', { leader: true }),
    nodeObject('worker', 'mn2', { leader: false }),
  ];
  backend.local = { ...backend.local, managers: 2 };
  return backend;
}

async function workerWithNetwork(): Promise<FakeBackend> {
  const backend = FakeBackend.worker();
  backend.networkObjects = withNetworks('ov1').networkObjects;
  await backend.attach({ network: 'ov1', target: { kind: 'host' }, aliases: [] });
  return backend;
}

function withAutolock(): FakeBackend {
  const backend = withRotatedRoot();
  const { cluster } = backend.local;
  if (cluster === undefined) throw new Error('a manager has a cluster');
  const spec = { ...cluster.spec, autolock: true };
  backend.local = { ...backend.local, cluster: { ...cluster, spec } };
  backend.key = UNLOCK_KEY;
  return backend;
}

function withRotatedRoot(): FakeBackend {
  const backend = FakeBackend.manager();
  const { cluster } = backend.local;
  if (cluster === undefined) throw new Error('a manager has a cluster');
  const spec = { ...cluster.spec, ca: { forceRotate: 1, externalCas: [] } };
  backend.local = { ...backend.local, cluster: { ...cluster, spec } };
  return backend;
}

async function withBlobs(): Promise<FakeBackend> {
  const backend = FakeBackend.manager();
  await backend.createSecret({ name: 'sec1', labels: { k: 'v' } }, 'czNjcjN0');
  await backend.createConfig({ name: 'cfg1', labels: { k: 'v' } }, 'Y29uZj0xCg==');
  return backend;
}

const UNLOCK_KEY = 'SWMKEY-1-ZN/Z5zUuKepsoVEBdtHWm503UPR+w+ClJwPGVeZeoEE';

const expected = '6c319980affc1c26e1fc76fe3e2bb346b60c2902ecc9d65ee581129fb4c6531f';

/** In which state each recording found its engine, where that was not a manager's without networks. */
const STATES: Readonly<Record<string, () => FakeBackend | Promise<FakeBackend>>> = {
  '001': () => new FakeBackend(),
  '003': () => new FakeBackend(),
  '004': () => new FakeBackend(),
  '006': () => new FakeBackend(),
  '007': () => new FakeBackend(),
  '008': () => new FakeBackend(),
  '010': () => new FakeBackend(),
  '011': () => new FakeBackend(),
  '016': () => new FakeBackend(),
  '017': () => refusing({ code: 'SWARM_TOKEN_REFUSED' }),
  '018': () => refusing({ code: 'SWARM_CA_MISMATCH', expected }),
  '019': () => refusing({ code: 'SWARM_JOIN_TIMEOUT' }),
  '020': () => new FakeBackend(),
  '022': () => FakeBackend.worker(),
  '023': withTwoManagers,
  '024': () => FakeBackend.worker(),
  '026': withTwoManagers,
  '030': () => FakeBackend.worker(),
  '035': withTwoManagers,
  '036': withTwoManagers,
  '037': withTwoManagers,
  '044': withRotatedRoot,
  '045': withAutolock,
  '046': withAutolock,
  '062': withBlobs,
  '063': withBlobs,
  '064': withBlobs,
  '065': withBlobs,
  '067': withBlobs,
  '068': withBlobs,
  '069': withBlobs,
  '070': withBlobs,
  '123': withBlobs,
  '179': withBlobs,
  '188': withTwoManagers,
  '050': () => withNetworks('ov1'),
  '051': () => withNetworks('ov2'),
  '052': () => FakeBackend.worker(),
  '053': () => withNetworks('ov1', 'ov2', 'ov3'),
  '054': workerWithNetwork,
  '055': () => withNetworks('ov1', 'ov2'),
  '056': () => withNetworks('ov1'),
  '057': () => withNetworks('ov1'),
  '059': () => withNetworks('ov1', 'ov2'),
  '181': () => withNetworks('ov1'),
  '182': () => withNetworks('ov3'),
  '184': () => FakeBackend.worker(),
  '185': withTwoManagers,
  '186': withTwoManagers,
  '190': () =>
    Object.assign(FakeBackend.manager(), {
      nodeObjects: [nodeObject('manager', 'mn1', { leader: true })],
    }),
  '192': () => new FakeBackend(),
};

const kindOf = (value: unknown): Kind => {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : (typeof value as Kind);
};

/** Every value at a path like `[].Spec.Labels`. */
function valuesAt(body: unknown, path: string): unknown[] {
  let found: unknown[] = [body];
  for (const part of path.match(/\.[^.[\]]+|\[\]/g) ?? []) {
    found = found.flatMap((value) => {
      if (part === '[]') return Array.isArray(value) ? value : [];
      if (value === null || typeof value !== 'object') return [];
      const member = (value as Record<string, unknown>)[part.slice(1)];
      return member === undefined ? [] : [member];
    });
  }
  return found;
}

/** The path of every member of an answer; labels are the user's own. */
function pathsOf(value: unknown, path = ''): string[] {
  if (value === null || typeof value !== 'object') return [path];
  if (Array.isArray(value)) return [path, ...value.flatMap((item) => pathsOf(item, `${path}[]`))];
  if (path.endsWith('.Labels')) return [path];
  return [
    path,
    ...Object.entries(value).flatMap(([name, member]) => pathsOf(member, `${path}.${name}`)),
  ];
}

/** Go reads `null` as an empty list, map or pointer. */
const fits = (kind: Kind, wanted: readonly Kind[]) =>
  wanted.includes(kind) ||
  (kind === 'null' && (wanted.includes('array') || wanted.includes('object'))) ||
  (wanted.includes('null') && (kind === 'array' || kind === 'object'));

for (const { name, command, exchanges } of fixture.recordings) {
  t.test(`${name}: ${command} is answered as by the real engine`, async (t) => {
    const backend = await (STATES[name.slice(0, 3)] ?? FakeBackend.manager)();
    const { call } = await serve(t, backend);
    for (const exchange of exchanges) {
      const query = new URLSearchParams(exchange.query);
      if (query.has('version')) {
        const isNode = exchange.path.includes('/nodes/');
        query.set('version', String(isNode ? 9 : (backend.local.cluster?.version ?? 0)));
      }
      const path = query.size === 0 ? exchange.path : `${exchange.path}?${query}`;
      const answer = await call(exchange.method, path, exchange.request);
      t.equal(
        answer.status,
        exchange.status,
        `${exchange.method} ${path}: ${answer.text.slice(0, 200)}`,
      );
      if (exchange.message !== undefined) {
        t.same(answer.body, { message: exchange.message });
        t.equal(answer.headers['content-type'], 'application/json');
      }
      if (exchange.shape === undefined) continue;
      if (exchange.shape.includes(' all ')) {
        const known = fixture.shapes[exchange.shape] ?? {};
        const added = pathsOf(answer.body).filter((at) => !/^(\[\])?$/.test(at) && !(at in known));
        // Docker leaves out the pools it was not given; the list is there either way.
        t.strictSame(
          added.filter((at) => at !== '.DefaultAddrPool[]'),
          [],
          `${path} has no other members`,
        );
      }
      for (const [field, wanted] of Object.entries(fixture.shapes[exchange.shape] ?? {})) {
        const kinds = valuesAt(answer.body, field).map(kindOf);
        if (kinds.length === 0) t.fail(`${path} lacks ${field}`);
        for (const kind of kinds) {
          if (!fits(kind, [wanted].flat()))
            t.fail(`${path} ${field}: ${kind} instead of ${wanted}`);
        }
      }
    }
  });
}
