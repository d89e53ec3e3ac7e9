import fc from 'fast-check';
import t from 'tap';
import { parseConstraint, satisfies } from '../../src/base/constraint.js';
import { nodeOf } from '../control/orchestrate/objects.js';

const node = nodeOf('alpha-1', {
  labels: { zone: 'a', disk: 'ssd1', empty: '' },
  engineLabels: { storage: 'zfs' },
  role: 'manager',
  address: '10.1.2.3',
});

function isSatisfied(text: string): boolean | string {
  const constraint = parseConstraint(text);
  return typeof constraint === 'string' ? constraint : satisfies(node, constraint);
}

t.test('keys and operators that Docker knows', async (t) => {
  const cases: readonly (readonly [string, boolean])[] = [
    ['node.id==alpha-1', true],
    ['node.id!=alpha-1', false],
    ['NODE.ID == ALPHA-1', true],
    ['node.hostname==alpha-1', true],
    ['node.hostname!=beta', true],
    ['node==alpha-1', true],
    ['node.role==manager', true],
    ['node.role!=manager', false],
    ['node.platform.os==linux', true],
    ['node.platform.arch==x86_64', true],
    ['node.platform.arch==amd64', true],
    ['node.platform.arch!=amd64', false],
    ['node.labels.zone==a', true],
    ['node.labels.zone==A', true],
    ['node.labels.ZONE==a', false],
    ['node.labels.zone!=b', true],
    ['node.labels.none!=b', true],
    ['node.labels.none==b', false],
    ['node.labels.toString==b', false],
    ['engine.labels.storage==zfs', true],
    ['engine.labels.storage!=zfs', false],
    ['node.ip==10.1.2.3', true],
    ['node.ip!=10.1.2.3', false],
    ['node.ip==10.1.0.0/16', true],
    ['node.ip!=10.1.0.0/16', false],
    ['node.ip==fd00::/8', false],
    ['node.ip==nowhere', false],
    ['node.colour==red', false],
    ['node.colour!=red', false],
  ];
  for (const [text, want] of cases) t.equal(isSatisfied(text), want, text);
});

t.test('globs and regular expressions of the classic Swarm', async (t) => {
  const cases: readonly (readonly [string, boolean])[] = [
    ['node.labels.disk==ssd*', true],
    ['node.labels.disk==SSD*', true],
    ['node.labels.disk==*1', true],
    ['node.labels.disk==s*1', true],
    ['node.labels.disk==ss', false],
    ['node.labels.disk!=ssd*', false],
    ['node.labels.zone==a.', false],
    ['node.labels.disk==/ssd[12]/', true],
    ['node.labels.disk==/^sd/', false],
    ['node.labels.disk==/SSD/', false],
    ['node.labels.disk==/(?i)SSD/', true],
    ['node.labels.disk!=/ssd[34]/', true],
    ['node.hostname==/alpha-\\d/', true],
    ['node.ip==10.1.*', true],
  ];
  for (const [text, want] of cases) t.equal(isSatisfied(text), want, text);
});

t.test('a tilde makes it a wish', async (t) => {
  t.match(parseConstraint('node.labels.zone==~b'), { isSoft: true, isEqual: true, value: 'b' });
  t.match(parseConstraint('node.labels.zone!=~b*'), { isSoft: true, isEqual: false });
  t.match(parseConstraint('node.labels.zone==b'), { isSoft: false });
});

t.test('what is none is refused in Docker words', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['node.id', 'constraint expected one operator from ==, !='],
    ['node.id=a', 'constraint expected one operator from ==, !='],
    ['no-de$==a', "key 'no-de$' is invalid"],
    ['1a==a', "key '1a' is invalid"],
    ['==a', "key '' is invalid"],
    ['node.id==', "value '' is invalid"],
    ['node.id==a,b', "value 'a,b' is invalid"],
    ['node.id==/[/', "value '/[/' is invalid"],
    ['node.id==/(a+)+b/', "value '/(a+)+b/' is invalid: it has too many repetitions"],
    ['node.id==/a*b*c*d*/', "value '/a*b*c*d*/' is invalid: it has too many repetitions"],
  ];
  for (const [text, want] of cases) t.equal(parseConstraint(text), want, text);
});

t.test('whatever is asked, there is an answer, and soon', async (t) => {
  const value = fc.string({ unit: fc.constantFrom(...'ab1*+?()[]\\^$|/.~-'), maxLength: 24 });
  fc.assert(
    fc.property(value, fc.boolean(), (text, isEqual) => {
      const constraint = parseConstraint(`node.labels.long${isEqual ? '==' : '!='}${text}`);
      if (typeof constraint === 'string') return;
      const startMs = performance.now();
      satisfies(nodeOf('n', { labels: { long: 'ab1'.repeat(200) } }), constraint);
      t.ok(performance.now() - startMs < 2_000);
    }),
    { numRuns: 2_000 },
  );
});
