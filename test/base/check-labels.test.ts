import fc from 'fast-check';
import t from 'tap';
import { readCheck } from '../../src/base/check-labels.js';

const PORTS = [
  { protocol: 'udp', targetPort: 53 },
  { protocol: 'tcp', targetPort: 8080 },
];

t.test('a check is what labels say, and of the first TCP port that is published', async (t) => {
  t.strictSame(readCheck({}, PORTS), { check: undefined, problems: [] });
  t.strictSame(readCheck({ 'shoal.check': 'tcp' }, PORTS).check, {
    kind: 'tcp',
    port: 8080,
    path: '/',
    status: [[200, 399]],
    intervalMs: 5000,
    timeoutMs: 2000,
    rise: 2,
    fall: 3,
  });
  const labels = {
    'shoal.check': 'http',
    'shoal.check.port': '81',
    'shoal.check.path': '/health?full',
    'shoal.check.status': '200, 301-303',
    'shoal.check.interval': '250ms',
    'shoal.check.timeout': '1s',
    'shoal.check.rise': '1',
    'shoal.check.fall': '10',
  };
  t.match(readCheck(labels, []), {
    problems: [],
    check: {
      port: 81,
      path: '/health?full',
      status: [
        [200, 200],
        [301, 303],
      ],
      fall: 10,
    },
  });
});

t.test('what is none is one sentence', async (t) => {
  for (const [name, text, sentence] of [
    ['', 'udp', 'label shoal.check=udp is not valid: it must be tcp or http'],
    ['.port', '0', 'label shoal.check.port=0 is not valid: it must be a port of the task'],
    ['.path', 'x', 'a path that begins with /'],
    ['.path', '/a b', 'a path that begins with /'],
    ['.status', '200-100', 'codes, as in 200,300-399'],
    ['.status', '600', 'codes, as in 200,300-399'],
    ['.interval', '10ms', 'from 100ms up to 1h'],
    ['.timeout', '2m', 'from 10ms up to 1m'],
    ['.rise', '0', 'from 1 up to 100'],
    ['.fall', '101', 'from 1 up to 100'],
  ] as const) {
    const read = readCheck({ 'shoal.check': 'http', [`shoal.check${name}`]: text }, PORTS);
    t.equal(read.problems.length, 1);
    t.ok(read.problems[0]?.includes(sentence), `${read.problems[0]}`);
    t.equal(read.check, undefined);
  }
  t.match(readCheck({ 'shoal.check': 'tcp' }, []).problems, [/needs shoal\.check\.port/]);
});

t.test('any text is survived', async () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const name of ['', '.port', '.path', '.status', '.interval', '.rise'])
        readCheck({ [`shoal.check${name}`]: text }, PORTS);
    }),
  );
});
