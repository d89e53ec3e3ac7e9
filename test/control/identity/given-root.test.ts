import { createPrivateKey, generateKeyPairSync, KeyObject, webcrypto } from 'node:crypto';
import t from 'tap';
import {
  type CaState,
  createAuthority,
  type GivenRoot,
  initialCaState,
  issuingRoot,
  refuseExternalCas,
  startRotation,
} from '../../../src/control/identity/index.js';
import { CaWorld, codeOf, DAY_MS } from './world.js';

const NOW_MS = Date.now();

interface RootWish {
  readonly curve?: string;
  readonly rsaBits?: number;
  readonly isCa?: boolean;
  readonly pathLength?: number;
  readonly keyId?: boolean;
  readonly fromMs?: number;
  readonly toMs?: number;
  readonly issuer?: string;
}

async function rootOf(wish: RootWish = {}): Promise<Required<GivenRoot> & { keyPem: string }> {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const { curve = 'P-256', rsaBits, isCa = true, pathLength, keyId = true } = wish;
  const algorithm =
    rsaBits === undefined
      ? { name: 'ECDSA', namedCurve: curve, hash: 'SHA-256' }
      : {
          name: 'RSASSA-PKCS1-v1_5',
          hash: 'SHA-256',
          modulusLength: rsaBits,
          publicExponent: Uint8Array.of(1, 0, 1),
        };
  const keys = (await webcrypto.subtle.generateKey(algorithm as webcrypto.EcKeyGenParams, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=our own CA, O=Us',
    issuer: wish.issuer ?? 'CN=our own CA, O=Us',
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: algorithm,
    notBefore: new Date(wish.fromMs ?? NOW_MS - DAY_MS),
    notAfter: new Date(wish.toMs ?? NOW_MS + 30 * DAY_MS),
    extensions: [
      new x509.BasicConstraintsExtension(isCa, pathLength, true),
      ...(keyId ? [await x509.SubjectKeyIdentifierExtension.create(keys.publicKey)] : []),
    ],
  });
  const keyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  return { certPem: `${certificate.toString('pem')}\n`, keyPem: keyPem.toString() };
}

async function refusalOf(state: CaState, given: GivenRoot): Promise<string> {
  try {
    await startRotation(state, { atMs: NOW_MS, forceRotate: 1, given });
    return 'taken';
  } catch (error) {
    return `${(error as { code: string }).code}: ${(error as Error).message}`;
  }
}

t.test('a root of the user is taken if all peers will accept it, else refused', async (t) => {
  const state = initialCaState(await createAuthority(NOW_MS));
  const good = await rootOf();
  const other = await rootOf();
  const old = createPrivateKey(good.keyPem);
  const locked = old.export({
    format: 'pem',
    type: 'pkcs8',
    cipher: 'aes-256-cbc',
    passphrase: 'x',
  });
  const ed25519 = generateKeyPairSync('ed25519').privateKey.export({
    format: 'pem',
    type: 'pkcs8',
  });
  const cases: readonly (readonly [string, GivenRoot, RegExp])[] = [
    ['P-256', good, /^taken$/],
    ['SEC 1', { ...good, keyPem: `${old.export({ format: 'pem', type: 'sec1' })}` }, /^taken$/],
    ['P-521', await rootOf({ curve: 'P-521' }), /^taken$/],
    ['text around it', { ...good, certPem: `subject=us\n${good.certPem}\n` }, /^taken$/],
    ['nonsense', { ...good, certPem: 'x' }, /^SWARM_INVALID: .* is not a PEM certificate$/],
    ['two', { ...good, certPem: good.certPem + other.certPem }, /INVALID: .* multiple/],
    ['no key', { certPem: good.certPem }, /^SWARM_UNSUPPORTED: .*external CA/],
    ['empty key', { certPem: good.certPem, keyPem: ' \n' }, /^SWARM_UNSUPPORTED/],
    ['wrong key', { ...good, keyPem: other.keyPem }, /INVALID: .* belong to the key$/],
    ['broken key', { ...good, keyPem: 'key' }, /INVALID: .* cannot be read/],
    ['locked key', { ...good, keyPem: `${locked}` }, /INVALID: .* cannot be read/],
    ['odd key', { ...good, keyPem: `${ed25519}` }, /INVALID: .* neither ECDSA/],
    ['weak key', await rootOf({ rsaBits: 1_024 }), /INVALID: .* neither ECDSA/],
    ['no CA', await rootOf({ isCa: false }), /INVALID: .* is not of a CA$/],
    ['no root', await rootOf({ issuer: 'CN=above' }), /INVALID: .* is not a root$/],
    ['no key id', await rootOf({ keyId: false }), /INVALID: .* no subject key identifier$/],
    ['short path', await rootOf({ pathLength: 0 }), /INVALID: .* path length is 0/],
    ['expired', await rootOf({ toMs: NOW_MS - 1_000 }), /INVALID: .* has expired$/],
    ['early', await rootOf({ fromMs: NOW_MS + DAY_MS }), /INVALID: .* not valid yet$/],
  ];
  for (const [name, given, want] of cases) t.match(await refusalOf(state, given), want, name);
});

t.test('the same root again goes on with the rotation that there is', async (t) => {
  const state = initialCaState(await createAuthority(NOW_MS));
  const given = await rootOf();
  const once = await startRotation(state, { atMs: NOW_MS, forceRotate: 1, given });
  const twice = await startRotation(once, { atMs: NOW_MS + 1, forceRotate: 2, given });
  t.strictSame(twice, { ...once, forceRotate: 2 });
  t.equal(issuingRoot(twice).rootPem, given.certPem);
});

t.test('from kind to kind of root, with everybody on board', async (t) => {
  const kinds = [await rootOf({ rsaBits: 2_048 }), await rootOf({ curve: 'P-384' }), undefined];
  await CaWorld.run(async (world) => {
    let node = await world.joined();
    const sleeper = await world.joined();
    for (const given of kinds) {
      await world.startRotation(given);
      t.equal(await world.visit(node), `worker ${node.nodeId}`);
      node = await world.renew(node);
      t.equal(await world.visit(node), `worker ${node.nodeId}`);
      if (given !== undefined)
        t.ok(node.expiresAtMs <= NOW_MS + 30 * DAY_MS, 'no certificate outlives its root');
      world.finishRotation();
      await world.renewManager();
      t.equal(await world.visit(node), `worker ${node.nodeId}`);
      node = await world.renew(node);
    }
    t.equal(await world.visit(sleeper), 'foreign_ca');
    t.equal((await world.renew(sleeper)).caPem, node.caPem);
  });
});

t.test('an external CA is refused with a sentence', async (t) => {
  refuseExternalCas([]);
  const external = { protocol: 'cfssl', url: 'https://ca', options: {}, caCertPem: '' };
  t.equal(
    await codeOf(Promise.resolve().then(() => refuseExternalCas([external]))),
    'SWARM_UNSUPPORTED',
  );
});
