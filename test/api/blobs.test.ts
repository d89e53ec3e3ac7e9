import t from 'tap';
import { FakeBackend } from './fake-backend.js';
import { serve } from './harness.js';

const encode = (text: string) => Buffer.from(text).toString('base64');
const SECRET = 'correct horse battery staple';
const messageOf = (body: unknown) => (body as { message: string }).message;

/** A logger that remembers all it was given. */
function notebook() {
  const lines: string[] = [];
  const note = (fields: object, message: string) => {
    const error = (fields as { err?: Error }).err;
    lines.push(JSON.stringify(fields), message, String(error?.stack));
  };
  return { lines, log: { debug: note, info: note, warn: note, error: note } };
}

t.test('a secret is made, listed, looked up, relabelled and removed', async (t) => {
  const { call, backend } = await serve(t);
  const labels = { k: 'v' };
  const made = await call('POST', '/secrets/create', {
    Name: 'sec1',
    Labels: labels,
    Data: encode(SECRET),
    Templating: { Name: 'golang' },
  });
  const { ID: id } = made.body as { ID: string };
  t.same([made.status, made.body], [201, { ID: backend.secretObjects[0]?.id }]);
  t.same(backend.asked[0], [
    'createSecret',
    { name: 'sec1', labels, templating: { name: 'golang', options: {} } },
    encode(SECRET),
  ]);
  const shown = {
    ID: id,
    Version: { Index: 9 },
    CreatedAt: '2026-11-20T16:01:46.169Z',
    UpdatedAt: '2026-11-20T16:01:46.17Z',
    Spec: { Name: 'sec1', Labels: labels, Templating: { Name: 'golang' } },
  };
  t.strictSame((await call('GET', '/secrets')).body, [shown]);
  for (const ref of [id, 'sec1', 'secr'])
    t.strictSame((await call('GET', `/secrets/${ref}`)).body, shown, ref);
  const spec = { ...shown.Spec, Labels: {} };
  t.equal((await call('POST', `/secrets/sec1/update?version=9`, spec)).status, 200);
  t.same(backend.asked.at(-1), ['updateSecret', id, 9, { name: 'sec1', labels: {} }]);
  t.same(backend.secretObjects[0]?.spec.labels, {});
  t.equal(backend.secretObjects[0]?.data, encode(SECRET));
  const gone = await call('DELETE', '/secrets/sec1');
  t.same([gone.status, gone.text], [204, '']);
  t.same((await call('GET', '/secrets')).body, []);
});

t.test('a config shows its contents', async (t) => {
  const { call, backend } = await serve(t);
  const spec = { Name: 'cfg1', Labels: {}, Data: encode('conf=1\n') };
  const { body } = await call('POST', '/configs/create', spec);
  t.match((await call('GET', '/configs/cfg1')).body, { ...(body as object), Spec: spec });
  t.match((await call('GET', '/configs')).body, [{ Spec: spec }]);
  const update = await call('POST', '/configs/cfg1/update?version=9', {
    ...spec,
    Labels: { a: '' },
  });
  t.equal(update.status, 200, update.text);
  t.same(backend.configObjects[0]?.spec.labels, { a: '' });
});

t.test('refusals are in the words of the real engine', async (t) => {
  const { call, backend } = await serve(t);
  for (const [kind, root] of [
    ['secret', '/secrets'],
    ['config', '/configs'],
  ] as const) {
    const spec = { Name: 'x1', Labels: {}, Data: encode('a') };
    await call('POST', `${root}/create`, spec);
    const refused = async (
      status: number,
      message: string | RegExp,
      method: string,
      path: string,
      body?: unknown,
    ) => {
      const answer = await call(method, `${root}${path}`, body);
      t.equal(answer.status, status, `${method} ${root}${path} ${answer.text}`);
      t.match(messageOf(answer.body), message);
    };
    const rpc = (code: string, text: string) => `rpc error: code = ${code} desc = ${text}`;
    await refused(409, rpc('AlreadyExists', `${kind} x1 already exists`), 'POST', '/create', spec);
    await refused(404, `${kind} nope not found`, 'GET', '/nope');
    await refused(404, `${kind} nope not found`, 'DELETE', '/nope');
    await refused(404, `${kind} nope not found`, 'POST', '/nope/update?version=1', spec);
    await refused(400, `invalid ${kind} version ''`, 'POST', '/x1/update', spec);
    await refused(
      500,
      rpc('Unknown', 'update out of sequence'),
      'POST',
      '/x1/update?version=1',
      spec,
    );
    await refused(
      400,
      rpc('InvalidArgument', 'only updates to Labels are allowed'),
      'POST',
      '/x1/update?version=9',
      { ...spec, Data: encode('b') },
    );
    backend.refusal = { code: 'SWARM_IN_USE', kind, id: 'x1', by: 'the following service: u' };
    await refused(
      400,
      rpc('InvalidArgument', `${kind} 'x1' is in use by the following service: u`),
      'DELETE',
      '/x1',
    );
    backend.refusal = { code: 'SWARM_NO_QUORUM' };
    await refused(
      500,
      "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.",
      'DELETE',
      '/x1',
    );
    await refused(400, /^invalid filter 'nope'$/, 'GET', '?filters={"nope":{"a":true}}');
    await refused(400, 'invalid value of Data: expected base64', 'POST', '/create', {
      Name: 'y',
      Data: 'no base64!',
    });
    await refused(501, /secret drivers are not supported/, 'POST', '/create', {
      Name: 'y',
      Driver: { Name: 'vault' },
    });
  }
});

t.test('secrets and configs are filtered by id, name and label', async (t) => {
  const { call, backend } = await serve(t);
  for (const [name, labels] of [
    ['web', { a: '1' }],
    ['web-tls', {}],
    ['db', { a: '2' }],
  ] as const) {
    await backend.createSecret({ name, labels }, encode('x'));
    await backend.createConfig({ name, labels }, encode('x'));
  }
  const names = async (root: string, filters: object) => {
    const query = encodeURIComponent(JSON.stringify(filters));
    const { body } = await call('GET', `${root}?filters=${query}`);
    return (body as { Spec: { Name: string } }[]).map(({ Spec }) => Spec.Name);
  };
  for (const root of ['/secrets', '/configs']) {
    t.same(await names(root, { name: ['web'] }), ['web', 'web-tls'], 'a prefix');
    t.same(await names(root, { label: { a: true } }), ['web', 'db']);
    t.same(await names(root, { label: { 'a=1': true } }), ['web']);
    t.same(await names(root, { id: { [`${root.slice(1, -1)}2`]: true } }), ['db']);
  }
  t.same(await names('/secrets', { names: { web: true } }), ['web'], 'the whole name');
  t.equal((await call('GET', '/configs?filters={"names":{"web":true}}')).status, 400);
});

t.test('what a secret holds is in no answer and in no line of the log', async (t) => {
  const backend = FakeBackend.manager();
  const { lines, log } = notebook();
  const { call } = await serve(t, backend, log);
  const data = encode(SECRET);
  const answers: string[] = [];
  const ask = async (method: string, path: string, body?: unknown) => {
    answers.push((await call(method, path, body)).text);
  };
  const spec = { Name: 'sec1', Labels: {}, Data: data };
  await ask('POST', '/secrets/create', spec);
  await ask('POST', '/secrets/create', spec);
  await ask('POST', '/secrets/create', { ...spec, Data: `${data}!` });
  await ask('POST', '/secrets/create', { ...spec, Labels: { a: 1 } });
  await ask('POST', '/secrets/create', `{"Name":"sec1","Data":"${data}"`);
  await ask('POST', '/secrets/sec1/update?version=1', spec);
  await ask('POST', '/secrets/sec1/update?version=9', { ...spec, Data: encode(`${SECRET}2`) });
  await ask('POST', '/secrets/sec1/update?version=9', spec);
  backend.createSecret = async (_spec, given) => {
    throw new Error(`a bug which knows ${given.length} characters`);
  };
  await ask('POST', '/secrets/create', spec);
  for (const path of ['/secrets', '/secrets/sec1', '/info', '/events?until=0', '/swarm', '/nodes'])
    await ask('GET', path);
  for (const path of ['status', 'history', 'metrics']) await ask('GET', `/shoal/v1/${path}`);
  await ask('DELETE', '/secrets/sec1');
  t.ok(
    lines.some((line) => line === 'a request failed'),
    'the log is kept',
  );
  t.ok(answers.some((answer) => answer.includes('sec1')));
  for (const text of [...answers, ...lines]) {
    t.notOk(text.includes(data.slice(0, 12)), text.slice(0, 200));
    t.notOk(text.includes(SECRET), text.slice(0, 200));
  }
});
