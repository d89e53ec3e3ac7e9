import t from 'tap';
import { checkServiceSpec } from '../../../src/api/core/service-rules.js';
import type { ContainerSpec, ServiceSpec } from '../../../src/base/service-model.js';

const task = (over: object, container: object = {}): ServiceSpec => ({
  name: 'web',
  labels: {},
  mode: { kind: 'global' },
  task: { container: { image: 'host', ...container } as ContainerSpec, ...over },
});

const cases: readonly (readonly [string, ServiceSpec, string])[] = [
  [
    'a constraint without an operator',
    task({ placement: { constraints: ['node.role'] } }),
    'constraint expected one operator from ==, !=',
  ],
  [
    'a constraint whose key is none',
    task({ placement: { constraints: ['a b==c'] } }),
    "key 'a b' is invalid",
  ],
  [
    'a constraint without a value',
    task({ placement: { constraints: ['node.role=='] } }),
    "value '' is invalid",
  ],
  [
    'a credential spec that is not there',
    task({}, { privileges: { CredentialSpec: { Config: 'c' } } }),
    "CredentialSpec references config 'c', but that config isn't in config references with RuntimeTarget",
  ],
  [
    'fewer than no tasks at a time',
    { ...task({}), update: { parallelism: -1 } },
    'TaskSpec: update-parallelism cannot be negative',
  ],
];

for (const [name, wrong, words] of cases) {
  t.test(`${name} is refused in the words of the control plane`, async (t) => {
    try {
      checkServiceSpec(wrong);
      t.fail('it was not refused');
    } catch (error) {
      t.match(error, { message: words, detail: { code: 'API_CONTROL_REFUSED' } });
    }
  });
}

t.test('what Docker takes is taken, and wishes too', async (t) => {
  const constraints = [
    ...[
      'node.labels.zone == a b',
      'node.id!=x',
      'node.hostname==web*',
      'node.labels.a==/node[12]/',
    ],
    ...['node.labels.disk==~ssd', 'engine.labels.os !=~(?i)debian'],
  ];
  t.doesNotThrow(() => checkServiceSpec(task({ placement: { constraints } })));
  const privileges = { CredentialSpec: { Config: 'c' } };
  const configs = [{ configId: 'c', configName: 'c', runtime: true }];
  t.doesNotThrow(() => checkServiceSpec(task({}, { privileges, configs })));
});
