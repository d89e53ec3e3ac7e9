import t from 'tap';
import {
  type DescriptorLimits,
  type LimitCalls,
  raiseLimits,
} from '../../src/base/descriptor-limits.js';
import { takeStartedSoftLimit } from '../../src/base/io/descriptors.js';

/** A kernel that refuses what a process without rights, or beyond `fs.nr_open`, may not. */
function kernel(held: DescriptorLimits, mayRaise: boolean, mostMax: number): LimitCalls {
  let limits = held;
  return {
    get: () => limits,
    set: (wanted) => {
      if (wanted.hard > mostMax || wanted.soft > wanted.hard) return false;
      if (wanted.hard > limits.hard && !mayRaise) return false;
      limits = wanted;
      return true;
    },
  };
}

const limits = (soft: number, hard: number): DescriptorLimits => ({ soft, hard });
const MANY = 1_048_576;

t.test('limits of descriptors are raised as far as the kernel allows', async (t) => {
  const cases = [
    ['by root', limits(1024, 20_000), true, MANY, limits(262_144, 262_144)],
    [
      'by root, where the kernel allows less',
      limits(1024, 4096),
      true,
      65_536,
      limits(65_536, 65_536),
    ],
    ['the soft one by anybody', limits(1024, 20_000), false, MANY, limits(20_000, 20_000)],
    ['what is raised already', limits(20_000, 20_000), false, MANY, limits(20_000, 20_000)],
    ['a large hard one is used', limits(1024, 524_288), true, MANY, limits(524_288, 524_288)],
    ['a large one stays', limits(MANY, MANY), true, MANY, limits(MANY, MANY)],
  ] as const;
  for (const [name, held, mayRaise, mostMax, now] of cases) {
    const raised = raiseLimits(kernel(held, mayRaise, mostMax), undefined, mostMax);
    t.strictSame(raised, { started: held, now }, name);
  }
});

t.test('what is started gets what there was before Node raised it', async (t) => {
  const started = (soft: number | undefined) =>
    raiseLimits(kernel(limits(20_000, 20_000), true, MANY), soft, MANY).started;
  t.strictSame(started(1024), limits(1024, 20_000));
  t.strictSame(
    started(30_000),
    limits(20_000, 20_000),
    'of another process: no more than there is',
  );
  t.strictSame(started(undefined), limits(20_000, 20_000), 'nobody has said it');
});

t.test('the word of bin/shoal is taken once', async (t) => {
  const env: NodeJS.ProcessEnv = { SHOAL_STARTED_NOFILE: '1024' };
  t.equal(takeStartedSoftLimit(env), 1024);
  t.strictSame(env, {});
  t.equal(takeStartedSoftLimit(env), undefined);
  for (const nonsense of ['unlimited', '-1', '1e3', '99999999999'])
    t.equal(takeStartedSoftLimit({ SHOAL_STARTED_NOFILE: nonsense }), undefined, nonsense);
});
