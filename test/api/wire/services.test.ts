import t from 'tap';
import { withDefaults } from '../../../src/api/core/service-defaults.js';
import { serviceJson } from '../../../src/api/wire/service-json.js';
import { readServiceSpec } from '../../../src/api/wire/service-requests.js';
import type { ServiceId } from '../../../src/base/swarm-model.js';
import { serviceObject } from '../fake-backend.js';
import { type Json, recordedSpecs, recordings } from '../recorded.js';

const shown = (spec: Json): Json =>
  JSON.parse(JSON.stringify(serviceJson(serviceObject('s' as ServiceId, readServiceSpec(spec)))))
    .Spec;

/** Version 1.44 of the API has brought one more member. */
function asOf145(spec: Json): Json {
  const { Privileges: privileges } = spec.TaskTemplate.ContainerSpec;
  if (privileges) privileges.NoNewPrivileges = false;
  return spec;
}

const answers = recordings.flatMap(({ exchanges }) => exchanges);
const services: Json[] = answers.flatMap(({ path, method, answer }) =>
  method === 'GET' && path.includes('/services') && answer?.message === undefined
    ? [answer ?? []].flat().filter((one: Json) => one.Spec !== undefined)
    : [],
);

t.test('every recorded spec is read and shown as it was, in the same order', async (t) => {
  const specs = [
    ...services.flatMap(({ Spec, PreviousSpec }) => (PreviousSpec ? [Spec, PreviousSpec] : [Spec])),
    ...recordedSpecs.map(asOf145),
  ];
  t.ok(specs.length > 50);
  for (const spec of specs) t.equal(JSON.stringify(shown(spec)), JSON.stringify(spec), spec.Name);
});

t.test('a spec that was sent is shown as the engine shows it', async (t) => {
  let count = 0;
  for (const { exchanges } of recordings) {
    for (const [at, { path, request, status }] of exchanges.entries()) {
      if (!path.endsWith('/create') || status !== 201) continue;
      const after = exchanges
        .slice(at)
        .find(({ answer }) => answer?.Spec?.Name === request.Name)?.answer;
      if (after === undefined) continue;
      count += 1;
      t.equal(JSON.stringify(shown(request)), JSON.stringify(after.Spec), request.Name);
    }
  }
  t.ok(count >= 5);
});

t.test('defaults are inserted as the engine does', async (t) => {
  const pairs = answers.filter(
    ({ query, status }) => query?.['insertDefaults'] === 'true' && status === 200,
  );
  t.ok(pairs.length >= 3);
  for (const { answer } of pairs) {
    const plain = services.find(
      (one) =>
        one.ID === answer.ID &&
        one.Version.Index === answer.Version.Index &&
        !one.Spec.RollbackConfig,
    );
    if (plain === undefined) continue;
    const service = serviceObject('s' as ServiceId, readServiceSpec(plain.Spec));
    t.same(JSON.parse(JSON.stringify(serviceJson(withDefaults(service)).Spec)), answer.Spec);
  }
});
