import { spawnSync } from 'node:child_process';
import { randomBytes, X509Certificate } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { NodeRole } from '../../../src/base/swarm-model.js';
import {
  adoptTrust,
  type CaState,
  createAuthority,
  finishRotation,
  graceRoots,
  initialCaState,
  issueCertificate,
  makeIdentity,
  type NodeIdentity,
  parseCaState,
  rawPublicKeyOf,
  readNodeCertificate,
  rotationProgress,
  startRotation,
  trustBundle,
} from '../../../src/control/identity/index.js';
import { pemBlocks } from '../../../src/control/identity/wire/pem.js';
import { nodeId, withFolder } from '../support.js';
import { clusterId, DAY_MS } from './world.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const NOW_MS = Date.UTC(2026, 10, 20);

const accepts = (caPem: string, certPem: string) => {
  const [leaf, ...chain] = pemBlocks(certPem).map((pem) => new X509Certificate(pem));
  return leaf !== undefined && readNodeCertificate(leaf, caPem, chain) !== undefined;
};

const OPS = ['start', 'start', 'cancel', 'finish', 'finish', 'renew', 'adopt', 'wait'] as const;
type Op = { readonly op: (typeof OPS)[number]; readonly node: number; readonly days: number };

/** Node 0 is the manager, 1 and 2 are awake, 3 sleeps: a rotation does not wait for it. */
class Model {
  state!: CaState;
  nowMs = NOW_MS;
  readonly nodes: NodeIdentity[] = [];
  /** Roots that were retired since the sleeper was given its certificate, and when. */
  missed: number[] = [];

  async begin(): Promise<void> {
    this.state = initialCaState(await createAuthority(this.nowMs));
    for (let i = 0; i < 4; i++) await this.renew(i, randomBytes(32));
  }

  async renew(i: number, seed = this.nodes[i]?.seed): Promise<void> {
    if (seed === undefined) throw new Error('no such node');
    const issued = await issueCertificate(this.state, {
      nodeId: nodeId(i),
      clusterId,
      role: (i === 0 ? 'manager' : 'worker') satisfies NodeRole,
      publicKey: rawPublicKeyOf(seed),
      atMs: this.nowMs,
      lifeMs: 3_650 * DAY_MS,
    });
    const identity = makeIdentity(seed, issued.certPem, issued.caPem);
    if (identity === undefined) throw new Error('no identity');
    this.nodes[i] = identity;
    if (i === 3) this.missed = [];
  }

  async step({ op, node, days }: Op): Promise<void> {
    const { state, nowMs } = this;
    if (op === 'start') {
      const wish = { atMs: nowMs, forceRotate: state.forceRotate + 1 };
      this.state = await startRotation(state, wish);
    } else if (op === 'cancel') {
      const given = { certPem: state.rootPem, keyPem: state.rootKeyPem };
      const wish = { atMs: nowMs, forceRotate: state.forceRotate + 1, given };
      this.state = await startRotation(state, wish);
    } else if (op === 'renew') await this.renew(node);
    else if (op === 'wait') this.nowMs += days * DAY_MS;
    else if (op === 'adopt') {
      const identity = this.nodes[node] as NodeIdentity;
      this.nodes[node] = adoptTrust(identity, trustBundle(state)) ?? identity;
    } else if (state.rotation !== undefined) {
      for (const id of this.#waiting()) await this.renew(Number(id));
      this.state = finishRotation(state, nowMs);
      this.missed.push(nowMs);
      // A manager's certificate shows the way from what was retired when it was made.
      await this.renew(0);
    }
    this.state = parseCaState(JSON.parse(JSON.stringify(this.state))) as CaState;
  }

  #waiting(): readonly string[] {
    const awake = this.nodes.slice(0, 3);
    const nodes = awake.map(({ nodeId, issuer }) => ({
      nodeId,
      issuerPublicKey: issuer.publicKey,
    }));
    return rotationProgress(this.state, nodes).waiting;
  }

  check(): string | undefined {
    const trust = trustBundle(this.state);
    const [manager, one, two, sleeper] = this.nodes as [
      NodeIdentity,
      NodeIdentity,
      NodeIdentity,
      NodeIdentity,
    ];
    if (pemBlocks(trust).length > 2) return 'more than two roots are trusted';
    for (const node of [manager, one, two]) {
      if (!accepts(trust, node.certPem)) return `${node.nodeId} is shut out`;
      if (!accepts(node.caPem, manager.certPem)) return `${node.nodeId} does not know the manager`;
      for (const other of [one, two])
        if (!accepts(node.caPem, other.certPem)) return `${node.nodeId} does not know a member`;
    }
    const inGrace = this.missed.every((atMs) => this.nowMs <= atMs + 366 * DAY_MS);
    if (!inGrace || this.missed.length > 4) return undefined;
    const retired = graceRoots(this.state, this.nowMs).map(({ rootPem }) => rootPem);
    if (!accepts([trust, ...retired].join(''), sleeper.certPem)) return 'the sleeper cannot renew';
    return accepts(sleeper.caPem, manager.certPem) ? undefined : 'the sleeper knows no manager';
  }
}

t.test('in no order of events is a member shut out, or a sleeper in its grace', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          op: fc.constantFrom(...OPS),
          node: fc.nat(3),
          days: fc.constantFrom(1, 100, 200),
        }),
        { minLength: 1, maxLength: 14 },
      ),
      async (ops: Op[]) => {
        const model = new Model();
        await model.begin();
        for (const op of ops) {
          await model.step(op);
          const wrong = model.check();
          if (wrong !== undefined) throw new Error(`after ${op.op}: ${wrong}`);
        }
      },
    ),
    { numRuns: 25 * FUZZ_FACTOR },
  );
  t.pass('held');
});

t.test('a retired root is forgotten when its time is over, or four others came', async (t) => {
  const model = new Model();
  await model.begin();
  const step = (op: Op['op'], days = 0) => model.step({ op, node: 1, days });
  for (let i = 0; i < 6; i++) {
    await step('start');
    await step('finish');
  }
  t.equal(model.state.retired?.length, 4);
  await step('wait', 367);
  t.equal(graceRoots(model.state, model.nowMs).length, 0);
  await step('start');
  await step('finish');
  t.equal(model.state.retired?.length, 1);
  t.notOk(JSON.stringify(model.state.retired).includes('PRIVATE'), 'keys are not kept');
});

const withoutOpenssl = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not installed';

t.test(
  'openssl finds the way from an old root to a new certificate',
  { skip: withoutOpenssl },
  async (t) => {
    await withFolder(async (dir) => {
      const model = new Model();
      await model.begin();
      const oldRoot = model.state.rootPem;
      for (const op of ['start', 'finish', 'start'] as const)
        await model.step({ op, node: 0, days: 0 });
      await model.renew(0);
      const [leaf = '', ...chain] = pemBlocks(model.nodes[0]?.certPem ?? '');
      t.equal(chain.length, 2);
      const file = async (name: string, text: string) => {
        await writeFile(join(dir, name), text);
        return join(dir, name);
      };
      const at = ['-x509_strict', '-purpose', 'sslserver', '-attime', String(NOW_MS / 1_000)];
      const verify = async (root: string, intermediates: string) =>
        spawnSync('openssl', [
          'verify',
          ...at,
          '-CAfile',
          await file('root.pem', root),
          ...(intermediates === '' ? [] : ['-untrusted', await file('chain.pem', intermediates)]),
          await file('leaf.pem', leaf),
        ]).status;
      t.equal(await verify(oldRoot, chain.join('')), 0);
      t.equal(await verify(oldRoot, chain.toReversed().join('')), 0);
      t.not(await verify(oldRoot, chain[0] ?? ''), 0, 'not with half of it');
      t.equal(await verify(model.state.rotation?.rootPem ?? '', ''), 0);
    });
  },
);
