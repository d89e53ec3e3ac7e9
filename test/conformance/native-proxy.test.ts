import t, { type Test } from 'tap';
import { type NativeDriverOptions, NativeProxyDriver } from '../../src/dataplane/ingress/index.js';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/index.js';
import {
  askUdp,
  endpoint,
  freePort,
  inputs,
  type OpenDriver,
  openIngress,
  udpBackend,
  until,
} from '../support/ingress-lab.js';
import { proxyConformance } from './proxy.js';
import { datagramConformance, udpClient } from './proxy-datagrams.js';
import { shareConformance } from './proxy-shares.js';

const binding = loadNative();
if (binding === undefined) t.plan(0, nativeUnavailableReason());
else {
  const open =
    (options: Partial<NativeDriverOptions>): OpenDriver =>
    (policy) =>
      new NativeProxyDriver(policy, { binding, ...options });
  const conform = (t: Test, options: Partial<NativeDriverOptions>) => {
    proxyConformance(t, open(options));
    datagramConformance(t, {
      driver: (more) => open({ ...options, ...more }),
      knowsTarget: true,
    });
    shareConformance(t, (more) => open({ ...options, ...more }));
    t.end();
  };
  t.test('one thread', (t) => conform(t, {}));
  t.test('three threads, spliced early', (t) => conform(t, { threads: 3, spliceAfterBytes: 1 }));
  t.test('each flow asks', (t) => conform(t, { aheadMax: 0 }));

  t.test('datagrams of flows beyond the limit are dropped and counted', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, '127.0.0.2', target);
    const ingress = openIngress(t, open({ udpFlowsMax: 1 }));
    ingress.update(inputs('udp', published, target, [endpoint('127.0.0.2')]));
    const [first, second] = [await udpClient(t), await udpClient(t)];
    await askUdp(first, 'x', published);
    second.send('x', published, '127.0.0.1');
    await until(() => ingress.stats().datagramDrops['flows'] === 1);
    await until(() => ingress.stats().ports[0]?.ends.limit === 1);
    t.equal(await askUdp(first, 'y', published), '127.0.0.2 y', 'the first one goes on');
  });
}
