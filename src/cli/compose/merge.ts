/** A tree of YAML values. */
export type Tree = { readonly [key: string]: unknown };

/** Lists whose later elements come in addition; all other lists are replaced. */
const ADDED = new Set([
  'ports',
  'expose',
  'external_links',
  'dns',
  'dns_search',
  'dns_opt',
  'tmpfs',
  'secrets',
  'configs',
  'volumes',
  'devices',
  'cap_add',
  'cap_drop',
  'group_add',
  'extra_hosts',
  'security_opt',
  'profiles',
  'constraints',
  'preferences',
  'generic_resources',
  'aliases',
  'env_file',
]);
/** Written as a list or as a mapping; the later value of a key wins. */
const MAPPINGS = new Set([
  'environment',
  'labels',
  'sysctls',
  'annotations',
  'networks',
  'depends_on',
  'driver_opts',
  'options',
]);

const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function asMapping(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  return Object.fromEntries(
    value.map((one) => {
      const text = String(one);
      const at = text.indexOf('=');
      return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

/** `depends_on` and `networks` in their short form say less than an empty mapping would. */
function asNamed(key: string, value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  if (key === 'depends_on')
    return Object.fromEntries(value.map((one) => [String(one), { condition: 'service_started' }]));
  return asMapping(value);
}

/** Where of two elements of a list only the later one stays. */
function identityOf(key: string, value: unknown): string {
  if (key === 'volumes') {
    if (isTree(value)) return String(value['target']);
    const parts = String(value).split(':');
    return parts.length === 1 ? (parts[0] ?? '') : (parts[1] ?? '');
  }
  if ((key === 'secrets' || key === 'configs') && isTree(value))
    return String(value['target'] ?? value['source']);
  return JSON.stringify(value);
}

/** The later of two files, or of a service and what it extends, over the earlier one. */
export function mergeTrees(before: unknown, after: unknown, key = ''): unknown {
  if (after === undefined) return before;
  if (before === undefined || before === null || after === null) return after;
  if (MAPPINGS.has(key)) return mergeMaps(asNamed(key, before), asNamed(key, after));
  if (ADDED.has(key) && (Array.isArray(before) || Array.isArray(after))) {
    const all = new Map<string, unknown>();
    for (const one of [before, after].flat()) all.set(identityOf(key, one), one);
    return [...all.values()];
  }
  return mergeMaps(before, after);
}

function mergeMaps(before: unknown, after: unknown): unknown {
  if (!isTree(before) || !isTree(after)) return after;
  const merged: Record<string, unknown> = { ...before };
  for (const [key, value] of Object.entries(after))
    merged[key] = mergeTrees(before[key], value, key);
  return merged;
}
