export { balanceOfLabels } from '../core/balance/labels.js';
export { FLOW_ENDS } from './core/proxy-driver.js';
export type {
  HostPort,
  IngressEndpoint,
  IngressInputs,
  IngressService,
} from './core/published-ports.js';
export { type FlowItem, Ingress, type IngressOptions, type PortProblem } from './io/ingress.js';
export { type NativeDriverOptions, NativeProxyDriver, proxyThreads } from './io/native-driver.js';
export { type NamespaceSockets, PortableProxyDriver } from './io/portable-driver.js';
