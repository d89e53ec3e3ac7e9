import type { ConfigObject, ObjectMeta, SecretObject, SecretSpec } from '../../base/swarm-model.js';
import { formatTimeMs } from './time.js';

/** A secret as everyone may see it: its contents are not among the members that are named here. */
export function secretJson({ id, spec, ...meta }: SecretObject) {
  return { ...metaJson(id, meta), Spec: specJson(spec) };
}

export function configJson({ id, spec, data, ...meta }: ConfigObject) {
  const { Templating, ...named } = specJson(spec);
  return {
    ...metaJson(id, meta),
    Spec: { ...named, Data: data, ...(Templating !== undefined && { Templating }) },
  };
}

function metaJson(id: string, { version, createdAtMs, updatedAtMs }: ObjectMeta) {
  return {
    ID: id,
    Version: { Index: version },
    CreatedAt: formatTimeMs(createdAtMs),
    UpdatedAt: formatTimeMs(updatedAtMs),
  };
}

function specJson({ name, labels, templating }: SecretSpec): {
  Name: string;
  Labels: object;
  Templating?: object;
} {
  if (templating === undefined) return { Name: name, Labels: labels };
  const { name: engine, options } = templating;
  const Options = Object.keys(options).length === 0 ? {} : { Options: options };
  return { Name: name, Labels: labels, Templating: { Name: engine, ...Options } };
}
