import { z } from 'zod';
import { badRequest } from './errors.js';
import { isAddress, listOf, read, whole } from './fields.js';
import type { AttachRequest, DetachRequest } from './records.js';

export const ALIASES_MAX = 64;
/** IFNAMSIZ less the zero byte. */
export const IFNAME_BYTES_MAX = 15;

const pid = whole.refine((value) => value > 0 && value <= 0x7fff_ffff, 'expected a process id');
const path = z.string().regex(/^\/[^\0]*$/, 'expected an absolute path');

const attachBody = z.object({
  network: z.string().min(1, 'expected the name or id of a network'),
  target: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('netns'), path }),
    z.object({ kind: z.literal('pid'), pid }),
    z.object({ kind: z.literal('host') }),
  ]),
  ip: z.string().refine(isAddress, 'expected an IP address').nullish(),
  name: z.string().min(1).max(253).nullish(),
  aliases: listOf(z.string().min(1).max(253), ALIASES_MAX),
  ifname: z
    .string()
    .regex(
      new RegExp(`^[^\\s/:\\0]{1,${IFNAME_BYTES_MAX}}$`),
      `expected an interface name of 1 to ${IFNAME_BYTES_MAX} bytes`,
    )
    .refine((name) => name !== '.' && name !== '..', 'expected an interface name')
    .nullish(),
});

export function readAttach(body: unknown): AttachRequest {
  const attach = read(attachBody, body);
  return {
    network: attach.network,
    target: attach.target,
    aliases: attach.aliases,
    ...(attach.ip == null ? {} : { ip: attach.ip }),
    ...(attach.name == null ? {} : { name: attach.name }),
    ...(attach.ifname == null ? {} : { ifname: attach.ifname }),
  };
}

const detachBody = z.object({
  id: z.string().min(1).nullish(),
  network: z.string().min(1).nullish(),
  netns: path.nullish(),
  pid: pid.nullish(),
  host: z.boolean().nullish(),
});

export function readDetach(body: unknown): DetachRequest {
  const detach = read(detachBody, body);
  const request = Object.fromEntries(
    Object.entries(detach).filter(([, value]) => value != null && value !== false),
  ) as DetachRequest;
  if (Object.keys(request).length === 0) {
    throw badRequest('say what to detach: an id, a network, a netns, a pid or the host');
  }
  return request;
}
