import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import {
  createAuthority,
  issueNodeCertificate,
  loadIdentity,
  makeIdentity,
  type NodeIdentity,
  type Open,
  rawPublicKeyOf,
  type Seal,
  saveIdentity,
} from '../../../src/control/identity/index.js';
import { nodeId, withFolder } from '../support.js';
import { clusterId, DAY_MS } from './world.js';

const NOW_MS = Date.UTC(2026, 10, 20);

/** What a vault does, in short. */
function vault(key = randomBytes(32)): { readonly wrap: Seal; readonly unwrap: Open } {
  return {
    wrap: (bytes) => {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, nonce);
      return Buffer.concat([nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
    },
    unwrap: (bytes) => {
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12));
      try {
        decipher.setAuthTag(bytes.subarray(-16));
        return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
      } catch {
        return undefined;
      }
    },
  };
}

async function someIdentity(): Promise<NodeIdentity> {
  const authority = await createAuthority(NOW_MS);
  const seed = randomBytes(32);
  const certPem = await issueNodeCertificate(authority, {
    nodeId: nodeId(7),
    clusterId,
    role: 'manager',
    publicKey: rawPublicKeyOf(seed),
    atMs: NOW_MS,
    lifeMs: DAY_MS,
  });
  const identity = makeIdentity(seed, certPem, authority.caPem);
  if (identity === undefined) throw new Error('no identity');
  return identity;
}

const fileIn = (dir: string) => join(dir, 'identity', 'identity.json');

t.test('a wrapped key opens with its key only, and is not in the file', async (t) => {
  await withFolder(async (dir) => {
    const identity = await someIdentity();
    const { wrap, unwrap } = vault();
    await saveIdentity(dir, identity, { wrap });
    const text = await readFile(fileIn(dir), 'utf8');
    t.notOk(text.includes(Buffer.from(identity.seed).toString('base64')));
    t.equal((await stat(fileIn(dir))).mode & 0o777, 0o600);
    t.strictSame(await loadIdentity(dir, { unwrap }), identity);
    const locked = {
      locked: true,
      nodeId: nodeId(7),
      clusterId,
      role: 'manager',
      expiresAtMs: identity.expiresAtMs,
    };
    t.strictSame(await loadIdentity(dir, { unwrap: undefined }), locked);
    t.strictSame(await loadIdentity(dir, { unwrap: vault().unwrap }), locked, 'another key');
    await t.rejects(loadIdentity(dir), /locked/, 'who does not reckon with it learns of it');

    await saveIdentity(dir, identity);
    t.strictSame(await loadIdentity(dir), identity, 'and back');
    t.strictSame(await loadIdentity(dir, { unwrap: undefined }), identity);
    t.strictSame(await loadIdentity(dir, { unwrap }), identity);
  });
});

t.test('another key or a short one is no identity', async (t) => {
  await withFolder(async (dir) => {
    const identity = await someIdentity();
    await saveIdentity(dir, identity, { wrap: () => Buffer.of(1) });
    for (const opened of [randomBytes(32), randomBytes(31), Buffer.alloc(0)])
      t.equal(await loadIdentity(dir, { unwrap: () => opened }), undefined);
  });
});

t.test('a damaged file is no identity, and never an error', async (t) => {
  await withFolder(async (dir) => {
    const identity = await someIdentity();
    const { wrap, unwrap } = vault();
    await saveIdentity(dir, identity, { wrap });
    const whole = await readFile(fileIn(dir));
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), async (at, to, cut) => {
        const damaged = cut ? whole.subarray(0, at) : Buffer.from(whole);
        if (!cut) damaged[at] = to;
        await writeFile(fileIn(dir), damaged);
        const loaded = await loadIdentity(dir, { unwrap });
        if (loaded !== undefined && !('locked' in loaded))
          // A change in white space changes nothing.
          return loaded.nodeId === identity.nodeId && loaded.peerId === identity.peerId;
        return true;
      }),
      { numRuns: 60 },
    );
    for (const content of ['null', '[]', '{"seed":5}', '{"certPem":"","caPem":""}', '']) {
      await writeFile(fileIn(dir), content);
      t.equal(await loadIdentity(dir), undefined, content);
    }
  });
});
