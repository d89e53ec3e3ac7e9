const TAG = /^[\w][\w.-]{0,127}$/;
const DIGEST = /^[a-zA-Z][a-zA-Z0-9]*(?:[-_+.][a-zA-Z][a-zA-Z0-9]*)*:[0-9a-fA-F]{32,}$/;
const DOMAIN_LABEL = /^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?$/;
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*$/;
const IMAGE_ID = /^[0-9a-f]{64}$/;
const NAME_CHARS_MAX = 255;

/** `[domain[:port]/]path[:tag][@digest]`, as distribution's references are. */
export function isImageReference(text: string): boolean {
  const [named = '', digest, ...rest] = text.split('@');
  if (rest.length > 0 || (digest !== undefined && !DIGEST.test(digest))) return false;
  // A bare id names nothing that a node could pull.
  if (IMAGE_ID.test(named)) return false;
  const slash = named.lastIndexOf('/');
  const colon = named.indexOf(':', slash + 1);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) return false;
  const name = colon === -1 ? named : named.slice(0, colon);
  return name.length <= NAME_CHARS_MAX && isName(name.split('/'));
}

function isName(parts: readonly string[]): boolean {
  const [first = '', ...rest] = parts;
  const hasDomain =
    rest.length > 0 && (/[.:A-Z]/.test(first) || first === 'localhost' || first.startsWith('['));
  if (hasDomain && !isDomain(first)) return false;
  return (hasDomain ? rest : parts).every((part) => PATH_COMPONENT.test(part));
}

function isDomain(text: string): boolean {
  const match = /^(\[[0-9a-fA-F:]+\]|[^:[\]]+)(?::\d+)?$/.exec(text);
  const host = match?.[1];
  if (host === undefined) return false;
  return host.startsWith('[') || host.split('.').every((label) => DOMAIN_LABEL.test(label));
}
