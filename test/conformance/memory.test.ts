import t from 'tap';
import { MemoryNetwork, MemoryPacketIo } from '../../src/dataplane/io/memory.js';
import { packetIoConformance } from './packet-io.js';
import type { PacketIoBed } from './packet-io-bed.js';
import { PatchPanel } from './patch-panel.js';

const PORT = 4789;
const ADDRESSES = ['192.0.2.1', 'fd00::1'] as const;

function memoryBed(): PacketIoBed {
  const network = new MemoryNetwork();
  let peers = 1;
  return {
    async open(_t, { sourcePorts = 1 } = {}) {
      const config = { udpPort: PORT, receiveBufferBytes: 0, busyPollMicros: 0, sourcePorts };
      const io = new MemoryPacketIo(network, ADDRESSES, config);
      const panel = new PatchPanel();
      io.start(panel);
      _t.teardown(() => io.stop());
      return {
        async addPort(index) {
          const port = network.openPort();
          io.addPort(index, port.fd);
          return {
            send: (frame) => port.send(frame),
            received: () => port.received,
            kill: async () => port.kill(),
            exists: () => port.isOpen,
          };
        },
        removePort: async (index) => io.removePort(index),
        setVtep: async (index, { address, port }) => io.setVtep(index, address, port),
        removeVtep: async (index) => io.removeVtep(index),
        setSeals: async (index, keys) => io.setSeals(index, keys),
        allowSeals: async (first, count) => io.allowSeals(first, count),
        wire: async (routes) => panel.wire(routes),
        report: async () => panel.report(),
        stats: async () => io.stats(),
        stop: () => io.stop(),
      };
    },
    async openPeer(_t, family) {
      peers += 1;
      const isIpv4 = family === 'ipv4';
      const socket = network.openSocket(isIpv4 ? `192.0.2.${peers}` : `fd00::${peers}`, PORT);
      return {
        address: socket.address,
        port: socket.port,
        send: (payload) => socket.send(payload, ADDRESSES[isIpv4 ? 0 : 1], PORT),
        received: () => socket.received,
      };
    },
    settle: async () => network.run(),
  };
}

packetIoConformance(t, memoryBed());

t.test('faults repeat by their seed', async (t) => {
  const run = (seed: number) => {
    const network = new MemoryNetwork(seed, { loss: 0.2, duplication: 0.2, reordering: 0.2 });
    const from = network.openSocket('192.0.2.8', 1);
    const to = network.openSocket('192.0.2.9', 1);
    for (let i = 0; i < 200; i++) from.send(Buffer.from([i]), '192.0.2.9', 1);
    network.run();
    return to.received.map(({ payload }) => payload[0] ?? -1);
  };
  t.strictSame(run(5), run(5));
  const got = run(5);
  t.ok(new Set(got).size < 200, 'some are lost');
  t.ok(new Set(got).size < got.length, 'some come twice');
  t.notSame(
    got,
    [...got].sort((a, b) => a - b),
    'some overtake',
  );
  t.notSame(run(5), run(6));
});
