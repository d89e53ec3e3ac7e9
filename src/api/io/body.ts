import type { IncomingMessage } from 'node:http';
import { ApiError, badRequest } from '../wire/errors.js';

/** The largest body that Docker's API has is a config of 1,000 kB in base64. */
export const BODY_BYTES_MAX = 4 * 1024 * 1024;

const tooLarge = () =>
  new ApiError(
    { code: 'API_BODY_TOO_LARGE' },
    `the request body is larger than ${BODY_BYTES_MAX} bytes`,
  );

async function readBytes(request: IncomingMessage): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX) throw tooLarge();
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    const bytes = chunk as Buffer;
    sizeBytes += bytes.length;
    if (sizeBytes > BODY_BYTES_MAX) throw tooLarge();
    chunks.push(bytes);
  }
  return Buffer.concat(chunks, sizeBytes);
}

/** Reads a JSON body in Docker's terms: its content type has to say so. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const bytes = await readBytes(request);
  if (bytes.length === 0) {
    throw badRequest('invalid JSON: got EOF while reading request body');
  }
  const type = request.headers['content-type'] ?? '';
  if ((type.split(';', 1)[0] ?? '').trim().toLowerCase() !== 'application/json') {
    throw badRequest(`unsupported Content-Type header (${type}): must be 'application/json'`);
  }
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw badRequest('invalid JSON: the request body is not one JSON value');
  }
}
