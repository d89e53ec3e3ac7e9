import { randomBytes } from 'node:crypto';
import t from 'tap';
import {
  adoptTrust,
  cancelRotation,
  digestOf,
  graceRoots,
  issueCertificate,
  issuingRoot,
  makeIdentity,
  type NodeIdentity,
  newJoinToken,
  parseCaState,
  publicTrust,
  rawPublicKeyOf,
  renewalReason,
  rotationDelayMs,
  rotationProgress,
  trustBundle,
} from '../../../src/control/identity/index.js';
import { pemBlocks } from '../../../src/control/identity/wire/pem.js';
import { CaWorld, clusterId, codeOf, DAY_MS } from './world.js';

const progress = (world: CaWorld, ...nodes: NodeIdentity[]) =>
  rotationProgress(
    world.state,
    nodes.map(({ nodeId, issuer }) => ({ nodeId, issuerPublicKey: issuer.publicKey })),
  );

const needs = (identity: NodeIdentity, world: CaWorld) =>
  renewalReason(identity, {
    nowMs: Date.now(),
    fraction: 0.5,
    role: world.members.get(identity.nodeId)?.role,
    caPem: trustBundle(world.state),
  });

t.test('a rotation goes through with nobody shut out at any moment', async (t) => {
  await CaWorld.run(async (world) => {
    const [early, late] = [await world.joined(), await world.joined()];
    const firstRoot = world.state.rootPem;
    t.equal(needs(early, world), undefined);

    await world.startRotation();
    t.equal(world.state.rootPem, firstRoot, 'tokens and `swarm ca` still show the old root');
    t.equal(pemBlocks(trustBundle(world.state)).length, 2);
    t.match(progress(world, world.identity, early, late), { done: 1, total: 3 });
    t.match(await publicTrust(world.state), {
      rootCaPem: firstRoot,
      certIssuerPublicKey: world.identity.issuer.publicKey,
      rootRotationInProgress: true,
    });
    t.equal(await world.visit(early), `worker ${early.nodeId}`, 'an old node is let in');
    t.equal(needs(early, world), 'root');

    const renewed = await world.renew(early);
    t.equal(renewed.nodeId, early.nodeId);
    t.strictSame(pemBlocks(renewed.certPem).length, 2, 'the cross-signed root follows');
    t.equal(renewed.caPem, trustBundle(world.state), 'and the node trusts both roots');
    t.equal(needs(renewed, world), undefined);
    t.equal(await world.visit(renewed), `worker ${early.nodeId}`);
    t.strictSame(progress(world, world.identity, renewed, late).waiting, [late.nodeId]);
    t.ok(
      makeIdentity(renewed.seed, renewed.certPem, firstRoot),
      'who trusts only the old root accepts it, too',
    );

    const lateRenewed = await world.renew(late);
    t.strictSame(progress(world, world.identity, renewed, lateRenewed).waiting, []);
    world.finishRotation();
    await world.renewManager();
    t.not(world.state.rootPem, firstRoot);
    t.equal(trustBundle(world.state), world.state.rootPem);
    t.equal(await world.visit(renewed), `worker ${early.nodeId}`);
    const adopted = adoptTrust(renewed, trustBundle(world.state));
    t.equal(adopted?.caPem, world.state.rootPem, 'the old root is forgotten without a renewal');
    if (adopted === undefined) return;
    t.equal(needs(adopted, world), undefined);
    t.equal(await world.visit(adopted), `worker ${early.nodeId}`);
    t.equal((await world.renew(adopted)).nodeId, early.nodeId);
    t.equal(await world.visit(late), 'foreign_ca', 'the old certificate opens nothing');
    t.equal(adoptTrust(late, world.state.rootPem), undefined);
    t.strictSame(parseCaState(JSON.parse(JSON.stringify(world.state))), world.state);
  });
});

t.test('joining works before, during and after, and ends with the whole trust', async (t) => {
  await CaWorld.run(async (world) => {
    const old = world.tokens.worker;
    await world.startRotation();
    t.equal(old, world.tokens.worker);
    const during = await world.joined();
    t.equal(during.caPem, trustBundle(world.state));
    t.equal(await world.visit(during), `worker ${during.nodeId}`);
    const rotated = newJoinToken(trustBundle(world.state));
    t.equal(rotated.slice(0, 59), old.slice(0, 59), 'a token made now names the old root');
    world.finishRotation();
    await world.renewManager();
    t.not(world.tokens.worker.slice(0, 59), old.slice(0, 59));
    t.equal(await codeOf(world.join(old)), 'SWARM_CA_MISMATCH');
    const after = await world.joined();
    t.equal(after.caPem, world.state.rootPem);
    t.equal(await world.visit(after), `worker ${after.nodeId}`);
  });
});

t.test('a node that slept through two rotations comes back by itself', async (t) => {
  await CaWorld.run(async (world) => {
    const [sleeper, other] = [await world.joined(), await world.joined()];
    for (const _ of [1, 2]) {
      await world.startRotation();
      world.finishRotation();
      await world.renewManager();
    }
    t.equal(graceRoots(world.state, Date.now()).length, 2);
    t.equal(pemBlocks(world.identity.certPem).length, 3, 'the manager shows the way back');
    t.equal(await world.visit(sleeper), 'foreign_ca', 'no member yet');
    const healed = await world.renew(sleeper);
    t.equal(healed.nodeId, sleeper.nodeId);
    t.equal(healed.caPem, world.state.rootPem);
    t.equal(pemBlocks(healed.certPem).length, 1, 'a worker need not show the way back');
    t.equal(await world.visit(healed), `worker ${sleeper.nodeId}`);

    world.aheadMs = 367 * DAY_MS;
    t.equal(graceRoots(world.state, Date.now() + world.aheadMs).length, 0);
    const shownBefore = world.ca.stats().refused.foreign_ca;
    t.equal(await codeOf(world.renew(other)), 'SWARM_TOKEN_REFUSED', 'not for ever');
    t.equal(world.ca.stats().refused.foreign_ca, shownBefore + 1);
    await world.renewManager();
    t.equal(pemBlocks(world.identity.certPem).length, 1);
    t.match(await codeOf(world.renew(other)), /CERT|SIGNATURE|ISSUER/, 'nor does it know us');
  });
});

t.test('who stole a retired root can make certificates and gets nothing for them', async (t) => {
  await CaWorld.run(async (world) => {
    const victim = await world.joined();
    const stolen = world.state;
    await world.startRotation();
    await world.renew(victim);
    world.finishRotation();
    const seed = randomBytes(32);
    const forged = await issueCertificate(stolen, {
      nodeId: victim.nodeId,
      clusterId,
      role: 'manager',
      publicKey: rawPublicKeyOf(seed),
      atMs: Date.now(),
      lifeMs: DAY_MS,
    });
    const thief = makeIdentity(seed, forged.certPem, stolen.rootPem);
    if (thief === undefined) throw new Error('no identity');
    t.equal(await world.visit(thief), 'foreign_ca');
    t.equal(await codeOf(world.renew(thief)), 'SWARM_TOKEN_REFUSED');
    t.equal(world.ca.stats().refused.wrong_key, 1);
    await world.renewManager();
    const current = await world.joined();
    t.equal(adoptTrust(current, stolen.rootPem), undefined, 'nobody goes back to that root');
  });
});

t.test('another root in the middle of a rotation, and a way back', async (t) => {
  await CaWorld.run(async (world) => {
    const first = await world.joined();
    const firstRoot = world.state.rootPem;
    await world.startRotation();
    const abandonedRoot = issuingRoot(world.state);
    const abandoned = await world.renew(first);
    await world.startRotation();
    t.notMatch(abandonedRoot, issuingRoot(world.state));
    t.equal(pemBlocks(trustBundle(world.state)).length, 2, 'the abandoned root is trusted no more');
    t.equal(await world.visit(abandoned), `worker ${first.nodeId}`, 'but its node is let in');
    t.equal(needs(abandoned, world), 'root');
    t.strictSame(progress(world, abandoned).waiting, [first.nodeId]);
    const second = await world.renew(abandoned);
    t.strictSame(progress(world, second).waiting, []);

    await world.startRotation({ certPem: firstRoot, keyPem: world.state.rootKeyPem });
    t.equal(world.state.rotation, undefined, 'giving the present root ends it');
    t.equal(world.state.forceRotate, 3);
    t.equal(await world.visit(second), `worker ${first.nodeId}`);
    const back = adoptTrust(second, trustBundle(world.state));
    t.equal(back && needs(back, world), 'root');
    t.equal((await world.renew(second)).caPem, firstRoot);
    t.strictSame(cancelRotation(world.state), world.state);
  });
});

t.test('the digest of a bundle is that of its first root', async (t) => {
  await CaWorld.run(async (world) => {
    await world.startRotation();
    t.equal(digestOf(trustBundle(world.state)), digestOf(world.state.rootPem));
  });
});

t.test('renewals of a rotation are spread over time', async (t) => {
  t.equal(rotationDelayMs(3, 0.5), 6);
  t.equal(rotationDelayMs(1_000, 1), 4_000);
  t.equal(rotationDelayMs(1_000_000, 1), 60_000);
});
