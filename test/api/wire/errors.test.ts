import t from 'tap';
import { apiRefusal, swarmRefusal } from '../../../src/api/wire/errors.js';
import type { SwarmErrorDetail } from '../../../src/base/swarm-error.js';

t.test('each refusal has its status and its words', async (t) => {
  const rpc = (code: string, text: string) => `rpc error: code = ${code} desc = ${text}`;
  const cases: readonly (readonly [SwarmErrorDetail, number, string | RegExp])[] = [
    [
      { code: 'SWARM_INACTIVE' },
      503,
      /^This node is not a swarm manager\. Use "docker swarm init"/,
    ],
    [{ code: 'SWARM_NOT_MANAGER' }, 503, /^This node is not a swarm manager\. Worker nodes can't/],
    [{ code: 'SWARM_ALREADY_ACTIVE' }, 503, /^This node is already part of a swarm\./],
    [{ code: 'SWARM_NOT_PART' }, 503, 'This node is not part of a swarm'],
    [{ code: 'SWARM_MANAGER_LEAVE', last: true }, 503, /Removing the last manager erases .* $/],
    [
      { code: 'SWARM_MANAGER_LEAVE', last: false },
      503,
      /Use `--force` to suppress this message\.$/,
    ],
    [{ code: 'SWARM_BAD_ADDRESS', kind: 'advertise' }, 400, /^advertise address must be/],
    [{ code: 'SWARM_BAD_ADDRESS', kind: 'listen' }, 400, /^listen address must be/],
    [{ code: 'SWARM_BAD_ADDRESS', kind: 'dataPath' }, 400, /^data path address must be/],
    [{ code: 'SWARM_BAD_ADDRESS', kind: 'remote' }, 400, /^remote address must be/],
    [
      { code: 'SWARM_AMBIGUOUS_ADDRESS', candidates: ['10.0.0.1', '10.0.1.1'] },
      400,
      /multiple addresses \(10\.0\.0\.1 and 10\.0\.1\.1\)$/,
    ],
    [{ code: 'SWARM_TOKEN_MALFORMED' }, 500, 'invalid join token'],
    [{ code: 'SWARM_TOKEN_REFUSED' }, 400, /A valid join token is necessary to join this cluster$/],
    [{ code: 'SWARM_CA_MISMATCH', expected: 'ab' }, 500, /fingerprint\. Expected: ab$/],
    [{ code: 'SWARM_JOIN_TIMEOUT' }, 503, /^Timeout was reached before node joined\./],
    [{ code: 'SWARM_NO_MANAGER' }, 500, /The swarm does not have a leader\./],
    [{ code: 'SWARM_NOT_FOUND', kind: 'node', ref: 'x' }, 404, 'node x not found'],
    [
      { code: 'SWARM_AMBIGUOUS', kind: 'node', ref: 'x', count: 2 },
      400,
      /^node x is ambiguous \(2/,
    ],
    [
      { code: 'SWARM_NAME_TAKEN', kind: 'network', name: 'ov1' },
      409,
      'network with name ov1 already exists',
    ],
    [
      { code: 'SWARM_NAME_TAKEN', kind: 'secret', name: 's' },
      409,
      rpc('AlreadyExists', 'secret s already exists'),
    ],
    [
      { code: 'SWARM_IN_USE', kind: 'network', id: 'n', by: 'task t' },
      400,
      rpc('FailedPrecondition', 'network n is in use by task t'),
    ],
    [{ code: 'SWARM_OUT_OF_SEQUENCE' }, 500, rpc('Unknown', 'update out of sequence')],
    [
      { code: 'SWARM_NODE_NOT_DOWN', nodeId: 'n' },
      400,
      rpc('FailedPrecondition', "node n is not down and can't be removed"),
    ],
    [
      { code: 'SWARM_NOT_ATTACHABLE', network: 'ingress' },
      403,
      rpc('PermissionDenied', 'network ingress not manually attachable'),
    ],
    [
      { code: 'SWARM_NAME_TAKEN', kind: 'service', name: 'web' },
      409,
      rpc('AlreadyExists', 'name conflicts with an existing object: service web already exists'),
    ],
    [
      { code: 'SWARM_IN_USE', kind: 'config', id: 'c', by: 'the following services: a, b' },
      400,
      rpc('InvalidArgument', "config 'c' is in use by the following services: a, b"),
    ],
    [{ code: 'SWARM_NO_QUORUM' }, 500, /^rpc error: code = Unknown desc = The swarm does not have/],
    [{ code: 'SWARM_LOCKED' }, 503, /^Swarm is encrypted and needs to be unlocked before/],
    [{ code: 'SWARM_NOT_LOCKED' }, 409, 'swarm is not locked'],
    [
      { code: 'SWARM_UNLOCK_KEY_REFUSED' },
      401,
      'swarm could not be unlocked: invalid key provided',
    ],
    [{ code: 'SWARM_PRECONDITION' }, 400, rpc('FailedPrecondition', 'own words')],
    [{ code: 'SWARM_OUTCOME_UNKNOWN' }, 500, 'own words'],
    [{ code: 'SWARM_INTERNAL' }, 500, 'own words'],
    [{ code: 'SWARM_INVALID' }, 400, 'own words'],
    [{ code: 'SWARM_UNSUPPORTED' }, 501, 'own words'],
    [{ code: 'SWARM_EXHAUSTED', what: 'addresses' }, 500, 'own words'],
    [{ code: 'SWARM_PORT_TAKEN', port: 1, protocol: 'udp', by: 'x' }, 409, 'own words'],
  ];
  for (const [detail, status, words] of cases) {
    const refusal = swarmRefusal(detail, 'own words');
    t.equal(refusal.status, status, detail.code);
    if (typeof words === 'string') t.equal(refusal.message, words);
    else t.match(refusal.message, words);
  }
});

t.test('creating a network is forbidden, where other verbs are not available', async (t) => {
  for (const code of ['SWARM_INACTIVE', 'SWARM_NOT_MANAGER'] as const) {
    const refusal = swarmRefusal({ code }, '', { creatingNetwork: true });
    t.equal(refusal.status, 403);
    t.match(refusal.message, /Use "docker swarm init" or "docker swarm join"/);
  }
});

t.test('a manager that leaves hears of the quorum only if the quorum is at stake', async (t) => {
  const text = (reachable: number, total: number) =>
    swarmRefusal({ code: 'SWARM_MANAGER_LEAVE', last: false }, '', {
      managers: { reachable, total },
    }).message;
  t.match(text(2, 2), /Removing this node leaves 1 managers out of 2\. Without a Raft quorum/);
  t.notMatch(text(3, 3), /quorum your/);
  t.match(text(2, 3), /leaves 1 managers out of 3/);
  t.notMatch(text(5, 5), /quorum your/);
});

t.test("the API's own refusals have a status", async (t) => {
  const statuses = [
    ['API_BAD_REQUEST', 400],
    ['API_NOT_FOUND', 404],
    ['API_CONFLICT', 409],
    ['API_BODY_TOO_LARGE', 413],
    ['API_UNSUPPORTED', 501],
    ['API_UNAVAILABLE', 503],
  ] as const;
  for (const [code, status] of statuses)
    t.same(apiRefusal({ code }, 'm'), { status, message: 'm' });
});
