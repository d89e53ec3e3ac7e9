import { RUNTIME_PLUGIN } from '../../base/host-image.js';
import type { NodeView } from '../../base/swarm-model.js';
import { list } from './go-json.js';
import { genericResourceJson } from './service-json.js';
import { formatTimeMs } from './time.js';

/** A node as `docker node inspect` prints it; members that Go would omit when empty are omitted. */
export function nodeJson(node: NodeView) {
  const { spec, description, manager } = node;
  return {
    ID: node.id,
    Version: { Index: node.version },
    CreatedAt: formatTimeMs(node.createdAtMs),
    UpdatedAt: formatTimeMs(node.updatedAtMs),
    Spec: {
      ...(spec.name === '' ? {} : { Name: spec.name }),
      Labels: spec.labels,
      Role: spec.role,
      Availability: spec.availability,
    },
    Description: {
      Hostname: description.hostname,
      Platform: { Architecture: description.architecture, OS: description.os },
      Resources: {
        NanoCPUs: description.nanoCpus,
        MemoryBytes: description.memoryBytes,
        GenericResources: list(description.genericResources)?.map(genericResourceJson),
      },
      Engine: {
        EngineVersion: description.engineVersion,
        ...(Object.keys(description.engineLabels).length === 0
          ? {}
          : { Labels: description.engineLabels }),
        Plugins: description.plugins
          .filter(({ type }) => type !== RUNTIME_PLUGIN)
          .map(({ type, name }) => ({ Type: type, Name: name })),
      },
      TLSInfo: {
        TrustRoot: description.trustRootPem,
        CertIssuerSubject: description.certIssuerSubject,
        CertIssuerPublicKey: description.certIssuerPublicKey,
      },
    },
    Status: {
      State: node.state,
      ...(node.stateMessage === '' ? {} : { Message: node.stateMessage }),
      Addr: node.address,
    },
    ...(manager === undefined
      ? {}
      : {
          ManagerStatus: {
            ...(manager.leader ? { Leader: true } : {}),
            Reachability: manager.reachability,
            Addr: manager.address,
          },
        }),
  };
}
