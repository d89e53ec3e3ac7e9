import { spawnSync } from 'node:child_process';
import { createHash, KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import fc from 'fast-check';
import t from 'tap';
import type { ClusterId } from '../../../src/base/swarm-model.js';
import {
  createAuthority,
  issueNodeCertificate,
  issuerFacts,
  loadIdentity,
  makeIdentity,
  newJoinToken,
  peerIdOf,
  rawPublicKeyOf,
  readNodeCertificate,
  removeIdentity,
  renewalAtMs,
  saveIdentity,
} from '../../../src/control/identity/index.js';
import { digestOf } from '../../../src/control/identity/io/certificates.js';
import { checkRequest, makeRequest } from '../../../src/control/identity/io/keys.js';
import { parseCaReply, parseCaRequest } from '../../../src/control/identity/wire/ca-messages.js';
import {
  formatJoinToken,
  joinSecret,
  parseJoinToken,
} from '../../../src/control/identity/wire/token.js';
import { nodeId, withFolder } from '../support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const NOW_MS = Date.UTC(2026, 10, 20);
const clusterId = nodeId('cluster') as unknown as ClusterId;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

async function issued(role: 'worker' | 'manager' = 'worker') {
  const authority = await createAuthority(NOW_MS);
  const seed = randomBytes(32);
  const certPem = await issueNodeCertificate(authority, {
    nodeId: nodeId(7),
    clusterId,
    role,
    publicKey: rawPublicKeyOf(seed),
    atMs: NOW_MS,
    lifeMs: 90 * 86_400_000,
  });
  return { authority, seed, certPem };
}

t.test('a join token is read only in its one form', async (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      (digest, random) => {
        const token = { caDigest: hex(digest), secret: joinSecret(random) };
        const text = formatJoinToken(token);
        const read = parseJoinToken(text);
        return (
          text.length === 85 && read?.caDigest === token.caDigest && read.secret === token.secret
        );
      },
    ),
    { numRuns: 100 * FUZZ_FACTOR },
  );
  const good = formatJoinToken({ caDigest: 'ab'.repeat(32), secret: 'z'.repeat(25) });
  t.ok(parseJoinToken(` ${good}\n`), 'as people paste it');
  for (const bad of [
    '',
    'garbage',
    good.slice(1),
    good.slice(0, -1),
    `${good}x`,
    good.toUpperCase(),
    good.replace('SWMTKN-1', 'SWMTKN-2'),
    `SWMTKN-1-${'z'.repeat(50)}-${'a'.repeat(25)}`,
  ])
    t.equal(parseJoinToken(bad), undefined, bad);
});

t.test('a node that makes no certificates does not load the library for it', async (t) => {
  t.notOk('getMetadata' in Reflect, 'not yet');
  await createAuthority(NOW_MS);
  t.ok('getMetadata' in Reflect, 'what the library needs leaves this trace');
});

t.test('the CA is a P-256 root of twenty years', async (t) => {
  const { caPem } = await createAuthority(NOW_MS);
  const ca = new X509Certificate(caPem);
  t.equal(ca.subject, 'CN=swarm-ca');
  t.equal(ca.ca, true);
  t.ok(ca.checkIssued(ca) && ca.verify(ca.publicKey));
  t.equal(ca.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  t.equal(new Date(ca.validTo).getUTCFullYear(), 2046);
  const facts = await issuerFacts(caPem);
  t.equal(facts.subject, 'MBMxETAPBgNVBAMMCHN3YXJtLWNh');
  t.equal(facts.publicKey, ca.publicKey.export({ format: 'der', type: 'spki' }).toString('base64'));
  t.equal(
    parseJoinToken(newJoinToken(caPem))?.caDigest,
    createHash('sha256').update(ca.raw).digest('hex'),
  );
});

t.test('a certificate beyond 2049 has a four-digit year', async (t) => {
  const { caPem } = await createAuthority(Date.UTC(2040, 0, 1));
  t.equal(new Date(new X509Certificate(caPem).validTo).getUTCFullYear(), 2059);
});

t.test('a node certificate says who, what and of which swarm', async (t) => {
  const { authority, seed, certPem } = await issued('manager');
  const certificate = new X509Certificate(certPem);
  t.equal(certificate.subject, `O=${clusterId}\nOU=swarm-manager\nCN=${nodeId(7)}`);
  t.equal(certificate.subjectAltName, `DNS:swarm-manager, DNS:${nodeId(7)}`);
  t.equal(certificate.ca, false);
  const read = readNodeCertificate(certificate, authority.caPem);
  t.match(read, {
    nodeId: nodeId(7),
    clusterId,
    role: 'manager',
    expiresAtMs: NOW_MS + 90 * 86_400_000,
  });
  t.ok(read?.publicKey.equals(rawPublicKeyOf(seed)));
  t.equal(
    readNodeCertificate(certificate, (await createAuthority(NOW_MS)).caPem),
    undefined,
    'of another CA',
  );
  t.equal(readNodeCertificate(new X509Certificate(authority.caPem), authority.caPem), undefined);
});

t.test('validity is in whole seconds', async (t) => {
  const authority = await createAuthority(NOW_MS + 789);
  const ca = new X509Certificate(authority.caPem);
  t.equal(Date.parse(ca.validFrom), NOW_MS - 3_600_000);
  const late = new X509Certificate((await createAuthority(Date.UTC(2040, 0, 1) + 789)).caPem);
  t.notOk(late.raw.includes('.789'), 'after 2049, too, where the form would hold fractions');
});

t.test('a CA whose key id was made in another way issues all the same', async (t) => {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=swarm-ca, O="printable, not UTF-8"',
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.SubjectKeyIdentifierExtension('0102030405'),
    ],
  });
  const caPem = ca.toString('pem');
  const caKeyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  const certPem = await issueNodeCertificate(
    { caPem, caKeyPem: caKeyPem.toString() },
    {
      nodeId: nodeId(7),
      clusterId,
      role: 'worker',
      publicKey: rawPublicKeyOf(randomBytes(32)),
      atMs: NOW_MS,
      lifeMs: 90 * 86_400_000,
    },
  );
  t.ok(readNodeCertificate(new X509Certificate(certPem), caPem));
  t.equal(new x509.X509Certificate(certPem).issuer, ca.subject);
});

const withoutOpenssl = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not installed';

t.test('openssl reads and verifies what was made', { skip: withoutOpenssl }, async (t) => {
  await withFolder(async (dir) => {
    const { authority, certPem } = await issued();
    const [caFile, nodeFile] = [join(dir, 'ca.pem'), join(dir, 'node.pem')];
    await writeFile(caFile, authority.caPem);
    await writeFile(nodeFile, certPem);
    const openssl = (...args: string[]) => spawnSync('openssl', args, { encoding: 'utf8' }).stdout;
    const ca = openssl('x509', '-in', caFile, '-noout', '-text');
    t.match(ca, /Key Usage: critical\n\s*Certificate Sign, CRL Sign/);
    t.match(ca, /Basic Constraints: critical\n\s*CA:TRUE/);
    const node = openssl('x509', '-in', nodeFile, '-noout', '-text');
    t.match(node, /Signature Algorithm: ecdsa-with-SHA256/);
    t.match(node, /Public Key Algorithm: ED25519/i);
    t.match(node, /Basic Constraints: critical\n\s*CA:FALSE/);
    t.match(node, /Key Usage: critical\n\s*Digital Signature\n/);
    t.match(
      node,
      /Extended Key Usage: *\n\s*TLS Web Server Authentication, TLS Web Client Authentication/,
    );
    const keyIdIn = (text: string, whose: string) =>
      new RegExp(`${whose} Key Identifier: *\\n\\s*(?:keyid:)?([0-9A-F:]+)`).exec(text)?.[1];
    t.equal(keyIdIn(ca, 'Subject')?.length, 59, 'twenty bytes');
    t.equal(keyIdIn(node, 'Authority'), keyIdIn(ca, 'Subject'));
    const atSeconds = String(NOW_MS / 1_000);
    t.match(
      openssl('verify', '-x509_strict', '-attime', atSeconds, '-CAfile', caFile, nodeFile),
      /: OK\n$/,
    );
  });
});

t.test('the peer id is the one that libp2p makes of the same key', async (t) => {
  const seed = randomBytes(32);
  const publicKey = rawPublicKeyOf(seed);
  const theirs = peerIdFromPrivateKey(privateKeyFromRaw(Buffer.concat([seed, publicKey])));
  t.equal(peerIdOf(publicKey), theirs.toString());
});

t.test('a request proves its key, for one swarm only', async (t) => {
  const seed = randomBytes(32);
  const request = makeRequest(seed, 'aa');
  t.ok(checkRequest(request, 'aa')?.equals(rawPublicKeyOf(seed)));
  t.equal(checkRequest(request, 'bb'), undefined);
  const other = makeRequest(randomBytes(32), 'aa');
  t.equal(checkRequest({ ...request, publicKey: other.publicKey }, 'aa'), undefined);
  t.equal(checkRequest({ publicKey: 'x', proof: 'y' }, 'aa'), undefined);
  t.equal(digestOf('no certificate'), undefined);
});

t.test('an identity survives on disk, for its owner only; half of one is none', async (t) => {
  await withFolder(async (dir) => {
    const { authority, seed, certPem } = await issued();
    const identity = makeIdentity(seed, certPem, authority.caPem);
    if (identity === undefined) throw new Error('no identity');
    t.equal(await loadIdentity(dir), undefined);
    await saveIdentity(dir, identity);
    t.strictSame(await loadIdentity(dir), { ...identity, seed });
    const file = join(dir, 'identity', 'identity.json');
    t.equal((await stat(file)).mode & 0o777, 0o600);
    t.equal(makeIdentity(randomBytes(32), certPem, authority.caPem), undefined, 'another key');
    t.equal(makeIdentity(seed, 'nonsense', authority.caPem), undefined);
    await writeFile(file, (await readFile(file)).subarray(0, 100));
    t.equal(await loadIdentity(dir), undefined);
    await removeIdentity(dir);
    t.equal(await loadIdentity(dir), undefined);
    const lifeMs = identity.expiresAtMs - identity.notBeforeMs;
    t.equal(renewalAtMs(identity, 0), identity.notBeforeMs + lifeMs / 2);
    t.ok(renewalAtMs(identity, 0.999) < identity.notBeforeMs + lifeMs * 0.8);
  });
});

t.test('messages of the CA are judged without a throw', async (t) => {
  t.strictSame(parseCaRequest({ kind: 'ca_get', more: 1 }), { kind: 'ca_get' });
  t.equal(parseCaRequest({ kind: 'join', token: 5 }), undefined);
  fc.assert(
    fc.property(fc.anything(), (value) => {
      parseCaRequest(value);
      parseCaReply(value);
      return true;
    }),
    { numRuns: 300 * FUZZ_FACTOR },
  );
});
