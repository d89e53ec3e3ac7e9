/**
 * The ingress of one node, without the rest of an agent: one published port, TCP and UDP.
 *
 *   shoal-proxy.js DRIVER PORT TCP_TARGET UDP_TARGET ADDRESS,… [FLAG…]
 */
import {
  Ingress,
  type IngressEndpoint,
  NativeProxyDriver,
  PortableProxyDriver,
} from '../../src/dataplane/ingress/index.js';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/index.js';

const [driver, port, tcpTarget, udpTarget, addresses = '', ...flags] = process.argv.slice(2);

const noNamespaces = () => {
  throw new Error('no namespaces here');
};
const sockets = { tcp: noNamespaces, udp: noNamespaces };

function nativeBinding() {
  const binding = loadNative();
  if (binding === undefined) throw new Error(nativeUnavailableReason());
  return binding;
}

/** `--threads=2` and so on: the options of the native driver that are numbers. */
const options = Object.fromEntries(
  flags.map((flag) => {
    const [name = '', value] = flag.replace(/^--/, '').split('=');
    return [name, Number(value)];
  }),
);

const ingress = new Ingress({
  seed: 1,
  log: {
    info: () => undefined,
    warn: (_fields, message) => process.stderr.write(`${message}\n`),
  },
  driver: (policy) =>
    driver === 'native'
      ? new NativeProxyDriver(policy, { binding: nativeBinding(), ...options })
      : new PortableProxyDriver(policy, { sockets }),
  holderOf: () => 'somebody',
});

const endpointsOf = (serviceId: string): IngressEndpoint[] =>
  addresses.split(',').map((address) => ({
    serviceId,
    taskId: address,
    slot: 1,
    addresses: [address],
    state: 'ready',
    isLocal: false,
  }));

const serviceOf = (id: string, protocol: string, targetPort: string | undefined) => ({
  id,
  name: id,
  labels: {},
  ports: [{ protocol, publishedPort: Number(port), targetPort: Number(targetPort) }],
});

ingress.update({
  services: [serviceOf('tcp', 'tcp', tcpTarget), serviceOf('udp', 'udp', udpTarget)],
  // The echo answers from its host's first address, whichever it was asked at.
  endpoints: [...endpointsOf('tcp'), ...endpointsOf('udp').slice(0, 1)],
  hostPorts: [],
});
// The addon's threads do not keep a process alive.
setInterval(() => undefined, 60_000);
process.once('SIGTERM', () => void ingress.close().then(() => process.exit(0)));
