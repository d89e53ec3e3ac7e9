/** What `POST /images/create` wants an image's name to be cut into. */
export interface ImageParts {
  readonly name: string;
  /** Or digest. */
  readonly tag: string;
}

/** `registry:5000/app/web:1@sha256:…`: a digest says more than a tag, and nothing means `latest`. */
export function imageParts(image: string): ImageParts {
  const at = image.indexOf('@');
  const named = at < 0 ? image : image.slice(0, at);
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const name = colon < 0 ? named : named.slice(0, colon);
  if (at >= 0) return { name, tag: image.slice(at + 1) };
  return { name, tag: colon < 0 ? 'latest' : named.slice(colon + 1) };
}
