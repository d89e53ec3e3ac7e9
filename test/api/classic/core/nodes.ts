import {
  type CreateRequest,
  parseCreate,
} from '../../../../src/api/classic/core/create-request.js';
import type { ClassicContainer, ClassicNode } from '../../../../src/api/classic/core/node.js';

export function containerOf(name: string, more: Partial<ClassicContainer> = {}): ClassicContainer {
  return {
    id: Buffer.from(name).toString('hex').padEnd(64, '0'),
    names: [name],
    labels: {},
    state: 'running',
    ports: [],
    cpus: 0,
    memoryBytes: 0,
    ...more,
  };
}

export function nodeOf(name: string, more: Partial<ClassicNode> = {}): ClassicNode {
  return {
    id: `id-${name}`,
    name,
    address: '10.0.0.1:2376',
    labels: {},
    cpus: 4,
    memoryBytes: 8_000,
    isActive: true,
    hasEngine: true,
    containers: [],
    images: [],
    ...more,
  };
}

/** Of a container as the CLI asks for it. */
export function asked(body: {
  readonly Image?: string;
  readonly Env?: readonly string[];
  readonly Labels?: Readonly<Record<string, string>>;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly HostConfig?: Readonly<Record<string, unknown>>;
}): CreateRequest {
  const parsed = parseCreate({ Image: 'busybox', ...body });
  if (typeof parsed === 'string') throw new Error(parsed);
  return parsed;
}
