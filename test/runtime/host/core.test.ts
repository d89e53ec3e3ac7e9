import fc from 'fast-check';
import t from 'tap';
import { capabilitiesOf } from '../../../src/runtime/host/core/capabilities.js';
import { cgroupLayoutOf, cgroupPlanOf } from '../../../src/runtime/host/core/cgroups.js';
import { logOptionsOf } from '../../../src/runtime/host/core/log-options.js';
import { signalOf } from '../../../src/runtime/host/core/signals.js';
import { environmentOf } from '../../../src/runtime/host/core/task-plan.js';
import { usageOf } from '../../../src/runtime/host/core/usage.js';
import { identityOf } from '../../../src/runtime/host/core/users.js';
import { decodePlan, encodePlan, type PlanRecord } from '../../../src/runtime/host/wire/plan.js';

const UNIFIED =
  '30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n';
const OLD = [
  '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
  '35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory',
  '39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids',
  '41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
  '42 31 0:39 /inside /mnt/cpu rw - cgroup cgroup rw,cpu',
].join('\n');

const LIMITS = { limits: { nanoCpus: 1.5e9, memoryBytes: 1000, pids: 7 }, swapBytes: -1 };

t.test('control groups of version 2', async (t) => {
  const layout = cgroupLayoutOf(UNIFIED, () => 'cpuset cpu io memory hugetlb pids\n');
  t.match(layout, { version: 2 });
  const plan = cgroupPlanOf(layout, 'shoal', 'abc', LIMITS);
  const own = '/sys/fs/cgroup/shoal/abc';
  t.strictSame(plan.folders, ['/sys/fs/cgroup/shoal', own]);
  t.strictSame(plan.procs, [`${own}/cgroup.procs`]);
  t.equal(plan.oomEvents, `${own}/memory.events`);
  t.strictSame(plan.unheld, []);
  t.strictSame(
    plan.limits.map(({ path, value }) => [path.replace(`${own}/`, ''), value]),
    [
      ['cpu.max', '150000 100000'],
      ['pids.max', '7'],
      ['memory.max', '1000'],
      ['memory.swap.max', 'max'],
    ],
  );
  t.strictSame(
    plan.delegations.map(({ path, value }) => `${path} ${value}`),
    ['', '/shoal'].flatMap((folder) =>
      ['cpu', 'memory', 'pids'].map((c) => `/sys/fs/cgroup${folder}/cgroup.subtree_control +${c}`),
    ),
  );
});

t.test('control groups of version 1, beside an empty one of version 2', async (t) => {
  const layout = cgroupLayoutOf(OLD, () => '');
  t.equal(layout?.version, 1);
  const plan = cgroupPlanOf(layout, 'shoal', 'abc', { ...LIMITS, swapBytes: 500 });
  t.strictSame(
    plan.limits.map(({ path, value }) => `${path.replace('/sys/fs/cgroup/', '')} ${value}`),
    [
      'cpu,cpuacct/shoal/abc/cpu.cfs_period_us 100000',
      'cpu,cpuacct/shoal/abc/cpu.cfs_quota_us 150000',
      'pids/shoal/abc/pids.max 7',
      'memory/shoal/abc/memory.limit_in_bytes 1000',
      'memory/shoal/abc/memory.memsw.limit_in_bytes 1500',
    ],
  );
  t.equal(plan.procs.length, 3, 'hierarchies that are one are joined once');
  t.strictSame(plan.delegations, []);
});

t.test('what cannot be limited is named', async (t) => {
  const none = cgroupPlanOf(undefined, 'shoal', 'abc', LIMITS);
  t.strictSame(none.unheld, ['limit-cpu', 'limit-pids', 'limit-memory']);
  t.strictSame(none.folders, []);
  const bare = cgroupPlanOf(
    cgroupLayoutOf(UNIFIED, () => 'pids'),
    'shoal',
    'abc',
    LIMITS,
  );
  t.strictSame(bare.unheld, ['limit-cpu', 'limit-memory']);
  t.equal(bare.oomEvents, undefined);
  t.equal(
    cgroupLayoutOf('', () => ''),
    undefined,
  );
});

t.test('usage by the files of either version', async (t) => {
  const files: Record<string, string> = {
    'cpu.stat': 'usage_usec 12\nuser_usec 10\nsystem_usec 2\n',
    'memory.current': '1000\n',
    'memory.stat': 'anon 1\ninactive_file 300\n',
    'memory.max': 'max\n',
    'pids.current': '3\n',
    'pids.max': '9\n',
  };
  const layout = cgroupLayoutOf(UNIFIED, () => 'cpu memory pids');
  if (layout === undefined) throw new Error('there is a layout');
  const usage = usageOf(layout, (_controller, file) => files[file]);
  const want = { cpuNs: 12_000n, cpuSystemNs: 2000n, memoryBytes: 700, pids: 3, pidsLimit: 9 };
  t.strictSame(usage, want);
});

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\n# no one\nweb:x:33:44:web:/srv:/bin/false\n';
const GROUP = 'root:x:0:\nwww:x:44:\nextra:x:55:other,web\nlast:x:66:\n';

t.test('users as docker reads them', async (t) => {
  const cases: readonly (readonly [string, readonly string[], object | string])[] = [
    ['', [], { uid: 0, gid: 0, groups: [], home: '/root' }],
    ['web', [], { uid: 33, gid: 44, groups: [55], home: '/srv' }],
    ['33', [], { uid: 33, gid: 44, groups: [55], home: '/srv' }],
    ['web:last', [], { uid: 33, gid: 66, groups: [], home: '/srv' }],
    ['1234', [], { uid: 1234, gid: 0, groups: [], home: '/' }],
    ['1234:5678', ['last', '9'], { uid: 1234, gid: 5678, groups: [66, 9], home: '/' }],
    ['nobody-here', [], 'unable to find user nobody-here: no matching entries in passwd file'],
    ['web:none', [], 'unable to find group none: no matching entries in group file'],
    ['99999999999', [], 'unable to find user 99999999999: no matching entries in passwd file'],
  ];
  for (const [user, extra, want] of cases) {
    t.strictSame(identityOf(user, extra, PASSWD, GROUP), want, user);
  }
});

t.test('capabilities, signals, environment', async (t) => {
  t.equal(capabilitiesOf([], []), 0xa80425fbn);
  t.equal(capabilitiesOf(['NET_ADMIN'], ['ALL']), 1n << 12n);
  t.equal(capabilitiesOf(['all'], ['CAP_SYS_ADMIN']), ((1n << 41n) - 1n) & ~(1n << 21n));
  t.equal(capabilitiesOf(['FLY'], []), 'FLY');
  for (const [text, want] of [
    ['SIGTERM', 15],
    ['usr1', 10],
    ['9', 9],
    ['SIGRTMIN+3', 37],
    ['RTMAX', 64],
    ['RTMAX+1', undefined],
    ['0', undefined],
    ['toString', undefined],
  ] as const) {
    t.equal(signalOf(text), want, text);
  }
  t.strictSame(environmentOf(['A=1', 'B=2'], ['A=x=y', 'B', 'C=']), ['A=x=y', 'C=']);
});

t.test('log options', async (t) => {
  t.equal(logOptionsOf({ name: 'none' }), undefined);
  t.strictSame(logOptionsOf(undefined), { fileBytesMax: 20 * 2 ** 20, filesMax: 3 });
  const options = { 'max-size': '1.5k', 'max-file': '2', tag: 'x' };
  t.strictSame(logOptionsOf({ name: 'local', options }), { fileBytesMax: 1536, filesMax: 2 });
  for (const driver of [
    { name: 'syslog' },
    { name: 'local', options: { colour: 'red' } },
    { name: 'json-file', options: { 'max-size': 'much' } },
    { name: 'json-file', options: { 'max-file': '0' } },
  ]) {
    t.throws(() => logOptionsOf(driver), JSON.stringify(driver));
  }
});

t.test('property: a plan comes back as it went', async (t) => {
  const record = fc
    .tuple(
      fc.constantFrom('D' as const, 'm' as const, 'f' as const),
      fc.array(fc.oneof(fc.string(), fc.uint8Array({ maxLength: 300 })), { maxLength: 6 }),
    )
    .map(([op, values]): PlanRecord => [op, ...values]);
  fc.assert(
    fc.property(fc.array(record, { maxLength: 10 }), (records) => {
      const bytes = encodePlan(records);
      const back = decodePlan(bytes.subarray(4));
      const plain = (list: readonly PlanRecord[] | undefined) =>
        list?.map(([op, ...values]) => [op, ...values.map((v) => Buffer.from(v).toString('hex'))]);
      t.strictSame(plain(back), plain(records));
    }),
    { numRuns: 50 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      decodePlan(bytes);
      return true;
    }),
  );
});
