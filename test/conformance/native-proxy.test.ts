import t from 'tap';
import { type NativeDriverOptions, NativeProxyDriver } from '../../src/dataplane/ingress/index.js';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/index.js';
import { noNamespaces, type OpenDriver } from '../support/ingress-lab.js';
import { proxyConformance } from './proxy.js';

const binding = loadNative();
if (binding === undefined) t.plan(0, nativeUnavailableReason());
else {
  const open =
    (options: Partial<NativeDriverOptions>): OpenDriver =>
    (policy) =>
      new NativeProxyDriver(policy, { binding, sockets: noNamespaces, ...options });
  t.test('one thread', (t) => {
    proxyConformance(t, open({}));
    t.end();
  });
  t.test('three threads, spliced early', (t) => {
    proxyConformance(t, open({ threads: 3, spliceAfterBytes: 1 }));
    t.end();
  });
  t.test('each flow asks', (t) => {
    proxyConformance(t, open({ aheadMax: 0 }));
    t.end();
  });
}
