import { resolve } from 'node:path/posix';
import { composeError } from './error.js';
import type { ComposeFile, ComposeVolume } from './model.js';
import { parseBytes } from './units.js';

/** What volumes are converted with: the stack's name, its definitions, and where relative paths begin. */
export interface VolumeContext {
  readonly stack: string;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  readonly definitions: ComposeFile['volumes'];
  readonly folder: string;
  readonly home: string;
}

type MountJson = Readonly<Record<string, unknown>>;
type LongVolume = Exclude<ComposeVolume, string>;

export function convertVolume(
  volume: ComposeVolume,
  context: VolumeContext,
  where: string,
): MountJson {
  const long = typeof volume === 'string' ? parseShort(volume, where) : volume;
  switch (long.type) {
    case 'bind':
      return bindMount(long, context, where);
    case 'volume':
      return volumeMount(long, context, where);
    case 'tmpfs':
      return tmpfsMount(long, where);
    default:
      throw composeError(where, `type '${long.type}' is not one of bind, volume, tmpfs`);
  }
}

/** `[SOURCE:]TARGET[:ro,…]`; a source that looks like a path is of this host. */
function parseShort(text: string, where: string): LongVolume {
  const parts = text.split(':');
  if (parts.length > 3 || parts.includes('')) throw composeError(where, `'${text}' is no volume`);
  const [first = '', second, modes = ''] = parts;
  if (second === undefined) return { type: 'volume', target: first };
  const options = modes.split(',').filter((one) => one !== '');
  const isPath = /^[./~]/.test(first);
  const propagation = options.find((one) => /^r?(private|shared|slave)$/.test(one));
  return {
    type: isPath ? 'bind' : 'volume',
    source: first,
    target: second,
    ...(options.includes('ro') && { read_only: true }),
    ...(isPath && propagation !== undefined && { bind: { propagation } }),
    ...(!isPath && options.includes('nocopy') && { volume: { nocopy: true } }),
  };
}

function common({ target, read_only: readOnly, consistency }: LongVolume): MountJson {
  return {
    Target: target,
    ...(readOnly === true && { ReadOnly: true }),
    ...(consistency !== undefined && { Consistency: consistency }),
  };
}

function bindMount(volume: LongVolume, { folder, home }: VolumeContext, where: string): MountJson {
  const { source, bind } = volume;
  if (source === undefined) throw composeError(where, 'a bind mount needs a source');
  const path = source.startsWith('~') ? `${home}${source.slice(1)}` : resolve(folder, source);
  const options = {
    ...(bind?.propagation !== undefined && { Propagation: bind.propagation }),
    ...(bind?.create_host_path === true && { CreateMountpoint: true }),
  };
  return {
    Type: 'bind',
    Source: path,
    ...common(volume),
    ...(Object.keys(options).length > 0 && { BindOptions: options }),
  };
}

function volumeMount(volume: LongVolume, context: VolumeContext, where: string): MountJson {
  const { source, volume: options } = volume;
  const given = {
    ...(options?.nocopy === true && { NoCopy: true }),
    ...(options?.subpath !== undefined && { Subpath: options.subpath }),
  };
  const mount = { Type: 'volume', ...common(volume) };
  if (source === undefined)
    return { ...mount, ...(Object.keys(given).length > 0 && { VolumeOptions: given }) };
  if (!Object.hasOwn(context.definitions, source))
    throw composeError(where, `no volume '${source}' is defined`);
  const definition = context.definitions[source];
  const { external, name, labels, driver, driver_opts: driverOptions } = definition ?? {};
  if (external !== undefined && external !== false) {
    const outside = typeof external === 'string' ? external : (name ?? source);
    return {
      ...mount,
      Source: outside,
      ...(Object.keys(given).length > 0 && { VolumeOptions: given }),
    };
  }
  const hasDriver = driver !== undefined || driverOptions !== undefined;
  return {
    ...mount,
    Source: name ?? `${context.stack}_${source}`,
    VolumeOptions: {
      ...given,
      Labels: { ...labels, ...context.namespaceLabels },
      ...(hasDriver && { DriverConfig: { Name: driver ?? '', Options: driverOptions ?? null } }),
    },
  };
}

function tmpfsMount(volume: LongVolume, where: string): MountJson {
  if (volume.source !== undefined) throw composeError(where, 'a tmpfs has no source');
  const { size, mode } = volume.tmpfs ?? {};
  const options = {
    ...(size !== undefined && { SizeBytes: parseBytes(size, where) }),
    ...(mode !== undefined && { Mode: mode }),
  };
  return {
    Type: 'tmpfs',
    ...common(volume),
    ...(Object.keys(options).length > 0 && { TmpfsOptions: options }),
  };
}
