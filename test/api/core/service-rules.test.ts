import t from 'tap';
import { checkServiceSpec } from '../../../src/api/core/service-rules.js';
import type { ContainerSpec, ServiceSpec } from '../../../src/base/service-model.js';

const task = (over: object, container: object = {}): ServiceSpec => ({
  name: 'web',
  labels: {},
  mode: { kind: 'global' },
  task: { container: { image: 'host', ...container } as ContainerSpec, ...over },
});

const labelled = (labels: Readonly<Record<string, string>>): ServiceSpec => ({
  ...task({}),
  labels,
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
    'an allow-list that is none',
    labelled({ 'shoal.allow-from': '10.0.0.0/8,office' }),
    'label shoal.allow-from=10.0.0.0/8,office is not valid: it must be 1 to 256 addresses and CIDRs, as in 10.0.0.0/8,2001:db8::/32',
  ],
  [
    'an address to bind to that is none',
    labelled({ 'shoal.bind': '10.0.0' }),
    'label shoal.bind=10.0.0 is not valid: it must be 1 to 256 addresses, CIDRs and names of interfaces, as in 10.0.0.0/8,::1,eth1',
  ],
  [
    'a check of a port that is not told',
    labelled({ 'shoal.check': 'tcp' }),
    'label shoal.check=tcp needs shoal.check.port: the service publishes no TCP port',
  ],
  [
    'a rate without its time',
    labelled({ 'shoal.rate': '5' }),
    'label shoal.rate=5 is not valid: it must be new flows per second as N/s, with N from 1 up to 999999',
  ],
  [
    'fewer than no tasks at a time',
    { ...task({}), update: { parallelism: -1 } },
    'TaskSpec: update-parallelism cannot be negative',
  ],
  [
    'a host name with a field that is none',
    task({}, { hostname: '{{.Node.Colour}}' }),
    'expanding hostname failed: there is no field .Node.Colour',
  ],
  [
    'a variable whose template has no end',
    task({}, { env: ['GOOD={{.Task.Slot}}', 'BAD={{.Task.Slot'] }),
    'expanding env failed: {{ is never closed by }}',
  ],
  [
    'a mount with what is no field',
    task({}, { mounts: [{ type: 'volume', source: '{{end}}', target: '/x' }] }),
    'expanding mounts failed: {{end}} is not understood: fields such as {{.Task.Slot}} and {{index .Service.Labels "key"}} are',
  ],
  [
    'a text with a mark of its own',
    task({}, { hostname: '{{"\\x41"}}' }),
    'expanding hostname failed: the text "\\x41" is not understood: `…` takes all characters as they are',
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
  const templates = {
    hostname: '{{.Node.Hostname}}-{{.Service.Name}}.{{.Task.Slot}}',
    env: ['A={{index .Service.Labels "none"}}{{.Service.Labels.none}}', '{{=x', 'PLAIN'],
    mounts: [{ type: 'volume', source: '{{.Task.ID}}', target: '/{{.Node.Platform.OS}}' }],
  };
  t.doesNotThrow(() => checkServiceSpec(task({}, templates)));
});
