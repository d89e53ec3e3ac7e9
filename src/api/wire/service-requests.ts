import { z } from 'zod';
import type {
  EndpointSpec,
  NetworkTarget,
  Placement,
  PortConfig,
  Resources,
  RestartPolicy,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../base/service-model.js';
import type { GenericResource, NetworkId } from '../../base/swarm-model.js';
import { containerBody, containerSpecOf } from './container-requests.js';
import { badRequest } from './errors.js';
import { labels, read, text, whole } from './fields.js';
import {
  amount,
  duration,
  durationOrZero,
  figure,
  items,
  map,
  oneOf,
  present,
  texts,
  words,
} from './spec-fields.js';

const networkTarget = z
  .object({ Target: text, Aliases: texts, DriverOpts: map })
  .transform(
    ({ Target, Aliases, DriverOpts }): NetworkTarget =>
      present({ target: Target as NetworkId, aliases: Aliases, driverOptions: DriverOpts }),
  );

const genericResource = z
  .object({
    NamedResourceSpec: z.object({ Kind: text, Value: text }).nullish(),
    DiscreteResourceSpec: z.object({ Kind: text, Value: figure }).nullish(),
  })
  .transform(({ NamedResourceSpec: named, DiscreteResourceSpec: discrete }, context) => {
    if (discrete != null)
      return { kind: 'discrete', name: discrete.Kind, value: discrete.Value ?? 0 } as const;
    if (named != null) return { kind: 'named', name: named.Kind, value: named.Value } as const;
    context.addIssue({ code: 'custom', message: 'expected a named or a discrete resource' });
    return z.NEVER;
  });

const resourcesBody = z.object({
  Limits: z.object({ NanoCPUs: amount, MemoryBytes: amount, Pids: amount }).nullish(),
  Reservations: z
    .object({ NanoCPUs: amount, MemoryBytes: amount, GenericResources: items(genericResource) })
    .nullish(),
  SwapBytes: figure,
  MemorySwappiness: figure,
});

function resourcesOf(body: z.output<typeof resourcesBody>): Resources {
  const { Limits: limits, Reservations: reservations, SwapBytes: swapBytes } = body;
  if (swapBytes !== undefined && limits?.MemoryBytes === undefined)
    throw badRequest('memory swap provided, but no memory-limit was set');
  return present({
    limits:
      limits == null
        ? undefined
        : present({
            nanoCpus: limits.NanoCPUs,
            memoryBytes: limits.MemoryBytes,
            pids: limits.Pids,
          }),
    reservations:
      reservations == null
        ? undefined
        : present({
            nanoCpus: reservations.NanoCPUs,
            memoryBytes: reservations.MemoryBytes,
            generic: reservations.GenericResources as readonly GenericResource[] | undefined,
          }),
    swapBytes,
    memorySwappiness: body.MemorySwappiness,
  });
}

const restartBody = z
  .object({
    Condition: oneOf(
      ['none', 'on-failure', 'any'],
      (given) => `invalid RestartCondition: "${given}"`,
    ),
    Delay: durationOrZero,
    MaxAttempts: amount,
    Window: durationOrZero,
  })
  .transform(
    ({ Condition, Delay, MaxAttempts, Window }): RestartPolicy =>
      present({
        condition: Condition ?? ('any' as const),
        delayMs: Delay,
        maxAttempts: MaxAttempts,
        windowMs: Window,
      }),
  );

const placementBody = z
  .object({
    Constraints: texts,
    Preferences: items(z.object({ Spread: z.object({ SpreadDescriptor: text }).nullish() })),
    MaxReplicas: amount,
    Platforms: items(
      z
        .object({ Architecture: words, OS: words })
        .transform(({ Architecture, OS }) => present({ architecture: Architecture, os: OS })),
    ),
  })
  .transform(({ Constraints, Preferences, MaxReplicas, Platforms }): Placement => {
    const spreadOver = Preferences?.flatMap(({ Spread }) => Spread?.SpreadDescriptor ?? []);
    return present({
      constraints: Constraints,
      spreadOver: spreadOver?.length === 0 ? undefined : spreadOver,
      maxReplicas: MaxReplicas,
      platforms: Platforms,
    });
  });

const updateBody = z
  .object({
    Parallelism: figure,
    Delay: duration,
    FailureAction: oneOf(
      ['pause', 'continue', 'rollback'],
      (given) => `unrecognized update failure action ${given}`,
    ),
    Monitor: duration,
    MaxFailureRatio: z.number().nullish(),
    Order: oneOf(['stop-first', 'start-first'], (given) => `unrecognized update order ${given}`),
  })
  .transform(
    (body): UpdateConfig =>
      present({
        parallelism: body.Parallelism ?? 0,
        delayMs: body.Delay,
        failureAction: body.FailureAction ?? ('pause' as const),
        monitorMs: body.Monitor,
        maxFailureRatio: body.MaxFailureRatio || undefined,
        order: body.Order ?? ('stop-first' as const),
      }),
  );

const PORT_MAX = 65_535;
const port = whole
  .refine((value) => value >= 0 && value <= PORT_MAX, `expected a port from 0 to ${PORT_MAX}`)
  .nullish()
  .transform((value) => value || undefined);

const portBody = z
  .object({
    Name: words,
    Protocol: oneOf(['tcp', 'udp', 'sctp'], (given) => `invalid Protocol: "${given}"`),
    TargetPort: port,
    PublishedPort: port,
    PublishMode: oneOf(['ingress', 'host'], (given) => `invalid PublishMode: "${given}"`),
  })
  .transform(
    (body): PortConfig =>
      present({
        name: body.Name,
        protocol: body.Protocol ?? ('tcp' as const),
        targetPort: body.TargetPort ?? 0,
        publishedPort: body.PublishedPort,
        publishMode: body.PublishMode ?? ('ingress' as const),
      }),
  );

const endpointBody = z
  .object({
    Mode: oneOf(['vip', 'dnsrr'], (given) => `invalid resolution mode: "${given}"`),
    Ports: items(portBody),
  })
  .transform(
    ({ Mode, Ports }): EndpointSpec => present({ mode: Mode ?? ('vip' as const), ports: Ports }),
  );

const modeBody = z.object({
  Replicated: z.object({ Replicas: figure }).nullish(),
  Global: z.object({}).nullish(),
  ReplicatedJob: z.object({ MaxConcurrent: figure, TotalCompletions: figure }).nullish(),
  GlobalJob: z.object({}).nullish(),
});

function modeOf(body: z.output<typeof modeBody> | null | undefined): ServiceMode {
  const {
    Replicated: replicated,
    Global: global,
    ReplicatedJob: job,
    GlobalJob: globalJob,
  } = body ?? {};
  if ([replicated, global, job, globalJob].filter((mode) => mode != null).length > 1)
    throw badRequest('must specify only one service mode');
  if (global != null) return { kind: 'global' };
  if (globalJob != null) return { kind: 'global-job' };
  if (job != null) {
    const maxConcurrent = job.MaxConcurrent ?? 1;
    const totalCompletions = job.TotalCompletions ?? maxConcurrent;
    return { kind: 'replicated-job', maxConcurrent, totalCompletions };
  }
  return { kind: 'replicated', replicas: replicated?.Replicas ?? 1 };
}

const taskBody = z.object({
  ContainerSpec: containerBody.nullish(),
  Resources: resourcesBody.nullish(),
  RestartPolicy: restartBody.nullish(),
  Placement: placementBody.nullish(),
  Networks: items(networkTarget),
  LogDriver: z.object({ Name: text, Options: map }).nullish(),
  ForceUpdate: amount,
  Runtime: words,
});

const serviceBody = z.object({
  Name: text,
  Labels: labels,
  TaskTemplate: taskBody.nullish(),
  Mode: modeBody.nullish(),
  UpdateConfig: updateBody.nullish(),
  RollbackConfig: updateBody.nullish(),
  Networks: items(networkTarget),
  EndpointSpec: endpointBody.nullish(),
});

function taskSpecOf(
  body: z.output<typeof taskBody>,
  networks: readonly NetworkTarget[] | undefined,
): TaskSpec {
  const { ContainerSpec: container, Resources: resources, LogDriver: log } = body;
  if (body.Runtime !== undefined && body.Runtime !== 'container')
    throw badRequest('unsupported runtime');
  if (container == null) throw badRequest('mismatched Runtime and *Spec fields');
  return present({
    container: containerSpecOf(container),
    resources: resources == null ? undefined : resourcesOf(resources),
    restart: body.RestartPolicy ?? undefined,
    placement: body.Placement ?? undefined,
    // Old clients say it one level higher.
    networks: body.Networks ?? networks,
    logDriver: log == null ? undefined : present({ name: log.Name, options: log.Options }),
    forceUpdate: body.ForceUpdate,
  });
}

/** The targets of networks are as the user named them: ids, names, or beginnings of ids. */
export function readServiceSpec(body: unknown): ServiceSpec {
  const service = read(serviceBody, body);
  if (service.TaskTemplate == null) throw badRequest('mismatched Runtime and *Spec fields');
  return present({
    name: service.Name,
    labels: service.Labels,
    task: taskSpecOf(service.TaskTemplate, service.Networks),
    mode: modeOf(service.Mode),
    update: service.UpdateConfig ?? undefined,
    rollback: service.RollbackConfig ?? undefined,
    endpoint: service.EndpointSpec ?? undefined,
  });
}
