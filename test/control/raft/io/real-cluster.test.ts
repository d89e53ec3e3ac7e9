import 'reflect-metadata';
import { KeyObject, webcrypto } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type Server, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import {
  type Member,
  openRaftStorage,
  RaftNode,
  type RaftPurpose,
  seedMembership,
  Vault,
} from '../../../../src/control/raft/index.js';
import { idOf, ListMachine, silentLog, until } from './cluster.js';

const NAME = 'manager';
const PROTOCOLS: Readonly<Record<RaftPurpose, string>> = { log: 'log', snapshot: 'snapshot' };

/** One certificate for all, which is its own CA: who has it is a member. */
async function makeCertificate(): Promise<{ readonly key: string; readonly cert: string }> {
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: `CN=${NAME}`,
      keys,
      notBefore: new Date(Date.now() - 60_000),
      notAfter: new Date(Date.now() + 3_600_000),
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: NAME }]),
      ],
    },
    webcrypto,
  );
  const key = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  return { key: key.toString(), cert: certificate.toString('pem') };
}

/** A manager with a port of its own, which stays the same over restarts. */
class RealHost {
  readonly dir: string;
  readonly tls: { readonly key: string; readonly cert: string };
  readonly server: Server;
  machine = new ListMachine();
  node: RaftNode | undefined;
  fatal: Error | undefined;
  readonly #sockets = new Set<TLSSocket>();

  constructor(dir: string, tls: { readonly key: string; readonly cert: string }) {
    this.dir = dir;
    this.tls = tls;
    this.server = createServer({
      ...tls,
      ca: tls.cert,
      requestCert: true,
      minVersion: 'TLSv1.3',
      ALPNProtocols: Object.values(PROTOCOLS),
    });
    this.server.on('secureConnection', (socket) => {
      socket.setNoDelay(true);
      socket.on('error', () => {});
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      if (this.node === undefined) socket.destroy();
      else this.node.accept(socket, socket.alpnProtocol === 'snapshot' ? 'snapshot' : 'log');
    });
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async open(id: number, members?: readonly Member[]): Promise<void> {
    const keys = await Vault.open(join(this.dir, 'keys.json'));
    const config = { dir: join(this.dir, 'raft'), keys, log: silentLog, segmentBytes: 1 << 20 };
    if (members !== undefined) {
      const seeded = await openRaftStorage(config);
      await seedMembership(seeded, members);
      await seeded.close();
    }
    this.machine = new ListMachine();
    this.node = await RaftNode.open({
      id: idOf(id),
      storage: await openRaftStorage(config),
      machine: this.machine,
      log: silentLog,
      electionTimeoutMs: 300,
      heartbeatMs: 50,
      keepEntries: 5,
      dial: (member, purpose, signal) => this.#dial(member, purpose, signal),
      onFatal: (error) => {
        this.fatal = error;
      },
    });
  }

  async close(): Promise<void> {
    const { node } = this;
    this.node = undefined;
    await node?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #dial({ context }: Member, purpose: RaftPurpose, signal: AbortSignal): Promise<TLSSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect({
        host: '127.0.0.1',
        port: Number(context),
        servername: NAME,
        ca: this.tls.cert,
        ...this.tls,
        minVersion: 'TLSv1.3',
        ALPNProtocols: [PROTOCOLS[purpose]],
      });
      signal.addEventListener('abort', () => socket.destroy(new Error('cancelled')));
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        socket.setNoDelay(true);
        resolve(socket);
      });
    });
  }
}

async function realCluster(t: Test): Promise<readonly [RealHost, RealHost, RealHost]> {
  const tls = await makeCertificate();
  const root = await mkdtemp(join(tmpdir(), 'shoal-raft-'));
  const hosts = [1, 2, 3].map((id) => new RealHost(join(root, `${id}`), tls));
  t.teardown(async () => {
    await Promise.all(hosts.map((host) => host.close()));
    for (const host of hosts) host.server.close();
    await rm(root, { recursive: true, force: true });
  });
  await Promise.all(
    hosts.map(
      ({ server }) => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)),
    ),
  );
  const members = hosts.map((host, i) => ({
    id: idOf(i + 1),
    voter: true,
    context: `${host.port}`,
  }));
  await Promise.all(hosts.map((host, i) => host.open(i + 1, members)));
  return hosts as unknown as readonly [RealHost, RealHost, RealHost];
}

const leaderAmong = (hosts: readonly RealHost[]) =>
  until('a leader', () => hosts.find(({ node }) => node?.status().leaderReady));

const settled = (hosts: readonly RealHost[]) =>
  until('the same state everywhere', () => {
    const up = hosts.filter(({ node }) => node !== undefined);
    const indexes = up.map(({ node }) => node?.status().appliedIndex);
    const commits = up.map(({ node }) => node?.status().commitIndex);
    return new Set([...indexes, ...commits]).size === 1;
  });

t.test('over TLS and on real disks: load, failover, snapshot, restarts', async (t) => {
  const hosts = await realCluster(t);
  const acknowledged: string[] = [];
  const load = async (host: RealHost, name: string, count: number) => {
    const commands = Array.from({ length: count }, (_, i) => `${name}-${i}`);
    await Promise.all(commands.map((command) => host.node?.propose(Buffer.from(command))));
    acknowledged.push(...commands);
  };
  const first = await leaderAmong(hosts);
  await load(first, 'first', 500);
  await first.node?.propose(Buffer.alloc(1_536 * 1_024, 'x'));
  acknowledged.push('x'.repeat(1_536 * 1_024));
  const index = hosts.indexOf(first);
  await first.close();
  const second = await leaderAmong(hosts);
  t.not(second, first);
  await load(second, 'second', 300);
  await second.node?.read();
  // The one that is down falls behind what the others keep of their logs.
  await Promise.all(hosts.map(({ node }) => node?.snapshot()));
  await load(second, 'third', 10);
  await first.open(index + 1);
  await settled(hosts);
  t.equal(first.machine.restores, 1);
  t.ok((first.node?.status().snapshots.receiving.receivedBytes ?? 0) > 1_536 * 1_024);
  await Promise.all(hosts.map((host) => host.close()));
  await Promise.all(hosts.map((host, i) => host.open(i + 1)));
  const last = await leaderAmong(hosts);
  await load(last, 'last', 10);
  await settled(hosts);
  for (const { machine, fatal } of hosts) {
    t.equal(fatal, undefined);
    t.equal(machine.commands.length, acknowledged.length);
    t.strictSame(machine.commands, acknowledged);
  }
});

t.test('strangers on the port of a manager are no members', async (t) => {
  const [target, ...rest] = await realCluster(t);
  const leader = await leaderAmong([target, ...rest]);
  const stranger = await makeCertificate();
  const socket = connect({
    host: '127.0.0.1',
    port: target.port,
    rejectUnauthorized: false,
    ...stranger,
    minVersion: 'TLSv1.3',
    ALPNProtocols: ['log'],
  });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.on('error', () => {});
  socket.on('data', () => t.fail('answered'));
  socket.write(Buffer.alloc(100_000, 0xff));
  await closed;
  await leader.node?.propose(Buffer.from('x'));
});
