import t, { type Test } from 'tap';
import { TaskInterfaces } from '../../src/agent/task-interfaces.js';
import { taskObject } from '../support/tasks.js';

const NETWORKS = [
  {
    networkId: 'n1',
    attachmentId: 'a1',
    addresses: ['10.0.1.5/24'],
    mac: '02:00:00:00:00:01',
    aliases: [],
  },
];

const CHECKED = `10.0.1.5 of ${taskObject({}).serviceId} is checked`;

/** A task's interfaces, and what is done with them in order. */
function interfaces(listening: () => ReadonlySet<number>) {
  const told: string[] = [];
  const made = new TaskInterfaces({
    attachments: {
      raise: async () => ({}) as never,
      lower: async () => undefined,
      setEndpointState: (id, state) => void told.push(`${id} is ${state}`),
      list: () => [],
    },
    checks: {
      add: (_id, { address, serviceId }) => void told.push(`${address} of ${serviceId} is checked`),
      remove: () => undefined,
    },
    hasOthers: () => false,
    acknowledgements: {
      published: async (topics) => {
        told.push(`all know ${topics.join()}`);
        return true;
      },
      freed: async (id, forMs) => {
        told.push(`${id} is free, or ${forMs} ms`);
        return true;
      },
    },
    portsOf: () => [{ protocol: 'tcp', targetPort: 80 }],
    listeningPorts: listening,
    drainMs: () => 7,
    namesOpened: async () => undefined,
  });
  return { made, told };
}

async function wired(_t: Test, listening: () => ReadonlySet<number>) {
  const task = taskObject({ networks: NETWORKS as never });
  const { made, told } = interfaces(listening);
  await made.wire(task, '/proc/1/ns/net', 'starting');
  told.length = 0;
  return { made, told, id: task.id };
}

t.test('a task gets work when it listens, and counts when all know', async (t) => {
  let looks = 0;
  const { made, told, id } = await wired(t, () => {
    looks += 1;
    return new Set(looks < 3 ? [81] : [80, 81]);
  });
  await made.announce(id);
  t.equal(looks, 3);
  t.strictSame(told, ['a1 is ready', CHECKED, 'all know n1']);
});

t.test('one whose namespace is gone is not waited for', async (t) => {
  const { made, told, id } = await wired(t, () => {
    throw new Error('gone');
  });
  await made.announce(id);
  t.strictSame(told, ['a1 is ready', CHECKED, 'all know n1']);
});

t.test('one that is stopped before it listens gets no work after all', async (t) => {
  const { made, told, id } = await wired(t, () => new Set());
  const announced = made.announce(id);
  await made.drain(id);
  await announced;
  t.notMatch(told, ['a1 is ready']);
});

t.test('a task that is to stop leaves the others first, and then its connections', async (t) => {
  const { made, told, id } = await wired(t, () => new Set());
  await made.drain(id);
  t.strictSame(told, ['a1 is draining', 'all know n1', `${id} is free, or 7 ms`]);
});
