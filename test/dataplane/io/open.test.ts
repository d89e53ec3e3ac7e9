import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import t from 'tap';
import { SwarmError } from '../../../src/base/swarm-error.js';
import { MemoryNetwork } from '../../../src/dataplane/io/memory.js';
import { STATS_FIELDS } from '../../../src/dataplane/io/native.js';
import { loadNative } from '../../../src/dataplane/io/native-binding.js';
import { openPacketIo } from '../../../src/dataplane/io/open.js';

const poll = () => false;
const config = { udpPort: 0, receiveBufferBytes: 65_536, busyPollMicros: 0, sourcePorts: 2 };

t.test('auto is native where that can be had, and says why', async (t) => {
  const { io, reason, wakeFd } = openPacketIo('auto', config, { poll });
  t.teardown(() => io.stop());
  const hasNative = loadNative() !== undefined;
  t.equal(io.kind, hasNative ? 'native' : 'portable');
  t.equal(wakeFd !== undefined, hasNative);
  t.match(reason, /native packet driver/);
});

t.test('a kind that is asked for is opened', async (t) => {
  for (const kind of ['portable', 'memory'] as const) {
    const { io, wakeFd } = openPacketIo(kind, config, { poll });
    t.equal(io.kind, kind);
    t.equal(wakeFd, undefined);
    await io.stop();
  }
  const memory = { network: new MemoryNetwork(), addresses: ['192.0.2.1'] };
  t.equal(openPacketIo('memory', config, { poll, memory }).io.kind, 'memory');
});

t.test('a taken port is a typed refusal, for each real driver', async (t) => {
  const holder = createSocket('udp4').bind(0, '0.0.0.0');
  await once(holder, 'listening');
  t.teardown(() => holder.close());
  const udpPort = holder.address().port;
  for (const kind of ['portable', 'auto'] as const) {
    try {
      const { io } = openPacketIo(kind, { ...config, udpPort }, { poll });
      await io.stop();
      t.fail('was opened');
    } catch (error) {
      t.ok(error instanceof SwarmError, kind);
      t.match(
        error,
        { detail: { code: 'SWARM_PORT_TAKEN', port: udpPort, protocol: 'udp' } },
        kind,
      );
    }
  }
});

t.test('counters can lie where others read them', async (t) => {
  const stats = new Float64Array(new SharedArrayBuffer(STATS_FIELDS.length * 8));
  const { io } = openPacketIo('portable', config, { poll, stats });
  t.teardown(() => io.stop());
  t.equal(io.stats().datagramsSent, 0);
  stats[STATS_FIELDS.indexOf('datagramsSent')] = 5;
  t.equal(io.stats().datagramsSent, 5);
});
