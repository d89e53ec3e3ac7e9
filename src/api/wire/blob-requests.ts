import { z } from 'zod';
import type { SecretSpec } from '../../base/swarm-model.js';
import { badRequest } from './errors.js';
import { labels, objectOf, read, refuseUnsupported, text } from './fields.js';
import type { BlobUpdate } from './records.js';

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Body of a secret or config; what is wrong with `Data` is said without repeating any of it. */
const blobBody = z.object({
  Name: text,
  Labels: labels,
  Data: text.refine((value) => BASE64.test(value), 'expected base64'),
  Driver: objectOf({ Name: text }),
  Templating: objectOf({ Name: text, Options: labels }),
});

/** For a secret or config that is to be made. */
export function readBlob(body: unknown): { readonly spec: SecretSpec; readonly data: string } {
  const blob = read(blobBody, body);
  refuseUnsupported(
    (blob.Driver?.Name ?? '') !== '',
    'shoal keeps secrets itself: secret drivers are not supported',
  );
  const { Templating: templating } = blob;
  return {
    data: blob.Data,
    spec: {
      name: blob.Name,
      labels: blob.Labels,
      ...(templating != null && {
        templating: { name: templating.Name, options: templating.Options },
      }),
    },
  };
}

/** Without `Data`, or with none in it, the contents are not compared. */
export function readBlobUpdate(body: unknown): BlobUpdate {
  const { Name: name, Labels: wanted, Data: data } = read(blobBody, body);
  return { name, labels: wanted, ...(data !== '' && { data }) };
}

const UNLOCK_KEY = /^SWMKEY-1-[A-Za-z0-9+/]{1,256}$/;

/** `SWMKEY-1-` and base64 without padding, as `docker swarm unlock-key` prints it. */
export function readUnlock(body: unknown): string {
  const { UnlockKey: key } = read(z.object({ UnlockKey: text }), body);
  if (!UNLOCK_KEY.test(key)) throw badRequest('invalid key string');
  return key;
}
