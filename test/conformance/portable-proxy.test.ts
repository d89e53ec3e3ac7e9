import t from 'tap';
import { PortableProxyDriver } from '../../src/dataplane/ingress/index.js';
import { noNamespaces, portable } from '../support/ingress-lab.js';
import { proxyConformance } from './proxy.js';
import { datagramConformance } from './proxy-datagrams.js';
import { shareConformance } from './proxy-shares.js';

proxyConformance(t, portable);
datagramConformance(t, {
  driver: (options) => (policy) =>
    new PortableProxyDriver(policy, { sockets: noNamespaces, ...options }),
  knowsTarget: false,
});
shareConformance(
  t,
  (options) => (policy) => new PortableProxyDriver(policy, { sockets: noNamespaces, ...options }),
);
