import { join } from 'node:path';
import t from 'tap';
import { scratch, skipUnless, TestLab } from './support/lab.js';

/** The docker CLI far from the agents, by TCP. */

const skip = skipUnless('docker');

t.test(
  'the API by TLS lets in who has a certificate of the swarm',
  { skip, timeout: 120_000 },
  async (t) => {
    const lab = await TestLab.up(t, {
      nodes: 2,
      managers: 1,
      extraFlags: ['--tls-address', '0.0.0.0:2376'],
    });
    const folder = join(scratch(t), 'certs');
    const made = await lab.shoal('node1', 'certificate', '--out', folder);
    t.equal(made.code, 0, made.stderr);
    const { address } = lab.lab.node('node1');
    const tls = [
      ...['--tlsverify', '--tlscacert', join(folder, 'ca.pem')],
      ...['--tlscert', join(folder, 'cert.pem'), '--tlskey', join(folder, 'key.pem')],
    ];
    const from = (host: string, ...flags: readonly string[]) =>
      lab.docker('node2', ...flags, '-H', `tcp://${host}:2376`, 'node', 'ls');
    const seen = await from(address, ...tls);
    t.equal(seen.code, 0, seen.stderr);
    t.match(seen.stdout, /node1 +Ready/);
    t.not((await from(address, '--tlsverify', '--tlscacert', join(folder, 'ca.pem'))).code, 0);
    t.not((await from(address)).code, 0, 'plain HTTP');
    t.not((await from(lab.lab.node('node2').address, ...tls)).code, 0, 'a worker');
  },
);
