/** `host:5000/team/app:1` as `POST /images/create` wants it: in two parts, a digest in one. */
export function pullQuery(image: string): string {
  const query = new URLSearchParams();
  const colon = image.lastIndexOf(':');
  if (image.includes('@')) query.set('fromImage', image);
  else if (colon > image.lastIndexOf('/')) {
    query.set('fromImage', image.slice(0, colon));
    query.set('tag', image.slice(colon + 1));
  } else {
    query.set('fromImage', image);
    query.set('tag', 'latest');
  }
  return query.toString();
}

/** Whether a tag, an id or the beginning of one is meant by `ref`. */
export function isImage(
  ref: string,
  { id, tags }: { readonly id: string; readonly tags: readonly string[] },
): boolean {
  const name =
    ref.includes('@') || ref.lastIndexOf(':') > ref.lastIndexOf('/') ? ref : `${ref}:latest`;
  const hex = id.replace(/^sha256:/, '');
  return (
    tags.includes(name) ||
    tags.includes(`docker.io/library/${name}`) ||
    id === ref ||
    (/^[0-9a-f]{4,64}$/.test(ref) && hex.startsWith(ref))
  );
}
