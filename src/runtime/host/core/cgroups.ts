import type { Resources } from '../../../base/service-model.js';

/** Which control groups this host has, and where. */
export interface CgroupLayout {
  readonly version: 1 | 2;
  /** Folder of the hierarchy in which each controller is. */
  readonly folders: ReadonlyMap<string, string>;
}

export interface CgroupPlan {
  /** Made in this order, taken away in the other. */
  readonly folders: readonly string[];
  /** Turned on for the folders below; what fails here shows when a limit is set. */
  readonly delegations: readonly { readonly path: string; readonly value: string }[];
  readonly limits: readonly {
    readonly path: string;
    readonly value: string;
    readonly what: string;
  }[];
  readonly procs: readonly string[];
  /** A file with a line `oom_kill N`. */
  readonly oomEvents?: string;
  /** Limits that were asked for and that no controller can hold. */
  readonly unheld: readonly string[];
}

const CONTROLLERS = ['cpu', 'cpuacct', 'memory', 'pids'];
const PERIOD_US = 100_000;
const QUOTA_US_MIN = 1000;
/** Of v1: as large as there is. */
const UNLIMITED_V1 = '-1';

/**
 * Reads the layout from `/proc/self/mountinfo`. The old hierarchies count where any of the needed controllers is in
 * one: a controller is never in both.
 *
 * @param unifiedControllers Contents of `cgroup.controllers` of the new hierarchy, if it is mounted.
 */
export function cgroupLayoutOf(
  mountinfo: string,
  unifiedControllers: (folder: string) => string,
): CgroupLayout | undefined {
  const folders = new Map<string, string>();
  let unified: string | undefined;
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root, target = ''] = left.split(' ');
    const [type, , options = ''] = right.split(' ');
    if (root !== '/') continue;
    if (type === 'cgroup2') unified ??= target;
    if (type !== 'cgroup') continue;
    for (const name of options.split(',')) {
      if (CONTROLLERS.includes(name) && !folders.has(name)) folders.set(name, target);
    }
  }
  if (folders.size > 0) return { version: 1, folders };
  if (unified === undefined) return undefined;
  for (const name of unifiedControllers(unified).split(/\s+/)) {
    if (CONTROLLERS.includes(name)) folders.set(name, unified);
  }
  // Without a controller it still groups the processes.
  if (folders.size === 0) folders.set('', unified);
  return { version: 2, folders };
}

/**
 * What must be made and written so that a task has its limits.
 *
 * @param parent Folder below the root of a hierarchy, without a slash before it.
 */
export function cgroupPlanOf(
  layout: CgroupLayout | undefined,
  parent: string,
  task: string,
  resources: Resources | undefined,
): CgroupPlan {
  const wishes = wishesOf(resources, layout?.version ?? 2);
  if (layout === undefined) {
    const unheld = [...new Set(wishes.filter((w) => w.isLimit).map((w) => w.what))];
    return { folders: [], delegations: [], limits: [], procs: [], unheld };
  }
  const roots = [...new Set(layout.folders.values())];
  const own = (root: string) => `${root}/${parent}/${task}`;
  const unheld = new Set<string>();
  const limits: CgroupPlan['limits'][number][] = [];
  for (const { controller, file, value, what, isLimit } of wishes) {
    const root = layout.folders.get(controller);
    if (root !== undefined) limits.push({ path: `${own(root)}/${file}`, value, what });
    else if (isLimit) unheld.add(what);
  }
  const memory = layout.folders.get('memory');
  const events = layout.version === 2 ? 'memory.events' : 'memory.oom_control';
  return {
    folders: roots.flatMap((root) => [`${root}/${parent}`, own(root)]),
    delegations: layout.version === 2 ? delegationsOf(layout, parent) : [],
    limits,
    procs: roots.map((root) => `${own(root)}/cgroup.procs`),
    ...(memory === undefined ? {} : { oomEvents: `${own(memory)}/${events}` }),
    unheld: [...unheld],
  };
}

function delegationsOf(layout: CgroupLayout, parent: string): CgroupPlan['delegations'] {
  const names = [...layout.folders.keys()].filter((name) => name !== '');
  const [root] = layout.folders.values();
  // One at a time: a controller that cannot be had must not keep the others away.
  return [`${root}`, `${root}/${parent}`].flatMap((folder) =>
    names.map((name) => ({ path: `${folder}/cgroup.subtree_control`, value: `+${name}` })),
  );
}

interface Wish {
  readonly controller: string;
  readonly file: string;
  readonly value: string;
  readonly what: string;
  /** Reservations are only a hint: nobody is told where they cannot be had. */
  readonly isLimit: boolean;
}

function wishesOf(resources: Resources | undefined, version: 1 | 2): Wish[] {
  const limits = resources?.limits;
  const wishes: Wish[] = [];
  const wish = (controller: string, file: string, value: string, what: string, isLimit = true) =>
    wishes.push({ controller, file, value, what, isLimit });

  if (limits?.nanoCpus) {
    const quota = Math.max(QUOTA_US_MIN, Math.round((limits.nanoCpus / 1e9) * PERIOD_US));
    if (version === 2) wish('cpu', 'cpu.max', `${quota} ${PERIOD_US}`, 'limit-cpu');
    else {
      wish('cpu', 'cpu.cfs_period_us', `${PERIOD_US}`, 'limit-cpu');
      wish('cpu', 'cpu.cfs_quota_us', `${quota}`, 'limit-cpu');
    }
  }
  if (limits?.pids && limits.pids > 0) {
    wish('pids', 'pids.max', `${limits.pids}`, 'limit-pids');
  }
  const low = resources?.reservations?.memoryBytes;
  if (low) {
    const file = version === 2 ? 'memory.low' : 'memory.soft_limit_in_bytes';
    wish('memory', file, `${low}`, 'reserve-memory', false);
  }
  const memory = limits?.memoryBytes;
  if (memory) {
    // As Docker: as much again of swap, unless said otherwise.
    const swap = resources?.swapBytes ?? memory;
    if (version === 2) {
      wish('memory', 'memory.max', `${memory}`, 'limit-memory');
      wish('memory', 'memory.swap.max', swap < 0 ? 'max' : `${swap}`, 'memory-swap', false);
    } else {
      const both = swap < 0 ? UNLIMITED_V1 : `${memory + swap}`;
      wish('memory', 'memory.limit_in_bytes', `${memory}`, 'limit-memory');
      wish('memory', 'memory.memsw.limit_in_bytes', both, 'memory-swap', false);
    }
  }
  const swappiness = resources?.memorySwappiness;
  if (swappiness !== undefined && swappiness >= 0 && version === 1) {
    wish('memory', 'memory.swappiness', `${swappiness}`, 'memory-swappiness', false);
  }
  return wishes;
}
