import { randomBytes } from 'node:crypto';
import { createServer, type TLSSocket } from 'node:tls';
import t from 'tap';
import type { NodeId, NodeRole } from '../../../src/base/swarm-model.js';
import {
  type Authority,
  createAuthority,
  issueNodeCertificate,
  makeIdentity,
  type NodeIdentity,
  rawPublicKeyOf,
} from '../../../src/control/identity/index.js';
import { ForwardClients } from '../../../src/control/io/forward-clients.js';
import { ForwardServer } from '../../../src/control/io/forward-server.js';
import { ALPN_FORWARD } from '../../../src/control/wire/forward-messages.js';
import type { ControlAddress } from '../../../src/control/wire/model.js';
import { nodeId, silent } from '../support.js';
import { echo, ME, OTHER, until } from './forward-support.js';

const HOST = '127.0.0.1';

async function identityOf(authority: Authority, id: NodeId, role: NodeRole): Promise<NodeIdentity> {
  const seed = randomBytes(32);
  const certPem = await issueNodeCertificate(authority, {
    nodeId: id,
    clusterId: nodeId('c') as never,
    role,
    publicKey: rawPublicKeyOf(seed),
    atMs: Date.now(),
    lifeMs: 86_400_000,
  });
  const identity = makeIdentity(seed, certPem, authority.caPem);
  if (identity === undefined) throw new Error('no identity');
  return identity;
}

/** What answers `shoal-forward/1` on a port, with the identity given. */
async function serve({ keyPem, certPem, caPem }: NodeIdentity) {
  const server = new ForwardServer({ log: silent, propose: echo, methods: {} });
  const tls = createServer({
    key: keyPem,
    cert: certPem,
    ca: caPem,
    ALPNProtocols: [ALPN_FORWARD],
    minVersion: 'TLSv1.3',
    requestCert: true,
  });
  const sockets = new Set<TLSSocket>();
  tls.on('secureConnection', (socket) => {
    sockets.add(socket);
    server.accept(socket, ME);
  });
  await new Promise<void>((resolve) => tls.listen(0, HOST, resolve));
  const { port } = tls.address() as { port: number };
  return {
    server,
    remote: { address: HOST, port },
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      tls.close();
    },
  };
}

t.test('a connection is with that very manager, or there is none', async (t) => {
  const authority = await createAuthority(Date.now());
  const mine = await identityOf(authority, ME, 'manager');
  const other = await serve(await identityOf(authority, OTHER, 'manager'));
  const third = await serve(await identityOf(authority, nodeId('third'), 'manager'));
  const worker = await serve(await identityOf(authority, OTHER, 'worker'));
  const foreign = await createAuthority(Date.now());
  const stranger = await serve(await identityOf(foreign, OTHER, 'manager'));
  let known: ControlAddress | undefined;
  const clients = new ForwardClients({
    log: silent,
    credentials: () => mine,
    addressOf: () => known,
  });
  const ask = (address: ControlAddress, timeoutMs: number) =>
    clients.of({ nodeId: OTHER, address }).propose('d', { kind: 'x' }, { timeoutMs });
  for (const wrong of [third, worker, stranger])
    t.match(await ask(wrong.remote, 300), { kind: 'unanswered', sent: false });
  t.match(await ask(other.remote, 5_000), { kind: 'done', id: 'd' });
  t.equal(third.server.stats().proposals + worker.server.stats().proposals, 0);
  t.equal(clients.of({ nodeId: OTHER, address: other.remote }).stats().connected, true);

  // The manager moves; what the state says of its address is better than the hint.
  const moved = await serve(await identityOf(authority, OTHER, 'manager'));
  other.close();
  await until(
    'it is lost',
    () => !clients.of({ nodeId: OTHER, address: other.remote }).stats().connected,
  );
  known = moved.remote;
  t.match(await ask(other.remote, 5_000), { kind: 'done', id: 'd' });
  t.equal(moved.server.stats().proposals, 1);

  const client = clients.of({ nodeId: OTHER, address: moved.remote });
  clients.retain(new Set([ME]));
  t.match(await client.propose('d', { kind: 'x' }, { timeoutMs: 100 }), { why: 'closed' });
  clients.close();
  for (const one of [third, worker, stranger, moved]) one.close();
});
