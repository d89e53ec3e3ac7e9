/**
 * The ingress of one node, without the rest of an agent: one published port, TCP and UDP.
 *
 *   shoal-proxy.js DRIVER PORT TCP_TARGET UDP_TARGET ADDRESS,… [FLAG…]
 */
import {
  Ingress,
  type IngressEndpoint,
  PortableProxyDriver,
} from '../../src/dataplane/ingress/index.js';

const [, port, tcpTarget, udpTarget, addresses = ''] = process.argv.slice(2);

const noNamespaces = () => {
  throw new Error('no namespaces here');
};

const ingress = new Ingress({
  seed: 1,
  log: {
    info: () => undefined,
    warn: (_fields, message) => process.stderr.write(`${message}\n`),
  },
  driver: (policy) =>
    new PortableProxyDriver(policy, { sockets: { tcp: noNamespaces, udp: noNamespaces } }),
  holderOf: () => 'somebody',
});

const endpoints: IngressEndpoint[] = addresses.split(',').map((address) => ({
  serviceId: 's1',
  taskId: address,
  slot: 1,
  addresses: [address],
  state: 'ready',
  isLocal: false,
}));

ingress.update({
  services: [
    {
      id: 's1',
      name: 'bench',
      labels: {},
      ports: [
        { protocol: 'tcp', publishedPort: Number(port), targetPort: Number(tcpTarget) },
        { protocol: 'udp', publishedPort: Number(port), targetPort: Number(udpTarget) },
      ],
    },
  ],
  endpoints,
  hostPorts: [],
});
process.once('SIGTERM', () => void ingress.close().then(() => process.exit(0)));
