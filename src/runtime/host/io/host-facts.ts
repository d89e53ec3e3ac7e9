import { mkdirSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { DescriptorLimits } from '../../../base/descriptor-limits.js';
import type { Mount } from '../../../base/service-model.js';
import type { RuntimeTask } from '../../core/runtime.js';
import { cleanPath, isBelow } from '../core/paths.js';
import type { HostFacts } from '../core/task-plan.js';
import { rejected } from '../core/view.js';

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

export function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** What a plan must know of this host; named volumes are made where they are missing. */
export function hostFactsOf(
  folder: string,
  volumes: string,
  descriptors: DescriptorLimits | undefined,
): HostFacts {
  return {
    folder,
    rootEntries: new Set(readdirSync('/')),
    passwd: readText('/etc/passwd'),
    group: readText('/etc/group'),
    hostname: hostname(),
    ...(descriptors === undefined ? {} : { descriptors }),
    volumeFolder: (mount) => makeVolume(volumes, folder, mount),
  };
}

function makeVolume(volumes: string, task: string, mount: Mount): string {
  const driver = mount.volume?.driver;
  if (driver?.name !== undefined && driver.name !== '' && driver.name !== 'local') {
    throw rejected(`volume driver ${driver.name} is not one of the host runtime: use local`);
  }
  if (Object.keys(driver?.options ?? {}).length > 0) {
    throw rejected('volumes of the host runtime are plain folders, without driver options');
  }
  const name = mount.source ?? '';
  if (name !== '' && !VOLUME_NAME.test(name)) {
    throw rejected(
      `"${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`,
    );
  }
  // One without a name is the task's own, and goes with it.
  const at = mount.target.replaceAll('/', '-');
  const path = name === '' ? join(task, 'volumes', at) : join(volumes, name, '_data');
  mkdirSync(path, { recursive: true });
  const subpath = mount.volume?.subpath;
  if (subpath === undefined || subpath === '') return path;
  const inside = realpathSync(path);
  try {
    const real = realpathSync(join(inside, cleanPath(subpath)));
    if (isBelow(real, inside)) return real;
  } catch {
    // Said below.
  }
  throw rejected(`cannot access path ${join(path, subpath)}: no such folder in the volume`);
}

/** @throws RuntimeError RUNTIME_REJECTED where something to be mounted is not there. */
export function checkBindSources(task: RuntimeTask): void {
  for (const { type, source = '', bind } of task.container.mounts ?? []) {
    if (type !== 'bind' || !source.startsWith('/')) continue;
    if (bind?.createMountpoint === true) mkdirSync(source, { recursive: true });
    try {
      statSync(source);
    } catch {
      throw rejected(
        `invalid mount config for type "bind": bind source path does not exist: ${source}`,
      );
    }
  }
}
