import { KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import type { ClusterId, NodeId, NodeRole } from '../../../src/base/swarm-model.js';
import {
  type CaState,
  createAuthority,
  finishRotation,
  initialCaState,
  issueCertificate,
  judgePeer,
  makeIdentity,
  type PeerRule,
  rawPublicKeyOf,
  readPeerCertificate,
  type ShowsCertificate,
  showsNewRoot,
  startRotation,
  trustBundle,
} from '../../../src/control/identity/index.js';
import { issuerNameOf } from '../../../src/control/identity/wire/der.js';
import { joinPem, pemBlocks } from '../../../src/control/identity/wire/pem.js';
import { connectTls } from '../../../src/control/io/connect.js';
import { ALPN_DISPATCH } from '../../../src/control/wire/protocol.js';
import { nodeId } from '../support.js';
import { CaWorld, clusterId, DAY_MS } from './world.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const NOW_MS = Date.UTC(2026, 10, 20);

interface Wish {
  readonly role?: NodeRole;
  readonly cluster?: ClusterId;
  readonly id?: NodeId;
  readonly seed?: Uint8Array;
}

function made(state: CaState, { role = 'worker', cluster = clusterId, id, seed }: Wish = {}) {
  return issueCertificate(state, {
    nodeId: id ?? nodeId(7),
    clusterId: cluster,
    role,
    publicKey: rawPublicKeyOf(seed ?? randomBytes(32)),
    atMs: NOW_MS,
    lifeMs: 90 * DAY_MS,
  });
}

/** What TLS would show of these certificates, the first being the peer's. */
function shows(...pems: string[]): ShowsCertificate {
  const [first, ...others] = pems.flatMap((pem) => pemBlocks(pem));
  type Shown = NonNullable<ReturnType<ShowsCertificate['getPeerCertificate']>>;
  const shown = (pem: string, rest: string[]): Shown => {
    const [next, ...further] = rest;
    const issuer = next === undefined ? {} : { issuerCertificate: shown(next, further) };
    return { raw: new X509Certificate(pem).raw, ...issuer };
  };
  return { getPeerCertificate: () => (first === undefined ? {} : shown(first, others)) };
}

function ruleOf(state: CaState, more: Partial<PeerRule> = {}): PeerRule {
  const trust = trustBundle(state);
  return { trust, clusterId, isRemoved: () => false, nowMs: NOW_MS, ...more };
}

const verdictOf = (socket: ShowsCertificate, rule: PeerRule) => {
  const verdict = judgePeer(socket, rule);
  return 'ok' in verdict ? `${verdict.ok.role} ${verdict.ok.nodeId}` : verdict.refused;
};

const newState = async () => initialCaState(await createAuthority(NOW_MS));

t.test('each reason for refusing a peer', async (t) => {
  const state = await newState();
  const worker = (await made(state)).certPem;
  const manager = (await made(state, { role: 'manager' })).certPem;
  const foreign = (await made(await newState())).certPem;
  const otherCluster = nodeId('other') as unknown as ClusterId;
  const elsewhere = (await made(state, { cluster: otherCluster })).certPem;
  const endMs = NOW_MS + 90 * DAY_MS;
  const needRole = 'manager';
  const cases: readonly (readonly [string, ShowsCertificate, Partial<PeerRule>, string])[] = [
    ['a worker', shows(worker), {}, `worker ${nodeId(7)}`],
    ['a manager', shows(manager), { needRole }, `manager ${nodeId(7)}`],
    ['nothing shown', shows(), {}, 'no_certificate'],
    ['a connection that is gone', { getPeerCertificate: () => null }, {}, 'no_certificate'],
    ['bytes', { getPeerCertificate: () => ({ raw: randomBytes(99) }) }, {}, 'no_certificate'],
    ['another CA', shows(foreign), {}, 'foreign_ca'],
    ['the root itself', shows(state.rootPem), {}, 'foreign_ca'],
    ['no root', shows(worker), { trust: '' }, 'foreign_ca'],
    ['broken roots', shows(worker), { trust: joinPem([worker]) }, 'foreign_ca'],
    ['another swarm', shows(elsewhere), {}, 'wrong_cluster'],
    ['removed', shows(worker), { isRemoved: (id) => id === nodeId(7) }, 'removed'],
    ['another one removed', shows(worker), { isRemoved: (id) => id === nodeId(8) }, 'worker'],
    ['its last moment', shows(worker), { nowMs: endMs }, 'worker'],
    ['expired', shows(worker), { nowMs: endMs + 1 }, 'expired'],
    ['a late clock here', shows(worker), { nowMs: NOW_MS - 9 * DAY_MS }, 'worker'],
    ['a worker on a call of managers', shows(worker), { needRole }, 'wrong_role'],
    ['a worker that is to be one', shows(worker), { needRole, roleOf: () => 'manager' }, 'wrong'],
    ['a demoted one', shows(manager), { needRole, roleOf: () => 'worker' }, 'wrong_role'],
    ['a demoted one, elsewhere', shows(manager), { roleOf: () => 'worker' }, 'manager'],
    ['one not heard of yet', shows(manager), { needRole, roleOf: () => undefined }, 'manager'],
    ['removed before expired', shows(worker), { isRemoved: () => true, nowMs: 9e15 }, 'removed'],
  ];
  for (const [name, socket, rule, want] of cases)
    t.match(verdictOf(socket, ruleOf(state, rule)), want, name);
});

t.test('a node cannot sign for others, whatever chain it shows', async (t) => {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const state = await newState();
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const root = new x509.X509Certificate(state.rootPem);
  const rootKey = await webcrypto.subtle.importKey(
    'pkcs8',
    Buffer.from(state.rootKeyPem.replace(/-----.*?-----|\s/g, ''), 'base64'),
    algorithm,
    false,
    ['sign'],
  );
  const intermediate = async (isCa: boolean) => {
    const made = await x509.X509CertificateGenerator.create({
      issuer: root.subjectName,
      subject: 'CN=swarm-ca',
      publicKey: keys.publicKey,
      signingKey: rootKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(isCa, undefined, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return `${made.toString('pem')}\n`;
  };
  const keyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  for (const [isCa, want] of [
    [true, 'worker'],
    [false, 'foreign_ca'],
  ] as const) {
    const between = await intermediate(isCa);
    const forged = await made({ rootPem: between, rootKeyPem: `${keyPem}`, forceRotate: 0 });
    t.match(verdictOf(shows(forged.certPem, between), ruleOf(state)), want);
    t.equal(verdictOf(shows(forged.certPem), ruleOf(state)), 'foreign_ca', 'not by itself');
  }
});

t.test('a twin of the root, with its name and key id but another key, signs nothing', async (t) => {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const state = await newState();
  const root = new x509.X509Certificate(state.rootPem);
  const keyId = root.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId ?? '';
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const twin = await x509.X509CertificateGenerator.create({
    issuer: root.subjectName,
    subject: root.subjectName,
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.SubjectKeyIdentifierExtension(keyId),
    ],
  });
  const rootPem = `${twin.toString('pem')}\n`;
  const keyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  const forged = await made({ rootPem, rootKeyPem: `${keyPem}`, forceRotate: 0 });
  const leaf = new X509Certificate(forged.certPem);
  t.ok(leaf.checkIssued(new X509Certificate(state.rootPem)), 'by its names it could be');
  t.equal(verdictOf(shows(forged.certPem), ruleOf(state)), 'foreign_ca');
  t.equal(verdictOf(shows(forged.certPem, rootPem), ruleOf(state)), 'foreign_ca');
  const good = await made(state);
  t.match(verdictOf(shows(good.certPem, rootPem), ruleOf(state)), 'worker', 'nor is it in the way');
});

t.test('the order of a chain, and what else is in it, does not matter', async (t) => {
  const states = [await newState()];
  for (let i = 1; i < 4; i++) {
    const rotating = await startRotation(states[i - 1] as CaState, {
      atMs: NOW_MS,
      forceRotate: i,
    });
    states.push(finishRotation(rotating, NOW_MS));
  }
  const [oldest, newest] = [states[0] as CaState, states.at(-1) as CaState];
  const [leaf = '', ...chain] = pemBlocks((await made(newest, { role: 'manager' })).certPem);
  t.equal(chain.length, 3);
  const junk = [
    (await newState()).rootPem,
    (await made(await newState())).certPem,
    (await made(oldest)).certPem,
    newest.rootPem,
  ];
  const rule = ruleOf(oldest);
  fc.assert(
    fc.property(
      fc.shuffledSubarray([...chain, ...junk], { minLength: 0 }),
      fc.boolean(),
      (shown, trusted) => {
        const whole = chain.every((one) => shown.includes(one));
        const verdict = verdictOf(shows(leaf, ...shown), trusted ? rule : ruleOf(newest));
        return verdict === (whole || !trusted ? `manager ${nodeId(7)}` : 'foreign_ca');
      },
    ),
    { numRuns: 100 * FUZZ_FACTOR },
  );
  const many = [...Array.from({ length: 8 }, () => junk[0] as string), ...chain];
  t.equal(verdictOf(shows(leaf, ...many), rule), 'foreign_ca', 'but its length is bounded');
});

t.test('a node sees that the root has changed by the manager that it meets', async (t) => {
  const before = await newState();
  const seed = randomBytes(32);
  const own = await made(before, { seed });
  const identity = makeIdentity(seed, own.certPem, own.caPem);
  if (identity === undefined) throw new Error('no identity');
  const during = await startRotation(before, { atMs: NOW_MS, forceRotate: 1 });
  const managerOf = async (state: CaState) => (await made(state, { role: 'manager' })).certPem;
  t.equal(showsNewRoot(identity, shows(await managerOf(before))), false);
  t.equal(showsNewRoot(identity, shows(await managerOf(during))), true);
  t.equal(showsNewRoot(identity, shows(await managerOf(finishRotation(during, NOW_MS)))), true);
  t.equal(showsNewRoot(identity, shows(await managerOf(await newState()))), false, 'a stranger');
  t.equal(showsNewRoot(identity, shows()), false);
  const told = makeIdentity(seed, own.certPem, trustBundle(during));
  t.equal(told && showsNewRoot(told, shows(await managerOf(during))), false);
});

t.test('on a real connection: counted, logged once for each node', async (t) => {
  await CaWorld.run(async (world) => {
    const [one, two] = [await world.joined(), await world.joined()];
    t.equal(await world.visit(one), `worker ${one.nodeId}`);
    t.equal(await world.visit(undefined), 'no_certificate');
    world.needRole = 'manager';
    for (const identity of [one, one, two]) t.equal(await world.visit(identity), 'wrong_role');
    t.equal(await world.visit(world.identity), `manager ${world.identity.nodeId}`);
    world.needRole = undefined;
    world.removed.add(one.nodeId);
    for (let i = 0; i < 3; i++) t.equal(await world.visit(one), 'removed');
    world.aheadMs = 91 * DAY_MS;
    t.equal(await world.visit(two), 'expired');
    t.match(world.judge.stats(), {
      accepted: 2,
      no_certificate: 1,
      wrong_role: 3,
      removed: 3,
      expired: 1,
    });
    t.strictSame(
      world.logged.map(({ fields }) => [fields['reason'], fields['node']]),
      [
        ['no_certificate', undefined],
        ['wrong_role', one.nodeId],
        ['wrong_role', two.nodeId],
        ['removed', one.nodeId],
        ['expired', two.nodeId],
      ],
    );
  });
});

t.test('a client reads its manager through a cross-signed root, and reads it again', async (t) => {
  await CaWorld.run(async (world) => {
    const node = await world.joined();
    await world.startRotation();
    const { keyPem, certPem, caPem } = node;
    const common = { remote: world.remote, alpn: ALPN_DISPATCH, timeoutMs: 20_000 };
    const socket = await connectTls({ ...common, keyPem, certPem, caPem });
    socket.on('error', () => {});
    for (const _ of [1, 2, 3]) {
      t.equal(readPeerCertificate(socket, caPem)?.nodeId, world.identity.nodeId);
      t.equal(showsNewRoot(node, socket), true);
    }
    const rule: PeerRule = { trust: caPem, clusterId, isRemoved: () => false, nowMs: Date.now() };
    const demoted: PeerRule = { ...rule, needRole: 'manager', roleOf: () => 'worker' };
    t.match(judgePeer(socket, rule), { ok: { role: 'manager' } });
    t.match(judgePeer(socket, demoted), { refused: 'wrong_role' }, 'no manager any more');
    socket.destroy();
  });
});

t.test('a peer reads the same however often it is read', async (t) => {
  const state = await newState();
  const during = await startRotation(state, { atMs: NOW_MS, forceRotate: 1 });
  const socket = shows((await made(during)).certPem);
  for (const _ of [1, 2, 3]) t.equal(readPeerCertificate(socket, state.rootPem)?.nodeId, nodeId(7));
  const looped: { raw: Buffer; issuerCertificate?: object } = {
    raw: new X509Certificate(state.rootPem).raw,
  };
  looped.issuerCertificate = looped;
  t.equal(verdictOf({ getPeerCertificate: () => looped }, ruleOf(state)), 'foreign_ca');
});

t.test("the issuer's name is found in the bytes, and in no others", async (t) => {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const state = await newState();
  const { raw } = new X509Certificate((await made(state)).certPem);
  const theirs = new x509.X509Certificate(state.rootPem).subjectName.toArrayBuffer();
  t.ok(Buffer.from(theirs).equals(issuerNameOf(raw) ?? Buffer.alloc(0)));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(raw.length), (bytes, at) => {
      issuerNameOf(bytes);
      issuerNameOf(raw.subarray(0, at));
      const damaged = Uint8Array.from(raw);
      damaged.set(bytes.subarray(0, raw.length - at), at);
      const found = issuerNameOf(damaged);
      return found === undefined || found.length <= raw.length;
    }),
    { numRuns: 300 * FUZZ_FACTOR },
  );
});

t.test('bundles and chains are read block by block', async (t) => {
  const block = (text: string) =>
    `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;
  t.strictSame(pemBlocks(`subject\n${block('AA')}\n# more\n${block('BB').trim()}`), [
    block('AA'),
    block('BB'),
  ]);
  t.strictSame(pemBlocks('no certificate'), []);
  t.equal(joinPem([block('AA'), block('BB') + block('AA'), '']), block('AA') + block('BB'));
  t.strictSame(pemBlocks(block('AA').repeat(17)), [], 'too many');
});
