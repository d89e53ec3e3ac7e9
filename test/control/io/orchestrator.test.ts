import t from 'tap';
import type { ServiceSpec } from '../../../src/base/service-model.js';
import { until, World } from './managers.js';

function serviceSpec(name: string, replicas: number, more: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    name,
    labels: {},
    task: { container: { image: 'host' } },
    mode: { kind: 'replicated', replicas },
    ...more,
  };
}

t.test(
  'the leader makes tasks of services and places them, and the next leader goes on',
  async (t) => {
    await World.run({}, async (world) => {
      await world.worker();
      await world.worker();
      const { id } = await world.manager.createService(serviceSpec('web', 4), {});
      const tasks = () => world.manager.tasksOfService(id);
      await until(
        'all have a place',
        () => tasks().every(({ nodeId }) => nodeId) && tasks().length === 4,
      );
      t.strictSame(
        tasks().map(({ slot, status, desiredState }) => [slot, status.state, desiredState]),
        [1, 2, 3, 4].map((slot) => [slot, 'assigned', 'running']),
      );
      const before = tasks().map(({ id: task }) => task);

      await world.first.close();
      await world.first.reopen();
      const version = world.manager.service(id)?.version ?? 0;
      await world.manager.updateService(id, version, {
        spec: serviceSpec('web', 6),
        rollback: false,
        auth: {},
        authFrom: 'spec',
      });
      await until('there are six', () => tasks().length === 6);
      t.ok(
        before.every((task) => tasks().some((now) => now.id === task)),
        'none was replaced',
      );

      await world.manager.removeService(id);
      // No agent is there to end them; but those that nobody has begun with need no ending.
      await until('all are to go', () => tasks().every((task) => task.desiredState === 'remove'));
    });
  },
);

t.test('a task without a place says why', async (t) => {
  await World.run({}, async (world) => {
    const { id } = await world.manager.createService(
      serviceSpec('web', 1, {
        task: {
          container: { image: 'host' },
          placement: { constraints: ['node.labels.zone==mars'] },
        },
      }),
      {},
    );
    const task = () => world.manager.tasksOfService(id)[0];
    await until('it says so', () => task()?.status.error !== undefined);
    t.match(task(), {
      status: {
        state: 'pending',
        error: 'no suitable node (scheduling constraints not satisfied on 1 node)',
      },
    });
    const version = world.manager.node(world.first.id)?.version ?? 0;
    await world.manager.updateNode(world.first.id, version, {
      name: '',
      role: 'manager',
      availability: 'active',
      labels: { zone: 'mars' },
    });
    await until('it has one', () => task()?.nodeId === world.first.id);
  });
});
