import { readFileSync } from 'node:fs';
import type { Json } from '../compose/convert.js';
import { composeError } from '../compose/error.js';
import { convertPort, type PortJson } from '../compose/ports.js';
import { parseBytes } from '../compose/units.js';
import { checkKeys, parseFields } from './csv.js';

/** What one flag's value means in Docker's API; each throws CLI_SPEC with the flag's name. */

const warn = (message: string) => console.error(`warning: ${message}`);

/** `8080:80`, `8000-8010:80-90/udp`, or `published=8080,target=80,protocol=tcp,mode=ingress`. */
export function publishOf(value: string): readonly PortJson[] {
  const where = '--publish';
  if (!value.includes('=')) return convertPort(value, where, warn);
  const fields = parseFields(value, where);
  checkKeys(fields, ['published', 'target', 'protocol', 'mode'], where);
  const target = fields.get('target');
  if (target === undefined) throw composeError(where, `'${value}' has no target`);
  const { published, protocol = 'tcp', mode = 'ingress' } = Object.fromEntries(fields);
  const numbers = published === undefined ? target : `${published}:${target}`;
  return convertPort(`${numbers}/${protocol}`, where, warn).map((port) => ({
    ...port,
    PublishMode: mode,
  }));
}

/** `NAME` or `name=NET,alias=A,driver-opt=K=V`. */
export function networkOf(value: string): Json {
  const where = '--network';
  if (!value.includes('=')) return { Target: value };
  const fields = parseFields(value, where);
  checkKeys(fields, ['name', 'alias', 'driver-opt'], where);
  const { name, alias } = Object.fromEntries(fields);
  if (name === undefined) throw composeError(where, `'${value}' has no name`);
  return { Target: name, ...(alias !== undefined && { Aliases: [alias] }) };
}

const MOUNT_FIELDS = [
  'type',
  'source',
  'src',
  'target',
  'dst',
  'destination',
  'readonly',
  'ro',
  'bind-propagation',
  'volume-nocopy',
  'volume-driver',
  'tmpfs-size',
  'tmpfs-mode',
] as const;

/** `type=volume,source=NAME,target=/path,readonly`. */
export function mountOf(value: string): Json {
  const where = '--mount';
  const fields = parseFields(value, where);
  checkKeys(fields, MOUNT_FIELDS, where);
  const type = fields.get('type') ?? 'volume';
  const source = fields.get('source') ?? fields.get('src');
  const target = fields.get('target') ?? fields.get('dst') ?? fields.get('destination');
  if (target === undefined) throw composeError(where, `'${value}' has no target`);
  const readOnly = fields.get('readonly') ?? fields.get('ro');
  const size = fields.get('tmpfs-size');
  const mode = fields.get('tmpfs-mode');
  const propagation = fields.get('bind-propagation');
  const driver = fields.get('volume-driver');
  const noCopy = fields.get('volume-nocopy');
  return {
    Type: type,
    ...(source !== undefined && { Source: source }),
    Target: target,
    ...((readOnly === 'true' || readOnly === '1') && { ReadOnly: true }),
    ...(propagation !== undefined && { BindOptions: { Propagation: propagation } }),
    ...((driver ?? noCopy) !== undefined && {
      VolumeOptions: {
        ...(noCopy === 'true' && { NoCopy: true }),
        ...(driver !== undefined && { DriverConfig: { Name: driver } }),
      },
    }),
    ...((size ?? mode) !== undefined && {
      TmpfsOptions: {
        ...(size !== undefined && { SizeBytes: parseBytes(size, where) }),
        ...(mode !== undefined && { Mode: Number.parseInt(mode, 8) }),
      },
    }),
  };
}

const FILE_MODE = 0o444;

/** `NAME` or `source=NAME,target=FILE,uid=0,gid=0,mode=0400`, still without its id. */
export function fileOf(value: string, kind: 'secret' | 'config'): Json {
  const where = `--${kind}`;
  const fields = value.includes('=') ? parseFields(value, where) : new Map([['source', value]]);
  checkKeys(fields, ['source', 'src', 'target', 'uid', 'gid', 'mode'], where);
  const source = fields.get('source') ?? fields.get('src');
  if (source === undefined) throw composeError(where, `'${value}' has no source`);
  const { target, uid = '0', gid = '0', mode } = Object.fromEntries(fields);
  return {
    File: {
      Name: target ?? (kind === 'secret' ? source : `/${source}`),
      UID: uid,
      GID: gid,
      Mode: mode === undefined ? FILE_MODE : Number.parseInt(mode, 8),
    },
    [kind === 'secret' ? 'SecretName' : 'ConfigName']: source,
  };
}

/** `KEY=value`; of an environment variable alone the value that it has here. */
export function environmentOf(
  values: readonly string[],
  files: readonly string[],
): readonly string[] {
  const lines = files.flatMap((path) => {
    try {
      return readFileSync(path, 'utf8').split('\n');
    } catch (error) {
      throw composeError('--env-file', (error as Error).message);
    }
  });
  const given = lines.filter((line) => line.trim() !== '' && !line.startsWith('#'));
  return [...given, ...values].flatMap((one) => {
    if (one.includes('=')) return [one];
    const here = process.env[one];
    return here === undefined ? [] : [`${one}=${here}`];
  });
}

export function mappingOf(values: readonly string[] | undefined): Record<string, string> {
  return Object.fromEntries(
    (values ?? []).map((one) => {
      const at = one.indexOf('=');
      return at < 0 ? [one, ''] : [one.slice(0, at), one.slice(at + 1)];
    }),
  );
}

/** `nofile=1024:2048`. */
export function ulimitOf(value: string): Json {
  const match = /^(?<name>[a-z]+)=(?<soft>-?\d+)(:(?<hard>-?\d+))?$/.exec(value)?.groups;
  if (match === undefined) throw composeError('--ulimit', `'${value}' is not NAME=SOFT[:HARD]`);
  const soft = Number(match['soft']);
  return { Name: match['name'], Soft: soft, Hard: Number(match['hard'] ?? soft) };
}

/** `spread=node.labels.zone`. */
export function preferenceOf(value: string): Json {
  const match = /^spread=(?<over>.+)$/.exec(value)?.groups;
  if (match === undefined) throw composeError('--placement-pref', `'${value}' is not spread=LABEL`);
  return { Spread: { SpreadDescriptor: match['over'] } };
}

/** `db:10.0.0.9` becomes a line of `/etc/hosts`. */
export function hostOf(value: string): string {
  const at = value.indexOf(':');
  if (at <= 0) throw composeError('--host', `'${value}' is not NAME:ADDRESS`);
  return `${value.slice(at + 1)} ${value.slice(0, at)}`;
}

export function numberOf(value: string, flag: string): number {
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value);
  throw composeError(`--${flag}`, `'${value}' is no number`);
}
