import fc from 'fast-check';
import t from 'tap';
import { serviceJson } from '../../../src/api/wire/service-json.js';
import { readServiceSpec } from '../../../src/api/wire/service-requests.js';
import type { ServiceId } from '../../../src/base/swarm-model.js';
import { serviceObject } from '../fake-backend.js';
import { runs } from '../runs.js';

/** Every flag of `docker service create`: what is read and shown is read as the same again. */

const word = fc.stringMatching(/^[a-z][a-z0-9.-]{0,8}$/);
const list = fc.array(word, { minLength: 1, maxLength: 3 });
const map = fc.dictionary(word, fc.string({ maxLength: 5 }), { minKeys: 1, maxKeys: 3 });
const count = fc.integer({ min: 1, max: 2 ** 40 });
/** Up to twelve days to the nanosecond; what is longer has whole milliseconds. */
const duration = fc.oneof(
  fc.integer({ min: 1, max: 2 ** 50 }),
  fc.integer({ min: 1, max: 2 ** 43 }).map((ms) => ms * 1_000_000),
);
const some = <T>(record: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(record, { requiredKeys: [] });
const file = fc.record({ Name: word, UID: word, GID: word, Mode: fc.nat(0o777) });

const mount = fc.record(
  {
    Type: fc.constantFrom('bind', 'volume', 'tmpfs', 'npipe', 'cluster', 'image'),
    Source: word,
    Target: word,
    ReadOnly: fc.constant(true),
    Consistency: word,
    BindOptions: some({
      Propagation: fc.constantFrom('rprivate', 'shared', 'rslave'),
      NonRecursive: fc.constant(true),
      CreateMountpoint: fc.constant(true),
      ReadOnlyNonRecursive: fc.constant(true),
      ReadOnlyForceRecursive: fc.constant(true),
    }),
    VolumeOptions: some({
      NoCopy: fc.constant(true),
      Labels: map,
      Subpath: word,
      DriverConfig: some({ Name: word, Options: map }),
    }),
    TmpfsOptions: some({
      SizeBytes: count,
      Mode: fc.integer({ min: 1, max: 0o777 }),
      Options: fc.array(list, { minLength: 1, maxLength: 2 }),
    }),
  },
  { requiredKeys: ['Type', 'Target'] },
);

const container = fc.record(
  {
    Image: word,
    Labels: map,
    Command: list,
    Args: list,
    Hostname: word,
    Env: list,
    Dir: word,
    User: word,
    Groups: list,
    Privileges: fc.record(
      {
        CredentialSpec: fc.constantFrom(null, { Config: '', File: 'f', Registry: '' }),
        SELinuxContext: fc.option(
          fc.record({ Disable: fc.boolean(), User: word, Role: word, Type: word, Level: word }),
        ),
        Seccomp: fc.record({ Mode: fc.constantFrom('default', 'custom'), Profile: word }),
        AppArmor: fc.record({ Mode: fc.constantFrom('default', 'disabled') }),
        NoNewPrivileges: fc.boolean(),
      },
      { requiredKeys: ['CredentialSpec', 'SELinuxContext', 'NoNewPrivileges'] },
    ),
    Init: fc.boolean(),
    StopSignal: word,
    TTY: fc.constant(true),
    OpenStdin: fc.constant(true),
    ReadOnly: fc.constant(true),
    Mounts: fc.array(mount, { minLength: 1, maxLength: 2 }),
    StopGracePeriod: fc.oneof(duration, fc.constant(0)),
    Healthcheck: some({
      Test: list,
      Interval: duration,
      Timeout: duration,
      StartPeriod: duration,
      StartInterval: duration,
      Retries: count,
    }),
    Hosts: list,
    DNSConfig: some({ Nameservers: list, Search: list, Options: list }),
    Secrets: fc.array(fc.record({ File: file, SecretID: word, SecretName: word }), {
      minLength: 1,
      maxLength: 2,
    }),
    Configs: fc.array(
      fc.oneof(
        fc.record({ File: file, ConfigID: word, ConfigName: word }),
        fc.record({ Runtime: fc.constant({}), ConfigID: word, ConfigName: word }),
      ),
      { minLength: 1, maxLength: 2 },
    ),
    Isolation: fc.constantFrom('default', 'process', 'hyperv'),
    Sysctls: map,
    CapabilityAdd: list,
    CapabilityDrop: list,
    Ulimits: fc.array(
      fc.record({ Name: word, Hard: fc.integer({ min: -1 }), Soft: fc.integer({ min: -1 }) }),
      { minLength: 1, maxLength: 2 },
    ),
    OomScoreAdj: fc.integer({ min: -1000, max: -1 }),
  },
  { requiredKeys: ['Image', 'Isolation'] },
);

const update = fc.record(
  {
    Parallelism: fc.nat(9),
    Delay: duration,
    FailureAction: fc.constantFrom('pause', 'continue', 'rollback'),
    Monitor: duration,
    MaxFailureRatio: fc.constantFrom(0, 0.1, 0.25, 1),
    Order: fc.constantFrom('stop-first', 'start-first'),
  },
  { requiredKeys: ['Parallelism', 'FailureAction', 'MaxFailureRatio', 'Order'] },
);

const generic = fc.oneof(
  fc.record({ NamedResourceSpec: fc.record({ Kind: word, Value: word }) }),
  fc.record({ DiscreteResourceSpec: fc.record({ Kind: word, Value: count }) }),
);

const task = fc.record(
  {
    ContainerSpec: container,
    Resources: fc.record(
      {
        Limits: fc.record(
          { NanoCPUs: count, MemoryBytes: count, Pids: count },
          { requiredKeys: ['MemoryBytes'] },
        ),
        Reservations: some({
          NanoCPUs: count,
          MemoryBytes: count,
          GenericResources: fc.array(generic, { minLength: 1, maxLength: 2 }),
        }),
        SwapBytes: fc.integer({ min: -1 }),
        MemorySwappiness: fc.nat(100),
      },
      { requiredKeys: ['Limits'] },
    ),
    RestartPolicy: fc.record(
      {
        Condition: fc.constantFrom('none', 'on-failure', 'any'),
        Delay: fc.oneof(duration, fc.constant(0)),
        MaxAttempts: fc.nat(9),
        Window: fc.oneof(duration, fc.constant(0)),
      },
      { requiredKeys: ['Condition', 'MaxAttempts'] },
    ),
    Placement: some({
      Constraints: list,
      Preferences: fc.array(fc.record({ Spread: fc.record({ SpreadDescriptor: word }) }), {
        minLength: 1,
        maxLength: 2,
      }),
      MaxReplicas: count,
      Platforms: fc.array(some({ Architecture: word, OS: word }), { minLength: 1, maxLength: 2 }),
    }),
    Networks: fc.array(
      fc.record({ Target: word, Aliases: list, DriverOpts: map }, { requiredKeys: ['Target'] }),
      { minLength: 1, maxLength: 2 },
    ),
    LogDriver: fc.record({ Name: word, Options: map }, { requiredKeys: ['Name'] }),
    ForceUpdate: fc.nat(9),
    Runtime: fc.constant('container'),
  },
  { requiredKeys: ['ContainerSpec', 'ForceUpdate', 'Runtime'] },
);

const port = fc.record(
  {
    Name: word,
    Protocol: fc.constantFrom('tcp', 'udp', 'sctp'),
    TargetPort: fc.integer({ min: 1, max: 65_535 }),
    PublishedPort: fc.integer({ min: 1, max: 65_535 }),
    PublishMode: fc.constantFrom('ingress', 'host'),
  },
  { requiredKeys: ['Protocol', 'TargetPort', 'PublishMode'] },
);

const spec = fc.record(
  {
    Name: word,
    Labels: fc.dictionary(word, word, { maxKeys: 3 }),
    TaskTemplate: task,
    Mode: fc.oneof(
      fc.record({ Replicated: fc.record({ Replicas: fc.nat(1000) }) }),
      fc.constant({ Global: {} }),
      fc.record({ ReplicatedJob: fc.record({ MaxConcurrent: count, TotalCompletions: count }) }),
      fc.constant({ GlobalJob: {} }),
    ),
    UpdateConfig: update,
    RollbackConfig: update,
    EndpointSpec: fc.record(
      {
        Mode: fc.constantFrom('vip', 'dnsrr'),
        Ports: fc.array(port, { minLength: 1, maxLength: 3 }),
      },
      { requiredKeys: ['Mode'] },
    ),
  },
  { requiredKeys: ['Name', 'Labels', 'TaskTemplate', 'Mode'] },
);

t.test('a spec in the form of the API comes back as it was', async (t) => {
  fc.assert(
    fc.property(spec, (sent) => {
      const read = readServiceSpec(sent);
      const shown = JSON.parse(
        JSON.stringify(serviceJson(serviceObject('s' as ServiceId, read)).Spec),
      );
      // Objects without a prototype are what fast-check makes.
      t.strictSame(shown, JSON.parse(JSON.stringify(sent)));
      t.strictSame(readServiceSpec(shown), read);
    }),
    { numRuns: runs(300) },
  );
});
