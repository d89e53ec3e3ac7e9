import t from 'tap';
import type { CommandBody } from '../../../../src/control/store/core/command.js';
import { Bench } from '../../support.js';
import { configId, secretId, serviceId, serviceSpec } from './commands.js';

const base64 = (bytes: number) => Buffer.alloc(bytes, 'x').toString('base64');
const secret = (n: number, name = `sec${n}`, data = 'eA=='): CommandBody => ({
  kind: 'secret_create',
  id: secretId(n),
  spec: { name, labels: {} },
  data,
});
const config = (n: number, name = `cfg${n}`, data = 'eA=='): CommandBody => ({
  kind: 'config_create',
  id: configId(n),
  spec: { name, labels: {} },
  data,
});

t.test('contents are between one byte and just below the bound, in base64', async (t) => {
  const bench = new Bench();
  const tooLarge = (kind: string, bytes: number) => ({
    code: 'SWARM_INVALID',
    message: `${kind} data must be larger than 0 and less than ${bytes} bytes`,
  });
  for (const data of ['', base64(512_000), 'eA', '!', 'e A=', 'eA==\n'])
    t.strictSame(bench.refusal(secret(1, 'a', data)), tooLarge('secret', 512_000));
  for (const data of ['', base64(1_024_000)])
    t.strictSame(bench.refusal(config(1, 'a', data)), tooLarge('config', 1_024_000));
  bench.do(secret(1, 'a', base64(511_999)));
  bench.do(config(1, 'a', base64(1_023_999)));
  bench.do(secret(2, 'b', base64(1)));
});

t.test('names are Docker’s, and unique among their kind', async (t) => {
  const bench = new Bench();
  const badName =
    'invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]';
  t.equal(bench.refusal(secret(1, ''))?.message, 'name must be provided');
  for (const name of ['-a', 'a-', 'a b', 'ä', 'a/b', '.', 'x'.repeat(65)])
    t.equal(bench.refusal(secret(1, name))?.message, badName, name);
  for (const [n, name] of ['a', 'a.b-c_d', 'x'.repeat(64), '1'].entries())
    bench.do(secret(n, name));
  t.strictSame(bench.refusal(secret(9, 'a')), {
    code: 'SWARM_NAME_TAKEN',
    message: 'secret a already exists',
  });
  bench.do(config(1, 'a'));
  t.strictSame(bench.refusal(config(2, 'a')), {
    code: 'SWARM_NAME_TAKEN',
    message: 'config a already exists',
  });
  t.equal(bench.state.secretByName('a'), secretId(0));
  bench.do({ kind: 'secret_remove', id: secretId(0) });
  t.equal(bench.state.secretByName('a'), undefined);
  bench.do(secret(9, 'a'));
});

t.test('only labels are updated, and only of the version that was read', async (t) => {
  for (const kind of ['secret', 'config'] as const) {
    const bench = new Bench();
    const id = kind === 'secret' ? secretId(1) : configId(1);
    bench.do(kind === 'secret' ? secret(1, 'a') : config(1, 'a'));
    const update = (more: object): CommandBody =>
      ({ kind: `${kind}_update`, id, version: 2, labels: { x: '1' }, ...more }) as CommandBody;
    const onlyLabels = { code: 'SWARM_INVALID', message: 'only updates to Labels are allowed' };
    t.strictSame(bench.refusal(update({ data: 'eHk=' })), onlyLabels);
    t.strictSame(bench.refusal(update({ name: 'b', version: 1 })), onlyLabels);
    t.equal(bench.refusal(update({ version: 1 }))?.code, 'SWARM_OUT_OF_SEQUENCE');
    t.equal(bench.refusal(update({ id: 'none' }))?.message, `${kind} none not found`);
    bench.do(update({ name: 'a', data: 'eA==' }));
    t.match(bench.state.row(kind, id), { version: 3, spec: { labels: { x: '1' } }, data: 'eA==' });
  }
});

t.test('what a service uses is not removed', async (t) => {
  const bench = new Bench();
  bench.do(secret(1));
  bench.do(config(1));
  const file = { name: 'x', uid: '0', gid: '0', mode: 0o444 };
  const container = {
    image: 'host',
    secrets: [{ secretId: secretId(1), secretName: 'sec1', file }],
    configs: [{ configId: configId(1), configName: 'cfg1', file }],
  };
  const create = (n: number, name: string): CommandBody => ({
    kind: 'service_create',
    id: serviceId(n),
    spec: serviceSpec(name, { task: { container } }),
  });
  bench.do(create(1, 'web'));
  const removal = { kind: 'secret_remove', id: secretId(1) } as const;
  t.strictSame(bench.refusal(removal), {
    code: 'SWARM_IN_USE',
    message: "secret 'sec1' is in use by the following service: web",
  });
  bench.do(create(2, 'api'));
  t.equal(
    bench.refusal({ kind: 'config_remove', id: configId(1) })?.message,
    "config 'cfg1' is in use by the following services: api, web",
  );
  for (const n of [1, 2]) bench.do({ kind: 'service_remove', id: serviceId(n) });
  bench.do(removal);
  t.equal(bench.refusal(removal)?.code, 'SWARM_NOT_FOUND');
  t.equal(bench.refusal(create(3, 'late'))?.message, 'secret not found: sec1');
  bench.do({ kind: 'config_remove', id: configId(1) });
  bench.do(secret(1, 'other'));
  t.strictSame(bench.refusal(create(3, 'late')), {
    code: 'SWARM_INVALID',
    message: 'secret not found: sec1',
  });
});
