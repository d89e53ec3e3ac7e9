import t from 'tap';
import { eventOf } from '../../src/agent/swarm-events.js';
import type { ServiceId } from '../../src/base/swarm-model.js';
import type { StoreChange } from '../../src/control/index.js';
import { networkObject, nodeObject, serviceObject } from '../api/fake-backend.js';
import { type Json, recordedEvents } from '../api/recorded.js';

const NOW_MS = 1_800_000_000_000;
const web = serviceObject('s'.repeat(25) as ServiceId, {
  name: 'ev',
  labels: {},
  task: { container: { image: 'lab/box:1' } },
  mode: { kind: 'replicated', replicas: 1 },
});
const updated = (over: object) => ({ ...web, version: 12, updatedAtMs: 77, ...over });
const change = (table: string, before: object | undefined, after: object | undefined) =>
  eventOf({ table, key: 'k', before, after } as unknown as StoreChange, NOW_MS);
const blob = { id: 'k', version: 1, createdAtMs: 5, updatedAtMs: 6, spec: { name: 'evsec' } };

/** Which members an event of this kind may have, as an engine has sent them. */
const recordedKeys = (kind: string, action: string): string[] =>
  recordedEvents
    .filter((one: Json) => one.Type === kind && one.Action === action)
    .map((one: Json) => Object.keys(one.Actor.Attributes).sort().join(' '));

t.test('a service is told of as by an engine', async (t) => {
  const spec = { ...web.spec, mode: { kind: 'replicated', replicas: 2 } };
  const image = { ...web.spec, task: { container: { image: 'lab/box:2' } } };
  const status = (state: string) => ({ updateStatus: { state, message: '' } });
  const cases = [
    [change('service', undefined, web), { name: 'ev' }],
    [change('service', web, updated({})), { name: 'ev' }],
    [
      change('service', web, updated({ spec })),
      { name: 'ev', 'replicas.old': '1', 'replicas.new': '2' },
    ],
    [
      change('service', web, updated({ spec: image })),
      { name: 'ev', 'image.old': 'lab/box:1', 'image.new': 'lab/box:2' },
    ],
    [
      change('service', web, updated(status('updating'))),
      { name: 'ev', 'updatestate.new': 'updating' },
    ],
    [
      change('service', updated(status('updating')), updated(status('completed'))),
      { name: 'ev', 'updatestate.old': 'updating', 'updatestate.new': 'completed' },
    ],
    [change('service', updated(status('updating')), updated({})), { name: 'ev' }],
  ] as const;
  for (const [event, attributes] of cases) {
    t.strictSame(event?.attributes, attributes);
    const keys = Object.keys(attributes).sort().join(' ');
    t.ok(recordedKeys('service', event?.action ?? '').includes(keys), keys);
  }
  t.equal(change('service', web, updated({}))?.atMs, 77);
});

t.test('a service is gone when it is removed, and not once more when its tasks are', async (t) => {
  const going = updated({ pendingDelete: true });
  t.match(change('service', web, going), { action: 'remove', atMs: NOW_MS });
  t.equal(change('service', going, updated({ pendingDelete: true, version: 13 })), undefined);
  t.equal(change('service', going, undefined), undefined);
});

t.test('nodes, networks, secrets and configs are told of by name', async (t) => {
  const node = nodeObject('n', 'mn2');
  t.strictSame(change('node', undefined, node)?.attributes, { name: 'mn2' });
  t.strictSame(
    change('node', node, { ...node, spec: { ...node.spec, availability: 'drain' }, state: 'down' })
      ?.attributes,
    {
      name: 'mn2',
      'availability.old': 'active',
      'availability.new': 'drain',
      'state.old': 'ready',
      'state.new': 'down',
    },
  );
  t.strictSame(change('node', node, { ...node, observedRole: 'manager' })?.attributes, {
    name: 'mn2',
    'role.old': 'worker',
    'role.new': 'manager',
  });
  const moved = { ...node, version: 99, session: { manager: 'm', number: 3 } };
  t.equal(change('node', node, moved), undefined, 'who serves it is nobody’s business');
  for (const kind of ['secret', 'config']) {
    t.match(change(kind, undefined, blob), { kind, action: 'create', atMs: 5 });
    t.match(change(kind, blob, undefined), { action: 'remove', attributes: { name: 'evsec' } });
  }
  const network = networkObject('x', { ...NETWORK, name: 'evnet' }, 4097);
  t.strictSame(change('network', undefined, network)?.attributes, { name: 'evnet' });
  t.ok(recordedKeys('network', 'create').includes('name'));
  t.equal(change('task', undefined, blob), undefined, 'an engine does not tell of tasks');
});

const NETWORK = {
  ...{ name: '', labels: {}, driver: 'overlay', driverOptions: {}, attachable: false },
  ...{
    internal: false,
    ingress: false,
    ipv6: false,
    ipamDriver: 'default',
    ipamOptions: {},
    ipam: [],
  },
};
